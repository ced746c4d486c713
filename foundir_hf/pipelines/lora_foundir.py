"""LoRA through the pipeline, by the names that diffusers has: `load_lora_weights`, `set_adapters`, `fuse_lora`, `save_lora_weights`, ...

diffusers' own mixins load into a UNet and text encoders; here the LQ encoder and the tone curves do much of the work, so ours serves these
too. Files are read as data: safetensors and JSON, never pickles, and of a configuration only the entries that say what LoRA computes.

Hub code: this file is copied verbatim next to the weights, so it imports what comes with diffusers only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE, LoraBaseMixin
from diffusers.loaders.unet_loader_utils import _maybe_expand_lora_scales
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

ADAPTER_INDEX = "foundir_adapter.json"  # method, base and components of an adapter's folder
CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"  # peft's, one of each for a component
COMPONENTS = ("lq_encoder", "unet", "tone")  # an autoencoder stays what it is: the diffusion learns in its latents
PEFT_PREFIX = "base_model.model."  # of every key that peft saves

# Of LoRA's options those that say what is computed. Others start from, or import, things that a file has no business to name.
_LORA_OPTIONS = frozenset(
    {
        "r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "lora_bias",
        "fan_in_fan_out", "lora_dropout",
    }
)  # fmt: skip

Part = tuple[dict[str, Any] | None, dict[str, torch.Tensor]]  # configuration, weights


class FoundIRLoraLoaderMixin(LoraBaseMixin):
    """Gives a pipeline LoRA on its LQ encoder, UNet and tone curves. What is not here is diffusers' own (`get_active_adapters`, ...).

    AdaptIR adapters, once loaded by `foundir_hf.adapters`, are weighted, switched off and removed by the same methods.
    """

    _lora_loadable_modules: ClassVar[list[str]] = list(COMPONENTS)

    def load_lora_weights(
        self,
        pretrained_model_name_or_path_or_dict: str | Path | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        low_cpu_mem_usage: bool | None = None,
        check_base: bool = True,
        **kwargs: Any,
    ) -> None:
        """Loads a LoRA and makes it the active one; [`set_adapters`] combines several.

        Args:
            pretrained_model_name_or_path_or_dict: A folder or Hub repository written by `foundir adapt` (peft's files for each component)
                or by [`save_lora_weights`]; such a file; or its tensors, with the component's name before each key.
            adapter_name: What to call it; left out, `default_0`, `default_1`, ...
            hotswap: Write its weights into those of the adapter that has this name already, as in diffusers.
            low_cpu_mem_usage: As in diffusers.
            check_base: Refuse an adapter that was trained on other weights than this pipeline's, as far as its files say.
            kwargs: Of [`lora_state_dict`].

        Raises:
            ValueError: If there is nothing to load, if it is a pickle or no LoRA, if its base is another, if its weights do not fit or are
                not finite. The pipeline then stays as it was.
        """
        parts, index = _read_lora(pretrained_model_name_or_path_or_dict, **kwargs)
        if check_base and index is not None:
            check_same_base(self, index)
        taken = self._adapter_names()
        name = adapter_name or next(f"default_{i}" for i in count() if f"default_{i}" not in taken)
        if hotswap != (name in taken):
            raise ValueError(
                f"`adapter_name` {name!r} is taken; delete_adapters({name!r}) removes it."
                if name in taken
                else f"`adapter_name` {name!r}: there is none to be swapped; there are {', '.join(sorted(taken)) or 'none'}."
            )
        check_parts(self, parts)
        options = {"prefix": None, "adapter_name": name, "hotswap": hotswap, "_pipeline": self}
        if low_cpu_mem_usage is not None:
            options["low_cpu_mem_usage"] = low_cpu_mem_usage
        for component, (config, weights) in parts.items():
            config = None if config is None else {key: value for key, value in config.items() if key in _LORA_OPTIONS}
            try:
                model = getattr(self, component)
                model.load_lora_adapter(weights, metadata=config, **options)
                check_keys(model, name, weights)
            except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
                self.delete_adapters(name)
                raise ValueError(f"The adapter does not fit `{component}`: {' '.join(str(error).split())}") from error
        self.set_adapters(name)

    @classmethod
    def lora_state_dict(
        cls, pretrained_model_name_or_path_or_dict: str | Path | dict[str, torch.Tensor], return_lora_metadata: bool = False, **kwargs: Any
    ) -> dict[str, torch.Tensor] | tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """A LoRA's tensors, with the component's name before each key, and on request its configuration in the same way.

        Args:
            pretrained_model_name_or_path_or_dict: As in [`load_lora_weights`].
            return_lora_metadata: Whether to return the configuration too.
            kwargs: `weight_name`, a file of the folder or repository that is called otherwise than diffusers calls it; `subfolder`; and of
                a Hub repository `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`. `prefix` takes the part of one
                component alone. `use_safetensors` must not be `False`.
        """
        parts, _ = _read_lora(pretrained_model_name_or_path_or_dict, **kwargs)
        weights = {f"{part}.{key}": tensor for part, (_, own) in parts.items() for key, tensor in own.items()}
        if not return_lora_metadata:
            return weights
        return weights, {f"{part}.{key}": value for part, (config, _) in parts.items() for key, value in (config or {}).items()}

    def _adapter_names(self) -> set[str]:
        return {name for names in self.get_list_adapters().values() for name in names}

    def set_adapters(
        self, adapter_names: str | list[str], adapter_weights: float | dict[str, Any] | list[float | dict[str, Any]] | None = None
    ) -> None:
        """Makes these adapters the active ones, each counting as much as its weight says, 1 if left out. With weights of 0 the pipeline is
        its base, to the bit.

        Args:
            adapter_names: One or several.
            adapter_weights: For each a number, or by component a number (`{"unet": 0.5, "lq_encoder": 0}`), or for the UNet's attention
                numbers by block as in diffusers (`{"unet": {"down": 0.5, "up": {"block_0": 1.0}}}`).
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = list(adapter_weights) if isinstance(adapter_weights, list | tuple) else [adapter_weights] * len(names)
        for weight in weights:
            if isinstance(weight, dict) and (foreign := sorted(set(weight) - set(COMPONENTS))):
                raise ValueError(f"`adapter_weights` must be by component, of {', '.join(COMPONENTS)}; got {', '.join(foreign)}.")
        if len(names) != len(weights):
            raise ValueError(f"`adapter_weights` must be as many as `adapter_names`, got {len(weights)} and {len(names)}.")
        if missing := sorted(set(names) - self._adapter_names()):
            raise ValueError(
                f"`adapter_names` {', '.join(missing)}: not loaded; there are {', '.join(sorted(self._adapter_names())) or 'none'}."
            )
        # DoRA's magnitudes act at a weight of 0 too, so such adapters are left out.
        for component, present in self.get_list_adapters().items():
            model = getattr(self, component)
            scales = {
                name: weight.get(component, 1.0) if isinstance(weight, dict) else weight
                for name, weight in zip(names, weights, strict=True)
            }
            here = {name: 1.0 if scale is None else scale for name, scale in scales.items() if name in present and scale != 0}
            if not here:
                model.disable_lora()
                continue
            model.enable_lora()
            expanded = _maybe_expand_lora_scales(model, list(here.values())) if component == "unet" else list(here.values())
            model.set_adapters(list(here), expanded)

    def delete_adapters(self, adapter_names: str | list[str]) -> None:
        """Takes adapters away; those that are not there are none."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        for component, present in self.get_list_adapters().items():
            model = getattr(self, component)
            model.delete_adapters([name for name in names if name in present])
            if not getattr(model, "peft_config", {}):
                model.unload_lora()  # the empty layers

    def fuse_lora(
        self,
        components: list[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: list[str] | None = None,
        **kwargs,
    ) -> None:
        """Adds the active LoRAs to the weights, in all components that have any unless `components` says which: no extra time then."""
        loaded = [name for name, model in adaptable(self).items() if getattr(model, "peft_config", {})]
        others = {str(config.peft_type.value) for name in loaded for config in getattr(self, name).peft_config.values()} - {"LORA"}
        if others:
            raise ValueError(f"Only LoRA can be added to the weights; there is {', '.join(sorted(others))}.")
        super().fuse_lora(components or loaded, lora_scale, safe_fusing, adapter_names, **kwargs)

    def unfuse_lora(self, components: list[str] | None = None, **kwargs) -> None:
        """Takes a [`fuse_lora`] back."""
        super().unfuse_lora(components or list(COMPONENTS), **kwargs)

    @classmethod
    def save_lora_weights(
        cls,
        save_directory: str | Path,
        unet_lora_layers: dict[str, torch.Tensor] | None = None,
        lq_encoder_lora_layers: dict[str, torch.Tensor] | None = None,
        tone_lora_layers: dict[str, torch.Tensor] | None = None,
        unet_lora_adapter_metadata: dict[str, Any] | None = None,
        lq_encoder_lora_adapter_metadata: dict[str, Any] | None = None,
        tone_lora_adapter_metadata: dict[str, Any] | None = None,
        weight_name: str | None = None,
        is_main_process: bool = True,
        save_function: Callable[..., None] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Writes one file as diffusers' training scripts do, `pytorch_lora_weights.safetensors`.

        Args:
            save_directory: Folder, made if need be.
            unet_lora_layers, lq_encoder_lora_layers, tone_lora_layers: What peft's `get_peft_model_state_dict` returns of each component.
            unet_lora_adapter_metadata, ...: `to_dict()` of each LoRA's configuration; without it, `lora_alpha` is read as the rank.
            weight_name: Of the file.
            is_main_process: Others write nothing.
            save_function: Takes the tensors and the path, in place of safetensors' own.
            safe_serialization: Must be `True`: a pickle can run code, so none is written either.
        """
        if not safe_serialization:
            raise ValueError("`safe_serialization` must be True: adapters are safetensors.")
        layers = {"unet": unet_lora_layers, "lq_encoder": lq_encoder_lora_layers, "tone": tone_lora_layers}
        metadata = {"unet": unet_lora_adapter_metadata, "lq_encoder": lq_encoder_lora_adapter_metadata, "tone": tone_lora_adapter_metadata}
        given: dict[str, Any] = {name: state for name, state in layers.items() if state}
        if not given:
            raise ValueError("`save_lora_weights` needs the layers of at least one component, got none.")
        kept = {name: {k: v for k, v in (metadata[name] or {}).items() if k in _LORA_OPTIONS} for name in given}
        writing: dict[str, Any] = {"is_main_process": is_main_process, "weight_name": weight_name, "save_function": save_function}
        cls._save_lora_weights(save_directory, given, kept, **writing)


def adaptable(owner: Any) -> dict[str, Any]:
    """The components of a pipeline, or whatever else has them, that an adapter can be put on."""
    parts = {name: getattr(owner, name, None) for name in COMPONENTS}
    return {name: model for name, model in parts.items() if model is not None}


def _read_lora(
    source: str | Path | Mapping[str, torch.Tensor],
    weight_name: str | None = None,
    subfolder: str | None = None,
    use_safetensors: bool = True,
    prefix: str | None = None,
    **hub: Any,
) -> tuple[dict[str, Part], dict[str, Any] | None]:
    """Each component's part of a LoRA, and the index if it has one. Arguments are those of [`FoundIRLoraLoaderMixin.lora_state_dict`]."""
    if not use_safetensors:
        raise ValueError("`use_safetensors` must be True: a pickle can run code and is never read.")
    if prefix is not None:
        parts, index = _read_lora(source, weight_name, subfolder, **hub)
        if prefix not in parts:
            raise ValueError(f"`prefix` must be a component that the LoRA has a part for, of {', '.join(parts)}; got {prefix!r}.")
        return {prefix: parts[prefix]}, index
    if isinstance(source, Mapping):
        return unpack(source, {}), None
    path = find_adapter(source, **hub) / (subfolder or "") / (weight_name or "")
    if not path.is_dir() or (path / LORA_WEIGHT_NAME_SAFE).is_file():
        weights, metadata = read_safetensors(path / LORA_WEIGHT_NAME_SAFE if path.is_dir() else path)
        return unpack(weights, json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))), None
    index, parts = read_adapter(path)
    if index["method"] != "lora":
        raise ValueError(f"{str(path)!r} holds an adapter of the method {index['method']!r}: foundir_hf.adapters.load_adapter reads it.")
    return parts, index


