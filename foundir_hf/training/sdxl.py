"""The paper's start: components that compute what plain SDXL does until they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, SchedulerMixin, UNet2DConditionModel

from ..models.lq_encoder_foundir import FoundIRLQEncoder
from ..models.unet_foundir import FoundIRUNet2DConditionModel
from .objectives import FoundIRModules


def is_sdxl(index: Mapping[str, Any]) -> bool:
    """Whether a `model_index.json` is one of diffusers' SDXL pipelines."""
    return str(index.get("_class_name")).startswith("StableDiffusionXL")


def modules_from_sdxl(checkpoint: str, seed: int = 0, **unet_config) -> tuple[FoundIRModules, SchedulerMixin]:
    """FoundIR's components with the weights of a plain SDXL, in single precision, and its noise schedule.

    The UNet predicts what SDXL's does, the autoencoder is SDXL's, the LQ encoder is that autoencoder's encoder, as in the paper; stem and
    experts are fresh. Only these weights are fetched: no text encoder, no other format.

    Args:
        checkpoint: Folder or Hub repository in diffusers' layout, with safetensors; the fp16 variant serves where there is no other.
        seed: Of what is fresh.
        unet_config: Our own entries of [`FoundIRUNet2DConditionModel`]'s configuration, `moe_routing="hard"` for one.
    """
    torch.manual_seed(seed)
    vae = load_component(AutoencoderKL, checkpoint, "vae")
    lq_encoder = FoundIRLQEncoder.from_vae(vae)
    plain_unet = load_component(UNet2DConditionModel, checkpoint, "unet")
    for name in ("in_channels", "out_channels"):
        if plain_unet.config[name] != vae.config.latent_channels:
            raise ValueError(
                f"`checkpoint` {checkpoint!r} must be a text-to-image model: its UNet has `{name}` {plain_unet.config[name]}, its"
                f" autoencoder {vae.config.latent_channels} latent channels."
            )
    lq_channels = lq_encoder.config.block_out_channels[-1]
    unet = FoundIRUNet2DConditionModel.from_unet(plain_unet, lq_channels=lq_channels, **unet_config)
    # Latents are never clipped; DDIM would, by default, where another scheduler's configuration says nothing of it.
    noise_scheduler: Any = DDIMScheduler.from_pretrained(checkpoint, subfolder="scheduler", clip_sample=False)
    return FoundIRModules(vae, lq_encoder, unet), noise_scheduler


def load_component(
    model_class: Any, source: str, name: str | None, dtype: torch.dtype = torch.float32, *, argument: str = "checkpoint"
) -> Any:
    """One component of diffusers or transformers from safetensors, whole or not at all.

    Args:
        model_class: Its class.
        source: Folder or Hub repository; the fp16 variant serves where there is no other.
        name: Sub-folder of it, if any.
        dtype: Of the weights.
        argument: What messages call `source`.

    Raises:
        ValueError: If there are no such weights, or some are missing, left over or of another shape.
    """
    what = name or model_class.__name__
    for variant in (None, "fp16"):
        try:
            model, report = model_class.from_pretrained(
                source, subfolder=name or "", variant=variant, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
        except OSError as error:
            reason = error
            continue
        except RuntimeError as error:  # weights of other shapes
            raise ValueError(
                f"`{argument}` {source!r}: {what} is no {model_class.__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
        astray = {problem: sorted(keys) for problem, keys in report.items() if keys}
        if astray:
            raise ValueError(f"`{argument}` {source!r}: {what} is no {model_class.__name__} of SDXL: {astray}.")
        return model
    raise ValueError(f"`{argument}` {source!r} has no safetensors of {what}, plain or fp16: {reason}")
