"""A quick look at the validation photographs while training: what each task gains over its input."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import SchedulerMixin

from ..data.pairs import PairBatch, PairSource
from ..data.photos import PhotoBank
from .config import StageConfig
from .objectives import FoundIRModules, diffusion, restore_in_one_step


@torch.no_grad()
def validate(
    modules: FoundIRModules, stage: StageConfig, noise_scheduler: SchedulerMixin, photos: PhotoBank, size: int = 192
) -> dict[str, list[float]]:
    """Scores of one seeded crop of every validation photograph.

    Returns:
        By task, `[PSNR of the input, PSNR of the output]` in decibels, averaged over the photographs. In the `autoencoder` stage the one
        entry `reconstruction`, `[PSNR]`; in a `diffusion` stage the one entry `loss`.
    """
    modules.eval()
    device = next(modules.parameters()).device
    scores: dict[str, list[float]] = {}
    for task in stage.tasks:
        source = PairSource(photos, {task: 1.0}, len(photos), size, size, seed=7)
        generator = source.generator(0)
        batch = source.batch(generator)
        batch = replace(batch, hq=batch.hq.to(device), lq=batch.lq.to(device), thumbnail=batch.thumbnail.to(device))
        generator = torch.Generator(device).manual_seed(0)
        if stage.objective == "autoencoder":
            latents = modules.vae.encode(batch.hq).latent_dist.mode()
            scores["reconstruction"] = [psnr(modules.vae.decode(latents, fidelity=0).sample, batch)]
        elif stage.objective == "diffusion":
            scores[task] = [round(float(diffusion(modules, stage, batch, noise_scheduler, generator)), 4)]
        else:
            restored = restore_in_one_step(modules, batch, noise_scheduler, generator)
            scores[task] = [psnr(batch.lq, batch), psnr(restored, batch)]
    modules.train()
    return scores


def psnr(images: torch.Tensor, batch: PairBatch) -> float:
    """Mean PSNR in decibels against the batch's clean images, both in [-1, 1]; no more than 80 dB."""
    error = ((images.clamp(-1, 1) - batch.hq) / 2).square().mean(dim=(1, 2, 3)).clamp(min=1e-8)
    return round(float(-10 * error.log10().mean()), 3)
