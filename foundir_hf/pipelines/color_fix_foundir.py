"""Colour fixes: hand the input's colours to the output when a restoration drifted. Tensors in, tensors out.

Both take the colours of the *degraded* image for right, so they undo what dehazing and brightening did; they are for super-resolution.

Hub code: this file is copied verbatim next to the pipeline, so it imports torch only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def adain_color_fix(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Gives each channel of `images` the mean and deviation of `reference`'s (AdaIN, ICCV 2017): both `(B, C, H, W)`."""
    (mean, deviation), (wanted_mean, wanted_deviation) = _statistics(images), _statistics(reference)
    scale = wanted_deviation / deviation.clamp(min=1e-5)
    return images * scale.to(images.dtype) + (wanted_mean - mean * scale).to(images.dtype)


def _statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each channel, `(B, C, 1, 1)`, in double precision: the last bits of sums in single precision depend on how the
    pixels lie in memory, and so on whether they came with 8 or 16 bits. By bands of rows, since twice the precision is twice the memory."""
    total, squares = (images.new_zeros(*images.shape[:2], 1, 1, dtype=torch.float64) for _ in range(2))
    for band in images.split(256, dim=2):
        wide = band.double()
        total += wide.sum(dim=(2, 3), keepdim=True)
        squares += wide.square().sum(dim=(2, 3), keepdim=True)
    count = images.shape[2] * images.shape[3]
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt()


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
