"""The best that a perfect diffusion could give: the truth's own latents, decoded with the features of the degraded image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from ..pipelines.pipeline_foundir import FoundIRPipeline
from ..pipelines.tiling_foundir import TileGrid


@torch.no_grad()
def truth_latents(pipeline: FoundIRPipeline, truth: np.ndarray, *, tile_size: int | None, tile_overlap: int) -> torch.Tensor:
    """`(height, width, 3)`, `uint8` -> scaled latents `(1, channels, height / scale, width / scale)`, encoded tile by tile."""
    vae, scale, multiple = pipeline.vae, pipeline.latent_scale_factor, pipeline.size_multiple
    padded = np.pad(truth, [(0, -side % multiple) for side in truth.shape[:2]] + [(0, 0)], mode="reflect")
    pixels = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1
    height, width = (side // scale for side in pixels.shape[2:])
    grid = TileGrid(height, width, None if tile_size is None else tile_size // scale, tile_overlap // scale)
    device = pipeline._execution_device
    latents = torch.zeros(1, vae.config.latent_channels, height, width, device=device)
    for tile, blend in zip(grid.tiles(scale), grid.tiles(device=device), strict=True):
        posterior = vae.encode(tile.of(pixels).to(device, vae.dtype)).latent_dist
        blend.of(latents).add_(posterior.mode().float() * blend.weight)
    return latents * vae.config.scaling_factor


def ceiling(pipeline: FoundIRPipeline, degraded: Any, truth: np.ndarray, **options: Any) -> Image.Image:
    """Restores `degraded` as the pipeline does, except that the diffusion's result is replaced by the truth's latents.

    Args:
        degraded: As [`FoundIRPipeline.__call__`] takes it; of the truth's size.
        truth: `(height, width, 3)`, `uint8`.
        options: Of [`FoundIRPipeline.__call__`]; the number of steps and the prompt do not matter.
    """
    tiles = {"tile_size": options.get("tile_size", 1024), "tile_overlap": options.get("tile_overlap", 128)}
    latents = truth_latents(pipeline, truth, **tiles)
    one_step = {**options, "num_inference_steps": 1, "callback_on_step_end": lambda *_: {"latents": latents}}
    return pipeline(degraded, **one_step).images[0]
