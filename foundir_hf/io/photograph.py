"""A photograph in memory: its numbers at full depth, and everything in its file that is not the picture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import PIL.Image


class PhotoError(ValueError):
    """A photograph that cannot be read or written; the message is one line for the person who asked."""


@dataclass(frozen=True)
class Metadata:
    """What a file says about its picture.

    Args:
        exif: A TIFF structure, without the `Exif` marker of JPEG in front.
        icc_profile: The colour profile that the numbers are meant in.
        xmp: The packet, XML.
        iptc: Photoshop's resources, in which IPTC's fields are, without the marker of JPEG in front.
        dpi: Pixels per inch, across and down.
        comment: Of a JPEG.
        chunks: Of a PNG, `(type, data)`, those that other formats do not know: text, gamma, chromaticities, cICP.
        segments: Of a JPEG, `(marker, data)`, those that other formats do not know: of makers of cameras, and further comments.
    """

    exif: bytes | None = None
    icc_profile: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    segments: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True)
class Photo:
    """A photograph and what belongs to it.

    Args:
        pixels: Grey `(height, width)` or RGB `(height, width, 3)`, upright; `uint8`, `uint16`, or `float32` of any range, white at 1.
        alpha: Transparency `(height, width)`, of the same type. Colours are not multiplied with it.
        metadata: See [`Metadata`].
        encoded: The file that it was read from, by format, as long as nothing about the photograph was changed.
        quantization: Of the JPEG that it was, its tables.
        notes: What could not be kept in reading, one line each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    encoded: tuple[str, bytes] | None = None
    quantization: dict[int, list[int]] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: PIL.Image.Image, alpha: PIL.Image.Image | None = None, **metadata: Any) -> Photo:
        """From Pillow's 8-bit grey or colour image."""
        return cls(np.asarray(image), None if alpha is None else np.asarray(alpha), Metadata(**metadata))

    @property
    def image(self) -> PIL.Image.Image:
        """The picture with 8 bits a channel, `L` or `RGB`, without its transparency."""
        return PIL.Image.fromarray(as_type(self.pixels, np.dtype(np.uint8)))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def changed(self, **fields: Any) -> Photo:
        """With other fields, and so no longer what its file holds."""
        return replace(self, **fields, encoded=None)


def as_type(numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The same light in numbers of another type: `uint8`, `uint16`, or `float32` with white at 1, which alone holds more than white."""
    if numbers.dtype == dtype:
        return numbers
    if numbers.dtype == np.uint8 and dtype == np.uint16:
        return numbers.astype(np.uint16) * 257
    if dtype == np.float32:
        return as_light(numbers)
    typed = np.empty(numbers.shape, dtype)
    for top in range(0, len(numbers), 256):  # in bands of rows: the steps between take twenty times the memory of the result
        band = slice(top, top + 256)
        typed[band] = (np.nan_to_num(as_light(numbers[band])).clip(0, 1) * np.iinfo(dtype).max).round()
    return typed


def as_light(numbers: np.ndarray) -> np.ndarray:
    """`float32`, black at 0 and white at 1."""
    if numbers.dtype == np.float32:
        return numbers
    light = numbers.astype(np.float32)
    light /= np.float32(np.iinfo(numbers.dtype).max)
    return light
