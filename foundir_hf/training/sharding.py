"""Weights, gradients, moments and averages in shards, one a process (FSDP2). Without sharding every function here does the plain thing.

What trains is then a copy in shards; the whole modules wait in main memory, and receive the averaged weights to validate, save and hand on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.utils import DistributedType, reduce
from diffusers.models.attention import BasicTransformerBlock
from diffusers.training_utils import EMAModel
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor

from .config import TrainConfig
from .objectives import FoundIRModules

AVERAGES = "averages"  # folder of a checkpoint with sharded weights


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether the weights are."""
    return accelerator.distributed_type == DistributedType.FSDP


def check_sharding(accelerator: Accelerator, config: TrainConfig, resumed: Path | None) -> None:
    """Raises `ValueError` for what does not go with sharded weights, and for a checkpoint `resumed` of the other kind."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # Its engine steps within the backward pass: no update that is not finite could be skipped. It keeps the exact weights to itself.
        raise ValueError("`distributed_type` DEEPSPEED is not supported: training/accelerate/zero2.yaml shards the same through FSDP.")
    if is_sharded(accelerator):
        if config.adapter is not None:
            raise ValueError(
                "`adapter` is trained with whole weights: it is small, and what it adapts needs neither gradients nor moments."
            )
        if not accelerator.is_fsdp2:
            raise ValueError("`fsdp_version` must be 2, got 1.")
        if config.mixed_precision == "fp16" or config.compile:
            raise ValueError(
                "With sharded weights `mixed_precision` must be 'no' or 'bf16' and `compile` false; "
                f"got {config.mixed_precision!r}, {config.compile}."
            )
    if resumed is not None and (resumed / AVERAGES).is_dir() != is_sharded(accelerator):
        kind, other = ("whole", "sharded") if is_sharded(accelerator) else ("sharded", "whole")
        raise ValueError(f"{str(resumed)!r} was written with {kind} weights, this run has {other} ones: launch it as it was begun.")


def to_train(accelerator: Accelerator, modules: FoundIRModules) -> FoundIRModules:
    """What `accelerator` shall prepare: a copy that can be sharded, or `modules` themselves."""
    if not is_sharded(accelerator):
        return modules
    plugin: Any = accelerator.state.fsdp_plugin
    # Processes gather together, so a part that is gathered by itself must be one that all of them call equally often, whatever their
    # batches draw. Every denoising objective calls the UNet once; most of SDXL is its transformer blocks. The rest is gathered as one.
    blocks = any(isinstance(module, BasicTransformerBlock) for module in modules.unet.modules())
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = [BasicTransformerBlock.__name__] if blocks else []
    plugin.cpu_ram_efficient_loading = False  # all processes have the weights
    # Gathered in single precision; autocast halves what it halves without shards, and norms keep their parameters.
    plugin.mixed_precision_policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    return copy.deepcopy(modules.to("cpu")).to(memory_format=torch.contiguous_format)  # FSDP takes no other


def after_prepare(accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Makes what was prepared ready; returns the parameters that are trained, which in shards are others than before."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not is_sharded(accelerator):
        return parameters
    for parameter in parameters:  # as AdamW would; to save moments that are none yet, torch would take a step that counts
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.tensor(0.0), **moments}
    # The objective decides by chance which components a process needs; the gradients of the others are exchanged as zeros. Which were
    # needed is seen at the whole parameters, from the first pass on, when FSDP has made them. Transformer blocks are needed by all or none.
    model.set_reduce_scatter_unused_params(True)
    model.needed = needed = {}

    def watch(module: torch.nn.Module, inputs: tuple) -> None:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                needed[name] = False
                parameter.register_hook(lambda gradient, name=name: needed.update({name: True}))
        hook.remove()

    hook = model.register_forward_pre_hook(watch)
    return parameters


def leave_out_unneeded(accelerator: Accelerator, model: FoundIRModules) -> None:
    """Takes away the gradients of parameters that no process needed: AdamW moves on with a gradient of zero, and stays without one."""
    if not is_sharded(accelerator):
        return
    counts = reduce(torch.tensor(list(model.needed.values()), dtype=torch.float32, device=accelerator.device)).tolist()
    for name, count in zip(model.needed, counts, strict=True):
        if count == 0:
            model.get_parameter(name).grad = None
    model.needed.update(dict.fromkeys(model.needed, False))


def register_averages(accelerator: Accelerator, ema: EMAModel) -> None:
    """Makes `ema` part of `accelerator`'s checkpoints; of registered objects accelerate writes the main process's shard only."""
    if not is_sharded(accelerator):
        accelerator.register_for_checkpointing(ema)
        return

    def save(models: list, weights: list, folder: str) -> None:
        dcp.save(ema.state_dict(), checkpoint_id=Path(folder) / AVERAGES)

    def load(models: list, folder: str) -> None:
        state = ema.state_dict()
        dcp.load(state, checkpoint_id=Path(folder) / AVERAGES)
        ema.load_state_dict(state)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)


@torch.no_grad()
def copy_averaged_weights(
    accelerator: Accelerator, modules: FoundIRModules, model: FoundIRModules, ema: EMAModel, parameters: list[torch.nn.Parameter]
) -> None:
    """Gives `modules` the averaged weights, whole and on the device of every process. All must call it.

    Args:
        accelerator: Which prepared `model`.
        modules: That receive the weights.
        model: What [`to_train`] returned.
        ema, parameters: The averages of which parameters of `model`.
    """
    if not is_sharded(accelerator):
        ema.copy_to(parameters)
        return
    modules.to(accelerator.device)
    averages = {id(parameter): average for parameter, average in zip(parameters, ema.shadow_params, strict=True)}
    for whole, shard in zip(modules.parameters(), model.parameters(), strict=True):
        whole.copy_(averages.get(id(shard), shard).full_tensor())


@contextmanager
def averaged(
    accelerator: Accelerator, modules: FoundIRModules, model: FoundIRModules, ema: EMAModel, parameters: list[torch.nn.Parameter]
) -> Iterator[None]:
    """A context in which `modules` are whole and their weights the averaged ones. Arguments as in [`copy_averaged_weights`]."""
    if not is_sharded(accelerator):
        ema.store(parameters)
    copy_averaged_weights(accelerator, modules, model, ema, parameters)
    try:
        yield
    finally:
        if is_sharded(accelerator):
            modules.to("cpu")  # out of the way
        else:
            ema.restore(parameters)
