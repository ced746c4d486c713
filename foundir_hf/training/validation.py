"""What a model in training is worth: it restores the reference pairs. For the log, and for data equilibrium scheduling."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, pstdev

import numpy as np
import torch
from diffusers import SchedulerMixin

from ..data.pairs import PairBatch
from ..evaluation.metrics import REMOVED, Meter
from ..evaluation.perceptual import LOWER_IS_BETTER
from ..interpret import EXPERTS, record_routing
from ..pipelines.pipeline_foundir import FoundIRPipeline
from .config import StageConfig
from .objectives import FoundIRModules, diffusion, restore

CHUNK = 5  # pairs restored at once, however many there are: sums over other batches would round differently
SAMPLING_STEPS = 4  # of a model that cannot yet restore in one


@dataclass(frozen=True)
class TaskScore:
    """How the pairs of one task come out.

    Args:
        before, after: PSNR of each input and of each output in decibels.
        values: The outputs by the task's own metric; PSNR again where it has none.
        loss: In a `diffusion` stage, its loss.
        experts: Mean routing weight of each expert; empty where there is no router or the denoiser does not run.
        picture: Input, output and truth of the first pair side by side, `(3, height, 3 * width)` in [0, 1], on the CPU.
    """

    before: list[float]
    after: list[float]
    values: list[float]
    picture: torch.Tensor
    loss: float | None = None
    experts: dict[str, float] = field(default_factory=dict)

    def row(self) -> list[float]:
        """For the log: PSNR before and after, and the loss if there is one."""
        return [round(value, 4) for value in (fmean(self.before), fmean(self.after), self.loss) if value is not None]


Metric = Callable[[np.ndarray, np.ndarray], float]


def build_metrics(names: Mapping[str, str], device: torch.device) -> dict[str, Metric]:
    """Of each task that has a metric of its own, that metric: `(image, truth) -> value`, both `(height, width, 3)`, `uint8`.

    Args:
        names: By task, of [`~foundir_hf.evaluation.metrics.METRICS`] but `removed`, which is never trained on.
        device: Where perceptual metrics run.

    Raises:
        ValueError: For another name.
        MissingExtraError, PerceptualUnavailableError: If a library or weights are missing.
    """
    meters = {}
    for name in dict.fromkeys(names.values()):
        if name == REMOVED:
            raise ValueError(f"`metrics` must not hold {REMOVED!r}: whoever trains on it learns to fool the classifier.")
        meters[name] = Meter([name], device)
    # `None` where an image is too small for the metric: then it is no number, and the run says so.
    return {task: partial(_measure, meters[name], name) for task, name in names.items()}


def _measure(meter: Meter, name: str, image: np.ndarray, truth: np.ndarray) -> float:
    value = meter.measure(image, truth)[name]
    if value is None:
        raise ValueError(f"`reference_size` is too small for the metric {name!r}, got pairs of {image.shape[1]}x{image.shape[0]}.")
    return value


def metric_scales(scores: Mapping[str, TaskScore], metrics: Mapping[str, str]) -> dict[str, float]:
    """What makes the scores of tasks comparable that are judged by different metrics.

    A task's metric is told in decibels: one standard deviation of it over the task's reference pairs counts as much as one standard
    deviation of their PSNR, and its sign is turned where lower is better. PSNR itself is left as it is, so that with it alone the scores
    are those of Eq. 3. Meant to be taken once, at the first round, and kept.
    """
    scales = {}
    for task, score in scores.items():
        metric = metrics.get(task, "psnr")
        spread = pstdev(score.values)
        known = metric != "psnr" and spread > 0 and pstdev(score.after) > 0
        scales[task] = (-1.0 if metric in LOWER_IS_BETTER else 1.0) * (pstdev(score.after) / spread if known else 1.0)
    return scales


@torch.no_grad()
def validate(
    modules: FoundIRModules,
    stage: StageConfig,
    noise_scheduler: SchedulerMixin,
    reference: Mapping[str, PairBatch],
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, TaskScore]:
    """Restores every task's reference pairs as far as the stage's objective has brought the model.

    In a `diffusion` stage that takes [`SAMPLING_STEPS`] denoising steps, in a `restoration` stage as many as it trains. The noise is the
    same at every call. `metrics` are the tasks' own, see [`build_metrics`].
    """
    modules.eval()
    device = next(modules.parameters()).device
    scores = {}
    for task, pairs in reference.items():
        before, after, values, losses, weights, picture = [], [], [], [], [], torch.empty(0)
        metric = (metrics or {}).get(task)
        for start in range(0, len(pairs.hq), CHUNK):
            chosen = slice(start, start + CHUNK)
            batch = PairBatch(pairs.hq[chosen].to(device), pairs.lq[chosen].to(device), pairs.tasks[chosen])
            generator = torch.Generator(device).manual_seed(start)
            with record_routing(modules.unet) if modules.unet.config.moe_routing != "none" else nullcontext([]) as maps:
                restored = _restore(modules, stage, batch, noise_scheduler, generator).clamp(-1, 1)
            weights += [weight.mean(dim=(2, 3)) for weight in maps]
            before += psnr(batch.lq, batch.hq).tolist()
            after += psnr(restored, batch.hq).tolist()
            if metric is not None:
                values += [metric(*images) for images in zip(_to_uint8(restored), _to_uint8(batch.hq), strict=True)]
            if stage.objective == "diffusion":
                losses.append(diffusion(modules, stage, batch, noise_scheduler, generator).float().reshape(1))
            if start == 0:
                picture = (torch.cat([batch.lq[0], restored[0], batch.hq[0]], dim=2).float().cpu() + 1) / 2
        loss = float(torch.cat(losses).mean()) if losses else None
        experts = dict(zip(EXPERTS, torch.cat(weights).mean(dim=0).tolist(), strict=True)) if weights else {}
        scores[task] = TaskScore(before, after, values or after, picture, loss, experts)
    modules.train()
    return scores


def _restore(
    modules: FoundIRModules, stage: StageConfig, batch: PairBatch, noise_scheduler: SchedulerMixin, generator: torch.Generator
) -> torch.Tensor:
    if stage.objective == "restoration":
        picture = restore(modules, stage, batch.lq, noise_scheduler, generator).picture
        return picture if modules.tone is None or stage.tone == "off" else modules.tone.toned(picture, stage.tone)
    pipeline = FoundIRPipeline(**modules.components(), scheduler=copy.deepcopy(noise_scheduler))
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": SAMPLING_STEPS, "tile_size": None, "tile_overlap": 0, "output_type": "pt"}
    restored = pipeline(list((batch.lq + 1) / 2), generator=generator, **options).images
    return torch.stack(list(restored)).to(batch.lq) * 2 - 1


def _to_uint8(images: torch.Tensor) -> np.ndarray:
    """`(batch, 3, height, width)` in [-1, 1] -> `(batch, height, width, 3)`."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(images: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """PSNR of each image in decibels, both in [-1, 1]; no more than 80 dB."""
    error = ((images.float().clamp(-1, 1) - truth) / 2).square().mean(dim=(1, 2, 3)).clamp(min=1e-8)
    return -10 * error.log10()
