"""AdaptIR's experiment (NeurIPS 2024, tables 1 to 4) on our base: equal parameters, equal data, equal steps, over seeds.

    python benchmarks/adapters.py runs/adapters --data PHOTOS --test CBSD68/GT --seeds 0 1 2

makes pairs of every damage, trains every method on them for every seed, scores it on photographs nobody trained on, and writes `report.md`
and `results.json`. Cells that are there are not trained again: an interrupted benchmark goes on, and `--tasks`, `--methods`, `--seeds` add
to it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from equilibrium import interval
from peft.tuners.tuners_utils import BaseTunerLayer
from PIL import Image
from torch import nn

from foundir_hf.adapters.adaptir import AdaptIRConfig
from foundir_hf.adapters.attach import PRESETS, AdapterConfig, adapter_parameters, add_adapter
from foundir_hf.adapters.files import Base
from foundir_hf.data.degradations.noise import gaussian_noise
from foundir_hf.data.tasks import TASKS, Task
from foundir_hf.evaluation.degradation import degrade_image
from foundir_hf.evaluation.metrics import psnr, ssim
from foundir_hf.evaluation.tables import markdown_table
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.io.folder import list_photos

SIDE = 256  # of the pairs, in pixels
# Beside the LQ encoder, by every method, the tone curves are adapted to damage that changes tones, as `foundir adapt` has it.
TONED = ("heavy_rain", "low_light", "moire")


def low_resolution(images: torch.Tensor, generator: torch.Generator, *, then: Task) -> torch.Tensor:
    """A quarter of the size by the bicubic kernel, more damage at that size, and back: the paper's hybrids."""
    size = [side // 4 for side in images.shape[2:]]
    small = nn.functional.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    return nn.functional.interpolate(then.degrade(small, generator), size=images.shape[2:], mode="bicubic").clamp(0, 1)


def _fixed(name: str, **ranges: tuple[float, float]) -> Task:
    return replace(TASKS[name], ranges={**TASKS[name].ranges, **ranges})


NOISE_30, JPEG_30 = _fixed("gaussian_noise", sigma=(30, 30)), _fixed("jpeg", quality=(30, 30))
# The paper's tasks by its names, and one damage that the base has never seen.
DAMAGES: dict[str, Task] = {
    "lr4_noise30": replace(NOISE_30, name="lr4_noise30", degradation=low_resolution, ranges={"then": NOISE_30}),
    "lr4_jpeg30": replace(JPEG_30, name="lr4_jpeg30", degradation=low_resolution, ranges={"then": JPEG_30}),
    "noise30": replace(NOISE_30, name="noise30"),
    "noise50": replace(NOISE_30, name="noise50", degradation=gaussian_noise, ranges={"sigma": (50, 50)}),
    "light_rain": TASKS["light_rain"],
    "heavy_rain": TASKS["heavy_rain"],
    "low_light": TASKS["low_light"],
    "moire": TASKS["moire"],
}


class Bottleneck(nn.Module, BaseTunerLayer):
    """A plain adapter (Houlsby et al., ICML 2019) beside a convolution: 1x1 down, GELU, 1x1 up that starts at zero."""

    adapter_layer_names = ("bottleneck",)

    def __init__(self, base_layer: nn.Conv2d, hidden: int):
        super().__init__()
        self.base_layer = base_layer
        up = nn.Conv2d(hidden, base_layer.out_channels, 1, bias=False)
        nn.init.zeros_(up.weight)
        self.bottleneck = nn.Sequential(nn.Conv2d(base_layer.in_channels, hidden, 1), nn.GELU(), up)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.base_layer(hidden_states) + self.bottleneck(hidden_states)


class ScaleShift(nn.Module, BaseTunerLayer):
    """SSF (NeurIPS 2022): a factor and an offset for every channel that a convolution returns."""

    adapter_layer_names = ("affine",)

    def __init__(self, base_layer: nn.Conv2d):
        super().__init__()
        self.base_layer = base_layer
        shape = (base_layer.out_channels, 1, 1)
        self.affine = nn.ParameterDict({"scale": torch.ones(shape), "shift": torch.zeros(shape)})

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.base_layer(hidden_states) * self.affine["scale"] + self.affine["shift"]


def components_of(task: str) -> tuple[str, ...]:
    """Whose convolutions are adapted to a task."""
    return ("lq_encoder", "tone") if task in TONED else ("lq_encoder",)


def wrap(modules: nn.Module, size: int, components: Sequence[str], make: Callable[[nn.Conv2d, int], nn.Module]) -> None:
    """Puts `make(convolution, size)` in the place of each convolution that the other methods adapt."""
    for component in components:
        root, pattern = getattr(modules, component), re.compile(PRESETS["convolutions"][component])
        for name in [name for name, module in root.named_modules() if pattern.fullmatch(name) and isinstance(module, nn.Conv2d)]:
            parent, _, child = name.rpartition(".")
            owner = root.get_submodule(parent)
            setattr(owner, child, make(getattr(owner, child), size))


def attach_adaptir(modules: nn.Module, size: int, components: Sequence[str], **options: Any) -> None:
    """AdaptIR beside the same convolutions; `size` is how many times narrower than the input its bottleneck is."""
    for component in components:
        config = AdaptIRConfig(target_modules=PRESETS["convolutions"][component], reduction=size, min_hidden_size=2, **options)
        getattr(modules, component).add_adapter(config)


def attach_lora(modules: nn.Module, size: int, components: Sequence[str]) -> None:
    """LoRA of rank `size`; on the tone curves also on what sets the whole picture's tone."""
    add_adapter(modules, AdapterConfig("lora", components=tuple(components), rank=size))


def attach_attention_lora(modules: nn.Module, size: int, components: Sequence[str]) -> None:
    """LoRA where it usually is; attention is the denoiser's alone here."""
    add_adapter(modules, AdapterConfig("lora", targets="attention", rank=size))


@dataclass(frozen=True)
class Method:
    """How a method is attached with a size, its learning rate, and the sizes that are tried, from the largest number of parameters down."""

    attach: Callable[[nn.Module, int, Sequence[str]], None] | None
    learning_rate: float = 0.0
    sizes: Sequence[int] = (0,)


# Learning rates for checkpoint `tiny` 0.1 (commit 04d752d), by the mean of lr4_noise30 and low_light on seed 0, scored on photographs 40 to
# 55 of CBSD68, which the table does not have: LoRA of 6e-3, 1.2e-2, AdaptIR of 1e-2, the plain adapter of 1e-2, 2e-2, SSF of 2e-2, 5e-2;
# `full` stands below what diverged (4e-3).
_NARROW, _RANKS = tuple(range(1, 49)), tuple(range(32, 0, -1))
METHODS: dict[str, Method] = {
    "base": Method(None),
    "lora": Method(attach_attention_lora, 1.2e-2, _RANKS),
    "conv_lora": Method(attach_lora, 1.2e-2, _RANKS),
    "bottleneck": Method(partial(wrap, make=Bottleneck), 1e-2, _RANKS),
    "ssf": Method(partial(wrap, make=lambda layer, size: ScaleShift(layer)), 5e-2),
    "adaptir": Method(attach_adaptir, 1e-2, _NARROW),
    "adaptir_no_local": Method(partial(attach_adaptir, branches=["global", "channel"]), 1e-2, _NARROW),
    "adaptir_no_global": Method(partial(attach_adaptir, branches=["local", "channel"]), 1e-2, _NARROW),
    "adaptir_no_channel": Method(partial(attach_adaptir, branches=["local", "global"]), 1e-2, _NARROW),
    "adaptir_sum": Method(partial(attach_adaptir, interaction=False), 1e-2, _NARROW),
    "full": Method(None, 2e-3),  # every weight of the components
}


def fitting_size(method: Method, components: Sequence[str], checkpoint: str, budget: float) -> int:
    """The size with the most parameters within `budget`, a share of the base's; the smallest where none is."""
    from foundir_hf.training.build import load_modules

    for size in method.sizes:
        modules, _ = load_modules(checkpoint)
        base = sum(parameter.numel() for parameter in modules.parameters())
        if method.attach is not None:
            method.attach(modules, size, components)
        own = adapter_parameters(modules)
        if sum(p.numel() for name, p in modules.named_parameters() if name in own) <= budget * base:
            return size
    return method.sizes[-1]


def write_pairs(folder: Path, task: Task, photos: Sequence[Path], seed: int) -> None:
    """A crop from the middle of each photograph, clean and damaged, as `HQ/` and `LQ/`; nothing where they are already."""
    if (folder / "LQ").is_dir() and len(list((folder / "LQ").iterdir())) == len(photos):
        return
    for part in ("HQ", "LQ"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for path in photos:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        top, left = ((side - SIDE) // 2 for side in pixels.shape[:2])
        truth = np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])
        Image.fromarray(truth).save(folder / "HQ" / f"{path.stem}.png")
        Image.fromarray(degrade_image(truth, task, path.name, seed)).save(folder / "LQ" / f"{path.stem}.png")


def train_cell(task: str, method_name: str, seed: int, size: int, arguments: argparse.Namespace) -> Path:
    """Trains and scores one cell; returns the file of its scores."""
    from foundir_hf.adapters.adapt import adaptation_recipe
    from foundir_hf.cli import quiet_libraries
    from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
    from foundir_hf.training.build import load_modules
    from foundir_hf.training.loop import train

    torch.set_num_threads(1)
    quiet_libraries()
    folder = arguments.runs / task / method_name / f"seed-{seed}"
    result, method = folder / "result.json", METHODS[method_name]
    if result.is_file():
        return result
    modules, noise_scheduler = load_modules(arguments.checkpoint)
    torch.manual_seed(seed)
    components = components_of(task)
    if method.attach is not None:
        method.attach(modules, size, components)
    if any(getattr(component, "peft_config", None) for component in modules.children()):
        modules.base = Base.of_checkpoint(arguments.checkpoint)  # the loop then writes an adapter and no pipeline
    own = adapter_parameters(modules)
    total = sum(p.numel() for p in modules.parameters())
    trained = sum(p.numel() for name, p in modules.named_parameters() if name in own)
    began = time.monotonic()
    if method_name != "base":
        recipe = adaptation_recipe(
            arguments.checkpoint,
            None,
            components=components,
            steps=arguments.steps,
            batch_size=8,
            learning_rate=method.learning_rate,
            seed=seed,
        )
        (stage,) = recipe.stages
        if own:  # of what carries an adapter nothing but that is trained
            factors = {p: factor for p, factor in stage.trainable.items() if factor != 1 and any(name.startswith(p) for name in own)}
            stage = replace(stage, trainable={"": 1.0, **factors})
        quiet = {"checkpoint_minutes": 1e6, "validation_minutes": 1e6, "reference_samples": 1}
        recipe = replace(recipe, stages=(stage,), ema_decay=0.99, mixed_precision=arguments.mixed_precision, **quiet)
        train(recipe, modules, noise_scheduler, arguments.runs / "pairs" / task, folder)
        trained = trained or sum(p.numel() for name, p in modules.named_parameters() if name.startswith(tuple(stage.trainable)))
    minutes = (time.monotonic() - began) / 60
    parts: dict[str, Any] = modules.eval().components()
    pipeline = FoundIRPipeline(**parts, scheduler=noise_scheduler)
    pipeline.set_progress_bar_config(disable=True)
    rows = []
    for path in sorted((arguments.runs / "pairs" / task / "test" / "LQ").iterdir()):
        damaged, truth = (np.asarray(Image.open(path.parents[1] / part / path.name)) for part in ("LQ", "HQ"))
        restored = np.asarray(pipeline(Image.fromarray(damaged), generator=torch.Generator().manual_seed(0)).images[0])
        scores = {"input": psnr(damaged, truth), "psnr": psnr(restored, truth), "ssim": ssim(restored, truth) or 0.0}
        rows.append({name: round(value, 4) for name, value in scores.items()})
    shutil.rmtree(folder, ignore_errors=True)  # checkpoints; what counts are the scores
    folder.mkdir(parents=True)
    cell = {"task": task, "method": method_name, "seed": seed, "size": size, "trained": trained, "total": total, "minutes": minutes}
    result.write_text(json.dumps({**cell, "scores": rows}), encoding="utf-8")
    return result


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """A row a method, a column a task: PSNR over the test photographs, mean over seeds with half of Student's 95 % interval;
    minutes are the median, which a paused run does not disturb."""
    tasks, methods = (list(dict.fromkeys(row[key] for row in results)) for key in ("task", "method"))
    lines = []
    inputs = [next(row for row in results if row["task"] == task)["scores"] for task in tasks]
    lines.append(["input", "", "", *(f"{fmean(score['input'] for score in scores):.2f}" for scores in inputs)])
    for method in sorted(methods, key=list(METHODS).index):
        own = [row for row in results if row["method"] == method]
        cells = []
        for task in tasks:
            means = [[fmean(score[metric] for score in row["scores"]) for metric in ("psnr", "ssim")] for row in own if row["task"] == task]
            if not means:
                cells.append("-")
                continue
            half = "" if method == "base" else _half(interval([value for value, _ in means]))
            cells.append(f"{fmean(p for p, _ in means):.2f}{half} / {fmean(s for _, s in means):.4f}")
        trained = sorted({row["trained"] for row in own})
        lines.append([method, " or ".join(f"{number:,}" for number in trained), f"{median(row['minutes'] for row in own):.1f}", *cells])
    return markdown_table(["method", "parameters", "minutes", *tasks], lines)


def report_differences(results: Sequence[Mapping[str, Any]]) -> str:
    """AdaptIR's PSNR minus each other method's, seed by seed: the mean, and half of Student's 95 % interval."""
    means = {(row["task"], row["method"], row["seed"]): fmean(score["psnr"] for score in row["scores"]) for row in results}
    tasks, methods, seeds = (list(dict.fromkeys(key[place] for key in means)) for place in range(3))
    for (task, method, _), mean in list(means.items()):
        if method == "base":  # untrained, so the same for every seed
            means |= {(task, method, seed): mean for seed in seeds}
    lines = []
    for method in sorted(methods, key=list(METHODS).index):
        if method == "adaptir":
            continue
        cells = []
        for task in tasks:
            pairs = [(means.get((task, "adaptir", seed)), means.get((task, method, seed))) for seed in seeds]
            gaps = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
            cells.append(f"{fmean(gaps):+.2f}{_half(interval(gaps))}" if gaps else "-")
        lines.append([method, *cells])
    return markdown_table(["AdaptIR minus", *tasks], lines)


def _half(width: float) -> str:
    return "" if math.isnan(width) else f" ± {width:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of pairs, runs and report")
    parser.add_argument("--data", type=Path, required=True, help="photographs to train on")
    parser.add_argument("--test", type=Path, required=True, help="other photographs, to score with")
    parser.add_argument("--checkpoint", default="tiny", help="the frozen base")
    parser.add_argument("--tasks", nargs="+", choices=DAMAGES, default=list(DAMAGES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=200, help="to train on (default: 200)")
    parser.add_argument("--photographs", type=int, default=24, help="to score with (default: 24)")
    parser.add_argument("--budget", type=float, default=0.0066, help="parameters of an adapter, as a share of the base's (default: 0.0066)")
    parser.add_argument("--steps", type=int, default=300, help="of 8 crops, see foundir_hf/adapters/adapt.py (default: 300)")
    parser.add_argument("--mixed-precision", choices=("no", "bf16"), default="no", help="of the training (default: no)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    arguments = parser.parse_args()
    settings = {"steps": arguments.steps, "pairs": arguments.pairs, "photographs": arguments.photographs, "budget": arguments.budget}
    settings |= {"learning_rates": {name: method.learning_rate for name, method in METHODS.items()}}
    settings |= {"hashes": checkpoint_hashes(resolve_checkpoint(arguments.checkpoint))}
    kept = arguments.runs / "settings.json"
    if kept.is_file() and (begun := json.loads(kept.read_text())) != settings:
        parser.error(f"{arguments.runs} was begun with {begun}, and these are {settings}: cells of both would stand in one table.")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(settings), encoding="utf-8")
    train, test = list_photos(arguments.data), list_photos(arguments.test)
    parts = {"train": train[:: max(1, len(train) // (arguments.pairs + 4))][: arguments.pairs + 4], "test": test[: arguments.photographs]}
    parts["val"] = [parts["train"].pop() for _ in range(4)]
    for task, (part, photos) in product(arguments.tasks, parts.items()):
        write_pairs(arguments.runs / "pairs" / task / part, DAMAGES[task], photos, seed=part == "test")
    places = {components_of(task) for task in arguments.tasks}
    sizes = {
        (name, place): fitting_size(METHODS[name], place, arguments.checkpoint, arguments.budget)
        for name in arguments.methods
        for place in places
    }
    cells = list(product(arguments.seeds, arguments.tasks, arguments.methods))
    cells = [(seed, task, name) for seed, task, name in cells if name != "base" or seed == arguments.seeds[0]]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train_cell, task, name, seed, sizes[name, components_of(task)], arguments) for seed, task, name in cells]
        for number, future in enumerate(as_completed(futures), 1):
            print(f"{number} of {len(futures)}: {future.result().parent}", flush=True)
    cells = [json.loads(path.read_text()) for path in sorted(arguments.runs.glob("*/*/*/result.json"))]
    content = {**settings, "cells": cells}
    (arguments.runs / "results.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    text = f"{report(cells)}\n\n{report_differences(cells)}"
    (arguments.runs / "report.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
