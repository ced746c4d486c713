"""Weights for fresh models."""

from __future__ import annotations

import torch


def awaken(module: torch.nn.Module, std: float = 0.02) -> torch.nn.Module:
    """Gives zero-initialised layers small random weights, so that every path of a fresh model carries something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and not parameter.any():
                parameter.normal_(std=std, generator=generator)
    return module
