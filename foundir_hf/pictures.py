"""Pictures about pictures: captions, contact sheets, files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

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


def write_picture(image: Image.Image, path: Path, quality: int = 85) -> None:
    """Writes a JPEG of `quality` with full chroma, or a PNG, by the suffix; whole or not at all. Raises `ValueError`, `OSError`."""
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"{path}: must end in one of {', '.join(PICTURE_SUFFIXES)}.")
    encoded = io.BytesIO()
    if suffix == ".png":
        image.save(encoded, "PNG", optimize=True)
    else:
        image.save(encoded, "JPEG", quality=quality, subsampling=0, optimize=True)
    write_whole(path, encoded.getvalue())
