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
        By task, `[PSNR of the input, PSNR of the output]` in decibels, averaged over the photographs; in a `diffusion` stage the loss.
        Clean photographs are degraded by every task of the stage; pairs count for their own task. In the `autoencoder` stage the one
        entry `reconstruction`, `[PSNR]`.
    """
    modules.eval()
    device = next(modules.parameters()).device
    scores: dict[str, list[float]] = {}
    for task, members in _by_task(stage, photos).items():
        # The name decides for clean photographs only, and pairs may have a task that is none of ours.
        degraded_by = task if task in stage.tasks else next(iter(stage.tasks))
        source = PairSource(members, {degraded_by: 1.0}, len(members), size, size, seed=7)
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


def _by_task(stage: StageConfig, photos: PhotoBank) -> dict[str, PhotoBank]:
    """The samples that each task is scored on."""
    if stage.objective == "autoencoder":  # no task matters to it
        return {"reconstruction": photos}
    own = [sample.task if sample.lq is not None else None for sample in photos.samples]
    names = dict.fromkeys([*stage.tasks, *(task for task in own if task is not None)])
    groups = {name: [i for i, task in enumerate(own) if task == name or (task is None and name in stage.tasks)] for name in names}
    return {name: photos.subset(which) for name, which in groups.items() if which}


def psnr(images: torch.Tensor, batch: PairBatch) -> float:
    """Mean PSNR in decibels against the batch's clean images, both in [-1, 1]; no more than 80 dB."""
    error = ((images.clamp(-1, 1) - batch.hq) / 2).square().mean(dim=(1, 2, 3)).clamp(min=1e-8)
    return round(float(-10 * error.log10().mean()), 3)
