"""The checkpoint that the authors of FoundIR-v2 released -> a pipeline of ours that computes the same.

Their file holds an SDXL UNet, the LQ encoder inside it, and the MoE-driven scheduler, under names of their own; the tables below say which
is which. All else is of the SDXL that it was trained from. Nothing is guessed: a name that is missing, left over or of another shape, and a
number that is none, are refused by name.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .hub import read_index
from .io.files import file_sha256
from .models.lq_encoder_foundir import FoundIRLQEncoder
from .models.unet_foundir import FoundIRUNet2DConditionModel
from .pipelines.pipeline_foundir import FoundIRPipeline
from .training.sdxl import is_sdxl, load_component

# Layers that the released graph saves and never calls.
IGNORED = ("information_transformer_layes.", "agg_net.")

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Ours -> theirs; the first that matches the beginning of a name. What none matches, SDXL's own layers, has the same name in both.
_STEM = {
    r"conv_in\.conv_in\.": "conv_in.",
    r"conv_in\.condition_embedding\.": "condition_embedding.",
    r"conv_in\.projection\.": "spatial_ch_projs.",
    r"conv_in\.moe\.router\.gate\.": "MoE.gate.",
    r"conv_in\.moe\.experts\.0\.layers\.(\d+)\.": r"MoE.experts.0.ExpertA_transformer_layes.\1.",
    r"conv_in\.moe\.experts\.1\.layers\.(\d+)\.": r"MoE.experts.1.ExpertB_transformer_layes.\1.",
    r"conv_in\.moe\.experts\.2\.layers\.(\d+)\.": r"MoE.experts.2.ExpertC_transformer_layes.\1.",
}
# The same of what follows in a layer of an expert.
_SPATIAL_LAYER = {
    r"norm(\d)\.": r"ln_\1.",
    r"attention\.to_[qkv]\.": "attn.in_proj_",  # three matrices of ours are one of theirs
    r"attention\.to_out\.0\.": "attn.out_proj.",
    r"feed_forward\.net\.0\.proj\.": "mlp.c_fc.",
    r"feed_forward\.net\.2\.": "mlp.c_proj.",
}
_CHANNEL_LAYER = {
    r"norm(\d)\.": r"norm\1.body.",
    r"attention\.scale": "attn.attn3",
    r"attention\.": "attn.",
    r"feed_forward\.merge([35]x[35])\.": r"ffn.dwconv\1_1.",
    r"feed_forward\.": "ffn.",
}

LICENSE_NOTE = (
    "UNet and LQ encoder are converted from the weights that the authors of FoundIR-v2 released "
    "(github.com/cschenxiang/FoundIR-v2). The licence file of that repository says Creative Commons BY-NC-SA 4.0: no "
    "commercial use, and the same terms for what is made of them. It names Naver Corporation, which is not the authors, as "
    "the owner; in doubt ask the authors. Autoencoder, text encoders, tokenizers and scheduler keep the terms of the "
    "checkpoints that they are from, which for SDXL are those of CreativeML Open RAIL++-M. The Python files are of "
    "foundir_hf, Apache-2.0. Source file: SHA-256 {digest}."
)


def convert_official(checkpoint: str | Path, base: str, vae: str | None = None) -> FoundIRPipeline:
    """Reads the released weights into a pipeline, on the CPU, in the precision of the file.

    Its experts attend over the batch, as the released graph does: under classifier-free guidance the two halves of a pair see each other.

    Args:
        checkpoint: The released file, a pickle of tensors; nothing else in it is executed or accepted.
        base: Folder or Hub repository of the SDXL in diffusers' layout that the weights belong to: its configuration, text encoders,
            tokenizers and scheduler, and its autoencoder unless `vae` is given.
        vae: Folder or Hub repository of an `AutoencoderKL`, such as the one that holds in half precision.

    Raises:
        ValueError: If a source is not what it should be, by the names of what is missing, left over, of another shape or not finite.
    """
    weights = read_weights(checkpoint)
    index = read_index(base)
    if not is_sdxl(index):
        raise ValueError(f"`base` {base!r} must be a StableDiffusionXLPipeline, got {index.get('_class_name')}.")
    dtype = torch.float16
    for tensor in weights.values():
        dtype = torch.promote_types(dtype, tensor.dtype)

    autoencoder = _autoencoder(base, vae, dtype)
    lq_encoder: Any = FoundIRLQEncoder.from_vae(autoencoder)
    config: Any = UNet2DConditionModel.load_config(base, subfolder="unet")
    lq_channels = lq_encoder.config.block_out_channels[-1]
    with torch.device("meta"):  # the file has all its weights
        unet: Any = FoundIRUNet2DConditionModel.from_config({**config, "lq_channels": lq_channels, "moe_attend_over": "batch"})

    wanted = {
        "unet": {name: official_name(name) for name in unet.state_dict()},
        "lq_encoder": {name: name.replace("encoder.", "denoise_encoder.", 1) for name in lq_encoder.state_dict()},
    }
    _check_names(weights, {theirs for names in wanted.values() for theirs in names.values()})
    misfits = []
    for part, model in (("unet", unet), ("lq_encoder", lq_encoder)):
        state = {}
        for name, expected in model.state_dict().items():
            theirs = wanted[part][name]
            tensor = _part_of(weights[theirs], name)
            if theirs.startswith("spatial_ch_projs.weight"):
                tensor = tensor[..., None, None]  # a linear layer there, a convolution of one pixel here
            if tensor.shape != expected.shape:
                misfits.append(f"{theirs} is {_shape(weights[theirs])} and has {_shape(tensor)} for {_shape(expected)} of {part}.{name}")
            elif not tensor.isfinite().all():
                misfits.append(f"{theirs} has numbers that are not finite")
            else:
                state[name] = tensor.to(dtype, copy=True)  # files keep no views
        if not misfits:
            model.load_state_dict(state, strict=True, assign=True)
    if misfits:
        raise ValueError(f"`checkpoint` {str(checkpoint)!r}: {_some(dict.fromkeys(misfits))}.")

    note = LICENSE_NOTE.format(digest=file_sha256(Path(checkpoint)))
    return FoundIRPipeline(
        vae=autoencoder, lq_encoder=lq_encoder.eval(), unet=unet.eval(), license_note=note, **_texts_and_scheduler(base, index, dtype)
    )


def read_weights(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """A pickle of named tensors, as data: PyTorch's restricted unpickler, no code. Raises `ValueError`."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of damage, which is told otherwise
            weights = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged file makes the unpickler raise a dozen types
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"`checkpoint` {str(checkpoint)!r} is no file of tensors that torch.save wrote: {reason}") from error
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"`checkpoint` {str(checkpoint)!r} must hold tensors by name, got {type(weights).__name__}.")
    other = [str(name) for name, tensor in weights.items() if not isinstance(name, str) or not _is_numbers(tensor)]
    if other:
        raise ValueError(f"`checkpoint` {str(checkpoint)!r} must hold tensors of numbers by name; not one is {_some(other)}.")
    return weights


