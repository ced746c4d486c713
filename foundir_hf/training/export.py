"""From trained components to a checkpoint that ships."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import SchedulerMixin

from ..pipelines.pipeline_foundir import FoundIRPipeline
from .objectives import FoundIRModules


def save_pipeline(modules: FoundIRModules, noise_scheduler: SchedulerMixin, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a pipeline folder, weights in `dtype`; `modules` stay as they are."""
    parts = {name: copy.deepcopy(getattr(modules, name)).to("cpu", dtype).eval() for name in ("vae", "lq_encoder", "unet")}
    FoundIRPipeline(**parts, scheduler=noise_scheduler).save_pretrained(folder)
