"""Colours that are not grey or RGB, by LittleCMS."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from PIL import ImageCms


def from_cmyk(inks: np.ndarray, profile: bytes | None) -> np.ndarray:
    """CMYK `(height, width, 4)`, `uint8`, full ink at 255 -> sRGB; by its profile if it has one that can be read, or else plainly."""
    image = PIL.Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), np.ascontiguousarray(inks).tobytes())
    if profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return np.asarray(ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"))
        except (ImageCms.PyCMSError, OSError):  # of another kind of device, or damaged
            pass
    return np.asarray(image.convert("RGB"))


def from_lab(lab: np.ndarray, *, signed: bool) -> np.ndarray:
    """CIELAB `(height, width, 3)`, `uint8` -> sRGB; `signed` says whether a* and b* are told from -128 or from 0."""
    shifted = lab ^ np.array([0, 128, 128], np.uint8) if signed else lab
    image = PIL.Image.frombytes("LAB", (lab.shape[1], lab.shape[0]), _as_pillow(shifted))
    converted = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")
    return np.asarray(converted)


def _as_pillow(lab: np.ndarray) -> bytes:
    # Pillow's raw reader of this mode turns the sign of a* and b* itself.
    return np.ascontiguousarray(lab ^ np.array([0, 128, 128], np.uint8)).tobytes()
