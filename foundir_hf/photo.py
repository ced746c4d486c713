"""Photographs as files: what is not the picture (EXIF, colour profile, transparency) goes around the model and comes out unchanged."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL import ExifTags, ImageOps

from .files import write_whole
from .pipelines.pipeline_foundir import FoundIRPipeline

# Suffix -> how to write it. JPEG at full chroma resolution: the model must not restore what its own file takes away. TIFF without
# compression: Pillow's compressing writer cannot hold EXIF's camera and GPS directories. WEBP keeps colours under full transparency too.
WRITERS: dict[str, dict[str, Any]] = {
    ".bmp": {"format": "BMP"},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".png": {"format": "PNG"},
    ".tif": {"format": "TIFF"},
    ".tiff": {"format": "TIFF"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},
}
_WITHOUT_ALPHA = frozenset({".bmp", ".jpeg", ".jpg"})
# What a TIFF says about the photograph; its other tags lay out its own file.
_TIFF_METADATA = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.Copyright,
        ExifTags.IFD.Exif,
        ExifTags.IFD.GPSInfo,
    }
)


class PhotoError(ValueError):
    """A photograph that cannot be read or written; the message is one line for the person who asked."""


@dataclass(frozen=True)
class Photo:
    """A photograph and what belongs to it.

    Args:
        image: RGB or grey (`L`), upright: an EXIF orientation has been applied.
        alpha: Transparency (`L`), of the same size.
        exif: Without the orientation, as bytes.
        icc_profile: The colour profile the numbers of `image` are meant in.
    """

    image: PIL.Image.Image
    alpha: PIL.Image.Image | None = None
    exif: bytes | None = None
    icc_profile: bytes | None = None


def read_photo(path: str | Path) -> Photo:
    """Reads a still photograph of at most 8 bits a channel; deeper ones are reduced to 8. Raises [`PhotoError`]."""
    path = Path(path)
    try:
        with PIL.Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # an MPO's first frame is the photograph
                raise PhotoError(f"{path}: has {frames} frames; only still photographs can be restored.")
            image.load()
            icc_profile = None if image.mode == "CMYK" else image.info.get("icc_profile")  # it would misread the RGB that we write
            picture, alpha = _picture_and_alpha(ImageOps.exif_transpose(image))
            return Photo(picture, alpha, _exif_without_layout(image), icc_profile)
    except PhotoError:
        raise
    except FileNotFoundError:
        raise PhotoError(f"{path}: no such file.") from None
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        reason = "not an image of a known format" if isinstance(error, PIL.UnidentifiedImageError) else _reason(error)
        raise PhotoError(f"{path}: cannot be read: {reason}") from error


def _picture_and_alpha(image: PIL.Image.Image) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """Any mode -> RGB or grey (`L`), and transparency if there is any."""
    grey = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
    if image.mode == "F" or image.mode.startswith("I"):  # deeper grey: scale, where `convert` would clip
        scale = 255 if image.mode == "F" else 1 / 257
        image = PIL.Image.fromarray((np.asarray(image, dtype=np.float64) * scale).clip(0, 255).round().astype(np.uint8))
    elif "transparency" in image.info:  # one colour, or palette entries, that stand for nothing
        image = image.convert("LA" if grey else "RGBA")
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    picture = image.convert("L" if grey else "RGB")
    picture.info = {}  # Pillow would write what it finds there: the profile of a CMYK original, say
    return picture, alpha


def _exif_without_layout(image: PIL.Image.Image) -> bytes | None:
    """EXIF of a loaded image, without what was true of its file only: the orientation and a TIFF's layout."""
    exif = image.getexif()
    for directory in {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}.intersection(exif):
        exif.get_ifd(directory)  # now: otherwise `tobytes` copies where it lay in the file
    for tag in list(exif):
        if tag == ExifTags.Base.Orientation or (image.format == "TIFF" and tag not in _TIFF_METADATA):
            del exif[tag]
    return exif.tobytes() if len(exif) else None


def write_photo(photo: Photo, path: str | Path) -> None:
    """Writes a photograph in the format of the path's suffix; the file appears whole or not at all. Raises [`PhotoError`]."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise PhotoError(f"{path}: cannot write {suffix or 'a file without suffix'}; accepted are {', '.join(sorted(WRITERS))}.")
    image = photo.image
    if photo.alpha is not None and suffix not in _WITHOUT_ALPHA:
        image = image.copy()
        image.putalpha(photo.alpha)
    metadata: dict[str, Any] = {k: v for k, v in (("exif", photo.exif), ("icc_profile", photo.icc_profile)) if v}
    encoded = io.BytesIO()
    try:
        image.save(encoded, **WRITERS[suffix], **metadata)
        write_whole(path, encoded.getvalue())
    except (OSError, ValueError) as error:
        raise PhotoError(f"{path}: cannot be written: {_reason(error)}") from error


def restore_photo(pipeline: FoundIRPipeline, photo: Photo, **options: Any) -> Photo:
    """Restores the picture of a photograph; transparency is enlarged with it and everything else is kept.

    Args:
        pipeline: From [`~foundir_hf.load_pipeline`].
        photo: From [`read_photo`].
        options: Of [`FoundIRPipeline.__call__`].
    """
    restored = pipeline(photo.image, **options).images[0]
    if photo.image.mode == "L":
        restored = restored.convert("L")
    alpha = photo.alpha
    if alpha is not None and alpha.size != restored.size:
        alpha = alpha.resize(restored.size, PIL.Image.Resampling.BICUBIC)
    return replace(photo, image=restored, alpha=alpha)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
