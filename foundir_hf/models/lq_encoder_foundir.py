"""The LQ encoder of FoundIR-v2: reads the degraded image once and hands its features to the denoiser and to the fidelity decoder.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.autoencoders.vae import Encoder
from diffusers.models.unets.unet_stable_cascade import SDCascadeLayerNorm
from diffusers.utils import BaseOutput
from torch import nn

WHOLE = (0.0, 0.0, 1.0, 1.0)  # the region of an image that is all of it


@dataclass
class FoundIRLQEncoderOutput(BaseOutput):
    """What the LQ encoder saw.

    Args:
        lq_hidden_states (`torch.Tensor` of shape `(batch, channels, height / scale, width / scale)`): Features for the denoiser.
        lq_features (`tuple[torch.Tensor]`): One map a level for the fidelity decoder, finest first, each half the size of the one before.
        lq_pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): The image that the features are of: what the refiner and the
            tone curves made of the degraded one or, without them, the degraded one.
        whole_image_embeds (`torch.Tensor` of shape `(batch, embed_dim)`, *optional*): What the thumbnail tells of exposure and haze.
    """

    lq_hidden_states: torch.Tensor
    lq_features: tuple[torch.Tensor, ...]
    lq_pixel_values: torch.Tensor
    whole_image_embeds: torch.Tensor | None = None


class FoundIRLQEncoder(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """A VAE-shaped encoder of the degraded image (the paper takes the VAE encoder's penultimate features).

    Args:
        in_channels (`int`): Channels of the image.
        patch_size (`int`): Pixels are first folded into channels in squares of this side; 1 is the paper's.
        block_out_channels (`tuple[int]`): Width of each level; every level but the last halves the size.
        layers_per_block (`int`): Residual blocks a level.
        norm_num_groups (`int`): Groups of the group normalisation.
        norm_type (`"group"` or `"layer"`): `"layer"` normalises every position over its channels, which no tile border can disturb.
        mid_block_add_attention (`bool`): Self-attention over all positions in the middle block, as in SDXL's VAE. Quadratic in pixels.
        thumbnail_size (`int`, *optional*): Side of a small copy of the *whole* image from which exposure, haze and colour cast are
            judged; the judgement modulates every level. A tile cannot know these, so it is computed once per image. `None`: not used.
        refiner_channels (`int`, *optional*): Width of a [`Refiner`] before the encoder. `None`, the paper's: the image is read as it came.
        tone_channels (`int`, *optional*): Width of [`ToneCurves`] between the refiner and the encoder, which need a `thumbnail_size`
            divisible by 4. `None`, the paper's: tones are left to the rest of the model.
        tone_threshold (`float`): Curves that would change the whole image by less than this (RMS, of [0, 1]) are left out.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 1,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        norm_type: Literal["group", "layer"] = "group",
        mid_block_add_attention: bool = True,
        thumbnail_size: int | None = None,
        refiner_channels: int | None = None,
        tone_channels: int | None = None,
        tone_threshold: float = 0.0,
    ):
        super().__init__()
        if tone_channels and (not thumbnail_size or thumbnail_size % 4):
            raise ValueError(f"`tone_channels` needs a `thumbnail_size` divisible by 4, got {thumbnail_size}.")
        if norm_type not in ("group", "layer"):
            raise ValueError(f"`norm_type` must be 'group' or 'layer', got {norm_type!r}.")
        self.encoder = Encoder(
            in_channels=in_channels * patch_size**2,
            out_channels=block_out_channels[-1],
            down_block_types=("DownEncoderBlock2D",) * len(block_out_channels),
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=mid_block_add_attention,
        )
        # The features are taken before the VAE's own head.
        del self.encoder.conv_norm_out, self.encoder.conv_act, self.encoder.conv_out
        if norm_type == "layer":
            _replace_group_norms(self)
        self.refiner = Refiner(in_channels, refiner_channels) if refiner_channels else None
        self.tone_curves = ToneCurves(in_channels, tone_channels) if tone_channels else None
        self.whole_image = _WholeImageModulation(in_channels, block_out_channels) if thumbnail_size else None

    @property
    def scale_factor(self) -> int:
        """Image pixels per feature of `lq_hidden_states`, along one side."""
        return self.config.patch_size * 2 ** (len(self.config.block_out_channels) - 1)

    @classmethod
    def from_vae(cls, vae: AutoencoderKL) -> FoundIRLQEncoder:
        """Starts from a VAE's encoder, as the paper does."""
        config = vae.config
        model = cls(
            in_channels=config.in_channels,
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_num_groups,
            mid_block_add_attention=config.mid_block_add_attention,
        )
        head = ("conv_norm_out.", "conv_out.")
        state_dict = {"encoder." + k: v for k, v in vae.encoder.state_dict().items() if not k.startswith(head)}
        model.load_state_dict(state_dict, strict=True)
        return model.to(vae.dtype)

    def thumbnail(self, pixel_values: torch.Tensor) -> torch.Tensor | None:
        """The small copy of the whole image that `forward` wants: `(B, 3, H, W)` -> `(B, 3, size, size)`, or `None` if unused."""
        if self.whole_image is None:
            return None
        return F.adaptive_avg_pool2d(pixel_values, self.config.thumbnail_size)

    def forward(
        self,
        pixel_values: torch.Tensor,
        thumbnail: torch.Tensor | None = None,
        region: tuple[float, float, float, float] = WHOLE,
        return_dict: bool = True,
    ) -> FoundIRLQEncoderOutput | tuple:
        """Encodes a degraded image, or a tile of one.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): In [-1, 1]; sides divisible by `scale_factor`.
            thumbnail (`torch.Tensor`, *optional*): [`~FoundIRLQEncoder.thumbnail`] of the whole image when `pixel_values` is a tile of it.
            region (`tuple[float, float, float, float]`): Where the tile lies in that image: top, left, bottom and right in [0, 1].

        Returns:
            [`FoundIRLQEncoderOutput`], or the tuple of its fields if `return_dict=False`.
        """
        encoder = self.encoder
        if thumbnail is None:
            thumbnail = self.thumbnail(pixel_values)
        pixel_values, thumbnail = self.restore_pixels(pixel_values, thumbnail, region)
        embeds, modulations = None, [None] * len(encoder.down_blocks)
        if self.whole_image is not None:
            embeds, modulations = self.whole_image(thumbnail)
        hidden_states = encoder.conv_in(F.pixel_unshuffle(pixel_values, self.config.patch_size))
        lq_features = []
        for block, modulation in zip(encoder.down_blocks, modulations, strict=True):
            for resnet in block.resnets:
                hidden_states = _run(encoder, resnet, hidden_states, None)
            if modulation is not None:
                scale, shift = modulation
                hidden_states = hidden_states * (1 + scale) + shift
            lq_features.append(hidden_states)
            for downsample in block.downsamplers or []:
                hidden_states = downsample(hidden_states)
        hidden_states = _run(encoder, encoder.mid_block, hidden_states)

        # The coarsest map of the decoder is the finished one: it has seen the middle block.
        lq_features[-1] = hidden_states
        output = FoundIRLQEncoderOutput(hidden_states, tuple(lq_features), pixel_values, embeds)
        return output if return_dict else output.to_tuple()

    def restore_pixels(
        self, pixel_values: torch.Tensor, thumbnail: torch.Tensor | None, region: tuple[float, float, float, float] = WHOLE
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What refiner and tone curves make of image and thumbnail, before anything is encoded; arguments as in `forward`."""
        if self.refiner is not None:
            pixel_values = _run(self.encoder, self.refiner, pixel_values)
        if self.tone_curves is not None:
            curves = self.tone_curves.where_it_matters(thumbnail, self.tone_curves(thumbnail), self.config.tone_threshold)
            # Overshooting lamps of a dark photograph would flood the encoder.
            pixel_values = self.tone_curves.apply_to(pixel_values, curves, region).clamp(-1, 1)
            thumbnail = self.tone_curves.apply_to(thumbnail, curves).clamp(-1, 1)
        return pixel_values, thumbnail


class Refiner(nn.Module):
    """Takes off what harms a photograph pixel by pixel, before anything is judged at large: noise, blocks, blur, streaks.

    It is the last damage that has to go first: on the way into the file, noise and compression came after haze, darkness and blur, and
    undoing darkness before noise would only amplify it. A latent of eight pixels cannot hold such detail, and gains of bands cannot tell it
    from texture; a few residual blocks (EDSR, CVPRW 2017) at a half of the photograph's size and more of them at a quarter, a residual
    network in the sense of DnCNN (TIP 2017), can. It starts by changing nothing.

    Args:
        image_channels (`int`): Of the photograph.
        channels (`int`): Width at half the size; twice as many at a quarter.
        fine_blocks (`int`): Residual blocks at half the size, before and after...
        coarse_blocks (`int`): ...those at a quarter.
    """

    def __init__(self, image_channels: int, channels: int, fine_blocks: int = 2, coarse_blocks: int = 6):
        super().__init__()
        self.conv_in = nn.Conv2d(4 * image_channels, channels, 3, padding=1)
        self.before = nn.Sequential(*(_ResidualBlock(channels) for _ in range(fine_blocks)))
        self.down = nn.Conv2d(channels, 2 * channels, 2, stride=2)
        self.middle = nn.Sequential(*(_ResidualBlock(2 * channels) for _ in range(coarse_blocks)))
        self.up = nn.Conv2d(2 * channels, 4 * channels, 1)
        self.after = nn.Sequential(*(_ResidualBlock(channels) for _ in range(fine_blocks)))
        self.conv_out = nn.Conv2d(channels, 4 * image_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` in [-1, 1], sides divisible by 4 -> the same, refined."""
        fine = self.before(self.conv_in(F.pixel_unshuffle(pixel_values, 2)))
        coarse = self.middle(self.down(fine))
        fine = self.after(fine + F.pixel_shuffle(self.up(coarse), 2))
        return pixel_values + F.pixel_shuffle(self.conv_out(fine), 2)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.conv2(F.relu(self.conv1(hidden_states)))


class ToneCurves(nn.Module):
    """Undoes darkness, haze and casts at large: for every place and colour a curve, `light -> (gain * light + offset) ** gamma`.

    Haze is `I = J t + A (1 - t)`, so `J` is a gain and an offset of `I`; an under-exposed `J` is a gain and a power of it. Both vary
    slowly, so a grid of a quarter of the thumbnail's side holds them, set by a small network that sees the thumbnail alone, in the way of
    the bilateral grids of HDRNet (Gharbi et al., SIGGRAPH 2017) and the curves of Zero-DCE (CVPR 2020). The grid is interpolated
    to pixels, so detail passes untouched, and the whole costs as good as nothing a pixel. It starts by changing nothing.

    Args:
        image_channels (`int`): Of the photograph.
        channels (`int`): Width at half the thumbnail's size; half as many again at a quarter.
        quantiles (`int`): Of each statistic of the thumbnail that is told as a distribution.
    """

    max_log_gain, max_log_gamma, toe = 3.0, 1.2, 1 / 255

    def __init__(self, image_channels: int, channels: int, quantiles: int = 16):
        super().__init__()
        coarse = channels * 3 // 2
        self.quantiles = quantiles
        self.conv_in = nn.Conv2d(4 * (image_channels + 5), channels, 3, padding=1)
        self.before = _ResidualBlock(channels)
        self.down = nn.Conv2d(channels, coarse, 2, stride=2)
        self.middle = nn.Sequential(_ResidualBlock(coarse), _ResidualBlock(coarse))
        self.summary = nn.Sequential(
            nn.Linear(2 * coarse + (image_channels + 2) * quantiles, 2 * coarse), nn.ReLU(), nn.Linear(2 * coarse, 2 * coarse), nn.ReLU()
        )
        self.modulation = nn.Linear(2 * coarse, 2 * coarse)
        self.after = _ResidualBlock(coarse)
        self.conv_out = nn.Conv2d(coarse, 3 * image_channels, 3, padding=1)
        self.whole_out = nn.Linear(2 * coarse, 3 * image_channels)
        for layer in (self.modulation, self.conv_out, self.whole_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, thumbnail: torch.Tensor) -> torch.Tensor:
        """`(B, C, size, size)` in [-1, 1] -> log gains, offsets and log gammas of each colour, `(B, 3 * C, size / 4, size / 4)`."""
        views, values = _tone_statistics(thumbnail)
        hidden_states = self.middle(self.down(self.before(self.conv_in(F.pixel_unshuffle(views, 2)))))
        ordered = values.flatten(2).sort(dim=2).values  # (B, statistics, size**2)
        places = torch.linspace(0, ordered.shape[2] - 1, self.quantiles, device=ordered.device).round().long()
        pooled = [hidden_states.mean(dim=(2, 3)), hidden_states.amax(dim=(2, 3)), ordered[:, :, places].flatten(1)]
        whole = self.summary(torch.cat(pooled, dim=1))
        scale, shift = self.modulation(whole)[:, :, None, None].chunk(2, dim=1)
        return self.conv_out(self.after(hidden_states * (1 + scale) + shift)) + self.whole_out(whole)[:, :, None, None]

    @property
    def adapted(self) -> float:
        """The largest weight of an active adapter in here, 1 at most."""
        layers = [module for module in self.modules() if hasattr(module, "active_adapters") and not module.disable_adapters]
        scales = [getattr(layer, "scaling", dict.fromkeys(layer.active_adapters, 1.0)) for layer in layers]
        weights = [abs(scale.get(name, 0.0)) for layer, scale in zip(layers, scales, strict=True) for name in layer.active_adapters]
        return min(1.0, max(weights, default=0.0))

    def where_it_matters(self, thumbnail: torch.Tensor, curves: torch.Tensor, threshold: float) -> torch.Tensor:
        """The curves of images that they change by more than `threshold`; fading to no change below 1.2 times that.

        A pale photograph may be meant so, and nothing in it tells. A small change is the likelier mistake and the smaller loss: measured
        in runs/tiny.md. While they learn, curves always act, so that what they do is what they learn from: told a gradient where they do
        not act, they run on until they do (measured: adapters for noise came to darken photographs). And whoever adapts the curves has
        said that tones are wrong: adapters take the threshold away, by as much as they count.
        """
        threshold *= 1 - self.adapted
        learning = self.training and any(parameter.requires_grad for parameter in self.parameters())
        if threshold <= 0 or learning:
            return curves
        change = ((self.apply_to(thumbnail, curves) - thumbnail).float() / 2).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return curves * ((change / threshold - 1) / 0.2).clamp(0, 1).to(curves.dtype)

    def apply_to(self, pixel_values: torch.Tensor, curves: torch.Tensor, region: tuple[float, float, float, float] = WHOLE) -> torch.Tensor:
        """Applies what `forward` returned to an image in [-1, 1], or to its part `region`; beyond 1 where light overshoots."""
        top, left, bottom, right = region
        # Powers and their interpolation in single precision: half of it would band smooth skies.
        with torch.autocast(pixel_values.device.type, enabled=False):
            height, width = pixel_values.shape[2:]
            rows = _interpolation(height, top, bottom, curves.shape[2], curves.device)
            columns = _interpolation(width, left, right, curves.shape[3], curves.device)
            log_gain, offset, log_gamma = (rows @ curves.float() @ columns.T).chunk(3, dim=1)
            gain = (self.max_log_gain * torch.tanh(log_gain / self.max_log_gain)).exp()
            gamma = (self.max_log_gamma * torch.tanh(log_gamma / self.max_log_gamma)).exp()
            light = (gain * (pixel_values.float() + 1) / 2 + offset).clamp(min=0)
            # The toe keeps the slope of a power finite at black, and black black.
            restored = (light + self.toe) ** gamma - self.toe**gamma
        return (restored * 2 - 1).to(pixel_values.dtype)


def _tone_statistics(thumbnail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What tells haze and darkness: maps beside the thumbnail's own colours, all about [-1, 1], and those of which quantiles count."""
    light = (thumbnail + 1) / 2
    brightest, darkest = light.amax(dim=1, keepdim=True), light.amin(dim=1, keepdim=True)
    stops = (brightest + 1 / 64).log2() / 3 + 1  # darkness is a factor
    dark_channel = -F.max_pool2d(-darkest, 5, stride=1, padding=2)  # He et al., TPAMI 2011: haze lifts it
    luma = light.mean(dim=1, keepdim=True)
    saturation = 2 * (brightest - darkest) - 1
    views = [thumbnail, stops, 2 * dark_channel - 1, saturation, 2 * F.max_pool2d(luma, 5, stride=1, padding=2) - 1, 2 * luma - 1]
    return torch.cat(views, dim=1), torch.cat([thumbnail, stops, saturation], dim=1)


def _interpolation(length: int, start: float, end: float, cells: int, device: torch.device) -> torch.Tensor:
    """Weights `(length, cells)` that interpolate a row of cells, which spans [0, 1], at the middles of `length` pixels of [start, end]."""
    middles = start + (end - start) * (torch.arange(length, device=device) + 0.5) / length
    places = (middles * cells - 0.5).clamp(0, cells - 1)
    return (1 - (places[:, None] - torch.arange(cells, device=device)).abs()).clamp(min=0)


class _WholeImageModulation(nn.Module):
    """A thumbnail -> its embedding, and one (scale, shift) pair a level, zero-initialised so that they start by changing nothing."""

    def __init__(self, in_channels: int, block_out_channels: tuple[int, ...], width: int = 32):
        super().__init__()
        self.widths = list(block_out_channels)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            nn.SiLU(),
        )
        self.summary = nn.Sequential(nn.Linear(4 * width + 2 * in_channels, 4 * width), nn.SiLU())
        self.to_modulation = nn.Linear(4 * width, 2 * sum(block_out_channels))
        nn.init.zeros_(self.to_modulation.weight)
        nn.init.zeros_(self.to_modulation.bias)

    def forward(self, thumbnail: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        darkest, brightest = thumbnail.amin(dim=(2, 3)), thumbnail.amax(dim=(2, 3))  # what haze and darkness shift first
        pooled = torch.cat([self.features(thumbnail).mean(dim=(2, 3)), darkest, brightest], dim=1)
        embeds = self.summary(pooled)  # (B, 4*width)
        modulation = self.to_modulation(embeds)[:, :, None, None]  # (B, 2*sum(widths), 1, 1)
        return embeds, [part.chunk(2, dim=1) for part in modulation.split([2 * width for width in self.widths], dim=1)]


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
