"""Compression: what JPEG throws away."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .sampling import log_uniform

# Quantisation tables of ITU-T T.81, annex K, which libjpeg scales by its quality setting.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
) + (99,) * 32  # fmt: skip


def jpeg(images: torch.Tensor, generator: torch.Generator, *, quality: tuple[float, float] = (8, 80)) -> torch.Tensor:
    """Baseline JPEG with 4:2:0 chroma at a `quality` of libjpeg's scale [1, 100]: colour transform, DCT, quantisation and back.

    Entropy coding is lossless and left out, so this runs batched on any device. Low qualities are drawn more often.
    """
    quality_factor = log_uniform(images, generator, *quality).round()
    scale = torch.where(quality_factor < 50, 5000 / quality_factor, 200 - 2 * quality_factor)
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate") * 255
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], dim=1)  # Cb, Cr around 0

    luma = _quantise_blocks(luma.unsqueeze(1) - 128, _LUMA, scale).squeeze(1) + 128
    chroma = _quantise_blocks(F.avg_pool2d(chroma, 2), _CHROMA, scale)
    # libjpeg's "fancy" up-sampling is the triangle filter.
    cb, cr = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False).unbind(1)
    rgb = torch.stack([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], dim=1)
    return (rgb[..., :height, :width].round() / 255).clamp(0, 1)


def _quantise_blocks(planes: torch.Tensor, table: tuple[int, ...], scale: torch.Tensor) -> torch.Tensor:
    """DCT, rounding to multiples of the scaled table, inverse DCT; `planes` (B, C, H, W) with sides divisible by 8."""
    steps = torch.tensor(table, dtype=planes.dtype, device=planes.device).view(8, 8)
    steps = ((steps * scale + 50) / 100).floor().clamp(1, 255)[:, None, None]  # (B, 1, 1, 1, 8, 8)
    transform = _dct_matrix(planes.device, planes.dtype)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (B, C, H/8, W/8, 8, 8)
    coefficients = transform @ blocks @ transform.T
    coefficients = (coefficients / steps).round() * steps
    blocks = transform.T @ coefficients @ transform
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _dct_matrix(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The orthonormal DCT-II of length 8."""
    index = torch.arange(8, device=device, dtype=dtype)
    matrix = torch.cos((2 * index[None, :] + 1) * index[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix
