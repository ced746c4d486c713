"""Resolution: pictures that were made smaller and blown up again."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def downsample(images: torch.Tensor, generator: torch.Generator, *, factor: int = 4, smooth_share: float = 0.8) -> torch.Tensor:
    """Shrinks by `factor` (bicubic, anti-aliased, rounded to 8 bits) and enlarges to the old size.

    The enlargement is bicubic with probability `smooth_share`, otherwise bilinear or nearest (FoundIR-v2 draws among the three, so that all
    tasks share one resolution). One choice for the whole batch.
    """
    height, width = images.shape[2:]
    small_size = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = F.interpolate(images, size=small_size, mode="bicubic", antialias=True).mul(255).round().div(255).clamp(0, 1)
    draw = torch.rand((), generator=generator, device=images.device).item()
    if draw < smooth_share:
        mode, align_corners = "bicubic", False
    else:
        mode, align_corners = ("bilinear", False) if draw < (1 + smooth_share) / 2 else ("nearest", None)
    return F.interpolate(small, size=(height, width), mode=mode, align_corners=align_corners).clamp(0, 1)
