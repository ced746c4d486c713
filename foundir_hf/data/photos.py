"""Clean photographs, decoded once and kept in memory, on the device that trains."""

from __future__ import annotations

import csv
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def list_photos(folder: str | Path, split: str | None = None) -> list[Path]:
    """The photographs of a folder, sorted by path.

    Args:
        folder: Searched recursively. If it holds a `manifest.csv` with columns `file` and `split`, that decides instead.
        split: Keep only the manifest's rows with this split. Ignored without a manifest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`folder` must be an existing directory of photographs, got {str(folder)!r}.")
    manifest = folder / "manifest.csv"
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if split is None or row["split"] == split]
        paths = sorted(folder / row["file"] for row in rows)
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"`folder` {str(folder)!r} holds no photographs" + (f" of split {split!r}." if split else "."))
    return paths


class PhotoBank:
    """Photographs as `uint8` tensors on one device, and random crops of them.

    Args:
        paths: Files to decode. One that cannot be decoded is named in the log and skipped.
        device: Where the pixels live: 468 megapixels take 1.4 GB.
    """

    def __init__(self, paths: list[Path], device: torch.device | str = "cpu"):
        def decode(path: Path) -> torch.Tensor | None:
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            except (OSError, ValueError, Image.DecompressionBombError) as error:
                logger.warning("Skipped %s: %s", path, error)
                return None
            return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().to(device)

        with ThreadPoolExecutor(4) as pool:
            decoded = list(tqdm(pool.map(decode, paths), total=len(paths), desc="decoding photographs", mininterval=5))
        self.photos = [photo for photo in decoded if photo is not None]
        self.device = torch.device(device)
        if not self.photos:
            raise ValueError(f"None of the {len(paths)} photographs could be decoded.")

    def __len__(self) -> int:
        return len(self.photos)

    def crops(self, batch_size: int, size: int, generator: torch.Generator, max_shrink: float = 6.0) -> torch.Tensor:
        """Random crops `(batch_size, 3, size, size)` in [0, 1], each shrunk by up to `max_shrink` and mirrored half the time.

        Shrinking widens the view and hides what noise and blur a photograph has of its own. Photographs smaller than a crop are mirrored
        outwards.
        """
        draws = torch.rand(batch_size, 5, generator=generator, device=generator.device).tolist()
        crops = []
        for which, shrink, top, left, flip in draws:
            photo = self.photos[int(which * len(self.photos))]
            largest = min(max_shrink, min(photo.shape[1:]) / size)
            side = round(size * (1 + shrink**2 * max(0.0, largest - 1)))  # squared: full detail often, wide views now and then
            photo = _pad_to(photo, side)
            y, x = (int(draw * (extent - side + 1)) for draw, extent in zip((top, left), photo.shape[1:], strict=True))
            crop = photo[None, :, y : y + side, x : x + side].float() / 255
            if side != size:
                # Bicubic: as crisp as a small file from a camera.
                crop = F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True).clamp(0, 1)
            crops.append(crop.flip(3) if flip < 0.5 else crop)
        return torch.cat(crops)


def _pad_to(photo: torch.Tensor, side: int) -> torch.Tensor:
    """Mirrors a small photograph, as often as it takes, until both sides reach `side`."""
    for dim in (1, 2):
        extent = photo.shape[dim]
        if extent < side:
            period = max(1, 2 * extent - 2)
            index = torch.arange(side, device=photo.device) % period
            photo = photo.index_select(dim, torch.minimum(index, period - index))
    return photo
