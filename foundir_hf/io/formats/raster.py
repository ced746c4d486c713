"""JPEG, WebP, BMP and whatever else Pillow reads with 8 bits a channel."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
from PIL import JpegImagePlugin

from ..limits import Limits
from ..photograph import Metadata, Photo, PhotoError
from . import jpeg
from .colour import from_cmyk
from .exif import with_marker, without_marker

_INCH = 0.0254  # metres
# What Pillow is asked to read: it knows many more formats, and hands one of them, EPS, to Ghostscript, which runs what is in it.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "WEBP")
# JPEG at full chroma resolution: the model must not restore what its own file takes away. WEBP keeps colours under full transparency too.
OPTIONS: dict[str, dict[str, Any]] = {
    "BMP": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
}


def open_picture(file: Any, limits: Limits) -> PIL.Image.Image:
    """Pillow's picture of a file, not decoded yet. Raises [`PhotoError`] if it is too large, and whatever Pillow does."""
    allowed = PIL.Image.MAX_IMAGE_PIXELS
    if allowed is None or limits.megapixels * 1e6 <= 2 * allowed:
        image = PIL.Image.open(file, formats=_FORMATS)
    else:
        with _PILLOWS_LIMIT:  # which is the whole process's
            PIL.Image.MAX_IMAGE_PIXELS = None
            try:
                image = PIL.Image.open(file, formats=_FORMATS)
            finally:
                PIL.Image.MAX_IMAGE_PIXELS = allowed
    try:
        limits.check_pixels(*image.size)
    except PhotoError:
        image.close()
        raise
    return image


_PILLOWS_LIMIT = threading.Lock()


def read(data: bytes, limits: Limits) -> Photo:
    """A still picture of 8 bits, or of deeper grey. Raises [`PhotoError`], and whatever Pillow does."""
    notes: tuple[str, ...] = ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, which are not looked at, and of large pictures
        with open_picture(io.BytesIO(data), limits) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # an MPO's first frame is the photograph
                raise PhotoError(f"has {frames} frames; only still photographs can be restored.")
            image.load()
            if isinstance(image, JpegImagePlugin.JpegImageFile):
                _check_is_whole(data, np.asarray(image), limits)
            converted: list[str] = []
            pixels, alpha = _numbers(image, converted)
            metadata, quantization, kind = _metadata(image), None, image.format or ""
            if isinstance(image, JpegImagePlugin.JpegImageFile):  # MPO is one too
                metadata, notes = jpeg.read_metadata(data)
                quantization, kind = dict(image.quantization), "JPEG"
            elif image.format == "BMP":
                metadata = replace(metadata, icc_profile=_profile_of_bmp(data))
                if image.mode == "RGB":
                    alpha = _padding_that_is_alpha(data, image.size)
            if image.mode == "CMYK":  # it would misread the RGB that is written
                metadata = replace(metadata, icc_profile=None)
            return Photo(pixels, alpha, metadata, (kind, data), quantization, (*notes, *converted))


def _check_is_whole(data: bytes, pixels: np.ndarray, limits: Limits) -> None:
    """Raises [`PhotoError`] if a JPEG holds less than the picture that it claims: libjpeg fills the rest with grey, and says nothing.

    Where it ends in such grey, it is decoded again with more data: only the pixels that it lacks become others.
    """
    height, width = pixels.shape[:2]
    if pixels[-1, -1].min() < 127 or pixels[-1, -1].max() > 128:
        return
    with open_picture(io.BytesIO(jpeg.with_more(data)), limits) as image:
        changed = (np.asarray(image) != pixels).reshape(height, -1).any(axis=1)
    if changed.any():
        raise PhotoError(f"it is truncated: it claims {width} x {height} pixels and holds {changed.argmax()} of these rows")


def _metadata(image: PIL.Image.Image) -> Metadata:
    """Of WebP, BMP and AVIF."""
    info = image.info
    dpi = info.get("dpi")
    dpi = (float(dpi[0]), float(dpi[1])) if isinstance(dpi, tuple) and min(dpi) > 1 else None
    return Metadata(
        exif=without_marker(info.get("exif")), icc_profile=info.get("icc_profile") or None, xmp=_bytes(info.get("xmp")), dpi=dpi
    )


def _bytes(value: object) -> bytes | None:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) and value else None


