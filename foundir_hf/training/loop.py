"""The training loop: one function, read top to bottom. Stages differ in configuration only."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, gather_object, reduce, set_seed
from diffusers import SchedulerMixin
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from ..data.augmentation import Augmentation
from ..data.loading import InMemory, TrainingData
from ..data.pairs import PairSource
from ..data.stream import PairStream
from .config import StageConfig, TrainConfig
from .export import save_pipeline
from .objectives import FoundIRModules
from .validation import validate

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    modules: FoundIRModules,
    noise_scheduler: SchedulerMixin,
    data: str | Path,
    output: Path,
    *,
    validation: str | Path | None = None,
    manifest: str | Path | None = None,
    in_memory: InMemory = "auto",
    workers: int = 2,
) -> FoundIRModules:
    """Trains `modules` through all stages of a recipe and returns them; an interrupted run goes on from its last checkpoint.

    Args:
        config: The recipe.
        modules: The components, fresh or loaded.
        noise_scheduler: Of the diffusion.
        data, validation, manifest, in_memory, workers: See [`~foundir_hf.data.loading.TrainingData`].
        output: Run folder: `checkpoint-*` (training state), one folder of components a finished stage, `log.jsonl` (losses, validation),
            `pipeline` (what `foundir --checkpoint` takes, averaged weights, renewed at every validation of an `end_to_end` stage).
    """
    output.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    training_data = TrainingData(
        data,
        accelerator.device,
        validation=validation,
        validation_photos=config.validation_photos,
        manifest=manifest,
        in_memory=in_memory,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=workers,
    )

    progress = Progress()
    resumed = latest_checkpoint(output)
    if resumed is not None:
        progress = Progress(**json.loads((resumed / "progress.json").read_text()))
        logger.info("Going on from %s: %s", resumed, progress)
    modules.to(memory_format=torch.channels_last)  # a tenth faster on CPUs, the native layout of tensor cores

    for stage_index, stage in enumerate(config.stages):
        if stage_index < progress.stage:
            continue
        # Set up. A stage starts with fresh moments and averages: its parameters and its objective are others than the last one's.
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)  # the objective decides by chance which components it needs
        accelerator = Accelerator(mixed_precision=config.mixed_precision, kwargs_handlers=[ddp])
        groups = parameter_groups(modules, stage)
        trainable = [parameter for group in groups for parameter in group["params"]]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, partial(learning_rate_factor, steps=stage.steps, warmup_steps=stage.warmup_steps)
        )
        ema = EMAModel(trainable, decay=config.ema_decay, use_ema_warmup=True, inv_gamma=10.0, power=0.75)
        ema.to(accelerator.device)
        wrapped, optimizer = accelerator.prepare(modules, optimizer)
        accelerator.register_for_checkpointing(schedule, ema)
        # Every stage draws its own stream.
        seed = config.seed + 1000 * stage_index
        augmentation = Augmentation(stage.tone_share, stage.texture_share)
        source = training_data.batches(stage.tasks, stage.batch_size, stage.crop_size, stage.context_size, seed, augmentation)
        if resumed is not None:
            accelerator.load_state(str(resumed))
            if (resumed / "data.json").is_file():  # older checkpoints have none, and need none: their data were in memory
                source.load_state_dict(json.loads((resumed / "data.json").read_text()))
            modules.vae.register_to_config(**json.loads((resumed / "latents.json").read_text()))
            resumed = None
        else:
            save_checkpoint(accelerator, modules, output, progress, source)

        last_checkpoint = last_validation = time.monotonic()
        smooth_loss = None
        bar = tqdm(total=stage.steps, initial=progress.step, desc=stage.name, mininterval=10, disable=not accelerator.is_main_process)
        for step in range(progress.step, stage.steps):
            # Draw. Everything random in a step follows from its number and the source's state, so a resumed run sees what an
            # uninterrupted one sees.
            generator = source.generator(step)
            batch = source.batch(generator)

            # Update.
            with accelerator.autocast():
                loss = wrapped(stage, batch, noise_scheduler, generator)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(trainable, config.max_grad_norm)
            # Both: the gradient of an L1 loss is 0 where the loss is not a number.
            # Under fp16 the gradient may overflow: the scaler then skips the step and lowers its scale.
            finite = math.isfinite(loss.item()) and (accelerator.scaler is not None or math.isfinite(float(norm)))
            if not finite:
                raise FloatingPointError(f"Stage {stage.name!r}, step {step}: loss or gradient not finite. The last checkpoint is whole.")
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            ema.step(trainable)
            progress.step = step + 1
            progress.samples += stage.batch_size * accelerator.num_processes
            bar.update()

            # Report.
            smooth_loss = loss.item() if smooth_loss is None else 0.98 * smooth_loss + 0.02 * loss.item()
            finished = progress.step == stage.steps
            if accelerator.is_main_process and (finished or progress.step % 50 == 0):
                bar.set_postfix(loss=f"{smooth_loss:.4f}", refresh=False)
                log(output, stage, progress, loss=round(smooth_loss, 5), learning_rate=schedule.get_last_lr()[0])
            if accelerator.is_main_process and (finished or time.monotonic() - last_validation > 60 * config.validation_minutes):
                ema.store(trainable)
                ema.copy_to(trainable)
                log(output, stage, progress, validation=validate(modules, stage, noise_scheduler, training_data.validation))
                if stage.objective == "end_to_end":
                    save_pipeline(modules, noise_scheduler, output / "pipeline")
                ema.restore(trainable)
                last_validation = time.monotonic()

            # Save.
            if not finished and agree(accelerator, time.monotonic() - last_checkpoint > 60 * config.checkpoint_minutes):
                save_checkpoint(accelerator, modules, output, progress, source)
                last_checkpoint = time.monotonic()
        bar.close()

        # Hand on the averaged weights, and the latents' scale once there is an autoencoder.
        ema.copy_to(trainable)
        accelerator.free_memory()
        if stage.objective == "autoencoder":
            scale_latents(modules, source)
        source.close()
        progress.stage, progress.step = stage_index + 1, 0
        if accelerator.is_main_process:
            save_components(modules, output / stage.name)
    return modules


@dataclass
class Progress:
    """Where a run stands: the stage, its finished steps, and the samples seen in all."""

    stage: int = 0
    step: int = 0
    samples: int = 0


def parameter_groups(modules: FoundIRModules, stage: StageConfig) -> list[dict]:
    """AdamW's groups for a stage, one a learning-rate factor; every parameter that no prefix matches is frozen."""
    by_factor: dict[float, list[torch.nn.Parameter]] = {}
    matched = set()
    for name, parameter in modules.named_parameters():
        prefix = max((p for p in stage.trainable if name.startswith(p)), key=len, default=None)
        parameter.requires_grad_(prefix is not None and stage.trainable[prefix] > 0)
        if parameter.requires_grad:
            matched.add(prefix)
            by_factor.setdefault(stage.trainable[prefix], []).append(parameter)
    idle = {prefix for prefix, factor in stage.trainable.items() if factor > 0} - matched
    if idle:
        raise ValueError(f"Stage {stage.name!r}: `trainable` prefixes {sorted(idle)} match no parameter.")
    return [{"params": parameters, "lr": stage.learning_rate * factor} for factor, parameters in by_factor.items()]


