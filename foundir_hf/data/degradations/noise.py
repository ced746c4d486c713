"""Noise: what the sensor adds."""

from __future__ import annotations

import torch

from .sampling import log_uniform, normal, to_linear, to_srgb, uniform


def gaussian_noise(
    images: torch.Tensor, generator: torch.Generator, *, sigma: tuple[float, float] = (5, 55), clip: bool = True
) -> torch.Tensor:
    """White Gaussian noise; `sigma` in grey levels of 255 (DnCNN, TIP 2017: blind denoising draws from [0, 55])."""
    noisy = images + uniform(images, generator, *sigma) / 255 * normal(images, generator)
    return noisy.clamp(0, 1) if clip else noisy


def camera_noise(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    shot: tuple[float, float] = (1e-4, 1.2e-2),
    read: tuple[float, float] = (1e-3, 2e-2),
    chroma: tuple[float, float] = (0.0, 0.7),
) -> torch.Tensor:
    """Heteroscedastic noise in linear light: variance `shot * signal + read^2` (Foi et al., TIP 2008; Brooks et al., CVPR 2019).

    Demosaicking and in-camera filters smear it, so a share `chroma` of it is averaged over 3x3 neighbours, which makes blotches of colour.
    """
    linear = to_linear(images)
    deviation = (log_uniform(images, generator, *shot) * linear + log_uniform(images, generator, *read) ** 2).sqrt()
    white = normal(images, generator)
    blotches = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1, count_include_pad=False) * 3
    share = uniform(images, generator, *chroma)
    noise = (1 - share) * white + share * blotches
    return to_srgb(linear + deviation * noise)
