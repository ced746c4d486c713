"""What the experts of the MoE-driven scheduler do: looks from outside, so that the modules keep no state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from .models.unet_foundir import FoundIRUNet2DConditionModel
from .pipelines.pipeline_foundir import FoundIRPipeline
from .pipelines.tiling_foundir import TileGrid

EXPERTS = ("spatial", "channel", "sparse_channel")  # in the order of `MoEScheduler.experts`


@contextmanager
def record_routing(unet: FoundIRUNet2DConditionModel) -> Iterator[list[torch.Tensor]]:
    """Records what the router gives each expert (`w` of Eq. 5), pixel by pixel of the latents.

    Yields:
        A list that grows by one tensor `(batch, experts, height, width)` a forward pass of `unet`, whose experts sum to one. Under `"hard"`
        routing too these are the router's probabilities. Detached, and left on the UNet's device: reading them makes a GPU wait, so read
        them as seldom as the loss. The list stays empty where the UNet does not run, and where `torch.compile` has compiled it before:
        compiled code takes no notice of hooks that come later.

    Raises:
        ValueError: If `unet` has no router.

    Example:
        ```py
        >>> with record_routing(pipe.unet) as maps:
        ...     restored = pipe(photo).images[0]
        >>> maps[0].mean(dim=(0, 2, 3))
        tensor([0.41, 0.33, 0.26])
        ```
    """
    maps: list[torch.Tensor] = []
    hook = _router(unet).register_forward_hook(lambda router, inputs, weights: maps.append(weights.detach().float()))
    try:
        yield maps
    finally:
        hook.remove()


@dataclass
class Account:
    """What the stages of a restoration did, see [`record_stages`].

    Args:
        estimate: The LQ encoder's, before denoiser and tone curves, `(3, height, width)`, `uint8`, padded right and below.
        curves: What the tone curves' `forward` returned, on the CPU; none if it was not asked.
        routing: One entry a forward pass of the denoiser, see [`record_routing`]; tile by tile, and all tiles again for each step.
        grid: The tiles of the latents; none before the encoder has run.
    """

    estimate: torch.Tensor | None = None
    curves: torch.Tensor | None = None
    routing: list[torch.Tensor] = field(default_factory=list)
    grid: TileGrid | None = None

    def expert_map(self) -> torch.Tensor | None:
        """The router's weights on the whole padded image, `(experts, height, width)` of the latents, the mean over steps; none if there
        is no router or the denoiser did not run."""
        if self.grid is None or not self.routing:
            return None
        steps = len(self.routing) // len(self.grid)
        whole = torch.zeros(1, self.routing[0].shape[1], self.grid.height, self.grid.width)
        for step in range(steps):
            for tile, weights in zip(self.grid.tiles(), self.routing[step * len(self.grid) :][: len(self.grid)], strict=True):
                tile.of(whole).add_(weights[-1:].cpu() * tile.weight / steps)
        return whole[0]


@contextmanager
def record_stages(pipeline: FoundIRPipeline) -> Iterator[Account]:
    """Keeps what the stages of one image hand on, for people to look at; the pixels stay what they are without.

    Args:
        pipeline: To be called once inside, with one image.
    """
    account, encode_lq = Account(), pipeline.encode_lq

    def kept(pixels: torch.Tensor, estimate: torch.Tensor, grid: TileGrid, bar) -> Iterator[torch.Tensor]:
        yield from encode_lq(pixels, estimate, grid, bar)
        account.grid, account.estimate = grid, ((estimate[0] + 1) * 127.5).round().clamp(0, 255).byte()

    with ExitStack() as stack:
        if pipeline.unet.conv_in.moe.routing != "none":  # pyright: ignore[reportAttributeAccessIssue]
            account.routing = stack.enter_context(record_routing(pipeline.unet))  # pyright: ignore[reportArgumentType]
        if pipeline.tone is not None:
            hook = pipeline.tone.register_forward_hook(lambda tone, inputs, curves: setattr(account, "curves", curves.detach().cpu()))
            stack.callback(hook.remove)
        pipeline.encode_lq = kept
        stack.callback(pipeline.__dict__.pop, "encode_lq")
        yield account


@contextmanager
def without_expert(unet: FoundIRUNet2DConditionModel, expert: str) -> Iterator[None]:
    """A context in which one expert is switched off: at every pixel its weight goes to the others, in proportion to theirs.

    Args:
        unet: With a router.
        expert: One of [`EXPERTS`].
    """
    if expert not in EXPERTS:
        raise ValueError(f"`expert` must be one of {', '.join(EXPERTS)}, got {expert!r}.")
    index = EXPERTS.index(expert)

    def switch_off(router: nn.Module, inputs: tuple, weights: torch.Tensor) -> torch.Tensor:
        others = weights.clone()
        others[:, index] = 0
        return others / others.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)

    hook = _router(unet).register_forward_hook(switch_off)
    try:
        yield
    finally:
        hook.remove()


def _router(unet: FoundIRUNet2DConditionModel) -> nn.Module:
    moe = unet.conv_in.moe
    if moe.routing == "none":
        raise ValueError("`unet` must have a router to look at, got one with `moe_routing='none'`.")
    return moe.router
