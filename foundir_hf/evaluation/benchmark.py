"""Measuring a pipeline on a suite: input, restoration, baselines and other methods' outputs, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..pipelines.pipeline_foundir import FoundIRPipeline
from .baselines import BASELINES, enlarge, run_baseline
from .metrics import DEFAULT_METRICS, REMOVED, Meter
from .outputs import Outputs
from .suites import Case, Suite

INPUT, RESTORED = "input", "restored"  # beside these a method is a baseline or somebody's outputs
LANCZOS = "lanczos"  # a baseline too, for what arrives small


@dataclass(frozen=True)
class Score:
    """What every method scored on one image.

    Args:
        set: Name of the set.
        family: What tables group it under: the damage's family, the set's name, or what the suite says.
        task: Sub-task; of a set with inputs of its own, the set's name.
        image: File of the ground truth, within its set.
        methods: Method -> metric -> value: `"input"`, `"restored"`, baselines by name, other methods by name. PSNR is infinite where an
            image equals its truth; `None` is what could not be measured.
        baselines: Which of the methods are baselines.
    """

    set: str
    family: str
    task: str
    image: str
    methods: dict[str, dict[str, float | None]]
    baselines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One image of a suite, done.

    Args:
        case: What was restored.
        images: Method -> `(height, width, 3)`.
        score: How good they are.
        seconds: Method -> wall time; inputs and foreign outputs take none.
    """

    case: Case
    images: dict[str, np.ndarray] = field(repr=False)
    score: Score
    seconds: dict[str, float]


def check(suite: Suite, outputs: Sequence[Outputs] = ()) -> None:
    """What can be told before anything is measured, or a model loaded.

    Raises:
        ValueError: For photographs that are missing or too small for `crop`, and for outputs that are called as a method of ours or
            as one another.
    """
    suite.check()
    names = [other.name for other in outputs]
    for index, name in enumerate(names):
        if name in (INPUT, RESTORED, LANCZOS, *BASELINES) or name in names[:index]:
            raise ValueError(f"`outputs` must not be called {name!r}: that is a method of this run.")


def measure(
    suite: Suite,
    pipeline: FoundIRPipeline | None = None,
    *,
    seed: int = 0,
    metrics: Sequence[str] = DEFAULT_METRICS,
    outputs: Sequence[Outputs] = (),
    with_baselines: bool = True,
    **options: Any,
) -> Iterator[Measurement]:
    """Restores and scores a suite image by image, in its order; everything but `seconds` is the same in every run.

    Args:
        suite: From [`~foundir_hf.evaluation.suites.load_suite`].
        pipeline: What to measure; `None` measures inputs, baselines and `outputs` only.
        seed: Of the damage and of the restoration.
        metrics: See [`Meter`].
        outputs: Of other methods.
        with_baselines: Whether to run the classical methods too.
        options: Of [`FoundIRPipeline.__call__`].

    Raises:
        ValueError: For photographs that are missing or cannot be measured.
        MissingExtraError, PerceptualUnavailableError: For a metric or baseline whose library is not installed.
    """
    check(suite, outputs)
    meter = Meter(metrics, "cpu" if pipeline is None else pipeline.device)
    if pipeline is not None:
        pipeline.set_progress_bar_config(disable=True)
    cases = (case for image_set in suite.sets for case in image_set.cases(seed))
    for case in tqdm(cases, total=len(suite), desc="evaluating", mininterval=5):
        images, seconds = {INPUT: case.degraded}, {}
        runs = _baselines(case) if with_baselines else {}
        baselines = tuple(runs)
        if pipeline is not None:
            runs = {RESTORED: partial(_restore, pipeline, case, seed, options)} | runs
        for name, run in runs.items():
            start = time.perf_counter()
            images[name] = np.asarray(run())
            seconds[name] = time.perf_counter() - start
        for other in outputs:
            image = other.read(case)
            if image is not None:
                if other.name in images:
                    raise ValueError(f"`outputs` must not be called {other.name!r}: that is a method of this run.")
                images[other.name] = image
        before = meter.judge(case.degraded) if REMOVED in meter.names and case.defects else None
        against = {"before": before, "defects": case.defects, "channel": case.channel, "crop": case.crop}
        methods = {name: meter.measure(image, case.truth, **against) for name, image in images.items()}
        yield Measurement(case, images, Score(case.set, case.family, case.task, case.image, methods, baselines), seconds)


def _restore(pipeline: FoundIRPipeline, case: Case, seed: int, options: dict[str, Any]) -> Image.Image:
    return pipeline(_as_input(case), generator=torch.Generator().manual_seed(seed), **options).images[0]


def _baselines(case: Case) -> dict[str, Callable[[], Any]]:
    """Baseline -> how to run it. Enlarging bicubically is no baseline: the input column is."""
    runs: dict[str, Callable[[], Any]] = {}
    if case.small is not None:
        runs[LANCZOS] = partial(enlarge, case.small, case.degraded.shape[:2], Image.Resampling.LANCZOS)
    return runs | {name: partial(run_baseline, name, case.degraded) for name in case.baselines}


def _as_input(case: Case) -> Image.Image | np.ndarray:
    """What the pipeline is given: it takes numbers in [0, 1], so noise beyond black and white is clipped, but not rounded."""
    if case.degraded.dtype == np.uint8:
        return Image.fromarray(case.degraded)
    return (case.degraded / 255).clip(0, 1).astype(np.float32)