def _numbers(image: PIL.Image.Image, notes: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Any mode -> pixels and alpha."""
    if image.mode == "CMYK":
        notes.append("its CMYK became sRGB")
        return from_cmyk(np.asarray(image), image.info.get("icc_profile"), notes), None
    if image.mode == "F":
        return np.asarray(image, np.float32), None
    if image.mode.startswith("I"):  # grey of 16 bits
        numbers = np.asarray(image)
        if numbers.min() < 0 or numbers.max() > 65535:
            raise PhotoError("its numbers go beyond 16 bits")
        return numbers.astype(np.uint16), None
    grey = image.mode in ("1", "L", "LA")
    if "transparency" in image.info:  # one colour, or palette entries, that stand for nothing
        image = image.convert("LA" if grey else "RGBA")
    alpha = np.asarray(image.getchannel("A")) if "A" in image.getbands() else None
    return np.asarray(image.convert("L" if grey else "RGB")), alpha


def _padding_that_is_alpha(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """The fourth channel of a BMP whose header is too old to speak of transparency; as everywhere, all zeros are padding."""
    (start,), (rows, _, bits, compression) = struct.unpack_from("<I", data, 10), struct.unpack_from("<iHHI", data, 22)
    width, height = size
    if (bits, compression) != (32, 0) or len(data) < start + 4 * width * height:
        return None
    alpha = np.frombuffer(data, np.uint8, 4 * width * height, start).reshape(height, width, 4)[..., 3]
    alpha = alpha[::-1] if rows > 0 else alpha
    return np.ascontiguousarray(alpha) if alpha.any() and alpha.min() < 255 else None


def _profile_of_bmp(data: bytes) -> bytes | None:
    """The colour profile behind a BMP whose header (BITMAPV5HEADER) speaks of one."""
    if len(data) < 138 or struct.unpack_from("<I", data, 14) != (124,) or data[70:74] != b"DEBM":
        return None
    start, length = struct.unpack_from("<II", data, 126)
    return data[14 + start : 14 + start + length] or None


def write(
    pixels: np.ndarray, alpha: np.ndarray | None, metadata: Metadata, kind: str, *, quality: int | None, quantization: dict | None
) -> bytes:
    """8-bit pixels as a file of the format `kind`. A JPEG is at least as fine as the one of `quantization`. Raises what Pillow does."""
    if kind == "BMP" and alpha is not None:
        return _bmp_with_alpha(pixels, alpha, metadata.dpi)
    image = PIL.Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(PIL.Image.fromarray(alpha))
    options = dict(OPTIONS[kind])
    if quality is not None and kind == "WEBP":
        options |= {"lossless": False, "quality": quality}
    elif quality is not None:
        options["quality"] = quality
    elif kind == "JPEG" and quantization and _is_finer(quantization):
        tables = list(quantization.values())
        options = {"qtables": tables[: 2 if pixels.ndim == 3 else 1], "subsampling": 0}
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if kind != "BMP":
        if metadata.icc_profile:
            options["icc_profile"] = metadata.icc_profile
        if metadata.exif:
            options["exif"] = with_marker(metadata.exif)
    if kind == "WEBP" and metadata.xmp:
        options["xmp"] = metadata.xmp
    if kind == "JPEG":
        options["extra"] = jpeg.written(metadata)
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def _bmp_with_alpha(pixels: np.ndarray, alpha: np.ndarray, dpi: tuple[float, float] | None) -> bytes:
    """With the header that says which channel transparency is (BITMAPV4HEADER); Pillow writes one that does not."""
    colours = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    rows = np.concatenate([colours[..., ::-1], alpha[..., None]], axis=2)[::-1].tobytes()
    height, width = alpha.shape
    density = [round(value / _INCH) for value in dpi or (0, 0)]  # pixels a metre
    masks = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII4I", 108, width, height, 1, 32, 3, len(rows), *density, 0, 0, *masks) + b"BGRs" + bytes(48)
    return struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows


def _is_finer(tables: dict[int, list[int]]) -> bool:
    """Whether a JPEG's tables are finer than those that are written without being told."""
    return sum(map(sum, tables.values())) / max(1, sum(map(len, tables.values()))) < _MEAN_STEP


def _mean_step() -> float:
    encoded = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(encoded, "JPEG", **OPTIONS["JPEG"])
    with PIL.Image.open(encoded) as image:
        tables = image.quantization  # pyright: ignore[reportAttributeAccessIssue]
    return sum(map(sum, tables.values())) / sum(map(len, tables.values()))


_MEAN_STEP = _mean_step()
