"""Adapters as files: peft's two for each component, and one that says what they were trained on.

    scans/foundir_adapter.json                   method, base with the hashes of its weights, components, parameters
    scans/README.md                              the card
    scans/{lq_encoder,unet,tone}/adapter_config.json
    scans/{lq_encoder,unet,tone}/adapter_model.safetensors

Each sub-folder is an adapter of peft's own: `PeftModel.from_pretrained(pipe.unet, "scans", subfolder="unet")`.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save

from ..hub import checkpoint_hashes, resolve_checkpoint
from ..pipelines.lora_foundir import (
    ADAPTER_INDEX,
    COMPONENTS,
    PEFT_PREFIX,
    WEIGHTS_NAME,
    base_weights,
    check_finite,
    check_keys,
    check_parts,
    check_same_base,
    find_adapter,
    read_adapter,
)
from ..pipelines.pipeline_foundir import FoundIRPipeline
from .adaptir import AdaptIRConfig
from .attach import adapted_components, count_parameters

# Of AdaptIR's options those that a file may set.
_ADAPTIR_OPTIONS = ("target_modules", "exclude_modules", "reduction", "min_hidden_size", "branches", "interaction", "norm")


@dataclass(frozen=True)
class Base:
    """What an adapter was trained on.

    Args:
        checkpoint: Its name: bundled, of a Hub repository, or of a folder without what leads to it.
        weights: SHA-256 of the weight files of the components that can be adapted, by their path in the checkpoint.
    """

    checkpoint: str
    weights: dict[str, str]

    @classmethod
    def of_checkpoint(cls, checkpoint: str | Path) -> Base:
        """That of [`~foundir_hf.hub.load_pipeline`]'s `checkpoint`."""
        weights = {
            name: digest for name, digest in checkpoint_hashes(resolve_checkpoint(checkpoint)).items() if name.startswith(COMPONENTS)
        }
        return cls(_public_name(str(checkpoint)), weights)

    @classmethod
    def of_pipeline(cls, pipeline: FoundIRPipeline, checkpoint: str) -> Base:
        """That of a pipeline that was loaded from files."""
        return cls(_public_name(checkpoint), base_weights(pipeline))


def save_adapter(owner: Any, folder: str | Path, base: Base, name: str = "default", card: str | None = None) -> None:
    """Writes an adapter; the folder appears whole or not at all, and replaces one of that name.

    Args:
        owner: A pipeline, or whatever else has `lq_encoder`, `unet` and, perhaps, `tone`.
        folder: Where to.
        base: What it was trained on.
        name: Of the adapter.
        card: Text of its `README.md`.
    """
    folder, parts = Path(folder), adapted_components(owner, name)
    if not parts:
        raise ValueError(f"`name` {name!r}: there is no such adapter.")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    methods, count = set(), count_parameters(owner, name)
    for component, model in parts.items():
        config = model.peft_config[name]  # pyright: ignore[reportAttributeAccessIssue]
        methods.add(str(getattr(config.peft_type, "value", config.peft_type)).lower())
        state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        # `base_layer` stands in a name where another adapter was put around this one.
        weights = {PEFT_PREFIX + key.replace(".base_layer.", "."): tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        check_finite(weights, component)
        (unfinished / component).mkdir(parents=True)
        # Not `save_file`, whose files nobody but their owner may read.
        (unfinished / component / WEIGHTS_NAME).write_bytes(save(weights, metadata={"format": "pt"}))
        training, config.inference_mode, config.base_model_name_or_path = config.inference_mode, True, base.checkpoint
        config.save_pretrained(str(unfinished / component))
        config.inference_mode = training
    index = {
        "method": "+".join(sorted(methods)),
        "base": {"checkpoint": base.checkpoint, "weights": base.weights},
        "components": list(parts),
        "parameters": count.adapter,
        "share": round(count.share, 5),
    }
    (unfinished / ADAPTER_INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    if card is not None:
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    if folder.exists():
        if not (folder / ADAPTER_INDEX).is_file():
            raise ValueError(f"`folder` {str(folder)!r} exists and is no adapter.")
        shutil.rmtree(folder)
    unfinished.rename(folder)


def load_adapter(
    pipeline: FoundIRPipeline, source: str | Path, name: str | None = None, *, revision: str | None = None, check_base: bool = True
) -> str:
    """Loads an adapter of any method and makes it the active one; `pipeline.set_adapters` combines several.

    It runs no code: safetensors and JSON are read, and of a configuration the known options only.

    Args:
        pipeline: With the weights that it was trained on.
        source: Folder or Hub repository.
        name: What to call it; left out, as the folder is called.
        revision: Of a Hub repository.
        check_base: Refuse an adapter whose base has other weights, by the hashes of their files.

    Returns:
        The adapter's name.

    Raises:
        ValueError: If it is no adapter, or a pickle; if its base is another; if its weights do not fit or are not finite. The pipeline then
            stays as it was.
    """
    folder = find_adapter(source, revision)
    name = name or re.sub(r"\W", "_", Path(str(source)).resolve().name)  # a dot would divide it in two
    index, parts = read_adapter(folder)
    if index["method"] not in ("lora", "adaptir"):
        raise ValueError(f"{str(source)!r}: the method must be 'lora' or 'adaptir', got {index['method']!r}.")
    if index["method"] == "lora":
        pipeline.load_lora_weights(folder, name, check_base=check_base)
        return name
    if check_base:
        check_same_base(pipeline, index)
    if adapted_components(pipeline, name):
        raise ValueError(f"`name` {name!r} is taken; delete_adapters({name!r}) removes it.")
    check_parts(pipeline, parts)
    for component, (options, weights) in parts.items():
        model = getattr(pipeline, component)
        try:
            model.add_adapter(AdaptIRConfig(**{key: value for key, value in (options or {}).items() if key in _ADAPTIR_OPTIONS}), name)
            check_keys(model, name, weights)
            set_peft_model_state_dict(model, weights, name)
        except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, re.error) as error:
            pipeline.delete_adapters(name)
            raise ValueError(f"The adapter does not fit `{component}`: {' '.join(str(error).split())}") from error
    pipeline.set_adapters(name)
    return name


def _public_name(checkpoint: str) -> str:
    """Without the way to a folder, which is of one machine."""
    return Path(checkpoint).resolve().name if Path(checkpoint).exists() else checkpoint
