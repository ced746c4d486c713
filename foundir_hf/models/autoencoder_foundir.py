"""The autoencoder and its fidelity decoder: a VAE decoder that can take the LQ encoder's features through gated skips.

A VAE alone loses detail that the photograph still has. Controllable feature wrapping (StableSR, IJCV 2024; CodeFormer, NeurIPS 2022) lets
the decoder borrow it from the degraded image, as much as `fidelity` allows.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin  # noqa: F401 (diffusers looks `ModelMixin` up in this module)
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.unets.unet_stable_cascade import SDCascadeLayerNorm
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn


class GatedSkip(nn.Module):
    """Blends the decoder's features with what the LQ features tell, gated per pixel: `h + sigmoid(gate) * (value - h)`.

    A blend and not a sum: the decoder's features are large and, where the latents are poor, wrong. Beside them a sum's detail is lost to
    the next normalisation.
    """

    def __init__(self, channels: int, lq_channels: int):
        super().__init__()
        self.gate = nn.Conv2d(channels + lq_channels, channels, 1)
        self.value = nn.Conv2d(lq_channels, channels, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 2.0)  # starts by taking seven eighths from the photograph

    def forward(self, hidden_states: torch.Tensor, lq_features: torch.Tensor) -> torch.Tensor:
        gate = self.gate(torch.cat([hidden_states, lq_features], dim=1)).sigmoid()
        return torch.lerp(hidden_states, self.value(lq_features), gate)


class PixelSkip(nn.Module):
    """The skip at the finest level: the photograph's own frequency bands, each with a gain for every value, and an offset.

    `out = offset + sum_b gain_b * band_b`, gains and offset predicted from the decoder's features, bands those of an a-trous pyramid. Haze
    is `I = J t + A (1 - t)` and darkness is a factor: one gain for all bands and an offset undo them. Noise and blocks want fine bands
    weakened where there is no edge, blur wants them strengthened; what no band holds, rain say, is left to the offset. It starts with
    gains of 1 and no offset: an untrained skip returns the photograph as it is.

    Args:
        channels (`int`): Of the decoder's features.
        image_channels (`int`): Of the photograph.
        patch_size (`int`): Pixels per feature, along one side.
        num_bands (`int`): Fine bands, each an octave, beside the low-pass rest.
        embed_dim (`int`, *optional*): Width of the LQ encoder's embedding of the whole image, which then sets gains and offset for all
            pixels at once; the features add what differs from place to place.
    """

    max_log_gain = 3.0  # a factor of 20 either way

    def __init__(self, channels: int, image_channels: int, patch_size: int, num_bands: int = 4, embed_dim: int | None = None):
        super().__init__()
        self.image_channels, self.patch_size, self.num_bands = image_channels, patch_size, num_bands
        self.conv = nn.Conv2d(channels, (num_bands + 2) * image_channels * patch_size**2, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.tone = None
        if embed_dim is not None:
            self.tone = nn.Linear(embed_dim, (num_bands + 2) * image_channels)
            nn.init.zeros_(self.tone.weight)
            nn.init.zeros_(self.tone.bias)

    def forward(
        self, hidden_states: torch.Tensor, lq_pixel_values: torch.Tensor, whole_image_embeds: torch.Tensor | None = None
    ) -> torch.Tensor:
        predicted = F.pixel_shuffle(self.conv(F.silu(hidden_states)), self.patch_size)  # (B, (bands + 2) * 3, H, W)
        if self.tone is not None:
            predicted = predicted + self.tone(whole_image_embeds)[:, :, None, None]
        log_gains, offset = predicted.split([(self.num_bands + 1) * self.image_channels, self.image_channels], dim=1)
        gains = (self.max_log_gain * torch.tanh(log_gains / self.max_log_gain)).exp()
        light = lq_pixel_values + 1  # gains act on light, so on [0, 2] and not on the network's [-1, 1]
        restored = offset - 1
        for band, gain in zip(self.bands(light), gains.chunk(self.num_bands + 1, dim=1), strict=True):
            restored = restored + gain * band
        return restored

    def bands(self, images: torch.Tensor) -> list[torch.Tensor]:
        """`(B, C, H, W)` -> `num_bands + 1` images of the same size that sum to it, finest first."""
        taps = torch.tensor([0.25, 0.5, 0.25], dtype=images.dtype, device=images.device)
        kernel = (taps[:, None] * taps).expand(images.shape[1], 1, 3, 3)
        bands = []
        for level in range(self.num_bands):
            radius = 2**level
            padded = F.pad(images, (radius,) * 4, mode="replicate")
            smooth = F.conv2d(padded, kernel, dilation=radius, groups=images.shape[1])
            bands.append(images - smooth)
            images = smooth
        return [*bands, images]


class CosineShortcut(nn.Module):
    """A linear autoencoder beside the deep one: it starts as the low frequencies of a block's discrete cosine transform.

    DC-AE (ICLR 2025) puts non-parametric shortcuts around the down- and up-sampling, because a deep autoencoder first has to find what a
    linear one is given. This one starts from JPEG's knowledge: a few luma and fewer chroma coefficients a block, brought to similar size.

    Args:
        latent_channels (`int`): Coefficients kept a block, at most `3 * block_size**2`.
        block_size (`int`): Side of a block in pixels: the autoencoder's scale factor.
    """

    def __init__(self, latent_channels: int, block_size: int):
        super().__init__()
        self.block_size = block_size
        values = 3 * block_size**2
        self.encode = nn.Conv2d(values, latent_channels, 1, bias=False)
        self.decode = nn.Conv2d(latent_channels, values, 1, bias=False)
        basis, deviation = _cosine_basis(latent_channels, block_size)  # (latents, 3 * block**2), (latents,)
        with torch.no_grad():
            self.encode.weight.copy_((basis / deviation[:, None])[..., None, None])
            self.decode.weight.copy_((torch.linalg.pinv(basis) * deviation[None])[..., None, None])

    def to_latents(self, images: torch.Tensor) -> torch.Tensor:
        """`(B, 3, H, W)` -> `(B, latents, H / block_size, W / block_size)`."""
        return self.encode(F.pixel_unshuffle(images, self.block_size))

    def to_images(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse, as far as there is one."""
        return F.pixel_shuffle(self.decode(latents), self.block_size)


