"""Colours that are not grey or RGB become sRGB, at their depth: CMYK by LittleCMS, CIELAB by its definition."""

from __future__ import annotations

from functools import cache

import imagecodecs
import numpy as np
import PIL.Image
from PIL import ImageCms

D50, D65 = (0.3457, 0.3585), (0.3127, 0.3290)
# Light as CIELAB has it, X, Y and Z as shares of those of white, to linear sRGB; white stays white. From D50 by Bradford's adaptation.
_TO_SRGB = {
    D65: [[3.0804, -1.5374, -0.5430], [-0.9213, 1.8760, 0.0453], [0.0529, -0.2040, 1.1511]],
    D50: [[3.0220, -1.6172, -0.4048], [-0.9437, 1.9161, 0.0276], [0.0694, -0.2290, 1.1596]],
}


@cache
def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def from_cmyk(inks: np.ndarray, profile: bytes | None, notes: list[str]) -> np.ndarray:
    """CMYK `(height, width, 4)`, `uint8` or `uint16`, full ink at the most -> sRGB; by its profile if it has one, or else plainly.

    A profile that cannot be used is told in `notes`.
    """
    if profile is not None:
        try:
            intent = imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC  # as most programs show it
            return imagecodecs.cms_transform(
                np.ascontiguousarray(inks),
                profile,
                _srgb(),
                colorspace="cmyk",
                outcolorspace="rgb",
                outdtype=inks.dtype.name,
                intent=intent,
            )
        except Exception:  # of another kind of device, or damaged: the library has several types
            notes.append("its colour profile cannot be read, so its CMYK became sRGB without")
    if inks.dtype == np.uint8:
        image = PIL.Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), np.ascontiguousarray(inks).tobytes())
        return np.asarray(image.convert("RGB"))
    light = (65535 - inks.astype(np.uint32)) * (65535 - inks[..., 3:].astype(np.uint32)) // 65535
    return light[..., :3].astype(np.uint16)


def from_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray, white: tuple[float, float] | None) -> np.ndarray:
    """CIELAB `(height, width)` each, L* in [0, 100] -> sRGB `(height, width, 3)`, `float32` in [0, 1].

    Args:
        lightness, a, b: The three.
        white: The chromaticity of its white; D65 is known, and all else is D50, as colour profiles have it.
    """
    near = white is not None and max(abs(white[0] - D65[0]), abs(white[1] - D65[1])) < 0.005
    y = (lightness + 16) / 116
    shares = np.stack([y + a / 500, y, y - b / 200], axis=-1)
    xyz = np.where(shares > 6 / 29, shares**3, 3 * (6 / 29) ** 2 * (shares - 4 / 29))
    linear = (xyz @ np.array(_TO_SRGB[D65 if near else D50]).T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)
