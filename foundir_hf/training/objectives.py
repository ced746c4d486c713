"""What each stage minimises. An objective takes the modules, a batch and random numbers, and returns a scalar loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from torch import nn

from ..adapters.files import Base
from ..data.pairs import PairBatch
from ..models.autoencoder_foundir import FoundIRAutoencoderKL
from ..models.lq_encoder_foundir import FoundIRLQEncoder
from ..models.unet_foundir import FoundIRUNet2DConditionModel
from .config import StageConfig

KL_WEIGHT = 1e-6  # Latent Diffusion (CVPR 2022) keeps the latent's scale in hand with as little pressure


class FoundIRModules(nn.Module):
    """The trained components as one module, so that one wrapper (DDP, FSDP) sees all of them.

    `forward` runs the objective of `stage`, a function of this file. `base` is what they are where they carry an adapter, which is then
    what is trained.
    """

    def __init__(self, vae: FoundIRAutoencoderKL, lq_encoder: FoundIRLQEncoder, unet: FoundIRUNet2DConditionModel):
        super().__init__()
        self.vae, self.lq_encoder, self.unet = vae, lq_encoder, unet
        self.base: Base | None = None

    def forward(self, stage: StageConfig, batch: PairBatch, noise_scheduler: SchedulerMixin, generator: torch.Generator) -> torch.Tensor:
        return OBJECTIVES[stage.objective](self, stage, batch, noise_scheduler, generator)

    def encode_latents(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Images in [-1, 1] -> scaled latents. Not differentiable: the autoencoder is a fixed frame for the diffusion."""
        with torch.no_grad():
            return self.vae.encode(images).latent_dist.sample(generator) * self.vae.config.scaling_factor

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor | int, lq_hidden_states: torch.Tensor) -> torch.Tensor:
        """The denoiser's prediction without captions: a UNet that asks for text gets an empty prompt."""
        height, width = (side * self.vae.scale_factor for side in latents.shape[2:])
        text = self.unet.empty_prompt(len(latents), height, width)
        return self.unet(latents, timestep, lq_hidden_states=lq_hidden_states, **text).sample


