"""Small picture files for the tests of data sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def coordinates(height: int, width: int, blue: int = 7) -> np.ndarray:
    """A picture whose pixels say where they are: red is the column, green the row; blue tells pictures apart."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x, y, np.full_like(x, blue)], axis=-1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    """Writes a picture; its folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_numbered(folder: Path, count: int, size: tuple[int, int] = (24, 30)) -> list[Path]:
    """Pictures `00.png`, `01.png`, ..., each with its number in its blue channel."""
    return [save(folder / f"{i:02d}.png", coordinates(*size, blue=i)) for i in range(count)]


def break_file(path: Path) -> Path:
    """Cuts a picture file off in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path