def find_adapter(source: str | Path, revision: str | None = None, **hub: Any) -> Path:
    """The local folder or file of an adapter; a Hub repository's is fetched, without anything that is neither data nor text."""
    if unknown := sorted(set(hub) - {"token", "cache_dir", "local_files_only", "force_download"}):
        raise TypeError(f"Unexpected arguments: {', '.join(unknown)}.")
    path = Path(source)
    if path.exists():
        return path
    try:
        return Path(snapshot_download(str(source), revision=revision, **hub, allow_patterns=["*.json", "*.safetensors", "*.md"]))
    except Exception as error:  # the Hub client raises a dozen unrelated types
        raise ValueError(
            f"`adapter` must be a folder or a Hub repository that can be reached; got {str(source)!r} ({type(error).__name__})."
        ) from error


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Part]]:
    """The index of an adapter's folder, and each component's configuration and weights, without peft's prefix."""
    index = _read_json(folder / ADAPTER_INDEX, folder)
    components = index.get("components")
    weights = index.get("base", {}).get("weights") if isinstance(index.get("base"), dict) else None
    if not isinstance(index.get("method"), str) or not isinstance(components, list) or not isinstance(weights, dict):
        raise ValueError(f"{str(folder / ADAPTER_INDEX)!r} must hold `method`, `components` and `base` with its `weights`.")
    if not components or not set(components) <= set(COMPONENTS):
        raise ValueError(f"{str(folder / ADAPTER_INDEX)!r}: `components` must be of {', '.join(COMPONENTS)}; got {components}.")
    parts = {}
    for name in components:
        state, _ = read_safetensors(folder / name / WEIGHTS_NAME)
        foreign = [key for key in state if not key.startswith(PEFT_PREFIX)]
        if foreign:
            raise ValueError(f"{str(folder / name / WEIGHTS_NAME)!r}: keys must start with {PEFT_PREFIX!r}, got {foreign[0]!r}.")
        parts[name] = _read_json(folder / name / CONFIG_NAME, folder), {key.removeprefix(PEFT_PREFIX): state[key] for key in state}
    return index, parts


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; raises `ValueError` for anything else, a pickle above all."""
    if not path.is_file():
        pickles = sorted(p.name for p in path.parent.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        found = f"; {pickles[0]} is a pickle, which can run code and is never read" if pickles else ""
        raise ValueError(f"{str(path)!r}: there is no such file{found}. Adapters are safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  it is no mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{str(path)!r} is no safetensors file: {error}.") from error


def unpack(weights: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> dict[str, Part]:
    """Keys that start with a component's name -> each component's own."""
    parts: dict[str, Part] = {}
    for key, tensor in weights.items():
        component, _, inner = key.partition(".")
        if component not in COMPONENTS:
            raise ValueError(f"The LoRA's keys must start with one of {', '.join(COMPONENTS)}; got {key!r}.")
        own = {k.removeprefix(f"{component}."): v for k, v in metadata.items() if k.startswith(f"{component}.")}
        parts.setdefault(component, (own or None, {}))[1][inner] = tensor
    if not parts:
        raise ValueError("The LoRA holds no weights.")
    return parts


def base_weights(pipeline: Any) -> dict[str, str]:
    """SHA-256 of the weight files that a pipeline's components were loaded from, by their path in the checkpoint; empty for fresh ones."""
    hashes = {}
    for name, model in adaptable(pipeline).items():
        # A component was loaded from its own folder, or from the checkpoint's.
        origin = Path(model.config.get("_name_or_path") or "")
        folder = origin if origin.name == name and origin.is_dir() else origin / name
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                hashes[f"{name}/{path.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def check_same_base(pipeline: Any, index: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless the pipeline's weight files are those that an adapter was trained on."""
    trained, here = index["base"]["weights"], base_weights(pipeline)
    if trained == here:
        return
    origin = str(pipeline.unet.config.get("_name_or_path") or "a pipeline that was not loaded from files")
    different = sorted(name for name in {*trained, *here} if trained.get(name) != here.get(name))
    name = different[0]
    raise ValueError(
        f"The adapter was trained on {index['base'].get('checkpoint')!r}, and this is {origin!r}: {len(different)} weight files differ, "
        f"{name} first ({str(trained.get(name))[:12]} there, {str(here.get(name))[:12]} here). `check_base=False` loads it all the same."
    )


def check_parts(pipeline: Any, parts: Mapping[str, Part]) -> None:
    """Raises `ValueError` if an adapter has a part for a component that the pipeline lacks, or weights that are not finite."""
    for component, (_, weights) in parts.items():
        if component not in adaptable(pipeline):
            raise ValueError(f"The adapter has a part for `{component}`, which this pipeline lacks.")
        check_finite(weights, component)


def check_finite(weights: Mapping[str, torch.Tensor], component: str) -> None:
    """Raises `ValueError` if a weight is not a finite number."""
    for key, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"The adapter's `{component}` holds weights that are not finite: {key}.")


def check_keys(model: torch.nn.Module, name: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Raises `ValueError` unless an adapter's file held the weights of this adapter, no fewer and no others."""
    own = {key for key in model.state_dict() if f".{name}." in key or key.endswith(f".{name}")}
    expected = {f"{key}.".replace(f".{name}.", ".", 1) for key in own}
    # peft leaves `weight` away from the key of DoRA's magnitudes.
    expected = {key.replace("lora_magnitude_vector.weight.", "lora_magnitude_vector.").removesuffix(".") for key in expected}
    given = {f"{key}.".replace("lora_magnitude_vector.weight.", "lora_magnitude_vector.").removesuffix(".") for key in weights}
    if expected != given:
        missing, foreign = sorted(expected - given), sorted(given - expected)
        raise ValueError(f"{len(missing)} keys missing{_first(missing)}, {len(foreign)} unknown{_first(foreign)}.")


def _first(keys: list[str]) -> str:
    return f" ({keys[0]}, ...)" if keys else ""


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{str(folder)!r} is no adapter: {path.relative_to(folder)} is missing.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a mapping, got {type(content).__name__}.")
    return content
