"""AdaptIR (NeurIPS 2024): three orthogonal branches in a bottleneck, in parallel to a frozen module."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_stable_cascade import SDCascadeLayerNorm
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from .config import AdaptIRConfig


class LocalBranch(nn.Module):
    """Local spatial patterns: a depth-wise 3x3 convolution whose kernels are a product of two thin matrices."""

    def __init__(self, channels: int):
        super().__init__()
        rank = max(1, channels // 2)
        self.down = nn.Parameter(torch.empty(channels, rank))
        self.up = nn.Parameter(torch.empty(rank, 9))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.down, std=rank**-0.5)
        nn.init.normal_(self.up, std=1 / 3)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # (B, C, H, W)
        channels = hidden_states.shape[1]
        return F.conv2d(hidden_states, (self.down @ self.up).view(channels, 1, 3, 3), self.bias, padding=1, groups=channels)


class GlobalBranch(nn.Module):
    """Global spatial patterns: for each channel an affine map of the spectrum's amplitude and one of its phase; starts as the identity.

    Always in single precision: a sum over all pixels overflows half precision, and CPUs have no transform of it.
    """

    def __init__(self, channels: int):
        super().__init__()
        for name in ("amplitude", "phase"):
            self.register_parameter(f"{name}_scale", nn.Parameter(torch.ones(channels, 1, 1)))
            self.register_parameter(f"{name}_shift", nn.Parameter(torch.zeros(channels, 1, 1)))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # (B, C, H, W)
        with torch.autocast(hidden_states.device.type, enabled=False):
            spectrum = torch.fft.rfft2(hidden_states.float(), norm="ortho")
            amplitude = spectrum.abs() * self.amplitude_scale.float() + self.amplitude_shift.float()
            phase = spectrum.angle() * self.phase_scale.float() + self.phase_shift.float()
            changed = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
            return torch.fft.irfft2(changed, s=hidden_states.shape[-2:], norm="ortho").to(hidden_states.dtype)


class ChannelBranch(nn.Module):
    """Channel patterns: a softmax over the pixels says which of them count, their mean becomes a gate for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.pool = nn.Conv2d(channels, 1, 1, bias=False)  # the softmax over pixels would not feel it
        self.gate = _gate(channels, channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, C, 1, 1)
        weights = self.pool(hidden_states).flatten(2).float().softmax(dim=-1).to(hidden_states.dtype)  # (B, 1, H*W)
        pooled = (hidden_states.flatten(2) * weights).sum(dim=-1)[..., None, None]
        return self.gate(pooled)


def _gate(channels: int, out_channels: int) -> nn.Sequential:
    hidden = max(2, channels // 4)
    return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.GELU(), nn.Conv2d(hidden, out_channels, 1), nn.Sigmoid())


