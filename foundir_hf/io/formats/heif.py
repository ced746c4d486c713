"""HEIC (by pillow-heif, an extra) and AVIF (by Pillow, and imagecodecs for more than 8 bits)."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np

from ..limits import Limits
from ..names import how_to_install
from ..photograph import Metadata, Photo, PhotoError
from . import exif, raster
from .png import split_alpha

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1"})
# Primaries and transfer of sRGB, and what says nothing.
_PLAIN = frozenset({(1, 13), (1, 1), (1, 6), (1, 2), (2, 2), (2, 13)})


def brands(data: bytes) -> list[bytes]:
    """What a file says that it is, the main one first; empty if it is of another family."""
    if data[4:8] != b"ftyp":
        return []
    end = min(int.from_bytes(data[:4], "big"), 256)
    return [data[8:12], *(data[place : place + 4] for place in range(16, end - 3, 4))]


def is_avif(data: bytes) -> bool:
    """By its first bytes."""
    return bool({b"avif", b"avis"} & set(brands(data)))


def is_heic(data: bytes) -> bool:
    """By its first bytes."""
    return not is_avif(data) and bool(_HEIC_BRANDS & set(brands(data)))


def read_avif(data: bytes, limits: Limits) -> Photo:
    """An AVIF at its depth. Raises [`PhotoError`], and whatever Pillow and imagecodecs do."""
    photo = raster.read(data, limits)
    photo = replace(photo, metadata=_with_colours(photo.metadata, *_avif_colours(data)))
    depth = _avif_depth(data)
    if depth == 8:
        return photo
    pixels, alpha = split_alpha(_stretched(imagecodecs.avif_decode(data), depth))
    if pixels.shape[:2] != photo.pixels.shape[:2]:
        raise PhotoError("its sizes contradict each other")
    return replace(photo, pixels=pixels, alpha=alpha)


def _avif_depth(data: bytes) -> int:
    """Bits a channel, by the configuration of its codec."""
    place = data.find(b"av1C")
    flags = data[place + 6] if 0 <= place < len(data) - 6 else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _avif_colours(data: bytes) -> tuple[int, int]:
    """Primaries and transfer, by the numbers of H.273, of its first box about colours; 2 stands for what is not said."""
    place = data.find(b"colrnclx")
    return struct.unpack_from(">HH", data, place + 8) if 0 <= place < len(data) - 12 else (2, 2)


def _with_colours(metadata: Metadata, primaries: int, transfer: int) -> Metadata:
    """Metadata of a PNG's chunk that tells such colours, BT.2020 or HDR, say, unless a profile does or they are sRGB's."""
    if metadata.icc_profile is not None or (primaries, transfer) in _PLAIN or max(primaries, transfer) > 255:
        return metadata
    return replace(metadata, chunks=((b"cICP", bytes([primaries, transfer, 0, 1])),))


def read_heic(data: bytes, limits: Limits) -> Photo:
    """The main picture of a HEIC at its depth, upright. Raises [`PhotoError`], and whatever pillow-heif does."""
    try:
        import pillow_heif
    except ImportError:
        raise PhotoError(f"it is HEIC; {how_to_install('heic')}") from None
    file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    notes = [f"{len(file) - 1} more of its pictures cannot be kept"] if len(file) > 1 else []
    image = file[file.primary_index]
    limits.check_pixels(*image.size)
    info = image.info
    for name, what in (("depth_images", "depth map"), ("aux", "auxiliary pictures (a gain map, say)")):
        if info.get(name):
            notes.append(f"its {what} cannot be kept")
    numbers = np.array(image)
    if numbers.dtype == np.uint16:
        # They come with their depth's bits on top.
        numbers = _stretched(numbers >> (16 - info["bit_depth"]), info["bit_depth"])
    pixels, alpha = split_alpha(numbers)
    if alpha is not None and image.premultiplied_alpha:
        raise PhotoError("its colours are multiplied with its transparency, which is not known of HEIC")
    metadata = Metadata(
        exif=exif.without_marker(info.get("exif")), icc_profile=info.get("icc_profile") or None, xmp=info.get("xmp") or None
    )
    colours = info.get("nclx_profile") or {}
    metadata = _with_colours(metadata, colours.get("color_primaries", 2), colours.get("transfer_characteristics", 2))
    if metadata.exif is not None:
        try:
            # HEIC turns its picture itself; what its EXIF says about that is a copy that readers must not follow.
            metadata = replace(metadata, exif=exif.edited(metadata.exif, image.size))
        except (exif.ExifError, struct.error):
            notes.append("its EXIF is damaged and was dropped")
            metadata = replace(metadata, exif=None)
    return Photo(pixels, alpha, metadata, ("HEIC", data), notes=tuple(notes))


def _stretched(numbers: np.ndarray, bits: int) -> np.ndarray:
    """`uint16` of so many bits over all 16 of them."""
    return (numbers.astype(np.float32) * (65535 / (2**bits - 1))).round().clip(0, 65535).astype(np.uint16)
