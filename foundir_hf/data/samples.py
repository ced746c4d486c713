"""What every source of training data hands out: a sample, decoded from the bytes of its files, and a crop of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..io.limits import DEFAULT_LIMITS, Limits
from ..io.photograph import Photo, PhotoError
from ..io.reading import decode_photo, read_file

# The bytes of a picture file, what messages call it, what it may take -> the photograph: `decode_photo` here, `Decoder.decode` elsewhere.
Decode = Callable[[bytes, str, Limits], Photo]
MIN_SIDE = 16  # pixels: a crop of anything smaller is mostly its own mirror image


@dataclass(frozen=True)
class Sample:
    """A clean photograph, or a pair.

    Args:
        name: Unique within its source; the key of cleaning manifests.
        hq: Clean, `(3, height, width)`, `uint8`.
        lq: Degraded, of the same shape, or `None`: then training degrades `hq`.
        task: What was done to `lq`, in the words of its source. Pairs have one, clean photographs have none.
    """

    name: str
    hq: torch.Tensor
    lq: torch.Tensor | None = None
    task: str | None = None


class SampleError(ValueError):
    """A sample that cannot be used: `name` says which, `reason` why. Sources raise it, whoever reads them skips and counts."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both are arguments, so that it survives pickling between processes
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Source(ABC):
    """Samples by number, as the bytes of their files."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """Of sample `index`; cheap, nothing is decoded."""

    def task(self, index: int) -> str | None:
        """What was done to the LQ of sample `index`, `None` for a clean photograph; cheap."""
        return None

    @abstractmethod
    def encoded(self, index: int) -> tuple[bytes, bytes | None]:
        """The files of sample `index`: HQ, and LQ if there is one. Raises `OSError` or [`SampleError`]."""

    def files(self, index: int) -> tuple[bytes, bytes | None]:
        """[`encoded`]; raises [`SampleError`] for whatever is wrong."""
        try:
            return self.encoded(index)
        except OSError as error:
            raise SampleError(self.name(index), error.strerror or str(error)) from error

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, decoded; raises [`SampleError`]."""
        return decode_sample(self.name(index), *self.files(index), self.task(index))


def sample_file(name: str, path: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a file of a sample. Raises [`SampleError`], for a FIFO too, which nobody waits for."""
    try:
        return read_file(path, limits)
    except PhotoError as error:
        raise _sample_error(name, path, error) from error


def decode_sample(name: str, hq: bytes, lq: bytes | None, task: str | None) -> Sample:
    """Decodes a sample; an LQ smaller than its HQ (super-resolution) is enlarged bicubically. Raises [`SampleError`].

    FoundIR-v2 enlarges them too (its dataloader draws nearest, bilinear or bicubic).
    """
    clean = decode_rgb(name, hq)
    degraded = None if lq is None else decode_rgb(name, lq)
    check_sides(name, clean, degraded)
    if degraded is None:
        return Sample(name, _to_tensor(clean))
    if degraded.size != clean.size:
        degraded = degraded.resize(clean.size, Image.Resampling.BICUBIC)
    return Sample(name, _to_tensor(clean), _to_tensor(degraded), task)


def check_sides(name: str, hq: Image.Image, lq: Image.Image | None) -> None:
    """Raises [`SampleError`] for pictures of which no sample can be made."""
    if min(hq.size) < MIN_SIDE:
        raise SampleError(name, f"{hq.width}x{hq.height} pixels, at least {MIN_SIDE} a side are needed")
    if lq is not None and not is_smaller_copy(lq.size, hq.size):
        raise SampleError(name, f"LQ is {lq.width}x{lq.height}, no smaller copy of the {hq.width}x{hq.height} HQ")


def is_smaller_copy(size: tuple[int, int], full: tuple[int, int]) -> bool:
    """Whether a picture of `size` can be one of `full`, shrunk: no side longer, and the same proportions but for rounding."""
    across, down = full[0] / size[0], full[1] / size[1]
    # The sides of a shrunk picture are rounded: half a pixel may be missing on either.
    return min(across, down) >= 1 and abs(across / down - 1) <= 1 / min(size)


def decode_rgb(name: str, data: bytes) -> Image.Image:
    """A picture file -> RGB, upright, decoded in this process. Raises [`SampleError`]."""
    return decode_file(name, data, decode_photo).image.convert("RGB")


def decode_file(name: str, data: bytes, decode: Decode, limits: Limits = DEFAULT_LIMITS) -> Photo:
    """A picture file -> the photograph, by `decode`. Raises [`SampleError`]."""
    try:
        limits.check_bytes(len(data))
        return decode(data, name, limits)
    except (PhotoError, TimeoutError, MemoryError) as error:
        raise _sample_error(name, name, error) from error


def _sample_error(name: str, path: str | Path, error: Exception) -> SampleError:
    return SampleError(name, str(error).removeprefix(f"{path}: ").rstrip(".") or "out of memory")


def cut(sample: Sample, size: int, draws: Sequence[float], max_shrink: float = 6.0) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A random crop of a sample's HQ and the same of its LQ, `uint8`, `(3, size, size)`.

    A clean photograph is shrunk by up to `max_shrink` first, which widens the view and hides what noise and blur it has of its own. A pair
    is not: its damage would be hidden too. Photographs smaller than a crop are mirrored outwards.

    Args:
        sample: Where from.
        size: Side of the crop.
        draws: Four uniform numbers in [0, 1): shrinkage, top, left, mirrored if below a half.
        max_shrink: 1 keeps full detail.
    """
    shrink, top, left, flip = draws
    largest = 1.0 if sample.lq is not None else min(max_shrink, min(sample.hq.shape[1:]) / size)
    side = round(size * (1 + shrink * max(0.0, largest - 1)))
    y, x = (int(draw * (max(extent, side) - side + 1)) for draw, extent in zip((top, left), sample.hq.shape[1:], strict=True))

    def window(photo: torch.Tensor) -> torch.Tensor:
        crop = _pad_to(photo, side)[:, y : y + side, x : x + side]
        if side != size:
            # Bicubic: as crisp as a small file from a camera, and as deep.
            crop = F.interpolate(crop[None].float(), size=(size, size), mode="bicubic", antialias=True)[0].round().clamp(0, 255).byte()
        return crop.flip(2) if flip < 0.5 else crop

    return window(sample.hq), None if sample.lq is None else window(sample.lq)


def seed_of(*numbers: int) -> int:
    """A seed in [0, 2^63) for a tuple of numbers; unlike sums of multiples, no two short tuples share one."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "big") >> 1


def _to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)  # a view: a crop need not rearrange the whole photograph


def _pad_to(photo: torch.Tensor, side: int) -> torch.Tensor:
    """Mirrors a small photograph, as often as it takes, until both sides reach `side`."""
    for dim in (1, 2):
        extent = photo.shape[dim]
        if extent < side:
            period = max(1, 2 * extent - 2)
            index = torch.arange(side, device=photo.device) % period
            photo = photo.index_select(dim, torch.minimum(index, period - index))
    return photo