def autoencoder(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """Reconstruction of clean photographs by the plain VAE: L1 + KL."""
    posterior = modules.vae.encode(batch.hq).latent_dist
    reconstruction = modules.vae.decode(posterior.sample(generator), fidelity=0).sample
    return F.l1_loss(reconstruction, batch.hq) + KL_WEIGHT * posterior.kl().mean()


def diffusion(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """Denoising of clean latents under the degraded image (Eq. 2): L1 on the prediction, uniform timesteps."""
    latents = modules.encode_latents(batch.hq, generator)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    if stage.noise_offset:
        noise = noise + stage.noise_offset * torch.randn((*latents.shape[:2], 1, 1), generator=generator, device=latents.device)
    num_timesteps = noise_scheduler.config.num_train_timesteps
    timesteps = torch.randint(num_timesteps, (len(latents),), generator=generator, device=latents.device)
    noisy = noise_scheduler.add_noise(latents, noise, timesteps)
    lq_hidden_states = modules.lq_encoder(batch.lq, batch.thumbnail, batch.region).lq_hidden_states
    prediction = modules.predict(noisy, timesteps, lq_hidden_states)
    is_velocity = noise_scheduler.config.prediction_type == "v_prediction"
    target = noise_scheduler.get_velocity(latents, noise, timesteps) if is_velocity else noise
    return F.l1_loss(prediction, target)


def end_to_end(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """One-step restoration, trained through the decoder; now and then diffusion, and now and then the plain decoder."""
    draw = torch.rand((), generator=generator, device=batch.lq.device).item()
    if draw < stage.diffusion_share:
        return diffusion(modules, stage, batch, noise_scheduler, generator)
    fidelity = 0.0 if draw < stage.diffusion_share + stage.plain_share else 1.0
    return restoration_loss(
        restore_in_one_step(modules, batch, noise_scheduler, generator, fidelity), batch.hq, stage.loss, stage.loss_floor
    )


def refinement(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """The LQ encoder's refiner alone, on damage that it can undo by itself: without the rest of the model a crop costs a quarter."""
    return restoration_loss(refine(modules, batch), batch.hq, stage.loss, stage.loss_floor)


def refine(modules: FoundIRModules, batch: PairBatch) -> torch.Tensor:
    """What the refiner makes of the degraded images. Raises `ValueError` where there is none."""
    if modules.lq_encoder.refiner is None:
        raise ValueError("`objective: refinement` needs an LQ encoder with a refiner; this configuration has `refiner_channels: null`.")
    return modules.lq_encoder.refiner(batch.lq)


def lq_pixels(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """Refiner and tone curves together, as the LQ encoder has them: what adapts these two alone need not run what comes after them."""
    if modules.lq_encoder.refiner is None and modules.lq_encoder.tone_curves is None:
        raise ValueError("`objective: lq_pixels` needs an LQ encoder with a refiner or tone curves; this configuration has neither.")
    pixel_values, _ = modules.lq_encoder.restore_pixels(batch.lq, batch.thumbnail, batch.region)
    return restoration_loss(pixel_values, batch.hq, stage.loss, stage.loss_floor)


def toning(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """The LQ encoder's tone curves alone, on thumbnails of whole views: no pixel of full size is needed to tell darkness and haze."""
    truth = F.adaptive_avg_pool2d(batch.hq, batch.thumbnail.shape[-1])
    return restoration_loss(tone(modules, batch.thumbnail, batch), truth, stage.loss, stage.loss_floor)


def tone(modules: FoundIRModules, images: torch.Tensor, batch: PairBatch) -> torch.Tensor:
    """What the tone curves make of `images`, which show what the batch's thumbnails show. Raises `ValueError` where there are none."""
    curves = modules.lq_encoder.tone_curves
    if curves is None:
        raise ValueError("`objective: toning` needs an LQ encoder with tone curves; this configuration has `tone_channels: null`.")
    return curves.apply_to(images, curves(batch.thumbnail))


def restore_in_one_step(
    modules: FoundIRModules, batch: PairBatch, noise_scheduler: SchedulerMixin, generator: torch.Generator, fidelity: float = 1.0
) -> torch.Tensor:
    """What the pipeline does with `num_inference_steps=1`, differentiably: noise at the last timestep -> clean latents -> image."""
    encoded = modules.lq_encoder(batch.lq, batch.thumbnail, batch.region)
    shape = (len(batch.lq), modules.vae.config.latent_channels, *encoded.lq_hidden_states.shape[2:])
    noise = torch.randn(shape, generator=generator, device=batch.lq.device)
    last = noise_scheduler.config.num_train_timesteps - 1
    prediction = modules.predict(noise, last, encoded.lq_hidden_states)
    # What a scheduler calls `pred_original_sample`. With zero terminal SNR, alpha is 0 here and the noise drops out.
    alpha = noise_scheduler.alphas_cumprod[last].sqrt().to(noise)
    sigma = (1 - alpha**2).sqrt()
    is_velocity = noise_scheduler.config.prediction_type == "v_prediction"
    latents = alpha * noise - sigma * prediction if is_velocity else (noise - sigma * prediction) / alpha
    latents = latents / modules.vae.config.scaling_factor
    return modules.vae.decode(
        latents,
        lq_features=encoded.lq_features,
        lq_pixel_values=encoded.lq_pixel_values,
        whole_image_embeds=encoded.whole_image_embeds,
        fidelity=fidelity,
    ).sample


def restoration_loss(
    prediction: torch.Tensor, target: torch.Tensor, kind: Literal["rmse", "psnr", "balanced"], floor: float = 1e-4
) -> torch.Tensor:
    """Mean over images of each image's RMSE, or of its logarithm; images in [-1, 1], errors of [0, 1].

    `"rmse"`: every image pulls equally hard, whatever its error. Haze and darkness are learnt first, at the cost of what was almost clean.
    `"psnr"`, the negative PSNR in units of 20 dB (HINet, CVPRW 2021): every image pulls in proportion to what its decibels would notice,
    which repairs that cost. From the start it would hold a model of a dozen mixed tasks at the identity: measured, 250 steps and no gain.
    `"balanced"`: the sum of `"psnr"` and ten times `"rmse"`. A clean photograph (1 % error) pulls 5 times as hard as a dark one (30 %), not
    30 times as with `"psnr"` or equally as with `"rmse"`. Measured: 800 steps of `"psnr"` on crops of full detail in narrow surroundings
    lost what was known of darkness, 450 steps of this on wider ones gained 4 dB there and still harmed blur.
    `floor`, a squared error that counts as good enough (1e-4 is 40 dB), keeps the gradient of clean inputs in bounds.
    """
    error = ((prediction.float() - target.float()) / 2).square().mean(dim=(1, 2, 3)) + floor
    rmse, negative_psnr = error.sqrt().mean(), error.log10().mean() / 2
    return {"rmse": rmse, "psnr": negative_psnr, "balanced": negative_psnr + 10 * rmse}[kind]


OBJECTIVES: dict[str, Callable[..., torch.Tensor]] = {
    "autoencoder": autoencoder,
    "diffusion": diffusion,
    "end_to_end": end_to_end,
    "refinement": refinement,
    "lq_pixels": lq_pixels,
    "toning": toning,
}
