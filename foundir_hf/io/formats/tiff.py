"""TIFF at full depth, by tifffile: grey, RGB, palettes, CMYK and CIELAB in, grey and RGB out."""

from __future__ import annotations

import io
import logging
import math
import struct

import numpy as np
import tifffile
from tifffile import EXTRASAMPLE, PHOTOMETRIC

from ..limits import Limits
from ..photograph import Metadata, Photo, PhotoError, as_type
from . import exif as exif_module
from . import resources
from .colour import from_cmyk, from_lab

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what cannot be read arrives as an exception, what can be is nobody's business
_IPTC, _PHOTOSHOP, _XMP, _PROFILE, _WHITE = 33723, 34377, 700, 34675, 318
_CENTIMETRE = 3
_CONVERTED = frozenset({PHOTOMETRIC.SEPARATED, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB})  # to sRGB
_MOST_PAGES = 1000
_MOST_A_PIXEL = 32  # bytes: four colours and transparency of 32 bits, and some more, or three of 64
_ABOUT_COLOURS = frozenset({_WHITE, 319})
_REDUCED, _MASK = 1, 4  # of a page: a small copy; where another page is transparent


def read(data: bytes, limits: Limits) -> Photo:
    """A TIFF, BigTIFFs among them, as it is told to be turned. Raises [`PhotoError`], and whatever tifffile does."""
    notes: list[str] = []
    _check_chain(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page.aspage() for page in file.pages]
        notes += ["a mask cannot be kept"] if any(page.subfiletype & _MASK for page in pages) else []
        pages = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)] or pages[:1]
        if len(pages) != 1:
            raise PhotoError(f"has {len(pages)} frames; only still photographs can be restored.")
        (page,) = pages
        limits.check_pixels(page.imagewidth, page.imagelength)
        if page.is_tiled:
            limits.check_pixels(page.tilewidth, page.tilelength)
        if page.nbytes > limits.megapixels * 1e6 * _MOST_A_PIXEL:
            raise PhotoError(f"it has {page.nbytes / 1e6:.0f} megabytes of numbers for {page.imagewidth} x {page.imagelength} pixels")
        if not page.is_contiguous:
            _check_is_whole(page)
        pixels, alpha = _light(page, notes)
        tags = {tag.code: tag.value for tag in page.tags.values()}
        dpi = _dpi(page)
    exif = None
    try:
        exif, lost = exif_module.of_tiff(data, without=_ABOUT_COLOURS if page.photometric in _CONVERTED else frozenset())
        notes += lost
    except (exif_module.ExifError, struct.error):
        notes.append("its EXIF is damaged and was dropped")
    metadata = Metadata(
        exif=exif,
        icc_profile=None if page.photometric in _CONVERTED else _bytes(tags.get(_PROFILE)),
        xmp=_bytes(tags.get(_XMP)),
        iptc=resources.joined(_bytes(tags.get(_IPTC)), _bytes(tags.get(_PHOTOSHOP))),
        dpi=dpi,
    )
    turn = tags.get(exif_module.ORIENTATION, 1)
    turn = int(turn) if isinstance(turn, int) and 1 <= int(turn) <= 8 else 1
    alpha = None if alpha is None else upright(alpha, turn)
    return Photo(upright(pixels, turn), alpha, metadata, ("TIFF", data), notes=tuple(notes))


def _check_chain(data: bytes) -> None:
    """Raises [`PhotoError`] if a TIFF's directories are too many, or follow each other in a circle, which tifffile would do for ever."""
    structure = exif_module.parse(data)
    place, seen = structure.first, set()
    while place:
        if place in seen:
            raise PhotoError("its directories follow each other in a circle")
        seen.add(place)
        if len(seen) > _MOST_PAGES:
            raise PhotoError(f"has more than {_MOST_PAGES} frames; only still photographs can be restored.")
        place = structure.number(structure.directory(place)[1], 8 if structure.big else 4)


