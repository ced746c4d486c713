"""Weather: rain and haze between the camera and the scene."""

from __future__ import annotations

import math

import torch

from .blur import convolve, motion_psf
from .sampling import normal, smooth_field, uniform


def rain(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    length: tuple[float, float] = (8, 50),
    strength: tuple[float, float] = (0.3, 1.0),
    tilt: float = 0.7,
    veil: tuple[float, float] = (0.0, 0.15),
) -> torch.Tensor:
    """Streaks of falling drops: noise smeared along the fall (Garg and Nayar, 2007; the recipe behind the DDN set, CVPR 2017).

    Args:
        length: Of a streak, in pixels.
        strength: Brightness of the strongest streaks.
        tilt: Largest angle from the vertical, in radians.
        veil: Of the mist of distant drops, the share of grey light it adds.
    """
    upright = (math.pi / 2 - tilt, math.pi / 2 + tilt)
    drops = normal(images, generator, channels=1)
    # How sparse the drops are: only noise above this level makes a streak.
    drops = (drops - uniform(images, generator, 0.0, 2.2)).clamp(min=0)
    psf = motion_psf(images, generator, length=length, angle=upright, width=0.6)
    peak = drops.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    streaks = convolve(drops / peak, psf)
    low = streaks.mean(dim=(2, 3), keepdim=True)
    sample = streaks.flatten(1)
    sample = sample[:, :: 1 + (sample.shape[1] - 1) // 2**24]  # `quantile` takes no more than 2^24 values
    high = sample.quantile(0.995, dim=1).view(-1, 1, 1, 1)
    streaks = ((streaks - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    # Gusts: rain is not equally dense everywhere.
    gusts = 1 - uniform(images, generator, 0.0, 0.9) * smooth_field(images, generator, cells=3)
    streaks = streaks * gusts * uniform(images, generator, *strength)
    light = uniform(images, generator, 0.75, 1.0)
    misty = images + uniform(images, generator, *veil) * gusts * (light - images)
    return (misty + streaks * (light - 0.35 * misty).clamp(min=0)).clamp(0, 1)


def haze(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    density: tuple[float, float] = (0.4, 2.6),
    airlight: tuple[float, float] = (0.7, 1.0),
    tint: float = 0.04,
) -> torch.Tensor:
    """Atmospheric scattering: `I = J t + A (1 - t)` with `t = exp(-density * depth)` (Koschmieder; RESIDE, TIP 2019).

    A photograph has no depth map: the proxy rises from the bottom of the frame to its top and varies smoothly across it, in [0.25, 1].
    """
    height = images.shape[2]
    rise = torch.linspace(1, 0, height, device=images.device, dtype=images.dtype).view(1, 1, -1, 1)
    slope = uniform(images, generator, 0.0, 0.8)
    depth = 0.25 + 0.75 * (slope * rise + (1 - slope) * smooth_field(images, generator))
    transmission = torch.exp(-uniform(images, generator, *density) * depth)
    colour = uniform(images, generator, *airlight) + tint * (
        2 * torch.rand(images.shape[0], 3, 1, 1, generator=generator, device=images.device) - 1
    )
    return (images * transmission + colour.clamp(0, 1) * (1 - transmission)).clamp(0, 1)
