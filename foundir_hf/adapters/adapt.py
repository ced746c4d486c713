"""From a base checkpoint and data of one's own to an adapter: a recipe of one stage, the training loop, measured before and after."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F

from ..data.loading import TrainingData
from ..data.samples import Source
from ..data.sources import open_source
from ..hub import read_index
from ..models.lq_encoder_foundir import FoundIRPyramidEncoder
from ..pipelines.lora_foundir import COMPONENTS
from ..training.build import load_modules, prepare_modules
from ..training.config import StageConfig, TrainConfig
from ..training.export import save_pipeline
from ..training.loop import train
from ..training.objectives import FoundIRModules
from ..training.validation import TaskScore, validate
from .attach import AdapterConfig, count_parameters, without_adapters
from .card import Gain, write_card
from .files import Base, save_adapter

# On the 30 pairs of benchmarks/scanner.py and `tiny` 0.1; whoever adapts the whole model moves every weight, and by less.
LEARNING_RATES = {"lora": 1e-3, "adaptir": 2e-3, "full": 2e-4}
# Where the UNet is not adapted. With `tiny` 0.1, PSNR after 250 steps of LoRA: 1e-3 27.6, 3e-3 29.5, 6e-3 31.0, 1.2e-2 31.3 dB, of AdaptIR
# with a quarter of the parameters: 2e-3 30.2, 8e-3 30.9, 1.6e-2 30.8 dB. On sepia and scratches at once, 400 steps, LoRA of 1.2e-2 diverges
# (both below 5 dB), of 6e-3 gains 6.2 dB on scratches, and AdaptIR of 4e-3 as much on both together as of 8e-3: hence half of what is best.
PIXEL_LEARNING_RATES = {"lora": 6e-3, "adaptir": 4e-3}
# Of the tone curves' gate, whose logits are tens where the curves' own values are about one. LoRA of 6e-3 on a paler scanner (25.2 dB), 150
# steps, no noise: at a factor of 3 the curves are right (63.9 dB) and the gate stays shut (25.2 dB), at 10 it opens (64.7 dB).
GATE_FACTOR = 10.0
# Of `tone_difference`: Gaussian noise of 50 has 0.023, for it is cut off at black and white, a scanner that yellows ever so slightly 0.034.
TONE_DIFFERENCE = 0.03
CROP, VIEW = 64, 192  # pixels, of training crops: tones are told from a whole, so where they are learnt, crops are views
CONTEXT = 256  # pixels, of what photographs are measured on and degraded in: streaks and blur come in from outside


@dataclass(frozen=True)
class Adaptation:
    """What came of it.

    Args:
        gains: On the reference pairs, by task.
        held_out: Whether training saw none of these.
        size: How many parameters were trained, and which share of the base's.
    """

    gains: dict[str, Gain]
    held_out: bool
    size: str


def adaptation_recipe(
    checkpoint: str,
    adapter: AdapterConfig | None,
    *,
    components: Sequence[str] = COMPONENTS,
    tasks: Sequence[str] = (),
    steps: int = 400,
    batch_size: int = 4,
    crop_size: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    trackers: Sequence[str] = (),
) -> TrainConfig:
    """The recipe of an adaptation: one stage that trains what users run, the loss in decibels, and starts from `checkpoint`.

    Args:
        checkpoint: What is adapted, see [`~foundir_hf.hub.resolve_checkpoint`].
        adapter: What is trained; `None` fine-tunes the components themselves.
        components: Which ones then; an adapter tells its own. Where `tone` is among them crops are whole views, else tones are left alone.
        tasks: Sub-tasks that clean photographs are degraded by, in equal shares; pairs need none.
        steps, batch_size, crop_size: As in [`~foundir_hf.training.config.StageConfig`]; crops are of [`CROP`] pixels, views of [`VIEW`].
        learning_rate: Peak; left out, that of [`LEARNING_RATES`] or, for an adapter without the UNet, [`PIXEL_LEARNING_RATES`].
        seed, trackers: As in [`~foundir_hf.training.config.TrainConfig`].
    """
    components = components if adapter is None else adapter.components
    rates = LEARNING_RATES if adapter is None or "unet" in components else PIXEL_LEARNING_RATES
    method = "full" if adapter is None else adapter.method
    prefixes = [f"{name}." for name in components] if adapter is None else [""]  # of what carries an adapter nothing but that is trained
    trainable = dict.fromkeys(prefixes, 1.0)
    views = "tone" in components
    if views and (adapter is None or re.fullmatch(adapter.pattern("tone"), "gate")):
        trainable["tone.gate."] = GATE_FACTOR
    if crop_size is None:
        crop_size = VIEW if views else CROP
    stage = StageConfig(
        name="adapt",
        objective="restoration",
        tone="auto" if views else "off",
        loss="psnr",
        steps=steps,
        learning_rate=rates[method] if learning_rate is None else learning_rate,
        warmup_steps=min(20, steps // 4),
        batch_size=batch_size,
        crop_size=crop_size,
        context_size=crop_size if views else max(CONTEXT, 2 * crop_size),
        tasks=dict.fromkeys(tasks, 1.0) or {"clean": 1.0},
        trainable=trainable,
    )
    return TrainConfig(
        configuration=checkpoint,
        initial_checkpoint=checkpoint,
        adapter=adapter,
        stages=(stage,),
        seed=seed,
        trackers=tuple(trackers),
        checkpoint_minutes=1.0,
        validation_minutes=5.0,
        reference_size=CONTEXT,
    )


def usual_components(checkpoint: str, data: str | Path, tasks: Sequence[str] = (), validation: str | Path | None = None) -> tuple[str, ...]:
    """What is best adapted: the LQ encoder where it restores pixels, and the tone curves if the pairs differ in tone; of checkpoints like
    the paper's, LQ encoder and UNet. Curves that are adapted for nothing change photographs that they should not.

    Args:
        checkpoint, tasks: As in [`adaptation_recipe`].
        data, validation: As in [`adapt`].

    Raises:
        ValueError: If there are clean photographs and no task, or the data cannot be read.
    """
    check_tasks(tasks, data)
    index = read_index(checkpoint)
    classes = {name: entry[1] for name, entry in index.items() if isinstance(entry, list)}
    components = ("lq_encoder",) if classes.get("lq_encoder") == FoundIRPyramidEncoder.__name__ else ("lq_encoder", "unet")
    return (*components, "tone") if classes.get("tone") and differs_in_tone(data, tasks, validation) else components


def differs_in_tone(data: str | Path, tasks: Iterable[str] = (), validation: str | Path | None = None) -> bool:
    """Whether the reference pairs of data, or of one of the tasks, differ in tone by more than [`TONE_DIFFERENCE`]."""
    measured = TrainingData(data, validation=validation, reference_samples=10, in_memory="no", workers=0)
    reference = measured.reference(dict.fromkeys(tasks, 1.0) or {"clean": 1.0}, CONTEXT)
    return any(tone_difference(pairs.lq, pairs.hq) > TONE_DIFFERENCE for pairs in reference.values())


def tone_difference(images: torch.Tensor, others: torch.Tensor) -> float:
    """By how much pictures `(B, 3, H, W)` in [-1, 1] differ at large: RMS of [0, 1] of their sixteenths, the median over the pictures."""
    sixteenths = F.adaptive_avg_pool2d((images - others) / 2, 4)
    return sixteenths.square().mean(dim=(1, 2, 3)).sqrt().median().item()


def adapt(config: TrainConfig, data: str | Path, output: Path, *, validation: str | Path | None = None) -> Adaptation:
    """Trains, measures before and after, and writes `output`: an adapter with its card, or a pipeline where components learnt whole.

    The run itself (checkpoints, log, trackers) is kept in the folder `OUTPUT.run` beside it; the same call goes on from there.

    Args:
        config: See [`adaptation_recipe`].
        data, validation: See [`~foundir_hf.data.loading.TrainingData`].
        output: Must not exist; appears whole.

    Raises:
        ValueError: If `output` exists, the data do not fit, or `OUTPUT.run` was begun with other settings.
    """
    if output.exists():
        raise ValueError(f"{output}: exists; an adaptation never replaces anything.")
    run = output.with_name(f"{output.name}.run")
    check_tasks(config.stages[0].tasks, data)
    settings = {**json.loads(json.dumps(asdict(config))), "data": str(data), "validation": None if validation is None else str(validation)}
    begun_before = run.exists()
    check_settings(run, settings)
    modules, noise_scheduler = prepare_modules(config)
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        modules = train(config, modules, noise_scheduler, data, run, validation=validation)
    except (ValueError, ImportError, OSError):
        if not begun_before and not list(run.glob("checkpoint-*")):
            shutil.rmtree(run)  # bad data, found before the first step
        raise

    stage, adapter, checkpoint = config.stages[0], config.adapter, str(config.initial_checkpoint)
    as_run = replace(stage, tone="auto")
    measured = TrainingData(data, validation=validation, reference_samples=config.reference_samples, in_memory="no", workers=0)
    reference = measured.reference(stage.tasks, config.reference_size)
    modules.to("cpu")
    after = validate(modules, as_run, noise_scheduler, reference)
    if adapter is None:
        base = validate(load_modules(checkpoint)[0], as_run, noise_scheduler, reference)
    else:
        with without_adapters(modules):
            base = validate(modules, as_run, noise_scheduler, reference)
    done = Adaptation({task: _gain(base[task], after[task]) for task in reference}, measured.held_out, _size(modules, stage))
    card = write_card(
        name=output.name,
        method="full" if adapter is None else adapter.method,
        base=Base.of_checkpoint(checkpoint).checkpoint,
        size=done.size,
        training=f"Trained on {_describe(data)} for {stage.steps} steps of {stage.batch_size} crops of {stage.crop_size} pixels.",
        gains=done.gains,
        held_out=done.held_out,
    )
    if adapter is None or modules.base is None:
        unfinished = run / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save_pipeline(modules, noise_scheduler, unfinished)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
        unfinished.rename(output)
    else:
        save_adapter(modules, output, modules.base, card=card)
    return done


def check_tasks(tasks: Iterable[str], data: str | Path) -> None:
    """Raises `ValueError` if clean photographs are to be trained on without a sub-task, or the folder cannot be read."""
    source = open_source(data, "train")
    if not set(tasks) - {"clean"} and isinstance(source, Source) and all(source.task(i) is None for i in range(len(source))):
        raise ValueError(f"{data}: holds clean photographs, no pairs; name the sub-tasks to degrade them by (`foundir tasks` lists them).")


def check_settings(run: Path, settings: Mapping[str, Any]) -> None:
    """Raises `ValueError` if the run in that folder was begun with other settings: it would be neither the one nor the other."""
    path = run / "settings.json"
    if run.exists() and not path.is_file():
        raise ValueError(f"{run}: exists and is no run that could go on.")
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else settings
    if changed := [name for name in settings if begun.get(name) != settings[name]]:
        raise ValueError(f"{run}: was begun with other settings ({', '.join(changed)}). Give the same, another output, or remove it.")


def _gain(base: TaskScore, after: TaskScore) -> Gain:
    return Gain(len(after.after), fmean(after.before), fmean(base.after), fmean(after.after))


def _size(modules: FoundIRModules, stage: StageConfig) -> str:
    if modules.base is not None:
        return str(count_parameters(modules, "default"))
    trained = sum(p.numel() for name, p in modules.named_parameters() if name.startswith(tuple(stage.trainable)))
    total = sum(p.numel() for p in modules.parameters())
    return f"{trained:,} parameters, {trained / total:.1%} of {total:,}"


def _describe(data: str | Path) -> str:
    source = open_source(data, "train")
    return f"{len(source)} samples" if isinstance(source, Source) else "a streamed data set"