def _cosine_basis(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` coefficients of a colour block with the largest expected deviation: their filters and that deviation."""
    index = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos((2 * index[None, :] + 1) * index[:, None] * torch.pi / (2 * size)) * (2 / size) ** 0.5
    cosines[0] /= 2**0.5
    planes = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], dtype=torch.float64)  # Y, Cb, Cr
    # Natural spectra fall as 1/f; chroma carries about a fifth of luma's amplitude. Only the order and the rough size matter.
    candidates = sorted(
        ((1.0 if plane == 0 else 0.2) * size / 2 / (1 + 2 * (u + v)), plane, u, v)
        for plane in range(3)
        for u in range(size)
        for v in range(size)
    )[: -count - 1 : -1]
    filters = [(planes[p][:, None, None] * cosines[u][:, None] * cosines[v][None, :]).flatten() for _, p, u, v in candidates]
    return torch.stack(filters).float(), torch.tensor([deviation for deviation, *_ in candidates])


class FoundIRAutoencoderKL(AutoencoderKL):
    """diffusers' `AutoencoderKL` whose decoder can look at the degraded image.

    Args:
        lq_block_out_channels (`tuple[int]`): Widths of the LQ encoder's levels that the decoder borrows from, finest first; at most as many
            as this autoencoder has levels. The coarser levels then know what the latents say and nothing else.
        patch_size (`int`, defaults to 1): Pixels are folded into channels in squares of this side, outside the encoder and the decoder.
        norm_type (`"group"` or `"layer"`, defaults to `"group"`): `"layer"` normalises every position over its channels, so that a tile
            of an image is decoded as the image is.
        whole_image_embed_dim (`int`, *optional*): Width of the LQ encoder's embedding of the whole image, if it makes one.
        cosine_shortcut (`bool`, defaults to `False`): Put a [`CosineShortcut`] beside the autoencoder, which then starts as that codec.
        kwargs: Everything that `AutoencoderKL` takes; `in_channels` and `out_channels` count image channels.
    """

    _own_config = frozenset({"lq_block_out_channels", "patch_size", "norm_type", "whole_image_embed_dim", "cosine_shortcut"})

    def __init__(
        self,
        *args,
        lq_block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        patch_size: int = 1,
        norm_type: Literal["group", "layer"] = "group",
        whole_image_embed_dim: int | None = None,
        cosine_shortcut: bool = False,
        in_channels: int = 3,
        out_channels: int = 3,
        **kwargs,
    ):
        folded = patch_size**2
        super().__init__(*args, in_channels=in_channels * folded, out_channels=out_channels * folded, **kwargs)
        if norm_type not in ("group", "layer"):
            raise ValueError(f"`norm_type` must be 'group' or 'layer', got {norm_type!r}.")
        widths = list(self.config.block_out_channels)
        if not 0 < len(lq_block_out_channels) <= len(widths):
            raise ValueError(
                f"`lq_block_out_channels` needs a width for the finest of the {len(widths)} levels or more, got {lq_block_out_channels!r}."
            )
        self.register_to_config(
            lq_block_out_channels=tuple(lq_block_out_channels),
            patch_size=patch_size,
            norm_type=norm_type,
            whole_image_embed_dim=whole_image_embed_dim,
            cosine_shortcut=cosine_shortcut,
            in_channels=in_channels,
            out_channels=out_channels,
        )
        entering = [widths[-1], *widths[:0:-1]]  # channels on entry to each up block, coarsest first
        finest = entering[-len(lq_block_out_channels) :]
        self.skips = nn.ModuleList(GatedSkip(channels, lq) for channels, lq in zip(finest, reversed(lq_block_out_channels), strict=True))
        self.pixel_skip = PixelSkip(widths[0], out_channels, patch_size, embed_dim=whole_image_embed_dim)
        self.shortcut = CosineShortcut(self.config.latent_channels, self.scale_factor) if cosine_shortcut else None
        if self.shortcut is not None:
            self._start_as_shortcut()
        if norm_type == "layer":
            _replace_group_norms(self)

    @torch.no_grad()
    def _start_as_shortcut(self) -> None:
        """Silences the deep autoencoder's last layers, and narrows the posterior, which would drown the codec's latents in noise."""
        channels = self.config.latent_channels
        for layer in (self.decoder.conv_out, self.encoder.conv_out if self.quant_conv is None else self.quant_conv):
            layer.weight.zero_()
            layer.bias.zero_()
        (self.encoder.conv_out if self.quant_conv is None else self.quant_conv).bias[channels:] = -6.0  # a deviation of 0.05

    @staticmethod
    def _get_init_keys(input_class):
        # diffusers reads a class's configuration from its signature; ours forwards `**kwargs` to the parent's.
        return AutoencoderKL._get_init_keys(AutoencoderKL) | FoundIRAutoencoderKL._own_config

    @classmethod
    def from_vae(cls, vae: AutoencoderKL, **own_config) -> FoundIRAutoencoderKL:
        """A FoundIR autoencoder that starts as `vae`: the same latents, the same image at fidelity 0. The skips are fresh.

        Args:
            vae (`AutoencoderKL`): Where the weights come from.
            own_config: Our own configuration entries; without them the skips fit [`FoundIRLQEncoder.from_vae`] of the same `vae`.
        """
        plain = {k: v for k, v in vae.config.items() if not k.startswith("_")}
        model = cls.from_config({"lq_block_out_channels": tuple(vae.config.block_out_channels), **plain, **own_config})
        skips = {k: v for k, v in model.state_dict().items() if k.startswith(("skips.", "pixel_skip."))}
        model.load_state_dict({**skips, **vae.state_dict()}, strict=True)
        return model.to(vae.dtype)

    @property
    def scale_factor(self) -> int:
        """Image pixels per latent, along one side."""
        return self.config.patch_size * 2 ** (len(self.config.block_out_channels) - 1)

    def fidelity_parameters(self) -> list[nn.Parameter]:
        """What `fidelity` brings in: the skips. All the rest is the plain autoencoder."""
        return [*self.skips.parameters(), *self.pixel_skip.parameters()]

    @apply_forward_hook
    def encode(self, x: torch.Tensor, return_dict: bool = True):
        """As `AutoencoderKL.encode`: images `(B, 3, H, W)` in [-1, 1] -> a distribution of latents."""
        return super().encode(x, return_dict=return_dict)

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        moments = super()._encode(F.pixel_unshuffle(x, self.config.patch_size))
        if self.shortcut is None:
            return moments
        mean, log_variance = moments.chunk(2, dim=1)
        return torch.cat([mean + self.shortcut.to_latents(x), log_variance], dim=1)

    @apply_forward_hook
    def decode(
        self,
        z: torch.Tensor,
        return_dict: bool = True,
        generator=None,
        lq_features: tuple[torch.Tensor, ...] | None = None,
        lq_pixel_values: torch.Tensor | None = None,
        whole_image_embeds: torch.Tensor | None = None,
        fidelity: float = 1.0,
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Decodes latents, helped by the degraded image as far as `fidelity` allows.

        Args:
            z (`torch.Tensor` of shape `(batch, latent channels, height, width)`): Latents, unscaled.
            lq_features (`tuple[torch.Tensor]`, *optional*): The LQ encoder's features, finest first.
            lq_pixel_values (`torch.Tensor` of shape `(batch, 3, height * scale, width * scale)`, *optional*): The degraded image in
                [-1, 1], as the LQ encoder's refiner hands it on.
            whole_image_embeds (`torch.Tensor`, *optional*): The LQ encoder's embedding of the whole image, if it makes one.
            fidelity (`float`, defaults to 1.0): 0 is the plain VAE decoder, 1 takes the skips, values between blend the two pictures.
        """
        if fidelity and (lq_features is None or lq_pixel_values is None):
            raise ValueError("`fidelity` above 0 needs `lq_features` and `lq_pixel_values`; pass `fidelity=0` to decode without them.")
        decoder = self.decoder
        sample = None
        if fidelity < 1:
            hidden_states = self._decoder_features(z)
            sample = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden_states)))
            sample = F.pixel_shuffle(sample, self.config.patch_size)
            if self.shortcut is not None:
                sample = sample + self.shortcut.to_images(z)
        if fidelity:
            # Both pictures are made and blended: skips taken by half would give the last layers features that no training has shown them.
            kept = self.pixel_skip(self._decoder_features(z, lq_features), lq_pixel_values, whole_image_embeds)
            sample = kept if sample is None else torch.lerp(sample, kept, fidelity)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def _decoder_features(self, z: torch.Tensor, lq_features: tuple[torch.Tensor, ...] | None = None) -> torch.Tensor:
        """What the decoder knows before its last layer, with the photograph's features or without."""
        decoder = self.decoder
        hidden_states = z if self.post_quant_conv is None else self.post_quant_conv(z)
        hidden_states = _run(decoder, decoder.mid_block, decoder.conv_in(hidden_states))
        first = len(decoder.up_blocks) - len(self.skips)  # the first up block that has a skip before it
        for level, up_block in enumerate(decoder.up_blocks):
            if lq_features is not None and level >= first:
                hidden_states = _run(decoder, self.skips[level - first], hidden_states, lq_features[-1 - level])
            hidden_states = _run(decoder, up_block, hidden_states)
        return hidden_states


def _run(owner: nn.Module, module: nn.Module, *inputs) -> torch.Tensor:
    """`module(*inputs)`, its inner values made again in the backward pass if gradient checkpointing is enabled for `owner`."""
    if torch.is_grad_enabled() and owner.gradient_checkpointing:
        return owner._gradient_checkpointing_func(module, *inputs)
    return module(*inputs)


def _replace_group_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, SDCascadeLayerNorm(child.num_channels, eps=child.eps))
        else:
            _replace_group_norms(child)
