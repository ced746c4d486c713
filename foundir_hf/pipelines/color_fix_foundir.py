"""Colour fixes: hand the input's colours to the output when a restoration drifted. Tensors in, tensors out.

Both take the colours of the *degraded* image for right, so they undo what dehazing and brightening did; they are for super-resolution.

Hub code: this file is copied verbatim next to the pipeline, so it imports torch only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def adain_color_fix(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Gives each channel of `images` the mean and deviation of `reference`'s (AdaIN, ICCV 2017): both `(B, C, H, W)`."""
    mean, deviation = images.mean(dim=(2, 3), keepdim=True), images.std(dim=(2, 3), keepdim=True, correction=0)
    wanted_mean = reference.mean(dim=(2, 3), keepdim=True)
    wanted_deviation = reference.std(dim=(2, 3), keepdim=True, correction=0)
    return (images - mean) / deviation.clamp(min=1e-5) * wanted_deviation + wanted_mean


def wavelet_color_fix(images: torch.Tensor, reference: torch.Tensor, levels: int = 5) -> torch.Tensor:
    """Keeps the detail of `images` and takes the low frequencies of `reference` (StableSR, IJCV 2024): both `(B, C, H, W)`."""
    return images - _low_frequencies(images, levels) + _low_frequencies(reference, levels)


def _low_frequencies(images: torch.Tensor, levels: int) -> torch.Tensor:
    """The a-trous wavelet's approximation: a binomial 3x3 filter whose taps move apart by a factor of two a level."""
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=images.dtype, device=images.device)
    kernel = (taps[:, None] * taps[None, :]).expand(images.shape[1], 1, 3, 3)
    for level in range(levels):
        radius = 2**level
        padded = F.pad(images, (radius,) * 4, mode="replicate")
        images = F.conv2d(padded, kernel, dilation=radius, groups=images.shape[1])
    return images


COLOR_FIXES = {"adain": adain_color_fix, "wavelet": wavelet_color_fix}
