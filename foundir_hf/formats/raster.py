"""JPEG, WebP, BMP and whatever else Pillow reads with 8 bits a channel."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from typing import Any

import numpy as np
import PIL.Image
from PIL import JpegImagePlugin

from .colour import from_cmyk
from .exif import with_marker, without_marker
from .limits import Limits
from .photograph import Metadata, Photo, PhotoError

_RESOURCES = b"Photoshop 3.0\0"
_INCH = 0.0254  # metres
_LONGEST_SEGMENT = 65533  # bytes of a JPEG's segment behind its length
LONGEST_PACKET = _LONGEST_SEGMENT - 29  # of EXIF or XMP in a JPEG, behind the name in front of it
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
        image = PIL.Image.open(file)
    else:
        with _PILLOWS_LIMIT:  # which is the whole process's
            PIL.Image.MAX_IMAGE_PIXELS = None
            try:
                image = PIL.Image.open(file)
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
    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged metadata, which are not looked at, and of large pictures
        with open_picture(io.BytesIO(data), limits) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # an MPO's first frame is the photograph
                raise PhotoError(f"has {frames} frames; only still photographs can be restored.")
            image.load()
            pixels, alpha = _numbers(image)
            if image.format == "MPO" or any(part.startswith(b"MPF\0") for _, part in getattr(image, "applist", ())):
                notes.append("a second picture in it, a gain map (Ultra HDR) or a preview, cannot be kept")
            if image.format == "BMP" and image.mode == "RGB":
                alpha = _padding_that_is_alpha(data, image.size)
            quantization = dict(image.quantization) if isinstance(image, JpegImagePlugin.JpegImageFile) else None
            kind = "JPEG" if image.format == "MPO" else image.format or ""
            return Photo(pixels, alpha, _metadata(image), (kind, data), quantization, tuple(notes))


def _metadata(image: PIL.Image.Image) -> Metadata:
    info = image.info
    resources = [part for name, part in getattr(image, "applist", ()) if name == "APP13" and part.startswith(_RESOURCES)]
    dpi = info.get("dpi")
    dpi = (float(dpi[0]), float(dpi[1])) if isinstance(dpi, tuple) and min(dpi) > 1 else None
    comment = info.get("comment")
    return Metadata(
        exif=without_marker(info.get("exif")),
        # It would misread the RGB that is written.
        icc_profile=None if image.mode == "CMYK" else info.get("icc_profile") or None,
        xmp=_bytes(info.get("xmp")),
        iptc=b"".join(part.removeprefix(_RESOURCES) for part in resources) or None,
        dpi=dpi,
        comment=comment if isinstance(comment, bytes) and comment else None,
    )


def _bytes(value: object) -> bytes | None:
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) and value else None


def _numbers(image: PIL.Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Any mode -> pixels and alpha."""
    if image.mode == "CMYK":
        return from_cmyk(np.asarray(image), image.info.get("icc_profile")), None
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
        options |= {name: part for name, part in (("icc_profile", metadata.icc_profile), ("xmp", metadata.xmp)) if part}
        if metadata.exif:
            options["exif"] = with_marker(metadata.exif)
    if kind == "JPEG":
        if metadata.comment:
            options["comment"] = metadata.comment
        if metadata.iptc:
            options["extra"] = _segments(metadata.iptc)
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


def _segments(resources: bytes) -> bytes:
    """Photoshop's resources as segments of a JPEG."""
    room = _LONGEST_SEGMENT - len(_RESOURCES)
    parts = [resources[start : start + room] for start in range(0, len(resources), room)]
    return b"".join(b"\xff\xed" + (len(_RESOURCES) + len(part) + 2).to_bytes(2, "big") + _RESOURCES + part for part in parts)
