"""What the router does while the model runs: a look from outside, so that the modules keep no state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..models.unet_foundir import FoundIRUNet2DConditionModel

EXPERTS = ("spatial", "channel", "sparse_channel")  # in the order of `MoEScheduler.experts`


@contextmanager
def expert_usage(unet: FoundIRUNet2DConditionModel) -> Iterator[list[torch.Tensor]]:
    """Records how much the router gives each expert.

    Yields:
        A list that grows by one tensor `(batch, experts)` a forward pass of `unet`: the routing weights of each image, averaged over its
        positions, which sum to one over the experts. Under `"hard"` routing too these are the router's probabilities. Detached, and left on
        the UNet's device: reading them makes a GPU wait, so read them as seldom as the loss. The list stays empty where the UNet does not
        run, and where `torch.compile` has compiled it before: compiled code takes no notice of hooks that come later.

    Example:
        ```py
        >>> with expert_usage(modules.unet) as usage:
        ...     loss = modules(stage, batch, noise_scheduler, generator)
        >>> mean_by_task(usage[-1], batch.tasks)
        {'haze': {'spatial': 0.41, 'channel': 0.33, 'sparse_channel': 0.26}}
        ```
    """
    moe = unet.conv_in.moe
    if moe.routing == "none":
        raise ValueError("`unet` must have a router to look at, got one with `moe_routing='none'`.")
    usage: list[torch.Tensor] = []

    def look(router, inputs, weights: torch.Tensor) -> None:
        usage.append(weights.detach().float().mean(dim=(2, 3)))

    hook = moe.router.register_forward_hook(look)
    try:
        yield usage
    finally:
        hook.remove()


def mean_by_task(weights: torch.Tensor, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """The weights `(batch, experts)` of one pass, averaged over the images of each task, by task and expert."""
    if len(weights) != len(tasks):
        raise ValueError(f"`tasks` must name the task of each of the {len(weights)} images, got {len(tasks)}.")
    rows = weights.tolist()
    means = {}
    for task in dict.fromkeys(tasks):
        members = [row for row, name in zip(rows, tasks, strict=True) if name == task]
        means[task] = {expert: sum(values) / len(members) for expert, values in zip(EXPERTS, zip(*members, strict=True), strict=True)}
    return means
