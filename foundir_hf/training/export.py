"""From trained components to a checkpoint that ships: a pipeline, or an adapter of one."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from diffusers import SchedulerMixin

from ..adapters.files import save_adapter
from ..pipelines.pipeline_foundir import FoundIRPipeline
from .objectives import FoundIRModules


def save_pipeline(modules: FoundIRModules, noise_scheduler: SchedulerMixin, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes a pipeline folder, weights in `dtype`; `modules` stay as they are."""
    parts = {name: copy.deepcopy(module).to("cpu", dtype).eval() for name, module in modules.components().items()}
    FoundIRPipeline(**parts, scheduler=noise_scheduler).save_pretrained(folder)


def result_name(modules: FoundIRModules) -> str:
    """What a run's folder calls its result: `adapter` where `modules` carry one."""
    return "pipeline" if modules.base is None else "adapter"


def save_result(modules: FoundIRModules, noise_scheduler: SchedulerMixin, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes the adapter that `modules` carry, in the precision that it is trained in, or else a pipeline, see [`save_pipeline`]."""
    if modules.base is None:
        save_pipeline(modules, noise_scheduler, folder, dtype)
    else:
        save_adapter(modules, folder, modules.base)
