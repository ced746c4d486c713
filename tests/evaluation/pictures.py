"""Small pictures, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def pixels(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return (np.stack([x * 4, y * 4, (x + y) * 2], axis=-1) + noise).clip(0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path
