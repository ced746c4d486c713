"""From a configuration's name to fresh components, from a checkpoint to its own, from SDXL to those that start as it."""

from __future__ import annotations

import logging

import torch
from diffusers import AutoencoderKL, DDIMScheduler, SchedulerMixin
from torch import nn

from ..adapters.attach import add_adapter
from ..adapters.files import Base
from ..configurations import CONFIGURATIONS
from ..hub import load_pipeline, read_index
from ..models.cosine_autoencoder_foundir import FoundIRCosineAutoencoder
from ..models.lq_encoder_foundir import FoundIRLQEncoder, FoundIRPyramidEncoder
from ..models.tone_curves_foundir import FoundIRToneCurves
from ..models.unet_foundir import FoundIRUNet2DConditionModel
from .config import TrainConfig
from .objectives import FoundIRModules
from .sdxl import is_sdxl, modules_from_sdxl

logger = logging.getLogger(__name__)


def prepare_modules(config: TrainConfig) -> tuple[FoundIRModules, SchedulerMixin]:
    """The components that a recipe starts from, with a fresh adapter if it trains one, and their noise schedule."""
    if config.initial_checkpoint is None:
        return build_modules(config.configuration, config.seed, **config.unet)
    if config.adapter is None:
        return load_modules(config.initial_checkpoint, config.seed, **config.unet)
    if is_sdxl(read_index(config.initial_checkpoint)):
        raise ValueError(f"`adapter` needs a FoundIR checkpoint; {config.initial_checkpoint!r} is plain SDXL, which does not restore yet.")
    modules, noise_scheduler = load_modules(config.initial_checkpoint, config.seed, **config.unet)
    torch.manual_seed(config.seed)
    logger.info("Adapter: %s", add_adapter(modules, config.adapter))
    modules.base = Base.of_checkpoint(config.initial_checkpoint)
    return modules, noise_scheduler


def load_modules(checkpoint: str, seed: int = 0, **unet_config) -> tuple[FoundIRModules, SchedulerMixin]:
    """The components of a checkpoint in single precision, ready to train, and its noise schedule.

    Args:
        checkpoint: One of ours (see [`~foundir_hf.hub.resolve_checkpoint`]), or a folder or Hub repository of plain SDXL (see
            [`~foundir_hf.training.sdxl.modules_from_sdxl`]).
        seed: Of what is fresh in a start from SDXL.
        unet_config: Our own entries of the UNet's configuration in a start from SDXL, `moe_routing="hard"` for one. A checkpoint of ours
            brings its own, and takes none.
    """
    if is_sdxl(read_index(checkpoint)):
        modules, noise_scheduler = modules_from_sdxl(checkpoint, seed, **unet_config)
        return modules.train(), noise_scheduler
    if unet_config:
        raise ValueError(f"`unet_config` must be empty: {checkpoint!r} is a FoundIR checkpoint and brings its own, got {unet_config}.")
    pipeline = load_pipeline(checkpoint, dtype=torch.float32)
    return FoundIRModules(pipeline.vae, pipeline.lq_encoder, pipeline.unet, pipeline.tone).train(), pipeline.scheduler


def build_modules(configuration: str, seed: int = 0, **unet_config) -> tuple[FoundIRModules, SchedulerMixin]:
    """Freshly initialised components of a named size and the noise schedule they are trained with.

    Args:
        configuration: Name of the size.
        seed: Of the weights.
        unet_config: Entries of the UNet's configuration that differ from that size's, `moe_routing="hard"` for one.
    """
    try:
        sizes = CONFIGURATIONS[configuration]
    except KeyError:
        raise ValueError(f"`configuration` must be one of {', '.join(CONFIGURATIONS)}; got {configuration!r}.") from None
    torch.manual_seed(seed)
    unet = FoundIRUNet2DConditionModel(**{**sizes["unet"], **unet_config})
    if "tone" not in sizes:
        modules = FoundIRModules(AutoencoderKL(**sizes["vae"]), FoundIRLQEncoder(**sizes["lq_encoder"]), unet)
    else:
        # A residual starts at none. The stem need not start at none too, as one that is put before a trained UNet.
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias[:-1])  # pyright: ignore[reportOptionalSubscript]  the last is the gate's
        unet.conv_in.projection.reset_parameters()
        unet.conv_in.condition_embedding.conv_out.reset_parameters()
        vae, lq_encoder = FoundIRCosineAutoencoder(**sizes["vae"]), FoundIRPyramidEncoder(**sizes["lq_encoder"])
        modules = FoundIRModules(vae, lq_encoder, unet, FoundIRToneCurves(**sizes["tone"]))
    return modules, DDIMScheduler(**sizes["scheduler"])
