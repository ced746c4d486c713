"""A small pipeline of ours to adapt, and adapters that do something."""

from __future__ import annotations

import torch
from weights import awaken

from foundir_hf.adapters.attach import adapted_components, adapter_parameters
from foundir_hf.adapters.files import Base
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules

BASE = Base("somewhere", {})
IMAGE = torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(5))


def fresh_pipeline() -> FoundIRPipeline:
    """The configuration `nano` with random weights on every path, the same at every call."""
    modules, scheduler = build_modules("nano", seed=0)
    awaken(modules, std=0.05)
    pipe = FoundIRPipeline(**modules.eval().components(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def restored(pipe) -> torch.Tensor:
    return pipe(IMAGE, generator=torch.Generator().manual_seed(0), output_type="pt").images


def all_components(pipe) -> list[str]:
    return list(adapted_components(pipe))


def awaken_adapter(pipe, std: float = 0.1, name: str | None = None) -> None:
    """Random weights for an adapter, as if it had learnt something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for model in adapted_components(pipe, name).values():
            own = adapter_parameters(model)
            for key, parameter in model.named_parameters():
                if key in own and (name is None or f".{name}." in f"{key}."):
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * std)
