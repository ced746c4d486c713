"""What the experts of the MoE-driven scheduler do: looks from outside, so that the modules keep no state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .models.unet_foundir import FoundIRUNet2DConditionModel

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
