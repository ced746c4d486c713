"""Real damaged photographs beside what the model makes of them, all of a folder on one sheet: successes and failures alike.

`python benchmarks/gallery.py --photos DATA/real_no_gt -o docs/figures/real.jpg`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries
from foundir_hf.io.decoder import read_rgb
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of damaged photographs")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--longest", type=int, default=1024, help="larger photographs are shrunk to this side first (default: 1024)")
    parser.add_argument("--width", type=int, default=216, help="of every picture on the sheet (default: 216)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture file")
    arguments = parser.parse_args()
    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    cells = []
    for path in tqdm(list_photos(arguments.photos), desc="restoring"):
        photo = Image.fromarray(read_rgb(path))
        photo.thumbnail((arguments.longest, arguments.longest), Image.Resampling.LANCZOS)
        cells += [(path.stem, photo), ("restored", pipeline(photo, generator=torch.Generator().manual_seed(0)).images[0])]
    # A common shape, so that rows are full: the middle of each, four to three.
    cells = [(caption, _middle(image)) for caption, image in cells]
    write_picture(contact_sheet(cells, columns=8, width=arguments.width), arguments.output)


def _middle(image: Image.Image) -> Image.Image:
    width = min(image.width, image.height * 4 // 3)
    height = min(image.height, width * 3 // 4)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


if __name__ == "__main__":
    main()
