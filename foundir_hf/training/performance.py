"""How the modules compute, which changes memory and time and not what they learn."""

from __future__ import annotations

from typing import Literal, get_args

from accelerate import PartialState
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0, XFormersAttnProcessor

from ..pipelines.attention_foundir import check_xformers
from .objectives import FoundIRModules

AttentionKernel = Literal["sdpa", "xformers", "eager"]


def configure(modules: FoundIRModules, *, gradient_checkpointing: bool, attention: AttentionKernel) -> None:
    """Sets how all components compute; nothing of it is saved with them.

    Args:
        modules: The components.
        gradient_checkpointing: Keep the inputs of blocks only and make the rest again in the backward pass: less memory, more time.
        attention: `"sdpa"`, PyTorch's fused attention; `"xformers"`, memory-efficient attention of the extra of that name, on CUDA only;
            `"eager"`, matrix products and a softmax, whose memory is quadratic in the positions: for machines whose fused kernels fail.

    Raises:
        ValueError: If `attention` is none of these, or xformers is asked for elsewhere than on CUDA.
        ImportError: If xformers is asked for and not installed.
    """
    if attention not in get_args(AttentionKernel):
        raise ValueError(f"`attention` must be one of {get_args(AttentionKernel)}, got {attention!r}.")
    if attention == "xformers":
        check_xformers({PartialState().device})  # where accelerate will put them
    processor = {"sdpa": AttnProcessor2_0, "xformers": XFormersAttnProcessor, "eager": AttnProcessor}[attention]
    for module in modules.modules():
        if isinstance(module, Attention):
            module.set_processor(processor())
    for component in modules.components().values():
        if not component._supports_gradient_checkpointing:
            continue
        if gradient_checkpointing:
            component.enable_gradient_checkpointing()
        else:
            component.disable_gradient_checkpointing()
