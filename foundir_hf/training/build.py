"""From a configuration's name to fresh components."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

from ..configurations import CONFIGURATIONS
from ..models.autoencoder_foundir import FoundIRAutoencoderKL
from ..models.lq_encoder_foundir import FoundIRLQEncoder
from ..models.unet_foundir import FoundIRUNet2DConditionModel
from .objectives import FoundIRModules


def build_modules(configuration: str, seed: int = 0) -> tuple[FoundIRModules, DDIMScheduler]:
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
