"""Changes to clean photographs that leave them clean."""

from __future__ import annotations

import torch

from .degradations.sampling import chance, log_uniform, to_linear, to_srgb, uniform


def tone_jitter(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    share: float,
    exposure: tuple[float, float] = (0.35, 1.2),
    gamma: tuple[float, float] = (0.8, 1.25),
    contrast: tuple[float, float] = (0.65, 1.1),
    saturation: tuple[float, float] = (0.5, 1.25),
) -> torch.Tensor:
    """Gives a `share` of the images another exposure, tone curve, contrast and saturation: photographs that somebody else would have meant.

    A small training set is learnt by heart without it: the model knows how bright and how clear each photograph ought to be, and "repairs"
    the dark and pale ones it has never seen. Measured after 40,000 crops of 469 photographs: low light +14 dB, and every mild damage of
    eight unknown photographs 2 to 4 dB below its input, nearly all of it a wrong tone.

    Args:
        images: `(batch, 3, height, width)` in [0, 1]; every image draws its own.
        generator: On the images' device.
        share: Of the images that are changed.
        exposure: Factor in linear light.
        gamma: Exponent in linear light.
        contrast: Factor on the distance from the image's mean.
        saturation: Factor on the distance from grey.
    """
    toned = to_srgb(to_linear(images) ** log_uniform(images, generator, *gamma) * log_uniform(images, generator, *exposure))
    mean = toned.mean(dim=(1, 2, 3), keepdim=True)
    toned = mean + (toned - mean) * uniform(images, generator, *contrast)
    grey = toned.mean(dim=1, keepdim=True)
    toned = grey + (toned - grey) * uniform(images, generator, *saturation)
    return torch.where(chance(images, generator, share), toned.clamp(0, 1), images)
