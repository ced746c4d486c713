"""Files that measuring reads: photographs as arrays, fingerprints of data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from ..formats.decoder import Decoder
from ..photo import PhotoError

_DECODER = Decoder()


def read_rgb(path: Path) -> np.ndarray:
    """`(height, width, 3)`, `uint8`, upright, decoded in a process of its own. Raises [`~foundir_hf.photo.PhotoError`], `TimeoutError`."""
    try:
        return np.asarray(_DECODER.read(path).image.convert("RGB"))
    except MemoryError:
        raise PhotoError(f"{path}: cannot be read: out of memory") from None


def photo_size(path: Path) -> tuple[int, int]:
    """`(width, height)` as the header has it, not turned upright. Raises [`~foundir_hf.photo.PhotoError`]."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise PhotoError(f"{path}: cannot be read as a photograph ({error}).") from error


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """SHA-256 over names relative to `root` and contents, in the order of the names."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in files):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