class AdaptIRBlock(nn.Module):
    """The adapter beside one module: 1x1 down, norm, the branches and their combination, 1x1 up that starts at zero.

    Args:
        in_channels, out_channels: Of the frozen module.
        config: See [`AdaptIRConfig`].
    """

    def __init__(self, in_channels: int, out_channels: int, config: AdaptIRConfig):
        super().__init__()
        hidden = config.hidden_size(in_channels)
        norms = {"layer": lambda: SDCascadeLayerNorm(hidden), "group": lambda: nn.GroupNorm(1, hidden), "none": nn.Identity}
        self.down = nn.Conv2d(in_channels, hidden, 1)
        self.norm = norms[config.norm]()
        both = config.interaction and {"local", "global"} <= set(config.branches)
        self.local_branch = LocalBranch(hidden) if "local" in config.branches else None
        self.global_branch = GlobalBranch(hidden) if "global" in config.branches else None
        self.channel_branch = ChannelBranch(hidden) if "channel" in config.branches else None
        self.to_channels = _gate(hidden, hidden) if both else None  # channel gate of the local branch
        self.to_pixels = _gate(hidden, 1) if both else None  # spatial gate of the global branch
        self.up = nn.Conv2d(hidden, out_channels, 1)
        if config.init_weights:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)  # pyright: ignore[reportArgumentType]  it has one

    def forward(self, hidden_states: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """`(B, in_channels, H, W)` -> `(B, out_channels, *size)`; `size` is that of what the frozen module returns."""
        hidden_states = self.norm(self.down(hidden_states))
        if hidden_states.shape[-2:] != size:
            hidden_states = F.adaptive_avg_pool2d(hidden_states, size)
        local = None if self.local_branch is None else self.local_branch(hidden_states)
        whole = None if self.global_branch is None else self.global_branch(hidden_states)
        if self.to_channels is not None and self.to_pixels is not None and local is not None and whole is not None:
            combined = local * self.to_channels(whole.mean(dim=(2, 3), keepdim=True)) + whole * self.to_pixels(local)
        else:
            combined = sum(part for part in (local, whole) if part is not None)
        if self.channel_branch is not None:
            combined = combined * self.channel_branch(hidden_states)
        return self.up(combined)


class AdaptIRLayer(nn.Module, BaseTunerLayer):
    """A frozen module with its adapters beside it: `base(x) + sum_a scale_a * block_a(x)` over the active adapters.

    Feature maps `(B, C, H, W)` beside convolutions; beside linear layers `(B, H, W, C)`, or tokens `(B, N, C)` once the map's size is
    known, see [`set_token_grid`].
    """

    adapter_layer_names = ("adaptir_block",)
    other_param_names = ("scaling",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: AdaptIRConfig):
        super().__init__()
        self.base_layer = base_layer
        self.in_channels, self.out_channels, self.channels_last = _shape(self.get_base_layer())
        self.adaptir_block = nn.ModuleDict({})
        self.scaling: dict[str, float] = {}
        self.token_grid: tuple[int, int] | None = None  # that the user told
        self.input_size: tuple[int, int] | None = None  # of the map or picture that the model was given last
        self.update_layer(adapter_name, config)

    @property
    def in_features(self) -> int:
        """Channels of the frozen module's input, by the name that peft's layers have for it."""
        return self.in_channels

    @property
    def out_features(self) -> int:
        """Channels of the frozen module's output."""
        return self.out_channels

    def update_layer(self, adapter_name: str, config: AdaptIRConfig) -> None:
        """Adds an adapter."""
        self.adaptir_block[adapter_name] = AdaptIRBlock(self.in_channels, self.out_channels, config)
        self.scaling[adapter_name] = 1.0
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def _get_base_layer_device_and_dtype(self, base_layer):
        # peft looks for `weight`, which a whole block does not have.
        parameter = next(base_layer.parameters())
        return parameter.device, parameter.dtype

    def set_scale(self, adapter: str, scale: float) -> None:
        """How much an adapter counts; diffusers' `set_adapters` calls this."""
        if adapter in self.scaling:
            self.scaling[adapter] = float(scale)

    def scale_layer(self, scale: float) -> None:
        """Makes the active adapters count `scale` times as much."""
        for name in self.active_adapters:
            self.set_scale(name, self.scaling.get(name, 1.0) * scale)

    def unscale_layer(self, scale: float | None = None) -> None:
        """Takes a [`scale_layer`] back; without `scale`, all of them."""
        for name in self.active_adapters:
            self.set_scale(name, 1.0 if scale is None else self.scaling.get(name, 1.0) / scale)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = self.base_layer(hidden_states, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.adaptir_block and self.scaling[name]:
                block = cast("AdaptIRBlock", self.adaptir_block[name])
                adapted = self._adapt(block, hidden_states.to(block.down.weight.dtype), result.shape)
                result = result + self.scaling[name] * adapted.to(result.dtype)
        return result

    def _adapt(self, block: AdaptIRBlock, hidden_states: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        if hidden_states.ndim == 3:
            height, width = self._grid(hidden_states.shape[1])
            maps = hidden_states.transpose(1, 2).unflatten(2, (height, width))
            return block(maps, (height, width)).flatten(2).transpose(1, 2)
        if hidden_states.ndim == 2:  # a vector is a map of one pixel
            return block(hidden_states[..., None, None], (1, 1)).flatten(1)
        if hidden_states.ndim != 4:
            raise ValueError(f"AdaptIR takes (B, C, H, W), (B, H, W, C), (B, N, C) or (B, C), got {tuple(hidden_states.shape)}.")
        if self.channels_last:
            return block(hidden_states.permute(0, 3, 1, 2), shape[1:3]).permute(0, 2, 3, 1)
        return block(hidden_states, shape[-2:])

    def _grid(self, tokens: int) -> tuple[int, int]:
        """Height and width of the map that so many tokens are: what [`set_token_grid`] told or the model was given, by a whole factor."""
        for height, width in filter(None, (self.token_grid, self.input_size)):
            for factor in range(1, max(height, width) + 1):
                grid = -(-height // factor), -(-width // factor)
                if grid[0] * grid[1] <= tokens:
                    break
            if grid[0] * grid[1] == tokens:
                return grid
        raise ValueError(
            f"AdaptIR needs to know the height and width that {tokens} tokens stand for; it was told {self.token_grid}, and the model's "
            f"input is of {self.input_size}. Call `set_token_grid(model, height, width)` with those of the finest map."
        )


def _shape(module: nn.Module) -> tuple[int, int, bool]:
    """Input and output channels of a module, and whether channels come last in its maps."""
    inner = [part for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    if not inner:
        raise ValueError(f"AdaptIR adapts convolutions, linear layers, and blocks that contain some; got {type(module).__name__}.")
    first, last = inner[0], inner[-1]
    entering, leaving = getattr(module, "in_channels", None), getattr(module, "out_channels", None)
    if entering is None or leaving is None:
        entering = first.in_channels if isinstance(first, nn.Conv2d) else first.in_features
        leaving = last.out_channels if isinstance(last, nn.Conv2d) else last.out_features
    return int(entering), int(leaving), isinstance(first, nn.Linear)
