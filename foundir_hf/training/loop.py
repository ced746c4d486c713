"""The training loop: one function, read top to bottom. Stages differ in configuration only."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object, reduce, set_seed
from diffusers import SchedulerMixin
from diffusers.training_utils import EMAModel
from tqdm.auto import tqdm

from ..adapters.attach import adapter_parameters
from ..data.augmentation import Augmentation
from ..data.loading import InMemory, TrainingData
from ..data.pairs import PairBatch, PairSource
from ..data.pool import PairPool
from ..data.stream import PairStream
from ..io.files import write_whole
from .checkpoints import Progress, find_checkpoint, load_checkpoint, read_progress, save_checkpoint
from .config import StageConfig, TrainConfig
from .duration import Duration
from .equilibrium import build_task_scheduler
from .export import result_name, save_result
from .objectives import OBJECTIVES, FoundIRModules
from .performance import configure
from .preemption import PreemptedError, Preemption
from .sharding import (
    after_prepare,
    averaged,
    check_sharding,
    copy_averaged_weights,
    is_sharded,
    leave_out_unneeded,
    register_averages,
    to_train,
)
from .telemetry import Telemetry, Throughput, count_flops, measure_peak
from .validation import Metric, TaskScore, build_metrics, metric_scales, validate

logger = logging.getLogger(__name__)


def train(
    config: TrainConfig,
    modules: FoundIRModules,
    noise_scheduler: SchedulerMixin,
    data: str | Path,
    output: Path,
    *,
    resume: str | Path = "latest",
    validation: str | Path | None = None,
    manifest: str | Path | None = None,
    in_memory: InMemory = "auto",
    workers: int = 2,
    pool_workers: int = 0,
    seconds: float | None = None,
) -> FoundIRModules:
    """Trains `modules` through all stages of a recipe and returns them; an interrupted run goes on as if nothing had been.

    Under several processes, end their group afterwards (`torch.distributed.destroy_process_group()`), as `training/train.py` does.

    Args:
        config: The recipe.
        modules: The components, fresh or loaded.
        noise_scheduler: Of the diffusion.
        data, validation, manifest, in_memory, workers, pool_workers: See [`~foundir_hf.data.loading.TrainingData`].
        output: Run folder: `checkpoint-*` (training state), `STAGE` (a pipeline in full precision for each finished stage), `log.jsonl`
            (losses, validation, shares, speed), `tracking` (of trackers), `equilibrium-STAGE.json` (shares and scores of every round),
            `pipeline` (half precision, what `foundir --checkpoint` takes, renewed at every validation of a `restoration` stage). Where the
            recipe trains an adapter, `STAGE` and, instead of `pipeline`, `adapter` are adapters, what `foundir --adapter` takes.
        resume: See [`~foundir_hf.training.checkpoints.find_checkpoint`].
        seconds: Instead of the stages' steps, shared out by their `time_share`; validation counts, what comes before the first step not.

    Raises:
        PreemptedError: After SIGTERM or SIGUSR1, once a checkpoint is written.
        FloatingPointError: After `max_skipped_steps` updates in a row whose loss or gradient was not finite. Weights and checkpoint are
            those of the last finite update.
    """
    output.mkdir(parents=True, exist_ok=True)
    set_seed(config.seed)
    run = Accelerator(mixed_precision=config.mixed_precision, log_with=list(config.trackers) or None, project_dir=str(output))
    if absent := sorted(set(config.trackers) - {"all", *map(str, run.log_with)}):
        raise ImportError(f"`trackers`: {', '.join(absent)} cannot be used: not installed. accelerate would leave it out without a word.")
    training_data = TrainingData(
        data,
        run.device,
        validation=validation,
        reference_samples=config.reference_samples,
        manifest=manifest,
        in_memory=in_memory,
        process=run.process_index,
        processes=run.num_processes,
        workers=workers,
        pool_workers=pool_workers,
    )
    telemetry = Telemetry(run, output, {"configuration": config.configuration, "seed": config.seed, "processes": run.num_processes})
    resumed = find_checkpoint(output, resume)
    check_sharding(run, config, resumed)
    progress = Progress() if resumed is None else read_progress(resumed)
    if resumed is not None:
        logger.info("Going on from %s: %s", resumed, progress)
    configure(modules, gradient_checkpointing=config.gradient_checkpointing, attention=config.attention)
    modules.to(memory_format=torch.channels_last)  # a tenth faster on CPUs, the native layout of tensor cores
    if config.compile:
        if run.device.type == "cpu":
            # torch 2.13's Inductor: gradients of most parameters come out as 0, of diffusers' own UNet too.
            raise ValueError("`compile` is for GPUs: on CPUs compiled backward passes lose gradients.")
        for component in modules.children():
            component.compile()

    stop = False
    for stage_index, stage in enumerate(config.stages):
        if stage_index < progress.stage:
            continue
        # Set up. A stage starts with fresh moments and averages: its parameters and its objective are others than the last one's.
        micro_batches = stage.micro_batches(run.num_processes)
        ddp = DistributedDataParallelKwargs(find_unused_parameters=True)  # the objective decides by chance which components it needs
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=micro_batches // run.num_processes,
            kwargs_handlers=[ddp],
        )
        model = to_train(accelerator, modules)  # `modules`, or a copy whose weights are sharded
        fused = accelerator.device.type == "cuda"  # a kernel for all parameters, where launching them is what takes time
        optimizer = torch.optim.AdamW(parameter_groups(model, stage), betas=config.betas, weight_decay=config.weight_decay, fused=fused)
        share = stage.time_share / sum(other.time_share for other in config.stages)
        duration = Duration(stage.steps, seconds and seconds * share, progress.seconds)

        def factor(step: int, stage: StageConfig = stage, duration: Duration = duration) -> float:
            return learning_rate_factor(step, steps=duration.steps_in_all(step), warmup_steps=stage.warmup_steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        wrapped, optimizer = accelerator.prepare(model, optimizer)
        trainable = after_prepare(accelerator, wrapped, optimizer)
        ema = EMAModel(trainable, decay=config.ema_decay, use_ema_warmup=True, inv_gamma=10.0, power=0.75)
        accelerator.register_for_checkpointing(schedule)
        register_averages(accelerator, ema)
        averages = partial(averaged, accelerator, modules, model, ema, trainable)
        # Every stage draws its own stream.
        seed = config.seed + 1000 * stage_index
        size = stage.batch_size // micro_batches
        augmentation = Augmentation(stage.tone_share, stage.texture_share, stage.whole_share, stage.intent_share)
        source = training_data.batches(stage.tasks, size, stage.crop_size, stage.context_size, seed, augmentation)
        reference = training_data.reference(source.proportions, config.reference_size)
        tasks = build_task_scheduler(stage.equilibrium, source.proportions, stage.steps)
        metrics = {}
        if tasks.needs_scores:
            check_reference(stage, training_data, reference, tasks.proportions)
            metrics = build_metrics(stage.equilibrium.metrics, accelerator.device)
        if resumed is not None:
            load_checkpoint(accelerator, resumed, source, tasks, stage)
            ema.to(accelerator.device)  # accelerate loads it on the CPU
            resumed = None
        else:
            save_checkpoint(accelerator, output, progress, source, tasks, stage, config.keep_checkpoints)
        speed = measured_throughput(accelerator, modules, stage, size, noise_scheduler)

        last_checkpoint = last_validation = time.monotonic()
        duration.begin()
        total = None if duration.seconds else stage.steps
        bar = tqdm(total=total, initial=progress.step, desc=stage.name, mininterval=10, disable=not run.is_main_process)
        with bar, Preemption(stop) as preemption:
            last = progress.step >= duration.steps_in_all(progress.step)  # of a checkpoint at the end of a stage
            while not last:
                step = progress.step
                # Share out: the tasks' shares follow the plan, or what the averaged weights do on the reference pairs.
                if tasks.due(step):
                    scores = None
                    if tasks.needs_scores:
                        with averages():
                            measured = validate_together(accelerator, modules, stage, noise_scheduler, reference, metrics)
                        tasks.scales = tasks.scales or metric_scales(measured, stage.equilibrium.metrics)
                        scores = {task: round(fmean(score.values) * tasks.scales[task], 6) for task, score in measured.items()}
                    source.set_proportions(tasks.update(step, scores))
                    telemetry.log(stage.name, progress.step, progress.samples, {"proportions": tasks.proportions, "scores": scores or {}})
                    if run.is_main_process:
                        write_whole(output / f"equilibrium-{stage.name}.json", json.dumps(tasks.history, indent=1).encode())

                # Learn.
                numbers = range(step * micro_batches + run.process_index, (step + 1) * micro_batches, run.num_processes)
                loss = accumulate_gradients(accelerator, wrapped, stage, source, noise_scheduler, speed, numbers)
                leave_out_unneeded(accelerator, model)
                norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                # Both: the gradient of an L1 loss is 0 where the loss is not a number.
                # Under fp16 the gradient may overflow: the scaler then skips the step and lowers its scale.
                finite = math.isfinite(loss.item()) and (accelerator.scaler is not None or norm is None or math.isfinite(float(norm)))
                # One exchange for all that the processes must agree on: a collective that not all enter never returns.
                now, main = time.monotonic(), run.is_main_process
                broken, last, stop, save, look = all_reduce_any(
                    accelerator,
                    not finite,
                    main and step + 1 >= duration.steps_in_all(step + 1),
                    preemption.requested,
                    main and now - last_checkpoint > 60 * config.checkpoint_minutes,
                    main and now - last_validation > 60 * config.validation_minutes,
                )
                if not broken:
                    optimizer.step()
                    schedule.step()
                    ema.step(trainable)
                optimizer.zero_grad(set_to_none=True)
                progress.step = step + 1
                if duration.seconds is not None:  # or else a resumed run would not write what an uninterrupted one does
                    progress.seconds = duration.spent
                progress.samples += stage.batch_size
                progress.skipped += broken
                progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if broken else 0
                speed.count(stage.batch_size)
                bar.update()

                # Report.
                if broken:
                    problem = f"Stage {stage.name!r}, step {step}: loss or gradient not finite"
                    logger.warning("%s; update skipped (%d so far).", problem, progress.skipped)
                    if progress.skipped_in_a_row >= config.max_skipped_steps:
                        raise FloatingPointError(
                            f"{problem} {progress.skipped_in_a_row} times in a row. The last checkpoint is whole. "
                            "Lower the learning rate, or look at the data."
                        )
                else:
                    progress.loss = loss.item() if progress.loss is None else 0.98 * progress.loss + 0.02 * loss.item()
                if last or progress.step % 50 == 0:
                    bar.set_postfix(loss=f"{progress.loss or math.nan:.4f}", refresh=False)
                    values = {"loss": progress.loss and round(progress.loss, 5), "learning_rate": schedule.get_last_lr()[0]}
                    telemetry.log(stage.name, progress.step, progress.samples, {**values, "skipped": progress.skipped, **speed.report()})
                if last or look:
                    with averages():
                        measured = validate_together(accelerator, modules, stage, noise_scheduler, reference)
                        if stage.objective == "restoration" and main:
                            save_result(modules, noise_scheduler, output / result_name(modules))
                    rows = {task: score.row() for task, score in measured.items()}
                    experts = {task: {name: round(w, 4) for name, w in score.experts.items()} for task, score in measured.items()}
                    telemetry.log(stage.name, progress.step, progress.samples, {"validation": rows, "experts": experts})
                    telemetry.show(stage.name, progress.samples, {task: score.picture for task, score in measured.items()})
                    last_validation = time.monotonic()

                # Save.
                if not last and (save or stop):
                    save_checkpoint(accelerator, output, progress, source, tasks, stage, config.keep_checkpoints)
                    last_checkpoint = time.monotonic()
                if not last and stop:
                    source.close()
                    telemetry.close()
                    raise PreemptedError(f"Told to end after step {progress.step} of stage {stage.name!r}; the checkpoint is written.")

        # Hand on the averaged weights.
        copy_averaged_weights(accelerator, modules, model, ema, trainable)
        accelerator.free_memory()
        source.close()
        progress.stage, progress.step, progress.seconds, progress.loss = stage_index + 1, 0, 0.0, None
        if run.is_main_process:
            save_result(modules, noise_scheduler, output / stage.name, torch.float32)
    telemetry.close()
    return modules


def accumulate_gradients(
    accelerator: Accelerator,
    wrapped: torch.nn.Module,
    stage: StageConfig,
    source: PairSource | PairStream | PairPool,
    noise_scheduler: SchedulerMixin,
    speed: Throughput,
    numbers: Iterable[int],
) -> torch.Tensor:
    """Runs this process's micro-batches of an update forwards and backwards; returns their mean loss.

    Everything random in a micro-batch follows from its number and the source's state, so a resumed run sees what an uninterrupted one
    sees; from memory, several processes see what one sees.
    """
    losses = []
    for number in numbers:
        generator = source.generator(number)
        batch = speed.drawn(partial(source.batch, generator))
        with accelerator.accumulate(wrapped):
            with accelerator.autocast():
                loss = wrapped(stage, batch, noise_scheduler, generator)
            accelerator.backward(loss)
        losses.append(loss.detach())
    return torch.stack(losses).mean()


def parameter_groups(modules: FoundIRModules, stage: StageConfig) -> list[dict]:
    """AdamW's groups for a stage, one a learning-rate factor; what no prefix matches is frozen, and all but an adapter."""
    by_factor: dict[float, list[torch.nn.Parameter]] = {}
    learning = adapter_parameters(modules) or dict(modules.named_parameters()).keys()
    matched = set()
    for name, parameter in modules.named_parameters():
        prefix = max((p for p in stage.trainable if name.startswith(p)), key=len, default=None)
        parameter.requires_grad_(name in learning and prefix is not None and stage.trainable[prefix] > 0)
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


