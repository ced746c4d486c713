"""Pictures about pictures: captions, contact sheets, files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .files import write_whole

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def contact_sheet(cells: Sequence[tuple[str, Image.Image]], *, columns: int, width: int, bar: int = 20) -> Image.Image:
    """Pictures in rows, each shrunk or enlarged to `width` pixels under its caption; a row is as high as its highest picture.

    Args:
        cells: `(caption, picture)`, row by row.
        columns: Pictures a row.
        width: Of every picture, in pixels.
        bar: Height of a caption, in pixels.
    """
    if not cells:
        raise ValueError("`cells` must hold at least one picture, got none.")
    font = ImageFont.load_default(size=round(bar * 0.7))
    scaled = [
        (caption, image.convert("RGB").resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS))
        for caption, image in cells
    ]
    rows = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
    heights = [bar + max(image.height for _, image in row) for row in rows]
    sheet = Image.new("RGB", (columns * width, sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for i, (caption, image) in enumerate(row):
            draw.text((i * width + 4, top + bar // 8), caption, fill="black", font=font)
            sheet.paste(image, (i * width, top + bar))
        top += height
    return sheet


# Change in levels of 255 -> colour, from nothing to everything.
_SCALE = [(0, (16, 16, 24)), (1, (32, 40, 96)), (4, (40, 120, 160)), (16, (96, 190, 96)), (64, (250, 220, 80)), (255, (255, 255, 255))]


def change_map(before: Image.Image, after: Image.Image, bar: int = 24) -> Image.Image:
    """Where and by how much pixels differ: the mean over the colours of the difference, on a logarithmic scale that is drawn below.

    Args:
        before: Enlarged to the size of `after` if need be.
        after: The restored picture.
        bar: Height of the scale, in pixels.
    """
    sizes = before.convert("RGB").resize(after.size, Image.Resampling.BICUBIC), after.convert("RGB")
    old, new = (np.asarray(image, np.float32) for image in sizes)
    levels, colours = np.array([level for level, _ in _SCALE]), np.array([colour for _, colour in _SCALE], np.float32)

    def drawn(change: np.ndarray) -> np.ndarray:
        place = np.log1p(change) / np.log1p(255.0)
        channels = [np.interp(place, np.log1p(levels) / np.log1p(255.0), colours[:, i]) for i in range(3)]
        return np.stack(channels, axis=-1).round().astype(np.uint8)

    width = max(after.width, 240)
    ramp = np.expm1(np.linspace(0, np.log1p(255.0), width))
    picture = Image.new("RGB", (width, after.height + bar))
    picture.paste(Image.fromarray(drawn(np.abs(new - old).mean(axis=2))), (0, 0))
    picture.paste(Image.fromarray(np.broadcast_to(drawn(ramp), (bar, width, 3)).copy()), (0, after.height))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=round(bar * 0.6))
    for level in (0, 1, 4, 16, 64, 255):
        place, anchor = np.log1p(level) / np.log1p(255.0), "ra" if level == 255 else "la"
        left = (width - 4) if level == 255 else 4 + round(place * width)
        draw.text((left, after.height + bar // 6), f"{level}", fill="white" if level < 16 else "black", font=font, anchor=anchor)
    return picture


def write_picture(image: Image.Image, path: Path, quality: int = 75) -> None:
    """Writes a JPEG (from a quality of 90, with full chroma) or a PNG by the suffix, whole or not at all.

    Raises `ValueError`, `OSError`.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{path}: must end in one of {', '.join(PICTURE_SUFFIXES)}.")
    encoded = io.BytesIO()
    if suffix == ".png":
        image.save(encoded, "PNG", optimize=True)
    else:
        image.save(encoded, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, optimize=True, progressive=True)
    write_whole(path, encoded.getvalue())
