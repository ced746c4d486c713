"""A photograph's file, whatever is in it: read or refused in one line."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import PIL.Image

from .formats import exif, heif, png, raster, raw, tiff
from .limits import DEFAULT_LIMITS, Limits
from .photograph import Photo, PhotoError

# Formats whose readers turn the picture upright by what is not EXIF.
_TURNED = frozenset({"HEIC", "RAW", "TIFF"})


def read_photo(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Photo:
    """Reads a still photograph, upright and at its own depth. Raises [`PhotoError`] for whatever is wrong with the file."""
    return decode_photo(read_file(path, limits), path, limits)


def read_file(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a photograph's file. Raises [`PhotoError`]."""
    path = Path(path)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise PhotoError("is no file")
            limits.check_bytes(state.st_size)
            return file.read()
    except FileNotFoundError:
        raise PhotoError(f"{path}: no such file.") from None
    except (OSError, PhotoError) as error:
        raise PhotoError(f"{path}: cannot be read: {reason(error)}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a FIFO has perhaps nobody at its other end


def decode_photo(data: bytes, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Photo:
    """A photograph from the bytes of its file, which messages call `path`. Raises [`PhotoError`] for whatever is wrong with them."""
    try:
        return _decoded(data, limits)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes the libraries raise a dozen types
        raise PhotoError(f"{path}: cannot be read: {reason(error)}") from error


def _decoded(data: bytes, limits: Limits) -> Photo:
    if data.startswith(png.SIGNATURE):
        width, height, depth = png.header(data)
        limits.check_pixels(width, height)
        if png.is_animated(data):
            raise PhotoError("has several frames; only still photographs can be restored.")
        if depth == 16 or not png.is_interlaced(data):
            pixels, alpha = png.read_pixels(data)
        else:
            shallow = raster.read(data, limits)
            pixels, alpha = shallow.pixels, shallow.alpha
        metadata, notes = png.read_metadata(data)
        photo = Photo(pixels, alpha, metadata, ("PNG", data), notes=notes)
    else:
        photo = _reader(data)(data, limits)
    if photo.pixels.size == 0:
        raise PhotoError("it is empty")
    if photo.metadata.dpi and not all(1 <= value <= 100_000 for value in photo.metadata.dpi):
        photo = replace(photo, metadata=replace(photo.metadata, dpi=None), notes=(*photo.notes, "its dpi are damaged and were dropped"))
    return photo if photo.encoded and photo.encoded[0] in _TURNED else _turned(photo)


def _reader(data: bytes) -> Callable[[bytes, Limits], Photo]:
    """By what is in a file: its name may be wrong."""
    if raw.is_raw(data):
        return raw.read
    if tiff.is_tiff(data):
        return tiff.read
    if heif.is_avif(data):
        return heif.read_avif
    return heif.read_heic if heif.is_heic(data) else raster.read


def _turned(photo: Photo) -> Photo:
    """As EXIF says."""
    if photo.metadata.exif is None:
        return photo
    try:
        turn = exif.orientation(photo.metadata.exif)
        exif.edited(photo.metadata.exif, photo.size)  # whether that can be done
        if exif.damaged_parts(photo.metadata.exif):
            photo = replace(photo, notes=(*photo.notes, "a part of its EXIF is damaged"))
    except (exif.ExifError, struct.error) as error:
        note = f"its EXIF is damaged ({error}) and was dropped"
        return replace(photo, metadata=replace(photo.metadata, exif=None), notes=(*photo.notes, note))
    dpi = photo.metadata.dpi[::-1] if photo.metadata.dpi and turn >= 5 else photo.metadata.dpi
    alpha = None if photo.alpha is None else tiff.upright(photo.alpha, turn)
    return replace(photo, pixels=tiff.upright(photo.pixels, turn), alpha=alpha, metadata=replace(photo.metadata, dpi=dpi))


def reason(error: Exception) -> str:
    """What an exception of any library says, as one line."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image of a known format"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def photo_size(path: Path) -> tuple[int, int]:
    """`(width, height)` as the header has it, not turned upright. Raises [`PhotoError`]."""
    try:
        with PIL.Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
        raise PhotoError(f"{path}: cannot be read as a photograph ({error}).") from error