def learning_rate_factor(step: int, *, steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then a cosine to 1 % of the peak."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def agree(accelerator: Accelerator, decision: bool) -> bool:
    """The decision of process 0, on all of them: clocks differ, and who waits alone for the others waits for ever. All must call it."""
    if accelerator.num_processes == 1:
        return decision
    return broadcast_object_list([decision])[0]


@torch.no_grad()
def scale_latents(modules: FoundIRModules, source: PairSource | PairStream, batches: int = 16) -> None:
    """Sets the autoencoder's `scaling_factor` so that latents have unit variance (Latent Diffusion, CVPR 2022, section 4.3.2).

    The deviation is averaged over all processes, each of which draws batches of its own, so that they go on with the same factor.
    """
    deviations = []
    for index in range(batches):
        generator = source.generator(index)
        deviations.append(modules.vae.encode(source.batch(generator).hq).latent_dist.sample(generator).std())
    deviation = torch.stack(deviations).mean()
    modules.vae.register_to_config(scaling_factor=1 / torch.as_tensor(reduce(deviation, reduction="mean")).item())


def save_components(modules: FoundIRModules, folder: Path) -> None:
    """Writes every component as diffusers does, in `folder/<component>`."""
    for name in ("vae", "lq_encoder", "unet"):
        getattr(modules, name).save_pretrained(folder / name)


def save_checkpoint(
    accelerator: Accelerator, modules: FoundIRModules, output: Path, progress: Progress, source: PairSource | PairStream, keep: int = 2
) -> None:
    """Writes the training state; it gets its final name when it is whole, and older ones than the last `keep` are removed."""
    final = output / f"checkpoint-{progress.stage:02d}-{progress.step:08d}"
    unfinished = output / "checkpoint.unfinished"
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    positions = gather_object([source.state_dict()])
    if accelerator.is_main_process:
        # The autoencoder's measured latent scale is configuration, not a weight.
        (unfinished / "latents.json").write_text(json.dumps({"scaling_factor": modules.vae.config.scaling_factor}))
        (unfinished / "data.json").write_text(json.dumps(positions))
        (unfinished / "progress.json").write_text(json.dumps(asdict(progress)))
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        for old in sorted(output.glob("checkpoint-*"))[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def latest_checkpoint(output: Path) -> Path | None:
    """The newest whole checkpoint of a run folder."""
    return max(output.glob("checkpoint-*"), default=None)


def log(output: Path, stage: StageConfig, progress: Progress, **values) -> None:
    """Appends a line to `log.jsonl`."""
    row = {"time": round(time.time()), "stage": stage.name, "step": progress.step, "samples": progress.samples, **values}
    with (output / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
