"""Photographs into files, in the format of the suffix: what is not the picture comes out unchanged, and numbers keep their depth."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from .files import write_whole
from .formats import exif, jpeg, png, raster, resources, tiff, xmp
from .names import WRITERS
from .photograph import Metadata, Photo, PhotoError, as_type
from .reading import reason
from .record import is_record_alone

_WITHOUT_ALPHA = frozenset({"JPEG"})
# Which parts of the metadata a format holds.
_HELD = {
    "BMP": {"dpi"},
    "JPEG": {"exif", "icc_profile", "xmp", "iptc", "dpi", "comment", "segments"},
    "PNG": {"exif", "icc_profile", "xmp", "dpi", "chunks"},
    "TIFF": {"exif", "icc_profile", "xmp", "iptc", "dpi"},
    "WEBP": {"exif", "icc_profile", "xmp"},
}


def write_photo(
    photo: Photo,
    path: str | Path,
    *,
    metadata: Literal["keep", "strip-gps", "none"] = "keep",
    quality: int | None = None,
) -> tuple[str, ...]:
    """Writes a photograph in the format of the path's suffix; the file appears whole or not at all. Raises [`PhotoError`].

    Args:
        photo: One that was read and is unchanged is written as the bytes that it was read from, where the format is the same.
        path: Its suffix is one of `WRITERS`.
        metadata: Whether to keep what the file says about the picture: all, all but the place, or nothing but the colour profile and the
            orientation that colours and sides need.
        quality: Of a JPEG or WebP, 1 to 100; left out, a JPEG is written at 95 or as finely as it came, a WebP without loss.

    Returns:
        What was not kept, in reading or because the format cannot hold it, one line each; nothing of a file written as it came.
    """
    path = Path(path)
    kind = WRITERS.get(path.suffix.lower())
    if kind is None:
        suffix = path.suffix.lower() or "a file without suffix"
        raise PhotoError(f"{path}: cannot write {suffix}; accepted are {', '.join(sorted(WRITERS))}.")
    try:
        encoded, notes = encode_photo(photo, kind, metadata=metadata, quality=quality)
        write_whole(path, encoded)
    except MemoryError:
        raise
    except Exception as error:
        raise PhotoError(f"{path}: cannot be written: {reason(error)}") from error
    return notes


def encode_photo(
    photo: Photo, kind: str, *, metadata: Literal["keep", "strip-gps", "none"] = "keep", quality: int | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file of the format `kind`, and what was not kept. Arguments are those of [`write_photo`]."""
    if photo.encoded is not None and photo.encoded[0] == kind and metadata == "keep" and quality is None:
        return photo.encoded[1], ()
    notes = list(photo.notes)
    held, dropped = _held(photo, kind, metadata)
    if dropped:
        notes.append(f"{kind} cannot hold its {', '.join(dropped)}")
    alpha = photo.alpha
    if alpha is not None and kind in _WITHOUT_ALPHA:
        alpha = None
        notes.append(f"{kind} cannot hold its transparency")
    deepest = {"PNG": np.dtype(np.uint16), "TIFF": np.dtype(np.float32)}.get(kind, np.dtype(np.uint8))
    depth = min(photo.pixels.dtype, deepest, key=lambda dtype: dtype.itemsize)
    if depth != photo.pixels.dtype:
        notes.append(f"{kind} holds {8 * depth.itemsize} bits of its {8 * photo.pixels.dtype.itemsize}")
    pixels, alpha = as_type(photo.pixels, depth), None if alpha is None else as_type(alpha, depth)
    if kind == "PNG":
        return png.write(pixels, alpha, held), tuple(notes)
    if kind == "TIFF":
        return tiff.write(pixels, alpha, held), tuple(notes)
    return raster.write(pixels, alpha, held, kind, quality=quality, quantization=photo.quantization), tuple(notes)


def _held(photo: Photo, kind: str, keep: str) -> tuple[Metadata, list[str]]:
    """The metadata that are wanted and that a format holds, true of the picture as it is now; and the names of those that it does not."""
    metadata = photo.metadata
    if keep == "none":
        metadata = Metadata(icc_profile=metadata.icc_profile, chunks=tuple(c for c in metadata.chunks if c[0] in _COLOURS))
    if keep == "strip-gps":
        # Segments of cameras may hold the place in ways that nobody documents.
        metadata = replace(metadata, chunks=tuple(c for c in metadata.chunks if not png.says_place(c)), segments=())
    damaged = []
    if metadata.exif is not None:
        try:
            metadata = replace(metadata, exif=exif.edited(metadata.exif, photo.size, keep_gps=keep == "keep"))
        except (exif.ExifError, struct.error):
            metadata, damaged = replace(metadata, exif=None), ["EXIF, which is damaged"]
    if metadata.xmp is not None:
        metadata = replace(metadata, xmp=xmp.edited(metadata.xmp, photo.size, keep_gps=keep == "keep"))
    if metadata.iptc is not None:
        metadata = replace(metadata, iptc=resources.without_thumbnails(metadata.iptc) or None)
    absent = [name for name in _NAMES if name not in _HELD[kind] and getattr(metadata, name)]
    # 72 is what files say that were told nothing, and a record is ours.
    usual = {"dpi": metadata.dpi == (72, 72), "xmp": is_record_alone(metadata), "chunks": all(c[0] == b"tIME" for c in metadata.chunks)}
    dropped = damaged + [_NAMES[name] for name in absent if not usual.get(name)]
    empty = Metadata()
    held = replace(metadata, **{name: getattr(empty, name) for name in absent})
    if kind == "JPEG" and held.exif and not jpeg.fits(held.exif):
        dropped.append(f"EXIF of {len(held.exif)} bytes")
        held = replace(held, exif=None)
    return held, dropped


# How messages call the parts of the metadata.
_NAMES = {
    "exif": "EXIF",
    "icc_profile": "colour profile",
    "xmp": "XMP",
    "iptc": "IPTC",
    "dpi": "dpi",
    "comment": "comment",
    "chunks": "PNG's text and gamma",
    "segments": "cameras' own segments",
}
# Chunks of a PNG that colours need.
_COLOURS = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs"})
