"""What a stage minimises. An objective takes the modules, a batch and random numbers, and returns a scalar loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from torch import nn

from ..adapters.files import Base
from ..data.pairs import PairBatch
from ..models.lq_encoder_foundir import FoundIRLQEncoder, FoundIRPyramidEncoder
from ..models.tone_curves_foundir import FoundIRToneCurves
from ..models.unet_foundir import FoundIRUNet2DConditionModel, FoundIRUNetOutput
from ..pipelines.pipeline_foundir import decode_latents, encode_latents
from .config import StageConfig

# Root mean square of what the thumbnails of degraded and clean image differ by, in [0, 1]: more than noise, blur or JPEG leave of it.
WRONG_TONES = 0.02


class FoundIRModules(nn.Module):
    """The trained components as one module, so that one wrapper (DDP, FSDP) sees all of them.

    `forward` runs the objective of `stage`, a function of this file. `base` is what they are where they carry an adapter, which is then
    what is trained.
    """

    def __init__(
        self,
        vae: Any,
        lq_encoder: FoundIRLQEncoder | FoundIRPyramidEncoder,
        unet: FoundIRUNet2DConditionModel,
        tone: FoundIRToneCurves | None = None,
    ):
        super().__init__()
        self.vae, self.lq_encoder, self.unet, self.tone = vae, lq_encoder, unet, tone
        self.base: Base | None = None

    def forward(self, stage: StageConfig, batch: PairBatch, noise_scheduler: SchedulerMixin, generator: torch.Generator) -> torch.Tensor:
        return OBJECTIVES[stage.objective](self, stage, batch, noise_scheduler, generator)

    def components(self) -> dict[str, nn.Module]:
        """By name, those that there are."""
        return {name: module for name, module in self.named_children() if module is not None}

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor | int, lq_hidden_states: torch.Tensor) -> FoundIRUNetOutput:
        """The denoiser's prediction without captions: a UNet that asks for text gets an empty prompt."""
        height, width = (side * self.lq_encoder.scale_factor for side in latents.shape[2:])
        text = self.unet.empty_prompt(len(latents), height, width)
        return self.unet(latents, timestep, lq_hidden_states=lq_hidden_states, **text)


class Restored(NamedTuple):
    """What [`restore`] makes of images, before tones are mended, in [-1, 1]: the picture, the LQ encoder's estimate, and the picture as it
    would be if the denoiser were sure of itself everywhere. Of the picture the gate alone has gradients, where there is one."""

    picture: torch.Tensor
    estimate: torch.Tensor
    ungated: torch.Tensor


