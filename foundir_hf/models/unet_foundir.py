"""The denoiser of FoundIR-v2 with its MoE-driven scheduler (Eq. 4, 5): attention experts fuse the degraded image into the UNet's stem.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
Tensors are `(batch, channels, height, width)` unless a comment says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from diffusers import ModelMixin, UNet2DConditionModel  # noqa: F401 (diffusers looks `ModelMixin` up in this module)
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.models.unets.unet_stable_cascade import SDCascadeLayerNorm
from torch import nn


class SpatialAttentionExpert(nn.Module):
    """Self-attention over positions: every pixel may look at every other pixel of its window.

    Args:
        dim (`int`): Channels of the feature map.
        num_heads (`int`): Attention heads; must divide `dim`.
        num_layers (`int`): Pre-norm transformer layers.
        window_size (`int`): A map no larger than this on both sides is attended to as a whole. On a larger one attention works in
            square windows of this side, shifted by half a window in every second layer, so that cost grows linearly with the pixels.
        attend_over (`"space"` or `"batch"`, *optional*, defaults to `"space"`): `"batch"` is the behaviour of the authors' released
            weights, whose tokens meet across the batch instead of across space; it exists for converted weights only.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        num_layers: int = 2,
        window_size: int = 64,
        attend_over: Literal["space", "batch"] = "space",
    ):
        super().__init__()
        if attend_over not in ("space", "batch"):
            raise ValueError(f"`attend_over` must be 'space' or 'batch', got {attend_over!r}.")
        self.window_size = window_size
        self.attend_over = attend_over
        self.layers = nn.ModuleList(_SpatialLayer(dim, num_heads) for _ in range(num_layers))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C, H, W)`."""
        height, width = hidden_states.shape[-2:]
        if self.attend_over == "batch":
            tokens = hidden_states.flatten(2).permute(2, 0, 1)  # (H*W, B, C): each position is a sequence over the batch
            for layer in self.layers:
                tokens = layer(tokens)
            return tokens.permute(1, 2, 0).unflatten(2, (height, width))
        for index, layer in enumerate(self.layers):
            if height <= self.window_size and width <= self.window_size:
                tokens = hidden_states.flatten(2).transpose(1, 2)  # (B, H*W, C)
                hidden_states = layer(tokens).transpose(1, 2).unflatten(2, (height, width))
            else:
                shift = self.window_size // 2 if index % 2 else 0
                windows, grid = _to_windows(hidden_states, self.window_size, shift)  # (B*windows, side*side, C)
                hidden_states = _from_windows(layer(windows), grid, self.window_size, shift, height, width)
        return hidden_states


class _SpatialLayer(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(query_dim=dim, heads=num_heads, dim_head=dim // num_heads, bias=True)
        self.norm2 = nn.LayerNorm(dim)
        # diffusers calls x * sigmoid(1.702 x), the paper's activation, "geglu-approximate".
        self.feed_forward = FeedForward(dim, mult=2, activation_fn="geglu-approximate")

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # (B, N, C)
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.feed_forward(self.norm2(tokens))


def _to_windows(hidden_states: torch.Tensor, side: int, shift: int) -> tuple[torch.Tensor, tuple[int, int, int]]:
    batch, channels, height, width = hidden_states.shape
    # Edge tokens are repeated to fill the last windows: they then count more than once, but nothing foreign enters.
    pad_h, pad_w = -(height + shift) % side, -(width + shift) % side
    padded = F.pad(hidden_states, (shift, pad_w, shift, pad_h), mode="replicate")
    rows, columns = padded.shape[-2] // side, padded.shape[-1] // side
    windows = padded.reshape(batch, channels, rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
    return windows.reshape(batch * rows * columns, side * side, channels), (batch, rows, columns)


def _from_windows(tokens: torch.Tensor, grid: tuple[int, int, int], side: int, shift: int, height: int, width: int) -> torch.Tensor:
    batch, rows, columns = grid
    windows = tokens.reshape(batch, rows, columns, side, side, -1).permute(0, 5, 1, 3, 2, 4)
    padded = windows.reshape(batch, -1, rows * side, columns * side)
    return padded[..., shift : shift + height, shift : shift + width]


class ChannelAttentionExpert(nn.Module):
    """Transposed attention: channels attend to channels, so the cost is linear in pixels (Restormer, CVPR 2022: MDTA and GDFN).

    Args:
        dim (`int`): Channels of the feature map.
        num_heads (`int`): Groups of channels that attend among themselves; must divide `dim`.
        num_layers (`int`): Pre-norm transformer layers.
        ffn_expansion (`float`): Width of the gated feed-forward network in units of `dim`.
    """

    def __init__(self, dim: int, num_heads: int = 8, num_layers: int = 2, ffn_expansion: float = 2.66):
        super().__init__()
        self.layers = nn.ModuleList(
            _ChannelLayer(dim, _ChannelAttention(dim, num_heads), _GatedFeedForward(dim, int(dim * ffn_expansion)))
            for _ in range(num_layers)
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C, H, W)`."""
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class SparseChannelAttentionExpert(nn.Module):
    """Transposed attention that keeps only the strongest scores of each row (DRSformer, CVPR 2023: top-k sparse attention and MSFN).

    Args:
        dim, num_heads, num_layers, ffn_expansion: As in [`ChannelAttentionExpert`].
        keep_ratio (`float`): Share of the channels of a head that each channel may attend to; the paper keeps 3/4.
    """

    def __init__(self, dim: int, num_heads: int = 8, num_layers: int = 2, ffn_expansion: float = 2.66, keep_ratio: float = 0.75):
        super().__init__()
        if not 0 < keep_ratio <= 1:
            raise ValueError(f"`keep_ratio` must lie in (0, 1], got {keep_ratio}.")
        self.layers = nn.ModuleList(
            _ChannelLayer(dim, _SparseChannelAttention(dim, num_heads, keep_ratio), _MultiScaleFeedForward(dim, int(dim * ffn_expansion)))
            for _ in range(num_layers)
        )

    forward = ChannelAttentionExpert.forward


class _ChannelLayer(nn.Module):
    def __init__(self, dim: int, attention: nn.Module, feed_forward: nn.Module):
        super().__init__()
        self.norm1 = SDCascadeLayerNorm(dim)
        self.attention = attention
        self.norm2 = SDCascadeLayerNorm(dim)
        self.feed_forward = feed_forward

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.attention(self.norm1(hidden_states))
        return hidden_states + self.feed_forward(self.norm2(hidden_states))


class _ChannelAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        height, width = hidden_states.shape[-2:]
        num_heads = self.temperature.shape[0]
        qkv = self.qkv_dwconv(self.qkv(hidden_states)).flatten(2)  # (B, 3*C, H*W)
        query, key, value = (x.unflatten(1, (num_heads, -1)) for x in qkv.chunk(3, dim=1))  # (B, heads, C/heads, H*W)
        # The sum over all pixels of an image overflows half precision, its normalised result does not.
        scores = F.normalize(query.float(), dim=-1) @ F.normalize(key.float(), dim=-1).transpose(-2, -1)
        weights = self.weigh(scores.to(value.dtype) * self.temperature)  # (B, heads, C/heads, C/heads)
        return self.project_out((weights @ value).flatten(1, 2).unflatten(2, (height, width)))

    def weigh(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.softmax(dim=-1)


class _SparseChannelAttention(_ChannelAttention):
    def __init__(self, dim: int, num_heads: int, keep_ratio: float):
        super().__init__(dim, num_heads)
        self.keep_ratio = keep_ratio
        self.scale = nn.Parameter(torch.tensor([0.2]))

    def weigh(self, scores: torch.Tensor) -> torch.Tensor:
        keep = max(1, int(scores.shape[-1] * self.keep_ratio))
        kept = scores.topk(keep, dim=-1).indices
        masked = torch.full_like(scores, float("-inf")).scatter(-1, kept, scores.gather(-1, kept))
        return masked.softmax(dim=-1) * self.scale


class _GatedFeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate, value = self.dwconv(self.project_in(hidden_states)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class _MultiScaleFeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        self.dwconv3x3 = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.dwconv5x5 = nn.Conv2d(2 * hidden, 2 * hidden, 5, padding=2, groups=2 * hidden, bias=False)
        self.merge3x3 = nn.Conv2d(2 * hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.merge5x5 = nn.Conv2d(2 * hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.project_out = nn.Conv2d(2 * hidden, dim, 1, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.project_in(hidden_states)
        first3, second3 = F.relu(self.dwconv3x3(hidden_states)).chunk(2, dim=1)
        first5, second5 = F.relu(self.dwconv5x5(hidden_states)).chunk(2, dim=1)
        merged3 = F.relu(self.merge3x3(torch.cat([first3, first5], dim=1)))
        merged5 = F.relu(self.merge5x5(torch.cat([second3, second5], dim=1)))
        return self.project_out(torch.cat([merged3, merged5], dim=1))


class SoftRouter(nn.Module):
    """Per-pixel routing (Eq. 5): `(B, C, H, W)` -> `(B, num_experts, H, W)`, non-negative and summing to one over the experts."""

    def __init__(self, dim: int, num_experts: int = 3):
        super().__init__()
        self.gate = nn.Conv2d(dim, num_experts, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.gate(hidden_states).softmax(dim=1)


class MoEScheduler(nn.Module):
    """The MoE-driven scheduler (Eq. 5): the router's weighted sum of what the spatial, channel and sparse channel experts say.

    Args:
        dim (`int`): Channels of the fused feature map.
        num_heads, num_layers, ffn_expansion, keep_ratio, window_size, attend_over: Passed on to the experts.
        routing (`"soft"`, `"hard"` or `"none"`, *optional*, defaults to `"soft"`): `"soft"` is the paper's. The others are what it is
            compared with: under `"hard"` every pixel takes its strongest expert alone, times that expert's probability, through which the
            router still learns (Switch Transformer, JMLR 2022); with `"none"` there is neither router nor expert and the features pass
            unchanged. `"hard"` saves no computation: attention needs the whole map, so every expert sees all of it.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        num_layers: int = 2,
        ffn_expansion: float = 2.66,
        keep_ratio: float = 0.75,
        window_size: int = 64,
        attend_over: Literal["space", "batch"] = "space",
        routing: Literal["soft", "hard", "none"] = "soft",
    ):
        super().__init__()
        if routing not in ("soft", "hard", "none"):
            raise ValueError(f"`routing` must be 'soft', 'hard' or 'none', got {routing!r}.")
        self.routing = routing
        self.gradient_checkpointing = False
        if routing == "none":
            return
        self.router = SoftRouter(dim, num_experts=3)
        self.experts = nn.ModuleList(
            [
                SpatialAttentionExpert(dim, num_heads, num_layers, window_size, attend_over),
                ChannelAttentionExpert(dim, num_heads, num_layers, ffn_expansion),
                SparseChannelAttentionExpert(dim, num_heads, num_layers, ffn_expansion, keep_ratio),
            ]
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(B, C, H, W)` -> `(B, C, H, W)`."""
        if self.routing == "none":
            return hidden_states
        weights = self.router(hidden_states)  # (B, experts, H, W)
        if self.routing == "hard":
            strongest = weights.max(dim=1, keepdim=True)
            weights = torch.zeros_like(weights).scatter(1, strongest.indices, strongest.values)
        # One expert at a time is made again in a checkpointed backward pass.
        return sum(weights[:, i : i + 1] * _run(self, expert, hidden_states) for i, expert in enumerate(self.experts))


class ConditionEmbedding(nn.Module):
    """Brings the LQ encoder's features to the width of the UNet's stem: norm, 3x3, SiLU, zero-initialised 3x3."""

    def __init__(self, lq_channels: int, out_channels: int, norm_num_groups: int = 32):
        super().__init__()
        self.norm_in = nn.GroupNorm(norm_num_groups, lq_channels, eps=1e-6)
        self.conv_in = nn.Conv2d(lq_channels, lq_channels, 3, padding=1)
        self.conv_out = nn.Conv2d(lq_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, lq_hidden_states: torch.Tensor) -> torch.Tensor:
        # Contiguous: on CPUs, PyTorch 2.13 crashes in a group norm that learns while its input, in channels-last, has no gradient.
        return self.conv_out(F.silu(self.conv_in(self.norm_in(lq_hidden_states.contiguous()))))


class ConditionedStem(nn.Module):
    """Takes the place of the UNet's `conv_in`; its input is `[latents || LQ features]` on the channel axis (Eq. 4).

    `projection` starts at zero, so a UNet that has just been given this stem computes exactly what it did before.
    """

    def __init__(self, conv_in: nn.Conv2d, lq_channels: int, norm_num_groups: int, **moe_kwargs):
        super().__init__()
        width = conv_in.out_channels
        self.conv_in = conv_in
        self.condition_embedding = ConditionEmbedding(lq_channels, width, norm_num_groups)
        self.moe = MoEScheduler(2 * width, **moe_kwargs)
        if self.moe.routing == "none":
            # Without experts in between, two layers of zeros in a row would never get a gradient; `projection` alone keeps the start exact.
            self.condition_embedding.conv_out.reset_parameters()
        self.projection = nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, latents_and_lq: torch.Tensor) -> torch.Tensor:
        latents, lq_hidden_states = latents_and_lq.tensor_split([self.conv_in.in_channels], dim=1)
        sample = self.conv_in(latents)
        condition = self.condition_embedding(lq_hidden_states)
        fused = self.moe(torch.cat([sample, condition], dim=1))  # (B, 2*width, H, W)
        return sample + self.projection(fused)


@dataclass
class FoundIRUNetOutput(UNet2DConditionOutput):
    """What the denoiser says.

    Args:
        sample (`torch.Tensor` of shape `(batch, latent channels, height, width)`): The prediction.
        ungated (`torch.Tensor` of the same shape, *optional*): Where latents are residuals, what it would be if the denoiser were sure.
        gate (`torch.Tensor` of shape `(batch, 1, height, width)`, *optional*): How sure it is, in [0, 1]; `sample` is their product.
    """

    ungated: torch.Tensor | None = None
    gate: torch.Tensor | None = None


class FoundIRUNet2DConditionModel(UNet2DConditionModel):
    """diffusers' `UNet2DConditionModel` with the MoE-driven scheduler in its stem: one class for every size.

    Args:
        lq_channels (`int`, defaults to 512): Channels of the LQ encoder's features.
        moe_num_heads, moe_num_layers, moe_ffn_expansion, moe_keep_ratio, moe_window_size: See [`MoEScheduler`].
        moe_attend_over (`"space"` or `"batch"`): See [`SpatialAttentionExpert`].
        moe_routing (`"soft"`, `"hard"` or `"none"`, defaults to `"soft"`): See [`MoEScheduler`].
        norm_type (`"group"` or `"layer"`, defaults to `"group"`): `"layer"` normalises every position over its channels instead of
            groups of channels over the whole map, so that a tile of an image sees the same numbers as the image itself.
        latent_residual (`bool`, defaults to `False`): Diffuse not the latents of the restored image, as the paper does, but what is missing
            between the latents of the LQ encoder's estimate and these; `prediction_type: sample`. The last convolution then has a channel
            more, whose hard sigmoid (Louizos et al., ICLR 2018) is a gate on the others: how sure the denoiser is, place by place, that
            something is missing. It can close altogether, so that what was fine stays as it was.
        kwargs: Everything that `UNet2DConditionModel` takes.
    """

    # What `compile_repeated_blocks` compiles, once for all alike.
    _repeated_blocks: ClassVar[list[str]] = [*UNet2DConditionModel._repeated_blocks, "_SpatialLayer", "_ChannelLayer"]

    # Names of our own configuration entries, beside those of UNet2DConditionModel.
    _own_config = frozenset(
        {
            "lq_channels",
            "moe_num_heads",
            "moe_num_layers",
            "moe_ffn_expansion",
            "moe_keep_ratio",
            "moe_window_size",
            "moe_attend_over",
            "moe_routing",
            "norm_type",
            "latent_residual",
        }
    )

    def __init__(
        self,
        *args,
        lq_channels: int = 512,
        moe_num_heads: int = 8,
        moe_num_layers: int = 2,
        moe_ffn_expansion: float = 2.66,
        moe_keep_ratio: float = 0.75,
        moe_window_size: int = 64,
        moe_attend_over: Literal["space", "batch"] = "space",
        moe_routing: Literal["soft", "hard", "none"] = "soft",
        norm_type: Literal["group", "layer"] = "group",
        latent_residual: bool = False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if norm_type not in ("group", "layer"):
            raise ValueError(f"`norm_type` must be 'group' or 'layer', got {norm_type!r}.")
        self.register_to_config(
            lq_channels=lq_channels,
            moe_num_heads=moe_num_heads,
            moe_num_layers=moe_num_layers,
            moe_ffn_expansion=moe_ffn_expansion,
            moe_keep_ratio=moe_keep_ratio,
            moe_window_size=moe_window_size,
            moe_attend_over=moe_attend_over,
            moe_routing=moe_routing,
            norm_type=norm_type,
            latent_residual=latent_residual,
        )
        self.conv_in = ConditionedStem(
            self.conv_in,
            lq_channels,
            norm_num_groups=self.config.norm_num_groups,
            num_heads=moe_num_heads,
            num_layers=moe_num_layers,
            ffn_expansion=moe_ffn_expansion,
            keep_ratio=moe_keep_ratio,
            window_size=moe_window_size,
            attend_over=moe_attend_over,
            routing=moe_routing,
        )
        if latent_residual:
            self.conv_out = nn.Conv2d(self.conv_out.in_channels, self.config.out_channels + 1, 3, padding=1)
            nn.init.constant_(self.conv_out.bias[-1:], 3.0)  # open: what is not learnt yet cannot be wrong
        if norm_type == "layer":
            _replace_group_norms(self)

    @staticmethod
    def _get_init_keys(input_class):
        # diffusers reads a class's configuration from its signature; ours forwards `**kwargs` to the parent's.
        keys = UNet2DConditionModel._get_init_keys(UNet2DConditionModel)
        return keys | FoundIRUNet2DConditionModel._own_config

    @classmethod
    def from_unet(cls, unet: UNet2DConditionModel, **own_config) -> FoundIRUNet2DConditionModel:
        """A FoundIR UNet that starts as `unet`: same weights, same output until the new stem is trained."""
        plain = {k: v for k, v in unet.config.items() if not k.startswith("_")}
        model = cls.from_config({**plain, **own_config})
        state_dict = {("conv_in." + k if k.startswith("conv_in.") else k): v for k, v in unet.state_dict().items()}
        own = {k: v for k, v in model.state_dict().items() if k.startswith("conv_in.") and not k.startswith("conv_in.conv_in.")}
        model.load_state_dict({**own, **state_dict}, strict=True)
        return model.to(unet.dtype)

    def empty_prompt(self, batch_size: int, height: int, width: int) -> dict[str, Any]:
        """What `forward` wants to be told when nobody wrote a caption: zeros, SDXL's convention for an empty prompt.

        Training without captions and restoring without text encoders both ask here, so that one sees what the other saw.

        Args:
            batch_size (`int`): Images, or tiles of images.
            height, width (`int`): Their size in pixels. They count as whole images of this size, for no crop knows more.

        Returns:
            `encoder_hidden_states` and `added_cond_kwargs`, as far as this UNet's configuration asks for them; empty if it takes no text.
        """
        conditioning: dict[str, Any] = {}
        config = self.config
        if any("CrossAttn" in (block or "") for block in (*config.down_block_types, config.mid_block_type, *config.up_block_types)):
            tokens = (batch_size, 77, config.cross_attention_dim)  # as many as CLIP writes
            conditioning["encoder_hidden_states"] = torch.zeros(tokens, device=self.device, dtype=self.dtype)
        if config.addition_embed_type == "text_time":
            # Original size, corner of the crop, target size. Float, for half precision counts no further than 2048.
            time_ids = torch.tensor([[height, width, 0, 0, height, width]], device=self.device, dtype=torch.float)
            pooled = config.projection_class_embeddings_input_dim - time_ids.shape[1] * config.addition_time_embed_dim
            conditioning["added_cond_kwargs"] = {
                "text_embeds": torch.zeros(batch_size, pooled, device=self.device, dtype=self.dtype),
                "time_ids": time_ids.repeat(batch_size, 1),
            }
        return conditioning

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor | None = None,
        lq_hidden_states: torch.Tensor | None = None,
        **kwargs,
    ):
        """As `UNet2DConditionModel.forward`, with the degraded image beside the latents.

        Args:
            sample (`torch.Tensor` of shape `(batch, latent channels, height, width)`): Noisy latents.
            lq_hidden_states (`torch.Tensor` of shape `(batch, lq_channels, height, width)`): The LQ encoder's last features.
        """
        if lq_hidden_states is None or lq_hidden_states.shape[2:] != sample.shape[2:]:
            got = None if lq_hidden_states is None else tuple(lq_hidden_states.shape)
            raise ValueError(f"`lq_hidden_states` must match the latents' size {tuple(sample.shape[2:])}, got {got}.")
        return_dict = kwargs.pop("return_dict", True)
        (output,) = super().forward(
            torch.cat([sample, lq_hidden_states], dim=1), timestep, encoder_hidden_states, return_dict=False, **kwargs
        )
        if not self.config.latent_residual:
            return FoundIRUNetOutput(sample=output) if return_dict else (output,)
        ungated, logits = output.tensor_split([self.config.out_channels], dim=1)
        gate = _hard_sigmoid(logits)
        return FoundIRUNetOutput(sample=ungated * gate, ungated=ungated, gate=gate) if return_dict else (ungated * gate,)


def _hard_sigmoid(logits: torch.Tensor) -> torch.Tensor:
    """In [0, 1], both ends included. Its gradient is the softsign's, whose tails are long, so that what is quite shut can learn to open."""
    soft = F.softsign(logits) / 2
    return soft + ((1.2 * logits.sigmoid() - 0.1).clamp(0, 1) - soft).detach()


def _run(owner: nn.Module, module: nn.Module, *inputs) -> torch.Tensor:
    """`module(*inputs)`, its inner values made again in the backward pass if gradient checkpointing is enabled for `owner`."""
    if torch.is_grad_enabled() and owner.gradient_checkpointing:
        return owner._gradient_checkpointing_func(module, *inputs)
    return module(*inputs)


def _replace_group_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, SDCascadeLayerNorm(child.num_channels))
        else:
            _replace_group_norms(child)
