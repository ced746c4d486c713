"""PNG: its chunks, and its pixels with up to 16 bits (by imagecodecs, for Pillow reads 8 of them)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np

from .photograph import Metadata, PhotoError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_INCH = 0.0254  # metres
# What only a PNG can say, and may go into another PNG whatever happened to the pixels.
_KEPT = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"tEXt", b"zTXt", b"iTXt"})
_LONGEST_PROFILE = 2**26  # bytes, of a profile or text that unpacks without end


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`(type, content)` of each chunk; ends where the file does. Damaged ones are left out, unless the picture needs them."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        end = place + 8 + length
        if len(content) == length and (kind[:1].isupper() or data[end : end + 4] == struct.pack(">I", zlib.crc32(kind + content))):
            yield kind, content
        place = end + 4


def header(data: bytes) -> tuple[int, int, int]:
    """Width, height and bits a channel."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise PhotoError("not an image of a known format: its header is missing")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    return width, height, depth


def read_deep(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of a PNG of 16 bits."""
    # libpng prints what it finds in other chunks.
    needed = [(kind, content) for kind, content in chunks(data) if kind[:1].isupper() or kind == b"tRNS"]
    return split_alpha(imagecodecs.png_decode(SIGNATURE + b"".join(_chunk(*chunk) for chunk in needed)))


def split_alpha(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`(height, width, 1 to 4)` or grey `(height, width)` -> pixels and alpha."""
    if pixels.ndim == 2:
        return pixels, None
    channels = pixels.shape[2]
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return (pixels[..., 0] if channels < 3 else pixels[..., :3]), alpha


def read_metadata(data: bytes) -> Metadata:
    """All that is not the picture."""
    exif, profile, xmp, dpi, kept = None, None, None, None, []
    for kind, content in chunks(data):
        if kind == b"eXIf":
            exif = content
        elif kind == b"iCCP":
            packed = content.partition(b"\0")[2][1:]
            profile = _unpacked(packed)
        elif kind == b"iTXt" and content.startswith(_XMP):
            xmp = content.removeprefix(_XMP)
        elif kind == b"pHYs" and len(content) == 9:
            across, down, unit = struct.unpack(">IIB", content)
            # Without a unit it is the shape of a pixel, which only a PNG can say.
            dpi = (across * _INCH, down * _INCH) if unit == 1 else None
            kept += [] if unit == 1 else [(kind, content)]
        elif kind in _KEPT:
            kept.append((kind, content))
    return Metadata(exif=exif, icc_profile=profile, xmp=xmp, dpi=dpi, chunks=tuple(kept))


def _unpacked(packed: bytes) -> bytes | None:
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(packed, _LONGEST_PROFILE)
    except zlib.error:
        return None
    return content if decompressor.eof else None


def write(pixels: np.ndarray, alpha: np.ndarray | None, metadata: Metadata) -> bytes:
    """A PNG of 8 or 16 bits."""
    channels = [pixels] if pixels.ndim == 3 else [pixels[..., None]]
    if alpha is not None:
        channels.append(alpha[..., None])
    joined = np.ascontiguousarray(np.concatenate(channels, axis=2))
    encoded = imagecodecs.png_encode(joined[..., 0] if joined.shape[2] == 1 else joined)
    first = [
        (kind, content)
        for kind, content in metadata.chunks
        # A profile tells more than these, and a reader must not have to choose.
        if kind not in (b"tEXt", b"zTXt", b"iTXt") and not (metadata.icc_profile and kind == b"sRGB")
    ]
    if metadata.icc_profile:
        first.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.dpi:
        first.append((b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in metadata.dpi), 1)))
    if metadata.exif:
        first.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        first.append((b"iTXt", _XMP + metadata.xmp))
    first += [chunk for chunk in metadata.chunks if chunk[0] in (b"tEXt", b"zTXt", b"iTXt")]
    after_header = len(SIGNATURE) + 25
    return bytes(encoded[:after_header]) + b"".join(_chunk(*chunk) for chunk in first) + encoded[after_header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def is_animated(data: bytes) -> bool:
    """Whether it has frames."""
    return any(kind == b"acTL" for kind, _ in chunks(data[: 2**16]))