def check_reference(stage: StageConfig, data: TrainingData, reference: Mapping[str, PairBatch], proportions: Mapping[str, float]) -> None:
    """Raises `ValueError` unless every task has reference pairs that training does not see."""
    if not data.held_out:
        raise ValueError(
            f"Stage {stage.name!r}: data equilibrium scheduling needs reference pairs that training does not see. Give validation data, "
            "or split the data into train/ and val/ (or by a manifest.csv)."
        )
    if missing := [name for name in proportions if name not in reference]:
        raise ValueError(f"Stage {stage.name!r}: the validation data hold no pair of {', '.join(missing)}.")


def measured_throughput(
    accelerator: Accelerator, modules: FoundIRModules, stage: StageConfig, size: int, noise_scheduler: SchedulerMixin
) -> Throughput:
    """A [`Throughput`] that knows what a sample of this stage costs; where weights are sharded it does not, and tells no utilisation."""
    if is_sharded(accelerator):
        return Throughput()
    device = accelerator.device
    image = torch.zeros(size, 3, stage.crop_size, stage.crop_size, device=device)
    batch = PairBatch(image, image, ["clean"] * size)
    flops = count_flops(lambda: OBJECTIVES[stage.objective](modules, stage, batch, noise_scheduler, torch.Generator(device).manual_seed(0)))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision, torch.float32)
    return Throughput(flops / size, measure_peak(device, dtype) * accelerator.num_processes)


def validate_together(
    accelerator: Accelerator,
    modules: FoundIRModules,
    stage: StageConfig,
    noise_scheduler: SchedulerMixin,
    reference: Mapping[str, PairBatch],
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, TaskScore]:
    """[`validate`], the tasks shared out among the processes; all of them get all scores, the same as one process gets alone."""
    if accelerator.num_processes == 1:
        return validate(modules, stage, noise_scheduler, reference, metrics)
    mine = dict(list(reference.items())[accelerator.process_index :: accelerator.num_processes])
    parts = gather_object([validate(modules, stage, noise_scheduler, mine, metrics)])
    scores = {task: score for part in parts for task, score in part.items()}
    return {task: scores[task] for task in reference}


def all_reduce_any(accelerator: Accelerator, *decisions: bool) -> list[bool]:
    """Of each decision, whether any process took it. All must call it."""
    if accelerator.num_processes == 1:
        return list(decisions)
    taken = torch.tensor(decisions, dtype=torch.float32, device=accelerator.device)
    return [bool(count > 0) for count in torch.as_tensor(reduce(taken)).tolist()]
