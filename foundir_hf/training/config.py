"""The configuration of a training run: frozen dataclasses, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..adapters.attach import AdapterConfig
from ..io.yaml_files import STRICT_KEYS, read_yaml
from .equilibrium import EquilibriumConfig

Objective = Literal["diffusion", "restoration"]


@dataclass(frozen=True)
class StageConfig:
    """One stage of a recipe.

    Args:
        name: Unique within the recipe.
        objective: What is minimised, see `training/objectives.py`.
        steps: Updates in this stage.
        time_share: Where a run is given a time instead (`train.py --for`), this stage's share of it, relative to the other stages.
        trainable: Learning-rate factor by parameter-name prefix (`lq_encoder.`, `unet.`, `tone.`); whatever no prefix matches is frozen.
            The longest matching prefix decides.
        learning_rate: Peak rate; warmed up over `warmup_steps`, then a cosine down to 1 % of it.
        batch_size: Pairs that an update learns from, in all processes together.
        micro_batch_size: Of these, as many as one process takes at once; gradients are accumulated over the rest. Left out, an equal part
            for each process. What an update learns does not depend on how many processes share its micro-batches.
        crop_size, context_size: See [`~foundir_hf.data.pairs.PairSource`].
        num_inference_steps: In `restoration`, as the pipeline's: 0 stops at the LQ encoder's estimate, 1 denoises its latents in one step.
        tone: In `restoration`, as the pipeline's: `"off"` leaves the tone curves out, which a crop tells too little of.
        tasks: Share of each task, at the beginning; left out, clean photographs only.
        equilibrium: How the shares change.
        tone_share, texture_share, whole_share, intent_share: Of clean photographs that get another one, see
            [`~foundir_hf.data.augmentation.Augmentation`].
        diffusion_share: In `restoration`, the share of images that are denoised from a random timestep instead of the last.
        loss, loss_floor: In `restoration`, see [`~foundir_hf.training.objectives.restoration_loss`].
        gate_floor: In `restoration`, of the PSNR loss that gates learn by.
        noise_offset: In `diffusion`, so much of another noise, the same all over a channel, is added; the authors' code has 0.02.
    """

    name: str
    objective: Objective
    steps: int
    trainable: Mapping[str, float]
    time_share: float = 1.0
    learning_rate: float = 2e-4
    warmup_steps: int = 100
    batch_size: int = 8
    micro_batch_size: int | None = None
    crop_size: int = 96
    context_size: int = 192
    tasks: Mapping[str, float] = field(default_factory=lambda: {"clean": 1.0})
    equilibrium: EquilibriumConfig = field(default_factory=EquilibriumConfig)
    tone_share: float = 0.0
    texture_share: float = 0.0
    whole_share: float = 0.0
    intent_share: float = 0.0
    num_inference_steps: Literal[0, 1] = 1
    tone: Literal["auto", "off"] = "auto"
    diffusion_share: float = 0.0
    loss: Literal["rmse", "psnr", "balanced"] = "rmse"
    loss_floor: float = 1e-4
    gate_floor: float = 2e-5
    noise_offset: float = 0.0

    __pydantic_config__ = STRICT_KEYS

    def __post_init__(self):
        if self.objective not in get_args(Objective):
            raise ValueError(f"`objective` must be one of {', '.join(get_args(Objective))}; got {self.objective!r}.")
        micro = self.batch_size if self.micro_batch_size is None else self.micro_batch_size
        if self.steps < 1 or self.batch_size < 1 or micro < 1 or self.batch_size % micro:
            raise ValueError(
                f"`steps` must be at least 1 and `micro_batch_size` divide `batch_size`; got {self.steps}, {micro}, {self.batch_size}."
            )
        for name, accepted in (("num_inference_steps", (0, 1)), ("tone", ("auto", "off"))):
            if getattr(self, name) not in accepted:
                raise ValueError(f"`{name}` must be one of {accepted}, got {getattr(self, name)!r}.")

    def micro_batches(self, processes: int) -> int:
        """How many micro-batches an update has; every process takes an equal number. Raises `ValueError` if that cannot be."""
        count = processes if self.micro_batch_size is None else self.batch_size // self.micro_batch_size
        if self.batch_size % count or count % processes:
            parts = "" if self.micro_batch_size is None else f" in micro-batches of {self.micro_batch_size}"
            raise ValueError(
                f"Stage {self.name!r}: `batch_size` {self.batch_size}{parts} cannot be shared out equally among {processes} processes."
            )
        return count


@dataclass(frozen=True)
class TrainConfig:
    """A recipe.

    Args:
        configuration: Name of a model size in `foundir_hf.configurations`.
        stages: Run in this order.
        seed: Of everything random.
        initial_checkpoint: Pipeline to start from instead of fresh weights: a bundled name, a folder or a Hub repository, of FoundIR or of
            plain SDXL.
        adapter: Train an adapter on the components of `initial_checkpoint`, which stay as they are. Of the
            parameters that `trainable` matches, the adapter's then learn alone.
        unet: Entries of the UNet's configuration that differ, `{moe_routing: hard}` for one; for a fresh UNet or SDXL's.
        mixed_precision: `"no"`, `"bf16"` or `"fp16"`. Of CPUs, those with bfloat16 arithmetic want it.
        betas, weight_decay: Of AdamW.
        max_grad_norm, ema_decay: As usual; the EMA weights are what a stage hands on.
        max_skipped_steps: So many updates in a row may be skipped because a loss or gradient is not finite; then training stops.
        gradient_checkpointing: Computes activations twice instead of keeping them.
        attention: `"sdpa"`, `"xformers"` or `"eager"`, see [`~foundir_hf.training.build.configure`].
        compile: Compiles the components (`torch.compile`); on GPUs only.
        checkpoint_minutes, keep_checkpoints: How often the training state is written, and how many of the newest stay.
        validation_minutes: How often the reference pairs are restored.
        reference_samples, reference_size: Reference pairs of each task, and their side in pixels. They are for the log and, in stages with
            data equilibrium scheduling, for the scores.
        trackers: Of accelerate, beside `log.jsonl`: `"tensorboard"`, `"wandb"`, ...
    """

    configuration: str
    stages: tuple[StageConfig, ...]
    seed: int = 0
    initial_checkpoint: str | None = None
    adapter: AdapterConfig | None = None
    unet: Mapping[str, Any] = field(default_factory=dict)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    max_skipped_steps: int = 10
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "xformers", "eager"] = "sdpa"
    compile: bool = False
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    validation_minutes: float = 10.0
    reference_samples: int = 10
    reference_size: int = 192
    trackers: tuple[str, ...] = ()

    __pydantic_config__ = STRICT_KEYS

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`stages` must be at least one, with names that differ, got {names}.")
        if self.adapter is not None and self.initial_checkpoint is None:
            raise ValueError("`adapter` needs the `initial_checkpoint` that it adapts.")

    @classmethod
    def from_yaml(cls, path: str | Path) -> TrainConfig:
        """Reads a recipe; raises `ValueError` naming the file and the key that is wrong."""
        return read_yaml(path, cls)
