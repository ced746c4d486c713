"""Illumination: too little light."""

from __future__ import annotations

import torch

from .sampling import log_uniform, normal, to_linear, to_srgb, uniform


def low_light(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    exposure: tuple[float, float] = (0.05, 0.5),
    gamma: tuple[float, float] = (1.0, 1.3),
    noise: tuple[float, float] = (0.0, 0.006),
) -> torch.Tensor:
    """Under-exposure: `exposure` of the light (linear), a darker tone curve, and the sensor's read `noise` that the dark leaves visible."""
    dark = to_linear(images) ** uniform(images, generator, *gamma) * log_uniform(images, generator, *exposure)
    dark = dark + uniform(images, generator, *noise) * (dark + 0.01).sqrt() * normal(images, generator)
    return to_srgb(dark)