def _check_is_whole(page: tifffile.TiffPage) -> None:
    """Raises [`PhotoError`] if strips or tiles are missing, which tifffile would fill with black."""
    there = sum(least > 0 for least in map(min, page.dataoffsets, page.databytecounts))
    parts = math.prod(page.chunked)
    if there < parts:
        raise PhotoError(f"it is truncated: it has {there} of the {parts} {'tiles' if page.is_tiled else 'strips'} of its picture")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF's orientation says how to look at, turned so that it needs no saying."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _light(page: tifffile.TiffPage, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and alpha of a page, as [`Photo`] has them."""
    numbers = page.asarray()
    if page.axes == "SYX":  # plane by plane
        numbers = np.moveaxis(numbers, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise PhotoError(f"its axes {page.axes} are not those of a photograph")
    extra = len(page.extrasamples)
    numbers, extras = (numbers, None) if not extra else (numbers[..., :-extra], numbers[..., -extra:])
    if numbers.ndim == 3 and numbers.shape[2] == 1:
        numbers = numbers[..., 0]
    numbers = _known_type(numbers, page.bitspersample, notes, palette=page.photometric == PHOTOMETRIC.PALETTE)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        numbers = (1 if numbers.dtype == np.float32 else np.iinfo(numbers.dtype).max) - numbers
    elif page.photometric == PHOTOMETRIC.PALETTE:
        colours = np.asarray(page.colormap).T  # (colours, 3), 16 bits
        if not (colours % 257).any() or not (colours & 255).any():  # 8 bits, as two kinds of writers spread them over 16
            colours = (colours >> 8).astype(np.uint8)
        numbers = colours[numbers]
    elif page.photometric == PHOTOMETRIC.SEPARATED:
        if numbers.shape[-1] != 4:
            raise PhotoError(f"it has {numbers.shape[-1]} inks; only CMYK is known")
        notes.append("its CMYK became sRGB")
        numbers = from_cmyk(_whole(numbers, "CMYK"), _bytes(page.tags.valueof(_PROFILE)), notes)
    elif page.photometric in (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB):
        notes.append("its CIELAB became sRGB")
        numbers = _from_lab(page, _whole(numbers, "CIELAB"))
    elif page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        raise PhotoError(f"its colours are {PHOTOMETRIC(page.photometric).name}, which are not known")
    elif page.photometric == PHOTOMETRIC.YCBCR and page.compression not in (6, 7, 34892):
        raise PhotoError("its colours are YCBCR without JPEG, which are not known")
    if numbers.ndim == 3 and numbers.shape[2] != 3:
        raise PhotoError(f"it has {numbers.shape[2]} colours; grey and RGB are known")
    alpha = None
    for kind, channel in zip(page.extrasamples, () if extras is None else np.moveaxis(extras, -1, 0), strict=True):
        if alpha is None and kind in (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA):
            alpha = _known_type(channel, page.bitspersample, notes)
            if alpha.dtype != numbers.dtype:
                raise PhotoError("its alpha is of another type than its colours")
            if kind == EXTRASAMPLE.ASSOCALPHA:
                numbers = _divided(numbers, alpha)
        else:
            notes.append("a channel that is neither colour nor transparency was dropped")
    return numbers, alpha


def _known_type(numbers: np.ndarray, bits: int | tuple[int, ...], notes: list[str], *, palette: bool = False) -> np.ndarray:
    """`uint8`, `uint16` or `float32`."""
    bits = max(bits) if isinstance(bits, tuple) else bits
    if numbers.dtype == bool:
        numbers, bits = numbers.astype(np.uint8), 1
    if numbers.dtype.kind == "f":
        return numbers.astype(np.float32)
    if numbers.dtype.kind != "u" or numbers.dtype.itemsize > 4:
        raise PhotoError(f"its numbers are {numbers.dtype}; known are unsigned ones of up to 32 bits, and floating point")
    if numbers.dtype == np.uint32:
        notes.append("its 32-bit integers became 16-bit ones")
        return (numbers >> 16).astype(np.uint16)
    numbers = numbers.astype(numbers.dtype.newbyteorder("="))
    if palette or bits in (8, 16):
        return numbers
    most = np.iinfo(numbers.dtype).max
    return (numbers.astype(np.float64) * most / (2**bits - 1)).round().astype(numbers.dtype)


def _whole(numbers: np.ndarray, name: str) -> np.ndarray:
    if numbers.dtype not in (np.uint8, np.uint16):
        raise PhotoError(f"its {name} is of {numbers.dtype}; 8 and 16 bits are known")
    return numbers


def _from_lab(page: tifffile.TiffPage, lab: np.ndarray) -> np.ndarray:
    """sRGB of a page's CIELAB, of the same type."""
    most = np.iinfo(lab.dtype).max
    # a* and b*, of which 1 is as much as 1 of 8 bits: from -128 with a sign, or from 0.
    signed = lab[..., 1:].view(np.int8 if lab.dtype == np.uint8 else np.int16).astype(np.float32) / ((most + 1) // 256)
    if page.photometric == PHOTOMETRIC.ICCLAB:
        signed = lab[..., 1:].astype(np.float32) / ((most + 1) // 256) - 128
    white = page.tags.valueof(_WHITE)  # two fractions
    known = isinstance(white, tuple) and len(white) == 4 and 0 not in (white[1], white[3])
    place = (white[0] / white[1], white[2] / white[3]) if known else None
    light = from_lab(lab[..., 0] * np.float32(100 / most), signed[..., 0], signed[..., 1], place)
    return as_type(light, lab.dtype)


def _divided(numbers: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours that were multiplied with their alpha, as they were before."""
    most = 1.0 if numbers.dtype == np.float32 else float(np.iinfo(numbers.dtype).max)
    share = alpha.astype(np.float64) / most
    share = share if numbers.ndim == 2 else share[..., None]
    light = np.divide(numbers, share, out=np.zeros(numbers.shape), where=share > 0)
    return light.astype(np.float32) if numbers.dtype == np.float32 else light.round().clip(0, most).astype(numbers.dtype)


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    across, down = page.tags.valueof(282), page.tags.valueof(283)
    unit = page.tags.valueof(296, 2)
    if not isinstance(across, tuple) or not isinstance(down, tuple) or unit not in (2, 3) or 0 in (*across, *down):
        return None
    scale = 2.54 if unit == _CENTIMETRE else 1.0
    dpi = (across[0] / across[1] * scale, down[0] / down[1] * scale)
    return dpi if dpi != (1.0, 1.0) else None  # what libraries write that were told nothing


def _bytes(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, bytes | tuple | np.ndarray) and len(value) else None


def write(pixels: np.ndarray, alpha: np.ndarray | None, metadata: Metadata) -> bytes:
    """A TIFF of 8 or 16 bits or floating point, compressed without loss."""
    structure = exif_module.parse(metadata.exif) if metadata.exif else None
    order = structure.order if structure else "<"
    said = exif_module.tree(structure, structure.directory(structure.first)[0]) if structure else exif_module.Tree({}, {})
    extra: list[tuple] = [
        (tag, part.kind, part.count, _as_tifffile(part, order), True)
        for tag, part in said.fields.items()
        if exif_module.describes(tag, part)
    ]
    iptc, photoshop = resources.divided(metadata.iptc or b"")
    packets = ((_XMP, 1, metadata.xmp), (_IPTC, 7, iptc), (_PHOTOSHOP, 7, photoshop))
    extra += [(tag, kind, len(packet), packet, True) for tag, kind, packet in packets if packet]
    joined = pixels if alpha is None else np.concatenate([pixels.reshape(*pixels.shape[:2], -1), alpha[..., None]], axis=2)
    encoded = io.BytesIO()
    tifffile.imwrite(
        encoded,
        np.ascontiguousarray(joined),
        byteorder="<" if order == "<" else ">",
        photometric="minisblack" if pixels.ndim == 2 else "rgb",
        planarconfig="contig" if joined.ndim == 3 else None,
        extrasamples=None if alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=3 if pixels.dtype == np.float32 else 2,
        iccprofile=metadata.icc_profile,
        resolution=metadata.dpi,
        resolutionunit="inch" if metadata.dpi else None,
        extratags=extra,
        metadata=None,
        software=False,
    )
    return _with_directories(bytearray(encoded.getvalue()), said.below)


def _as_tifffile(field: exif_module.Field, order: str) -> bytes | tuple[int, ...]:
    """A field's data as bytes; but of fractions, whose bytes tifffile would count twice, as numbers."""
    letter = {5: "I", 10: "i"}.get(field.kind)
    return struct.unpack(f"{order}{2 * field.count}{letter}", field.data) if letter else field.data


def _with_directories(data: bytearray, below: dict[int, exif_module.Tree]) -> bytes:
    """A TIFF with EXIF's directories put behind it, and a first directory that points to them behind these; tifffile writes no pointers."""
    if not below:
        return bytes(data)
    structure = exif_module.parse(bytes(data))
    first, _ = structure.directory(structure.first)
    entries = {tag: bytes(data[field.entry : field.entry + 12]) for tag, field in first.items()}
    for tag, directory in below.items():
        data += bytes(len(data) % 2)
        entries[tag] = struct.pack(f"{structure.order}HHII", tag, 4, 1, len(data))
        data += exif_module.written(directory, structure.order, len(data))
    data += bytes(len(data) % 2)
    data[4:8] = struct.pack(f"{structure.order}I", len(data))
    data += struct.pack(f"{structure.order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return bytes(data)


def is_tiff(data: bytes) -> bool:
    """By its first bytes."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
