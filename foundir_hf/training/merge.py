"""One checkpoint out of several: the mean of their weights, and parts of others as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..hub import load_pipeline
from ..pipelines.lora_foundir import COMPONENTS
from ..pipelines.pipeline_foundir import FoundIRPipeline


def merge(checkpoints: Mapping[str, float], parts: Mapping[str, str] | None = None) -> FoundIRPipeline:
    """A pipeline with the weighted mean of the weights of several (Wortsman et al., "Model soups", ICML 2022; WiSE-FT, CVPR 2022).

    It is good for checkpoints of one ancestor: between one that learnt haze and one that kept clean photographs clean lies one that does
    most of both.

    Args:
        checkpoints: Weight of each by name or folder, see [`~foundir_hf.hub.resolve_checkpoint`]; made to sum to 1.
        parts: Where parameters come from instead, by the beginning of their names (`lq_encoder.refiner.`). With parts, the result is built
            like the checkpoint of the first, and the others need not have these parameters.

    Raises:
        ValueError: If weights are negative or all zero, no name begins so, or checkpoints differ in names or shapes of the rest.
    """
    parts = dict(parts or {})
    total = sum(checkpoints.values())
    if total <= 0 or min(checkpoints.values()) < 0:
        raise ValueError(f"`checkpoints` need weights of 0 or more, not all 0; got {dict(checkpoints)}.")
    loaded = {name: load_pipeline(name, dtype=torch.float32) for name in dict.fromkeys([*parts.values(), *checkpoints])}
    states = {name: _state(pipeline) for name, pipeline in loaded.items()}
    merged = next(iter(loaded.values()))
    result = {}
    for name, old in states[next(iter(loaded))].items():
        source = next((parts[prefix] for prefix in parts if name.startswith(prefix)), None)
        weights = checkpoints if source is None else {source: total}
        if different := [c for c in weights if name not in states[c] or states[c][name].shape != old.shape]:
            raise ValueError(f"`checkpoints` must have the same parameters: {name} is missing or of another shape in {different[0]}.")
        result[name] = sum(weight / total * states[c][name] for c, weight in weights.items())
    if unused := [prefix for prefix in parts if not any(name.startswith(prefix) for name in result)]:
        raise ValueError(f"`parts` must begin the names of parameters; none begins with {unused[0]!r}.")
    for component in COMPONENTS:
        own = {n.removeprefix(f"{component}."): tensor for n, tensor in result.items() if n.startswith(f"{component}.")}
        getattr(merged, component).load_state_dict(own, strict=True)
    # Measured in training, so it belongs to the weights, though it stands in the configuration.
    merged.vae.register_to_config(scaling_factor=loaded[next(iter(checkpoints))].vae.config.scaling_factor)
    return merged


def _state(pipeline: FoundIRPipeline) -> dict[str, torch.Tensor]:
    return {f"{component}.{n}": tensor for component in COMPONENTS for n, tensor in getattr(pipeline, component).state_dict().items()}
