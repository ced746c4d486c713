"""Pictures for the page: previews that browsers can show, where a photograph changed, which expert worked where, crops at full size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..io.photograph import Photo, as_type
from ..io.pictures import change_map

# What a browser shows as it is; anything else gets a preview.
SHOWN_AS_THEY_ARE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_WIDEST = 1600  # of maps, which are to be seen whole
EXPERT_COLOURS = ((230, 120, 40), (40, 130, 220), (60, 170, 90))
_CROP, _CROPS, _GAP = 224, 3, 6


def preview(photo: Photo, folder: Path, name: str, size: tuple[int, int] | None = None) -> str:
    """The path of a picture with every pixel of a photograph, which browsers show and decode fast.

    Args:
        photo: With its transparency.
        folder: To write into.
        name: Without suffix.
        size: To enlarge to, for a picture beside a larger one.
    """
    picture = photo.image.convert("RGB")
    if photo.alpha is not None:
        picture.putalpha(Image.fromarray(as_type(photo.alpha, np.dtype(np.uint8))))
    if size is not None and size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    if photo.alpha is not None:
        path = folder / f"{name}-seen-through.png"  # by its name the page puts a checkerboard behind it
        picture.save(path, compress_level=1)
    elif picture.width * picture.height < 2_000_000:
        path = folder / f"{name}.png"
        picture.save(path, compress_level=3)
    else:  # a PNG of 24 megapixels takes seconds to write and to fetch
        path = folder / f"{name}.jpg"
        picture.save(path, quality=95, subsampling=0, icc_profile=photo.metadata.icc_profile)
    return str(path)


def small(picture: Image.Image) -> Image.Image:
    """Of at most 1600 pixels a side."""
    picture = picture.copy()
    picture.thumbnail((_WIDEST, _WIDEST), Image.Resampling.BOX)
    return picture


def changes(before: Photo, after: Photo) -> Image.Image:
    """Where and how much a photograph changed, with its scale; see [`change_map`]."""
    new = small(after.image)
    return change_map(before.image.resize(new.size, Image.Resampling.BOX if new.width < before.size[0] else Image.Resampling.BICUBIC), new)


def experts(weights: Any, size: tuple[int, int]) -> tuple[Image.Image, list[float]]:
    """Which expert worked where, each in its colour, and the share of each.

    Args:
        weights: `(experts, height, width)` of the padded latents, see [`Account.expert_map`].
        size: Width and height of the result in latents, rounded up: what is beyond is padding.
    """
    inside = weights.numpy()[:, : size[1], : size[0]]
    colours = np.tensordot(inside, np.array(EXPERT_COLOURS[: len(inside)], np.float32), axes=(0, 0))
    picture = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    factor = max(1, min(_WIDEST // max(picture.size), -(-480 // max(picture.size))))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST), inside.mean(axis=(1, 2)).tolist()


def crops(before: Photo, estimate: np.ndarray | None, after: Photo) -> tuple[Image.Image, list[str]]:
    """The places that changed most, at full size, one a row, with nothing between them; and what the columns are.

    Args:
        before: Enlarged to `after` if need be.
        estimate: `(height, width, 3)`, `uint8`, of the size of `after` or larger; without one there are two columns.
        after: The result.
    """
    new = after.image.convert("RGB")
    old = before.image.convert("RGB")
    old = old if old.size == new.size else old.resize(new.size, Image.Resampling.BICUBIC)
    columns = {"Before": old, "First estimate": Image.fromarray(estimate) if estimate is not None else None, "Finished": new}
    columns = {name: picture for name, picture in columns.items() if picture is not None}
    side = min(_CROP, *new.size)
    places = _most_changed(old, new, side)
    sheet = Image.new("RGBA", (len(columns) * (side + _GAP) - _GAP, len(places) * (side + _GAP) - _GAP))
    for row, (left, top) in enumerate(places):
        for column, picture in enumerate(columns.values()):
            sheet.paste(picture.crop((left, top, left + side, top + side)), (column * (side + _GAP), row * (side + _GAP)))
    return sheet, list(columns)


def _most_changed(old: Image.Image, new: Image.Image, side: int) -> list[tuple[int, int]]:
    """Left and top of squares that do not overlap, the most changed first."""
    columns, rows = new.width // side, new.height // side
    found = []
    for row in range(rows):
        for column in range(columns):
            box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
            change = np.abs(np.asarray(new.crop(box), np.int16) - np.asarray(old.crop(box), np.int16)).mean()
            found.append((float(change), box[:2]))
    return [place for _, place in sorted(found, key=lambda entry: -entry[0])[:_CROPS]]