def diffusion(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """Denoising of clean latents under the degraded image, the paper's objective (Eq. 2): L1 on the prediction, uniform timesteps."""
    encoded = modules.lq_encoder(batch.lq)
    latents = _target_latents(modules, batch.hq, encoded.estimate)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    if stage.noise_offset:
        noise = noise + stage.noise_offset * torch.randn((*latents.shape[:2], 1, 1), generator=generator, device=latents.device)
    num_timesteps = noise_scheduler.config.num_train_timesteps
    timesteps = torch.randint(num_timesteps, (len(latents),), generator=generator, device=latents.device)
    noisy = noise_scheduler.add_noise(latents, noise, timesteps)
    prediction = modules.predict(noisy, timesteps, encoded.lq_hidden_states).sample
    kind = noise_scheduler.config.prediction_type
    target = {"sample": lambda: latents, "v_prediction": lambda: noise_scheduler.get_velocity(latents, noise, timesteps)}
    return F.l1_loss(prediction, target.get(kind, lambda: noise)())


def restoration(modules: FoundIRModules, stage, batch, noise_scheduler, generator) -> torch.Tensor:
    """What users run, end to end: the estimate, one denoising step of its latents' residual, the tone curves, compared with the truth.

    A share of the images is denoised from a random timestep instead of the last, which keeps sampling in several steps alive. What has a
    gate, denoiser and curves, learns without it, by the stage's loss: a gate would hide what it does not do yet. The gate learns whether
    to let it through, by PSNR down to the stage's `gate_floor`: it alone answers for what was fine.
    """
    restored = restore(modules, stage, batch.lq, noise_scheduler, generator, truth=batch.hq)
    gated = restored.picture is not restored.ungated
    picture, ungated, truth = restored.picture, restored.ungated, batch.hq
    if modules.tone is not None and stage.tone != "off":
        learning = stage.tone == "auto" and any(parameter.requires_grad for parameter in modules.tone.parameters())
        picture = modules.tone.toned(picture, stage.tone)
        if learning:
            # Curves say what tones ought to be if they are wrong, so they learn where they are. Whether they are is the gate's business.
            thumbnails = (modules.tone.thumbnail(images) for images in (batch.lq, batch.hq))
            wrong = (next(thumbnails) - next(thumbnails)).square().mean(dim=(1, 2, 3)).sqrt() / 2 > WRONG_TONES
            ungated, truth = ungated[wrong], truth[wrong]
            ungated = modules.tone.toned(ungated, "always") if len(truth) else ungated
        gated = gated or learning
    # A denoiser that learns before finished curves learns regions as if there were none; its gate sees what they do with it.
    loss = restoration_loss(ungated, truth, stage.loss, stage.loss_floor) if len(truth) else 0 * ungated.sum()
    return loss + restoration_loss(picture, batch.hq, "psnr", stage.gate_floor) if gated else loss


def restore(
    modules: FoundIRModules,
    stage: StageConfig,
    lq: torch.Tensor,
    noise_scheduler: SchedulerMixin,
    generator: torch.Generator,
    truth: torch.Tensor | None = None,
) -> Restored:
    """What the pipeline does with `num_inference_steps` 0 or 1, differentiably, before tones are mended.

    Args:
        modules, stage: Of the stage, `num_inference_steps`, and the `diffusion_share` if there is a `truth`.
        lq: Degraded images, `(batch, 3, height, width)` in [-1, 1].
        noise_scheduler, generator: Of the diffusion.
        truth: Of these images; without it, all of them start from noise.
    """
    encoded = modules.lq_encoder(lq)
    estimate = encoded.estimate.float()
    if stage.num_inference_steps == 0:
        return Restored(estimate, estimate, estimate)
    lq_hidden_states = encoded.lq_hidden_states
    shape = (len(lq), modules.unet.config.in_channels, *lq_hidden_states.shape[2:])
    noisy = noise = torch.randn(shape, generator=generator, device=lq.device)
    last = noise_scheduler.config.num_train_timesteps - 1
    timesteps = torch.full((len(lq),), last, device=lq.device)
    if truth is not None and stage.diffusion_share:
        earlier = torch.rand(len(lq), generator=generator, device=lq.device) < stage.diffusion_share
        drawn = torch.randint(last, (len(lq),), generator=generator, device=lq.device)
        timesteps = torch.where(earlier, drawn, timesteps)
        if modules.tone is not None and stage.tone != "off":
            # The curves come after the denoiser, whose clean latents are therefore those of the truth before the curves; here as they are
            # for the estimate, because the picture is not there yet.
            with torch.no_grad():
                curves = modules.tone(modules.tone.thumbnail(estimate), stage.tone)
                truth = modules.tone.apply_curves(truth, curves, inverse=True).clamp(-1, 1)
        latents = _target_latents(modules, truth, estimate)
        noisy = torch.where(earlier.view(-1, 1, 1, 1), noise_scheduler.add_noise(latents, noise, timesteps), noise)
    output = modules.predict(noisy, timesteps, lq_hidden_states)
    residual = modules.unet.config.latent_residual
    # What a scheduler calls `pred_original_sample`, for a timestep an image.
    kind = noise_scheduler.config.prediction_type
    alpha = noise_scheduler.alphas_cumprod.to(noisy)[timesteps].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()

    def decoded(prediction: torch.Tensor) -> torch.Tensor:
        prediction = prediction.float()
        if kind == "sample":
            latents = prediction
        else:
            latents = alpha * noisy - sigma * prediction if kind == "v_prediction" else (noisy - sigma * prediction) / alpha
        return decode_latents(modules.vae, latents, estimate, residual=residual, fidelity=float(residual))

    if output.ungated is None or output.gate is None:
        picture = decoded(output.sample)
        return Restored(picture, estimate, picture)
    return Restored(decoded(output.ungated.detach() * output.gate), estimate, decoded(output.ungated))


def _target_latents(modules: FoundIRModules, truth: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
    """The clean latents of the diffusion. Not differentiable: the autoencoder is a fixed frame for it."""
    with torch.no_grad():
        latents = encode_latents(modules.vae, truth)
        return latents - encode_latents(modules.vae, estimate) if modules.unet.config.latent_residual else latents


def restoration_loss(
    prediction: torch.Tensor, target: torch.Tensor, kind: Literal["rmse", "psnr", "balanced"], floor: float = 1e-4
) -> torch.Tensor:
    """Mean over images of each image's RMSE, or of its logarithm; images in [-1, 1], errors of [0, 1].

    `"rmse"`, times ten: every image pulls equally hard, whatever its error. Haze and darkness are learnt first, what was almost clean pays.
    `"psnr"`, the negative PSNR in units of 20 dB (HINet, CVPRW 2021): every image pulls in proportion to what its decibels would notice,
    which repairs that cost. From the start it would hold a model of a dozen mixed tasks at the identity: measured, 250 steps and no gain.
    `"balanced"`: the sum of both. A clean photograph (1 % error) pulls 5 times as hard as a dark one (30 %), not
    30 times as with `"psnr"` or equally as with `"rmse"`.
    `floor`, a squared error that counts as good enough (1e-4 is 40 dB), keeps the gradient of clean inputs in bounds.
    """
    error = ((prediction.float() - target.float()) / 2).square().mean(dim=(1, 2, 3)) + floor
    rmse, negative_psnr = 10 * error.sqrt().mean(), error.log10().mean() / 2
    return {"rmse": rmse, "psnr": negative_psnr, "balanced": negative_psnr + rmse}[kind]


OBJECTIVES: dict[str, Callable[..., torch.Tensor]] = {"diffusion": diffusion, "restoration": restoration}
