"""Random parameters for degradations, one per image of a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def uniform(images: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """One number per image, uniform in [low, high]: `(batch, 1, 1, 1)`."""
    return low + (high - low) * torch.rand(images.shape[0], 1, 1, 1, generator=generator, device=images.device)


def log_uniform(images: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """One number per image whose logarithm is uniform: `(batch, 1, 1, 1)`."""
    return uniform(images, generator, math.log(low), math.log(high)).exp()


def normal(images: torch.Tensor, generator: torch.Generator, channels: int | None = None) -> torch.Tensor:
    """Standard normal noise of the images' size: `(batch, channels, height, width)`."""
    shape = (images.shape[0], channels or images.shape[1], *images.shape[2:])
    return torch.randn(shape, generator=generator, device=images.device)


def smooth_field(images: torch.Tensor, generator: torch.Generator, cells: int = 4) -> torch.Tensor:
    """A random map that varies over `1/cells` of the image, in [0, 1]: `(batch, 1, height, width)`."""
    coarse = torch.rand(images.shape[0], 1, cells, cells, generator=generator, device=images.device)
    return F.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1)


def to_linear(images: torch.Tensor) -> torch.Tensor:
    """sRGB -> linear light, by the 2.2 power law that camera simulations use."""
    return images.clamp(min=0) ** 2.2


def to_srgb(linear: torch.Tensor) -> torch.Tensor:
    """Linear light -> sRGB, the inverse of [`to_linear`]."""
    return linear.clamp(0, 1) ** (1 / 2.2)
