"""Attention kernels: every `Attention` of every component, the spatial expert's among them, computed by the backend that is asked for.

diffusers' own `set_attention_backend` passes by a UNet and an autoencoder, whose processors call PyTorch directly, and changes the default
of every other model of the process. The experts of channels have no such kernel: their sequence is the channels and their heads are as long
as the image has positions, so that they are two small products of matrices.

Hub code: this file is copied verbatim next to the pipeline, so it imports torch and diffusers only.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections import defaultdict
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.utils import is_xformers_available, logging
from torch import nn

logger = logging.get_logger(__name__)


class DispatchedAttnProcessor:
    """Scaled dot-product attention by one of diffusers' backends; else what `AttnProcessor2_0` computes."""

    def __init__(self, backend: AttentionBackendName = AttentionBackendName.NATIVE):
        self._attention_backend = backend  # diffusers' name for it, which its own methods look for

    def __call__(
        self,
        attn: Any,  # an `Attention`, most of whose parts may be none
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)  # (B, H*W, C)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
            attention_mask = attention_mask.unflatten(0, (-1, attn.heads))

        if not attn.fused_projections:
            query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        elif encoder_hidden_states is None:
            query, key, value = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            query, (key, value) = attn.to_q(hidden_states), attn.to_kv(context).chunk(2, dim=-1)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))  # (B, N, heads, C/heads)
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        attended = dispatch_attention_fn(query, key, value, attn_mask=attention_mask, backend=self._attention_backend)
        hidden_states = attn.to_out[1](attn.to_out[0](attended.flatten(2).to(query.dtype)))

        if len(shape) == 4:
            hidden_states = hidden_states.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        return hidden_states / attn.rescale_output_factor


def attentions(models: Mapping[str, nn.Module]) -> dict[str, Attention]:
    """Every attention of these components that a kernel can compute, by its full name."""
    return {
        f"{component}.{name}": module
        for component, model in models.items()
        for name, module in model.named_modules()
        if isinstance(module, Attention)
    }


def set_attention_backend(models: Mapping[str, nn.Module], backend: str) -> None:
    """Has these components compute attention by one of diffusers' backends, each tried first on the device and in the precision it is for.

    Attention of a size that the backend cannot compute stays as it is, which is told in a line.

    Args:
        models: Components by name, where they are to run.
        backend: A name of `diffusers.models.attention_dispatch.AttentionBackendName`: `"native"`, `"xformers"`, `"flash"`, ...

    Raises:
        ModuleNotFoundError: If it is xformers and not installed.
        ValueError: If there is no such backend, if it needs what is not here, or if it can compute none of the attention.
    """
    try:
        chosen = AttentionBackendName(backend)
    except ValueError:
        raise ValueError(f"`backend` must be one of {', '.join(name.value for name in AttentionBackendName)}; got {backend!r}.") from None
    found = attentions(models)
    if chosen is AttentionBackendName.XFORMERS:
        check_xformers({attention.to_q.weight.device for attention in found.values()})
    alike = defaultdict(list)
    for attention in found.values():
        weight = attention.to_q.weight
        alike[attention.heads, len(weight) // attention.heads, weight.device, weight.dtype].append(attention)
    reached, failures = [], {}
    for (heads, channels, device, dtype), group in alike.items():
        reason = _failure(chosen, heads, channels, device, dtype)
        if reason is None:
            reached += group
        else:
            failures[f"{len(group)} with heads of {channels} channels on {device} in {str(dtype).removeprefix('torch.')}"] = reason
    if found and not reached:
        where, reason = next(iter(failures.items()))
        raise ValueError(f"`backend` {backend!r} can compute no attention here ({where}): {reason}")
    for where, reason in failures.items():
        logger.warning(f"`backend` {backend!r} does not compute {where}; these stay as they are. {reason}")
    for attention in reached:
        attention.set_processor(DispatchedAttnProcessor(chosen))


def reset_attention_backend(models: Mapping[str, nn.Module]) -> None:
    """Has them compute attention by PyTorch's own choice of kernel again."""
    for attention in attentions(models).values():
        attention.set_processor(AttnProcessor2_0())


def check_xformers(devices: set[torch.device]) -> None:
    """Says in one line what xformers can do here: raises if it can do nothing, warns if it was built for another PyTorch.

    Raises:
        ModuleNotFoundError: If it is not installed.
        ValueError: If the components are not on a CUDA device.
    """
    instead = "PyTorch's fused attention is in use without it"
    if not is_xformers_available():
        raise ModuleNotFoundError(f"xformers is not installed: `pip install xformers`; {instead}.", name="xformers")
    if elsewhere := sorted({device.type for device in devices} - {"cuda"}):
        raise ValueError(f"xformers computes attention on CUDA only, and this is on {', '.join(elsewhere)}; {instead}.")
    built = json.loads(files("xformers").joinpath("cpp_lib.json").read_text())["version"]["torch"]
    if built != torch.__version__:
        logger.warning(
            f"xformers {importlib.metadata.version('xformers')} was built for torch {built}, not {torch.__version__}: its own kernels may "
            "not load, and its attention then runs on PyTorch's kernels, if at all."
        )


@torch.no_grad()
def _failure(backend: AttentionBackendName, heads: int, channels: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a backend cannot compute attention of this size, in a line; none if it can."""
    query = torch.zeros(1, 64, heads, channels, device=device, dtype=dtype)
    try:
        with attention_backend(backend):  # diffusers checks, or fetches, what it needs, and goes back to what was active
            dispatch_attention_fn(query, query, query, backend=backend)
    except Exception as error:  # every kernel has errors of its own
        return " ".join(str(error).split())[:200]
    return None