def _is_numbers(tensor: Any) -> bool:
    """Whether it is a plain tensor, of a type that a model may have; a pickle may hold some without contents, too."""
    plain = isinstance(tensor, torch.Tensor) and not tensor.is_nested and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and tensor.dtype in _DTYPES


def official_name(name: str) -> str:
    """What the released file calls a weight of our UNet."""
    stem, changed = _renamed(name, _STEM)
    if not changed or "_transformer_layes." not in stem:
        return stem
    prefix, layer, rest = re.split(r"(?<=layes\.)(\d+\.)", stem)
    return prefix + layer + _renamed(rest, _SPATIAL_LAYER if "ExpertA" in prefix else _CHANNEL_LAYER)[0]


def _renamed(name: str, table: dict[str, str]) -> tuple[str, bool]:
    for ours, theirs in table.items():
        replaced, count = re.subn("^" + ours, theirs, name)
        if count:
            return replaced, True
    return name, False


def _part_of(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Of a matrix that holds query, key and value, the one that `name` wants; of any other tensor all."""
    third = re.match(r"conv_in\.moe\.experts\.0\..*\.to_([qkv])\.", name)
    if third is None or len(tensor) % 3:
        return tensor
    return tensor.chunk(3)["qkv".index(third[1])]


def _check_names(weights: dict[str, torch.Tensor], wanted: set[str]) -> None:
    """Every name of the file is wanted or [`IGNORED`], every wanted name is there."""
    missing = sorted(wanted - set(weights))
    extra = sorted(name for name in set(weights) - wanted if not name.startswith(IGNORED))
    problems = [f"{what} {_some(names)}" for what, names in (("lacks", missing), ("has nothing to do with", extra)) if names]
    if problems:
        raise ValueError(f"`checkpoint` does not belong to this base: it {' and '.join(problems)}.")


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _autoencoder(base: str, vae: str | None, dtype: torch.dtype) -> Any:
    if vae is None:
        return load_component(AutoencoderKL, base, "vae", dtype, argument="base").eval()
    own_folder = (Path(vae) / "vae").is_dir()  # of a whole pipeline
    return load_component(AutoencoderKL, vae, "vae" if own_folder else None, dtype, argument="vae").eval()


def _texts_and_scheduler(base: str, index: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The components of the base that stay as they are."""
    scheduler_name = index.get("scheduler", [None, None])[1]
    scheduler_class = getattr(diffusers, str(scheduler_name), None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)):
        raise ValueError(f"`base` {base!r} must have a scheduler of diffusers, got {scheduler_name}.")
    parts: dict[str, Any] = {"scheduler": scheduler_class.from_pretrained(base, subfolder="scheduler")}
    for name, model_class in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        if index.get(name, [None, None])[1] is not None:
            parts[name] = load_component(model_class, base, name, dtype, argument="base").eval()
    for name in ("tokenizer", "tokenizer_2"):
        if index.get(name, [None, None])[1] is not None:
            parts[name] = CLIPTokenizer.from_pretrained(base, subfolder=name)
    if "force_zeros_for_empty_prompt" in index:
        parts["force_zeros_for_empty_prompt"] = index["force_zeros_for_empty_prompt"]
    return parts
