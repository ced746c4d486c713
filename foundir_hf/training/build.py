"""From a configuration's name to fresh components."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, SchedulerMixin

from ..configurations import CONFIGURATIONS
from ..hub import load_pipeline
from ..models.autoencoder_foundir import FoundIRAutoencoderKL
from ..models.lq_encoder_foundir import FoundIRLQEncoder
from ..models.unet_foundir import FoundIRUNet2DConditionModel
from .objectives import FoundIRModules


def load_modules(checkpoint: str) -> tuple[FoundIRModules, SchedulerMixin]:
    """The components of a checkpoint (see [`~foundir_hf.hub.resolve_checkpoint`]) in single precision, ready to train, and its schedule."""
    pipeline = load_pipeline(checkpoint, dtype=torch.float32)
    return FoundIRModules(pipeline.vae, pipeline.lq_encoder, pipeline.unet).train(), pipeline.scheduler


def build_modules(configuration: str, seed: int = 0) -> tuple[FoundIRModules, SchedulerMixin]:
    """Freshly initialised components of a named size and the noise schedule they are trained with."""
    try:
        sizes = CONFIGURATIONS[configuration]
    except KeyError:
        raise ValueError(f"`configuration` must be one of {', '.join(CONFIGURATIONS)}; got {configuration!r}.") from None
    torch.manual_seed(seed)
    modules = FoundIRModules(
        FoundIRAutoencoderKL(**sizes["vae"]), FoundIRLQEncoder(**sizes["lq_encoder"]), FoundIRUNet2DConditionModel(**sizes["unet"])
    )
    return modules, DDIMScheduler(**sizes["scheduler"])
