"""LQ encoders: they read the degraded image once, and hand features to the denoiser and a first estimate of the restored image onwards.

`FoundIRLQEncoder` is the paper's, shaped like a VAE's encoder. `FoundIRPyramidEncoder` is of the small sizes, and restores pixels too.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.autoencoders.vae import Encoder
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class FoundIRLQEncoderOutput(BaseOutput):
    """What an LQ encoder makes of the degraded image.

    Args:
        lq_hidden_states (`torch.Tensor` of shape `(batch, channels, height / scale, width / scale)`): Features for the denoiser.
        estimate (`torch.Tensor` of shape `(batch, 3, height, width)`): First estimate of the restored image, about [-1, 1].
    """

    lq_hidden_states: torch.Tensor
    estimate: torch.Tensor


class FoundIRLQEncoder(ModelMixin, AttentionMixin, ConfigMixin, PeftAdapterMixin):
    """The paper's LQ encoder: a VAE's encoder up to its penultimate features. Its estimate is the degraded image itself.

    Args:
        in_channels (`int`): Channels of the image.
        block_out_channels (`tuple[int]`): Width of each level; every level but the last halves the size.
        layers_per_block (`int`): Residual blocks a level.
        norm_num_groups (`int`): Groups of the group normalisation.
        mid_block_add_attention (`bool`): Self-attention over all positions in the middle block, as in SDXL's VAE. Quadratic in pixels.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks: ClassVar[list[str]] = ["ResnetBlock2D"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        mid_block_add_attention: bool = True,
    ):
        super().__init__()
        self.encoder = Encoder(
            in_channels=in_channels,
            out_channels=block_out_channels[-1],
            down_block_types=("DownEncoderBlock2D",) * len(block_out_channels),
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=mid_block_add_attention,
        )
        # The features are taken before the VAE's own head.
        del self.encoder.conv_norm_out, self.encoder.conv_act, self.encoder.conv_out

    @property
    def scale_factor(self) -> int:
        """Image pixels per feature of `lq_hidden_states`, along one side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

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

    def forward(self, pixel_values: torch.Tensor, return_dict: bool = True) -> FoundIRLQEncoderOutput | tuple:
        """Encodes degraded images.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): In [-1, 1]; sides divisible by `scale_factor`.

        Returns:
            [`FoundIRLQEncoderOutput`], or the tuple of its fields if `return_dict=False`.
        """
        encoder = self.encoder
        hidden_states = encoder.conv_in(pixel_values)
        for block in (*encoder.down_blocks, encoder.mid_block):
            hidden_states = _run(encoder, block, hidden_states)
        output = FoundIRLQEncoderOutput(hidden_states, pixel_values)
        return output if return_dict else output.to_tuple()


class FoundIRPyramidEncoder(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """A dense convolutional pyramid without normalisation that undoes what harms a photograph pixel by pixel.

    Noise, blocks, blur, low resolution, fine streaks: residual blocks without norms (EDSR, CVPRW 2017) at a half, a quarter and an eighth
    of the size predict the residual to the degraded image (DnCNN, TIP 2017). The denoiser is told the features of the coarsest level, and
    of the estimate as much as they have room for. A fresh encoder's estimate is the degraded image.

    Args:
        in_channels (`int`): Channels of the image.
        block_out_channels (`tuple[int]`): Width of each level, finest first; the finest is at half the image's size.
        blocks_per_level (`tuple[int]`): Residual blocks of each level on the way down, and as many again on the way up; the coarsest level
            has them once.
        lq_channels (`int`): Of the features for the denoiser.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks: ClassVar[list[str]] = ["_ResidualBlock"]

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        block_out_channels: tuple[int, ...] = (32, 64, 128),
        blocks_per_level: tuple[int, ...] = (2, 3, 4),
        lq_channels: int = 128,
    ):
        super().__init__()
        if len(block_out_channels) != len(blocks_per_level) or len(block_out_channels) < 2:
            raise ValueError(
                f"`block_out_channels` and `blocks_per_level` must tell of the same two levels or more, got {block_out_channels!r} and "
                f"{blocks_per_level!r}."
            )
        levels = list(zip(block_out_channels, blocks_per_level, strict=True))
        widths = list(pairwise(block_out_channels))
        self.gradient_checkpointing = False
        self.conv_in = nn.Conv2d(4 * in_channels, block_out_channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_residual_blocks(width, count) for width, count in levels)
        self.downsamplers = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in widths)
        self.upsamplers = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in widths)
        self.up_blocks = nn.ModuleList(_residual_blocks(width, count) for width, count in levels[:-1])
        self.conv_out = nn.Conv2d(block_out_channels[0], 4 * in_channels, 3, padding=1)
        self.lq_proj = nn.Conv2d(block_out_channels[-1], lq_channels, 1)
        self.estimate_proj = nn.Conv2d(in_channels, lq_channels, self.scale_factor, stride=self.scale_factor)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    @property
    def scale_factor(self) -> int:
        """Image pixels per feature of `lq_hidden_states`, along one side."""
        return 2 ** len(self.config.block_out_channels)

    def forward(self, pixel_values: torch.Tensor, return_dict: bool = True) -> FoundIRLQEncoderOutput | tuple:
        """Encodes degraded images; arguments and result as of [`FoundIRLQEncoder.forward`]."""
        hidden_states, skips = self.conv_in(F.pixel_unshuffle(pixel_values, 2)), []
        for blocks, downsample in zip(self.down_blocks, (*self.downsamplers, None), strict=True):
            hidden_states = _run(self, blocks, hidden_states)
            if downsample is not None:
                skips.append(hidden_states)
                hidden_states = downsample(hidden_states)
        coarsest = hidden_states
        for skip, upsample, blocks in reversed(list(zip(skips, self.upsamplers, self.up_blocks, strict=True))):
            hidden_states = _run(self, blocks, skip + F.pixel_shuffle(upsample(hidden_states), 2))
        estimate = pixel_values + F.pixel_shuffle(self.conv_out(hidden_states), 2)
        output = FoundIRLQEncoderOutput(self.lq_proj(coarsest) + self.estimate_proj(estimate), estimate)
        return output if return_dict else output.to_tuple()


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.conv2(F.relu(self.conv1(hidden_states), inplace=True))


def _residual_blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_ResidualBlock(channels) for _ in range(count)))


def _run(owner: nn.Module, module: nn.Module, *inputs) -> torch.Tensor:
    """`module(*inputs)`, its inner values made again in the backward pass if gradient checkpointing is enabled for `owner`."""
    if torch.is_grad_enabled() and owner.gradient_checkpointing:
        return owner._gradient_checkpointing_func(module, *inputs)
    return module(*inputs)
