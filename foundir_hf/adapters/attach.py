"""Putting an adapter on the components of a pipeline: which method, which modules, how many parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

from diffusers import ModelMixin
from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..io.yaml_files import STRICT_KEYS
from ..pipelines.lora_foundir import COMPONENTS, adaptable
from .adaptir import AdaptIRConfig

Method = Literal["lora", "adaptir"]
Targets = Literal["convolutions", "attention"]

# Which modules of each component, as a regular expression over their whole names: of the LQ encoder the pyramid's, and the paper's.
PRESETS: dict[Targets, dict[str, str]] = {
    "convolutions": {
        "lq_encoder": r"conv_in|(down|up)_blocks\.\d+\.\d+\.conv[12]|encoder\.(conv_in|.*resnets\.\d+\.conv[12])",
        "unet": r"conv_in\.condition_embedding\.conv_(in|out)|.*resnets\.\d+\.conv[12]",
        "tone": r"conv_in|conv_out|(before|middle\.\d+|after)\.conv[12]|whole_out|gate",
    },
    "attention": {"lq_encoder": r".*\.to_(q|k|v|out\.0)", "unet": r".*\.to_(q|k|v|out\.0)"},
}
_NOTHING = r"(?!)"  # matches no name


@dataclass(frozen=True)
class AdapterConfig:
    """What an adapter looks like and where it goes.

    Args:
        method: `"lora"` (LoRA, ICLR 2022; on convolutions as in LoCon) or `"adaptir"` (AdaptIR, NeurIPS 2024).
        components: Of `lq_encoder`, which restores pixels, `unet`, and `tone`, for damage that changes brightness or colour at large.
        targets: `"convolutions"`, those of the residual blocks and before them (of the tone curves also the linear layers that set the
            whole picture's tone, and the gate), or LoRA's `"attention"`, which is usual for SDXL. Components without such modules go
            without.
        rank: Of LoRA; its `alpha` is the same, so that files need not tell it.
        dora: Whether LoRA has magnitudes of its own (DoRA, ICML 2024).
        reduction: Of AdaptIR, see [`~foundir_hf.adapters.adaptir.AdaptIRConfig`]. The paper's 24 is for widths of 576; ours are 32 to 256.
    """

    method: Method = "lora"
    components: tuple[str, ...] = COMPONENTS
    targets: Targets = "convolutions"
    rank: int = 8
    dora: bool = False
    reduction: int = 8

    __pydantic_config__ = STRICT_KEYS

    def __post_init__(self):
        for name, accepted in (("method", get_args(Method)), ("targets", get_args(Targets))):
            if getattr(self, name) not in accepted:
                raise ValueError(f"`{name}` must be one of {', '.join(accepted)}; got {getattr(self, name)!r}.")
        if not self.components or not set(self.components) <= set(COMPONENTS):
            raise ValueError(f"`components` must be of {', '.join(COMPONENTS)}; got {list(self.components)}.")
        if self.rank < 1 or self.reduction < 1:
            raise ValueError(f"`rank` and `reduction` must be at least 1, got {self.rank} and {self.reduction}.")
        if self.method != "lora" and (self.dora or self.targets == "attention"):
            # Attention in windows and over captions has tokens that make no map of the picture's size, and AdaptIR needs a map.
            raise ValueError(f"`dora` and the `targets` 'attention' are of LoRA, got the method {self.method!r}.")

    def pattern(self, component: str) -> str:
        """The names of the modules that are adapted."""
        return PRESETS[self.targets].get(component, _NOTHING)

    def to_peft(self, component: str) -> PeftConfig:
        """The same in peft's terms, for one component."""
        if self.method == "adaptir":
            return AdaptIRConfig(target_modules=self.pattern(component), reduction=self.reduction)
        return LoraConfig(target_modules=self.pattern(component), r=self.rank, lora_alpha=self.rank, use_dora=self.dora)


@dataclass(frozen=True)
class ParameterCount:
    """How many parameters an adapter has, and how many what it adapts has without it."""

    adapter: int
    base: int

    @property
    def share(self) -> float:
        """Of the base."""
        return self.adapter / self.base

    def __str__(self) -> str:
        return f"{self.adapter:,} parameters, {self.share:.1%} of {self.base:,}"


def add_adapter(owner: Any, config: AdapterConfig, name: str = "default") -> ParameterCount:
    """Puts a fresh adapter on components, which freezes everything else of them; it changes nothing until it is trained.

    Args:
        owner: A pipeline, or whatever else has `lq_encoder`, `unet` and, perhaps, `tone`.
        config: Method, components, modules.
        name: Of the adapter.

    Raises:
        ValueError: If no component has a module of those, or `name` is taken.
    """
    models = {component: model for component, model in adaptable(owner).items() if component in config.components}
    adapted = [c for c, model in models.items() if any(re.fullmatch(config.pattern(c), key) for key, _ in model.named_modules())]
    if not adapted:
        raise ValueError(f"`targets` {config.targets!r}: no such modules in {', '.join(config.components)}.")
    for component in adapted:
        models[component].add_adapter(config.to_peft(component), name)
    return count_parameters(owner, name)


def adapted_components(owner: Any, name: str | None = None) -> dict[str, ModelMixin]:
    """The components that have the adapter of that name, or any."""
    parts = adaptable(owner)
    configs = {component: getattr(model, "peft_config", {}) for component, model in parts.items()}
    return {component: model for component, model in parts.items() if (name in configs[component] if name else configs[component])}


def count_parameters(owner: Any, name: str) -> ParameterCount:
    """Of the adapter of that name, and of all components that can be adapted, without any adapter."""
    adapter = base = 0
    for model in adaptable(owner).values():
        all_adapters = adapter_parameters(model)
        for key, parameter in model.named_parameters():
            if key not in all_adapters:
                base += parameter.numel()
            elif f".{name}." in f"{key}.":
                adapter += parameter.numel()
    return ParameterCount(adapter, base)


def adapter_parameters(module: nn.Module) -> set[str]:
    """The names of the parameters of `module` that belong to an adapter, trained or not."""
    found = set()
    for prefix, layer in module.named_modules():
        if isinstance(layer, BaseTunerLayer):
            for attribute in layer.adapter_layer_names:
                part = getattr(layer, attribute)
                found |= {f"{prefix}.{attribute}.{key}" for key, _ in part.named_parameters()}
    return found


@contextmanager
def without_adapters(owner: Any) -> Iterator[None]:
    """A context in which `owner` is what it was before anything was adapted, bit for bit."""
    parts = adapted_components(owner)
    for model in parts.values():
        model.disable_lora()  # pyright: ignore[reportAttributeAccessIssue]  so diffusers calls it, whatever the method
    try:
        yield
    finally:
        for model in parts.values():
            model.enable_lora()  # pyright: ignore[reportAttributeAccessIssue]
