"""What the model does to pictures that have nothing wrong with them, and whether it takes tones that were meant for damage.

`python benchmarks/false_alarms.py --photos PHOTOS -o FOLDER`. `PHOTOS` are clean photographs that the model was not trained on (with a
`manifest.csv`, its split `val`). Each is shown as it is and as somebody might have meant it: dim, lit by a lamp, pale, in coloured light.
Screenshots, charts and pages of text are drawn here, and flat cards and gradients join them. Those whose tones changed go on a sheet.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries
from foundir_hf.data.augmentation import intent_jitter
from foundir_hf.data.samples import seed_of
from foundir_hf.evaluation.baselines import estimate_sigma
from foundir_hf.evaluation.tables import markdown_table
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.io.decoder import read_rgb
from foundir_hf.io.files import write_whole
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture
from foundir_hf.training.objectives import WRONG_TONES

SIZE = 512  # pixels of the longest side
WORDS = "Light falls on the sensor and becomes a number. Every number has an error, and the eye knows most of them."


class Verdict(NamedTuple):
    """Of one picture: root mean square of its change and its own noise, in grey levels; whether a thumbnail shows other tones; whether it
    changed by more than 1 dB beyond its noise, and at least by a level."""

    change: float
    noise: float
    toned: bool
    harmed: bool


def judged(before: np.ndarray, after: np.ndarray) -> Verdict:
    """Compares two `uint8` pictures `(height, width, 3)`."""
    change = float(np.sqrt(np.square(after.astype(float) - before).mean()))
    noise = estimate_sigma(before.astype(float))
    small = [np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX), float) / 255 for image in (before, after)]
    toned = float(np.sqrt(np.square(small[1] - small[0]).mean())) > WRONG_TONES
    return Verdict(change, noise, toned, change > max(1.0, noise * 10 ** (1 / 20)))


def pictures(photos: list[Path], limit: int) -> Iterator[tuple[str, np.ndarray]]:
    """Kind and pixels of all pictures."""
    for path in photos[:limit]:
        photo = Image.fromarray(read_rgb(path))
        photo.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        pixels = np.asarray(photo)
        yield "as it is", pixels
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        meant = intent_jitter(image, torch.Generator().manual_seed(seed_of(*path.name.encode())), share=1.0)
        yield "dim or pale on purpose", (meant[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        # A second exposure brighter, cut off at white.
        yield "high key", (255 * np.clip((pixels / 255) ** 2.2 * 1.7, 0, 1) ** (1 / 2.2)).round().astype(np.uint8)
    for number in range(limit // 3):
        yield "text, screens and charts", np.asarray(_drawn(number).convert("RGB"))
    for number in range(limit // 3):
        level = round(255 * number / max(1, limit // 3 - 1))
        card = np.full((256, 384, 3), level, np.uint8)
        if number % 3 == 1:  # of a colour
            card[:] = np.roll([level, 128, 255 - level], number)
        if number % 3 == 2:  # a gradient
            card[:] = np.linspace(min(level, 200), min(level, 200) + 55, 384).round().astype(np.uint8)[None, :, None]
        yield "flat cards and gradients", card


def _drawn(number: int) -> Image.Image:
    """A page of text, a dark terminal, a window with panels, a chart."""
    kind, random = number % 4, np.random.default_rng(number)
    if kind == 3:
        figure = Figure(figsize=(5, 3.4), dpi=100)
        axes = figure.subplots()
        for _ in range(3):
            axes.plot(random.normal(size=40).cumsum())
        axes.set_title("Measured over time")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return Image.open(buffer)
    paper, ink = (("white", "black"), ("#1e1e1e", "#d0d0c8"), ("#f0f2f5", "#20242c"))[kind]
    page = Image.new("RGB", (512, 384), paper)
    draw = ImageDraw.Draw(page)
    if kind == 2:
        draw.rectangle((0, 0, 512, 36), fill="#3a6ea5")
        for left in (16, 186, 356):
            draw.rounded_rectangle((left, 60, left + 140, 360), 8, fill="white", outline="#c0c4cc")
    size = int(random.integers(11, 20))
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
    for line in range(340 // (size + 6)):
        text = " ".join(random.choice(WORDS.split(), 7 if kind < 2 else 2))
        draw.text((24, 14 + line * (size + 6)) if kind < 2 else (28 + 170 * (line % 3), 70 + line * size), text, font=font, fill=ink)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photographs")
    parser.add_argument("--limit", type=int, default=54, help="photographs; three pictures are made of each (default: 54)")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for false_alarms.json and .jpg")
    arguments = parser.parse_args()
    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    photos = list_photos(arguments.photos, "val")
    verdicts: dict[str, list[Verdict]] = {}
    alarms: list[tuple[str, Image.Image]] = []
    for kind, before in tqdm(list(pictures(photos, arguments.limit)), desc="restoring"):
        image = pipeline(Image.fromarray(before), generator=torch.Generator().manual_seed(0)).images[0]
        verdict = judged(before, np.asarray(image))
        verdicts.setdefault(kind, []).append(verdict)
        if verdict.toned:
            alarms += [(kind, Image.fromarray(before)), (f"changed by {verdict.change:.0f} levels", image)]
    rows = {
        kind: {
            "pictures": len(given),
            "harmed": sum(one.harmed for one in given),
            "toned": sum(one.toned for one in given),
            "worst change": max(one.change for one in given),
        }
        for kind, given in verdicts.items()
    }
    print(to_table(rows))
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = {"hashes": checkpoint_hashes(resolve_checkpoint(arguments.checkpoint)), "rows": rows}
    write_whole(arguments.output / "false_alarms.json", (json.dumps(content, indent=1) + "\n").encode())
    if alarms:
        write_picture(contact_sheet(alarms, columns=8, width=180), arguments.output / "false_alarms.jpg")


def to_table(rows: dict[str, dict[str, float]]) -> str:
    """The kinds as a Markdown table."""
    cells = [[kind, *(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values())] for kind, row in rows.items()]
    return markdown_table(["kind", "pictures", "changed beyond their noise", "tones changed", "worst change, levels"], cells)


if __name__ == "__main__":
    main()
