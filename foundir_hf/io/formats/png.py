"""PNG: its chunks, and its pixels with up to 16 bits (by imagecodecs, for Pillow reads 8 of them)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np

from ..photograph import Metadata, PhotoError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP = b"XML:com.adobe.xmp\0"
_XMP_PLAIN = _XMP + bytes(4)  # not compressed, in no language
_MARKER = b"Exif\0\0"  # of a JPEG's EXIF, which some writers leave in front
_INCH = 0.0254  # metres
# What only a PNG can say, and may go into another PNG whatever happened to the pixels.
_KEPT = frozenset({b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"tEXt", b"zTXt", b"iTXt", b"tIME"})
TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_LONGEST_PROFILE = 2**26  # bytes, of a profile or text that unpacks without end


def _spans(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """`(type, where its content begins, where it ends)` of each chunk, up to the end of the picture or the file."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, start = data[place + 4 : place + 8], place + 8
        if start + length + 4 > len(data):
            return
        yield kind, start, start + length
        if kind == b"IEND":
            return
        place = start + length + 4


def chunks(data: bytes, notes: list[str] | None = None) -> Iterator[tuple[bytes, bytes]]:
    """`(type, content)` of each chunk. Damaged ones are left out and noted, unless the picture needs them."""
    for kind, start, end in _spans(data):
        if kind[:1].isupper() or data[end : end + 4] == struct.pack(">I", zlib.crc32(data[start - 4 : end])):
            yield kind, data[start:end]
        elif notes is not None and kind.isalpha():
            notes.append(f"a chunk {kind.decode()} is damaged and was dropped")


def header(data: bytes) -> tuple[int, int, int]:
    """Width, height and bits a channel."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise PhotoError("not an image of a known format: its header is missing")
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    return width, height, depth


def is_interlaced(data: bytes) -> bool:
    """Of libpng as imagecodecs calls it, such files of 8 bits are better read by others: it warns on stderr."""
    return data[28] != 0


def read_pixels(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha. Raises what imagecodecs does, for less data than the header claims too."""
    # libpng prints what it finds in other chunks.
    needed = [data[start - 8 : end + 4] for kind, start, end in _spans(data) if kind[:1].isupper() or kind == b"tRNS"]
    try:
        return split_alpha(imagecodecs.png_decode(SIGNATURE + b"".join(needed)))
    except imagecodecs.PngError:
        if needed and needed[-1][4:8] != b"IEND":
            raise PhotoError("image file is truncated") from None
        raise


def split_alpha(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`(height, width, 1 to 4)` or grey `(height, width)` -> pixels and alpha."""
    if pixels.ndim == 2:
        return pixels, None
    channels = pixels.shape[2]
    alpha = pixels[..., -1] if channels in (2, 4) else None
    return (pixels[..., 0] if channels < 3 else pixels[..., :3]), alpha


def read_metadata(data: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """All that is not the picture, and what of it cannot be kept, one line each."""
    exif, profile, xmp, dpi, kept, notes = None, None, None, None, [], []
    for kind, content in chunks(data, notes):
        if kind == b"eXIf":
            exif = content.removeprefix(_MARKER)
        elif kind == b"iCCP":
            profile = _unpacked(content.partition(b"\0")[2][1:])
            notes += [] if profile else ["its colour profile is damaged and was dropped"]
        elif kind == b"iTXt" and content.startswith(_XMP) and (packet := _packet(content.removeprefix(_XMP))):
            xmp = packet
        elif kind == b"pHYs":
            across, down, unit = struct.unpack(">IIB", content) if len(content) == 9 else (0, 0, 1)
            # Without a unit it is the shape of a pixel, which only a PNG can say.
            dpi = (across * _INCH, down * _INCH) if unit == 1 else None
            kept += [] if unit == 1 else [(kind, content)]
        elif kind in _KEPT or _may_be_copied(kind):
            kept.append((kind, content))
        elif kind == b"IEND" and (behind := len(data) - data.rfind(b"IEND") - 8) > 0:
            notes.append(f"{behind} bytes behind its picture cannot be kept")
    return Metadata(exif=exif, icc_profile=profile, xmp=xmp, dpi=dpi, chunks=tuple(kept)), tuple(notes)


def _may_be_copied(kind: bytes) -> bool:
    """Whether PNG's own sign says so of a chunk, to whoever does not know it."""
    return kind.isalpha() and kind[:1].islower() and kind[3:].islower()


def _packet(content: bytes) -> bytes | None:
    """XMP of a chunk of text, behind its keyword."""
    flags, _, rest = content[:2], *content[2:].partition(b"\0")[1:]
    text = rest.partition(b"\0")[2]
    return _unpacked(text) if flags[:1] == b"\1" else text or None


def says_place(chunk: tuple[bytes, bytes]) -> bool:
    """Whether a chunk holds EXIF or XMP as text (ImageMagick writes such ones), in which the place may be."""
    return chunk[0] in TEXT and chunk[1].startswith((b"Raw profile type ", _XMP))


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
        if kind not in TEXT and not (metadata.icc_profile and kind == b"sRGB")
    ]
    if metadata.icc_profile:
        first.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.dpi:
        first.append((b"pHYs", struct.pack(">IIB", *(round(value / _INCH) for value in metadata.dpi), 1)))
    if metadata.exif:
        first.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        first.append((b"iTXt", _XMP_PLAIN + metadata.xmp))
    first += [chunk for chunk in metadata.chunks if chunk[0] in TEXT]
    after_header = len(SIGNATURE) + 25
    return bytes(encoded[:after_header]) + b"".join(_chunk(*chunk) for chunk in first) + encoded[after_header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def is_animated(data: bytes) -> bool:
    """Whether it has frames."""
    return any(kind == b"acTL" for kind, _ in chunks(data[: 2**16]))
