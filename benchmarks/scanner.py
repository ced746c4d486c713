"""A simulated scanner, for docs/adapters.md: photographs come out of it pale, yellow, soft and noisy, always in the same way.

python benchmarks/scanner.py pairs scans --data PHOTOS
python benchmarks/scanner.py picture docs/scanner.jpg --adapter my-scanner
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foundir_hf import load_pipeline
from foundir_hf.adapters.files import load_adapter
from foundir_hf.cli import quiet_libraries
from foundir_hf.data.degradations.blur import gaussian_blur
from foundir_hf.data.degradations.noise import gaussian_noise
from foundir_hf.evaluation.metrics import psnr
from foundir_hf.evaluation.suites import SAMPLES
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture

SIDE = 480  # pixels, of the crop from the middle of each photograph
SOFTNESS, GRAIN = 1.2, 5.0  # deviation of the blur in pixels, of the noise in levels of 255
BLACK, WHITE = (0.22, 0.19, 0.10), (0.95, 0.90, 0.72)  # what black and white paper come out as, RGB


def scan(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """What the scanner makes of photographs, `(B, 3, H, W)` in [0, 1]."""
    black, white = (torch.tensor(colour).view(3, 1, 1) for colour in (BLACK, WHITE))
    soft = gaussian_blur(images, generator, sigma=(SOFTNESS, SOFTNESS))
    return gaussian_noise(black + (white - black) * soft, generator, sigma=(GRAIN, GRAIN)).clamp(0, 1)


def photo_and_scan(path: Path, seed: int) -> tuple[Image.Image, Image.Image]:
    """The middle of a photograph, and its scan."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
    photo = torch.from_numpy(pixels[top : top + SIDE, left : left + SIDE].copy()).permute(2, 0, 1)[None] / 255
    images = torch.cat([photo, scan(photo, torch.Generator().manual_seed(seed))])
    levels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return Image.fromarray(levels[0]), Image.fromarray(levels[1])


def write_pairs(arguments: argparse.Namespace) -> None:
    """`train/` and `val/`, each with the photographs (`HQ/`) and the scans (`LQ/`)."""
    photos, needed = list_photos(arguments.data), arguments.pairs + arguments.held_out
    if len(photos) < needed:
        raise SystemExit(f"--data: {needed} photographs are needed, {arguments.data} has {len(photos)}.")
    for number, path in enumerate(photos[:: len(photos) // needed][:needed]):
        folder = arguments.output / ("train" if number < arguments.pairs else "val")
        for kind, image in zip(("HQ", "LQ"), photo_and_scan(path, seed=number), strict=True):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image.save(folder / kind / f"{path.stem}.png")


def draw_picture(arguments: argparse.Namespace) -> None:
    """The package's sample photographs: scanned, restored by the base, restored with the adapter, and as they were."""
    quiet_libraries()
    pipeline = load_pipeline("tiny")
    pipeline.set_progress_bar_config(disable=True)
    load_adapter(pipeline, arguments.adapter, name="scanner")
    cells = []
    for seed, path in enumerate(list_photos(SAMPLES)):
        photo, scanned = photo_and_scan(path, seed)
        pipeline.enable_lora()
        adapted = pipeline(scanned, generator=torch.Generator().manual_seed(0)).images[0]
        pipeline.disable_lora()
        base = pipeline(scanned, generator=torch.Generator().manual_seed(0)).images[0]
        for name, image in (("scan", scanned), ("tiny", base), ("tiny, adapted", adapted), ("photograph", photo)):
            decibels = "" if image is photo else f" {psnr(np.asarray(image), np.asarray(photo)):.1f} dB"
            cells.append((name + decibels, image))
    write_picture(contact_sheet(cells, columns=4, width=260), arguments.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    pairs = commands.add_parser("pairs", help="write pairs to train on and to measure with")
    pairs.add_argument("output", type=Path, help="folder of the pairs: train/ and val/")
    pairs.add_argument("--data", type=Path, required=True, help="clean photographs")
    pairs.add_argument("--pairs", type=int, default=30, help="to train on (default: 30)")
    pairs.add_argument("--held-out", type=int, default=12, help="to measure with (default: 12)")
    pairs.set_defaults(run=write_pairs)
    picture = commands.add_parser("picture", help="draw what an adapter makes of scans")
    picture.add_argument("output", type=Path, help="picture file")
    picture.add_argument("--adapter", required=True, help="folder of the adapter")
    picture.set_defaults(run=draw_picture)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
