"""Real damaged photographs and what the model makes of them, side by side with the sides shuffled: which one would you keep?

    python benchmarks/blind.py sheet --photos DATA/real_no_gt -o FOLDER
    python benchmarks/blind.py count --verdicts FOLDER/verdicts.csv -o docs/figures

`sheet` writes pages of pairs and `key.csv`, to be opened afterwards. Whoever judges writes `verdicts.csv`, for every pair `number,A`,
or `B`, or `=` where no difference counts. `count` opens the key, says how often the restored one was preferred and writes `blind.csv`.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
from collections import Counter
from pathlib import Path

import torch
from PIL import Image
from tqdm.auto import tqdm

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries
from foundir_hf.io.decoder import read_rgb
from foundir_hf.io.files import write_whole
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture

PAIRS_A_PAGE = 6


def draw_sheets(photos: list[Path], checkpoint: str, seed: int, longest: int, folder: Path) -> None:
    """Writes `page-N.jpg` and `key.csv` into `folder`."""
    pipeline = load_pipeline(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    order = random.Random(seed)
    order.shuffle(photos)
    folder.mkdir(parents=True, exist_ok=True)
    cells, key = [], [["number", "photograph", "restored"]]
    for number, path in enumerate(tqdm(photos, desc="restoring"), 1):
        photo = Image.fromarray(read_rgb(path))
        photo.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        pair = [photo, pipeline(photo, generator=torch.Generator().manual_seed(0)).images[0]]
        restored = order.choice("AB")
        key.append([str(number), path.name, restored])
        cells += [(f"{number} {side}", pair[side == restored]) for side in "AB"]
    for page, start in enumerate(range(0, len(cells), 2 * PAIRS_A_PAGE), 1):
        write_picture(contact_sheet(cells[start : start + 2 * PAIRS_A_PAGE], columns=4, width=480), folder / f"page-{page}.jpg", quality=95)
    write_whole(folder / "key.csv", _table(key))


def count(verdicts: Path, key: Path) -> list[list[str]]:
    """Number, photograph and what was preferred: `restored`, `input` or `=`.

    Raises:
        ValueError: A verdict is missing, or is none of A, B and =.
    """
    given = {row[0]: row[1] for row in csv.reader(verdicts.read_text().splitlines()) if row}
    rows = [["number", "photograph", "preferred"]]
    for row in csv.DictReader(key.read_text().splitlines()):
        verdict = given.get(row["number"], "")
        if verdict not in ("A", "B", "="):
            raise ValueError(f"`verdicts` must say A, B or = of pair {row['number']}, got {verdict!r}.")
        rows.append([row["number"], row["photograph"], "=" if verdict == "=" else "restored" if verdict == row["restored"] else "input"])
    return rows


def _table(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sheet = commands.add_parser("sheet", help="draw the pages and the key")
    sheet.add_argument("--photos", type=Path, required=True, help="folder of damaged photographs")
    sheet.add_argument("--checkpoint", default="tiny")
    sheet.add_argument("--seed", type=int, default=0, help="of the order and the sides (default: 0)")
    sheet.add_argument("--longest", type=int, default=1024, help="larger photographs are shrunk to this side first (default: 1024)")
    sheet.add_argument("-o", "--output", type=Path, required=True, help="folder")
    counted = commands.add_parser("count", help="count verdicts")
    counted.add_argument("--verdicts", type=Path, required=True, help="CSV file beside key.csv")
    counted.add_argument("-o", "--output", type=Path, required=True, help="folder for blind.csv")
    arguments = parser.parse_args()
    if arguments.command == "sheet":
        quiet_libraries()
        draw_sheets(list_photos(arguments.photos), arguments.checkpoint, arguments.seed, arguments.longest, arguments.output)
        return
    rows = count(arguments.verdicts, arguments.verdicts.with_name("key.csv"))
    tally = Counter(row[2] for row in rows[1:])
    print(", ".join(f"{name} {tally[name]}" for name in ("restored", "input", "=")), f"of {len(rows) - 1}")
    write_whole(arguments.output / "blind.csv", _table(rows))


if __name__ == "__main__":
    main()
