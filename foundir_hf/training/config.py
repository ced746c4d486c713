"""The configuration of a training run: frozen dataclasses read from YAML. An unknown key is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

Objective = Literal["autoencoder", "diffusion", "end_to_end"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of a recipe.

    Args:
        name: Unique within the recipe.
        objective: What is minimised, see `training/objectives.py`.
        steps: Updates in this stage.
        trainable: Learning-rate factor by parameter-name prefix (`vae.`, `lq_encoder.`, `unet.`); whatever no prefix matches is frozen. The
            longest matching prefix decides.
        learning_rate: Peak rate; warmed up over `warmup_steps`, then a cosine down to 1 % of it.
        batch_size, crop_size, context_size: See [`~foundir_hf.data.pairs.PairSource`].
        tasks: Share of each task; left out, clean photographs only.
        tone_share, texture_share: Of clean photographs that get another one, see [`~foundir_hf.data.augmentation.Augmentation`].
        diffusion_share: In `end_to_end`, the share of steps spent on the diffusion objective, which keeps sampling in many steps alive.
        plain_share: In `end_to_end`, the share of steps decoded at fidelity 0, which keeps the plain decoder alive.
        loss: In `end_to_end`, see [`~foundir_hf.training.objectives.restoration_loss`].
    """

    name: str
    objective: Objective
    steps: int
    trainable: Mapping[str, float]
    learning_rate: float = 2e-4
    warmup_steps: int = 100
    batch_size: int = 8
    crop_size: int = 96
    context_size: int = 192
    tasks: Mapping[str, float] = field(default_factory=lambda: {"clean": 1.0})
    tone_share: float = 0.0
    texture_share: float = 0.0
    diffusion_share: float = 0.0
    plain_share: float = 0.0
    loss: Literal["rmse", "psnr", "balanced"] = "rmse"


@dataclass(frozen=True)
class TrainConfig:
    """A recipe.

    Args:
        configuration: Name of a model size in `foundir_hf.configurations`.
        stages: Run in this order.
        seed: Of everything random.
        initial_checkpoint: Pipeline to start from instead of fresh weights: a bundled name, a folder or a Hub repository.
        mixed_precision: `"no"`, `"bf16"` or `"fp16"`. CPUs want `"no"`.
        weight_decay, max_grad_norm, ema_decay: As usual; the EMA weights are what a stage hands on.
        checkpoint_minutes: How often the training state is written.
        validation_minutes: How often the validation photographs are restored.
        validation_photos: How many of them.
    """

    configuration: str
    stages: tuple[StageConfig, ...]
    seed: int = 0
    initial_checkpoint: str | None = None
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    checkpoint_minutes: float = 5.0
    validation_minutes: float = 10.0
    validation_photos: int = 3

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """Reads a recipe; raises `ValueError` naming the file and the key that is wrong."""
        data = read_recipe(path)
        stages = tuple(build_config(StageConfig, stage, f"{path}: stage {i}") for i, stage in enumerate(data.pop("stages", None) or []))
        if not stages:
            raise ValueError(f"{path}: `stages` must list at least one stage.")
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise ValueError(f"{path}: stage names must differ, got {names}.")
        return build_config(cls, {**data, "stages": stages}, str(path))


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; raises `ValueError` naming the file otherwise."""
    data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path}: a recipe is a mapping, got {type(data).__name__}.")
    return data


def build_config(cls: type, data: Mapping[str, Any], where: str) -> Any:
    """An instance of the dataclass `cls`; raises `ValueError` that starts with `where` for unknown and missing keys."""
    known = {f.name for f in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    unknown, missing = sorted(set(data) - known), sorted(required - set(data))
    if unknown:
        raise ValueError(f"{where}: unknown keys {unknown}; accepted are {sorted(known)}.")
    if missing:
        raise ValueError(f"{where}: missing keys {missing}.")
    return cls(**data)
