"""Peak memory as `pipe.plan` predicts it beside what is measured, one table. On a CPU each mode has a process of its own, whose resident
memory only grows; on a GPU, whose allocator can be asked again, a model is built once for all its modes.

    python benchmarks/memory.py                               # a CPU: resident memory of the whole process (Linux)
    python benchmarks/memory.py --device cuda --models sdxl   # a GPU: what PyTorch's allocator held at most

Models: `tiny` as it ships, `nano` and `sdxl` with random weights, and `small-sdxl`, which has all parts of `sdxl` and is that of the tests.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from foundir_hf.cli.common import quiet_libraries
from foundir_hf.pipelines.memory_foundir import KINDS

ROOT = Path(__file__).parents[1]
# Model, side of the picture in pixels, tile size (0: whole), kind of mode, steps.
ON_CPU = [
    ("tiny", 768, 0, "", 1),
    ("tiny", 1024, 512, "", 1),
    ("tiny", 1024, 256, "", 0),
    ("tiny", 768, 0, "fp8", 1),
    ("nano", 1024, 0, "", 1),
    ("small-sdxl", 512, 0, "", 1),
    ("small-sdxl", 512, 256, "", 1),
]
ON_GPU = [
    ("tiny", 2048, 0, "", 1),
    ("tiny", 2048, 1024, "", 1),
    *(("sdxl", 1024, 0, kind, 2) for kind in ("", "fp8", "model", "group", "sequential")),
    ("sdxl", 2048, 1024, "", 2),
    ("sdxl", 1024, 512, "model", 2),
]


def build(model: str, device: str):
    """The pipeline, in half precision on a GPU."""
    from foundir_hf import load_pipeline
    from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
    from foundir_hf.training.build import build_modules

    dtype = torch.float16 if device == "cuda" else torch.float32
    if model == "tiny":
        pipe = load_pipeline("tiny", dtype=dtype)
    elif model == "small-sdxl":
        from diffusers import AutoencoderKL, DDIMScheduler

        from foundir_hf.configurations import CONFIGURATIONS
        from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder
        from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel

        sys.path.insert(0, str(ROOT / "tests"))
        from small_sdxl import SMALL_LQ_ENCODER, SMALL_SDXL, SMALL_VAE  # pyright: ignore[reportMissingImports]

        parts: dict[str, Any] = {
            "vae": AutoencoderKL(**SMALL_VAE),
            "lq_encoder": FoundIRLQEncoder(**SMALL_LQ_ENCODER),
            "unet": FoundIRUNet2DConditionModel(**SMALL_SDXL),
        }
        parts = {name: part.to(dtype).eval() for name, part in parts.items()}
        pipe = FoundIRPipeline(**parts, scheduler=DDIMScheduler(**CONFIGURATIONS["sdxl"]["scheduler"]))
    else:
        with torch.device(device):
            modules, scheduler = build_modules(model)
        built: dict[str, Any] = modules.to(dtype).eval().components()
        pipe = FoundIRPipeline(**built, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(model: str, modes: list[list], device: str) -> Iterator[dict[str, Any]]:
    """Bytes at most, measured and predicted, of each mode of a model, or what went wrong."""
    built = build(model, device).to("cpu")
    for side, tile_size, kind, steps in modes:
        try:
            if device == "cuda":
                predicted = predict(built, side, tile_size, kind, steps, device)
                measured = restore(copy.deepcopy(built), side, tile_size, kind, steps, device)
            else:  # predicted afterwards, which takes memory too, by a model that has not been changed
                measured = restore(built, side, tile_size, kind, steps, device)
                predicted = predict(build(model, device) if kind else built, side, tile_size, kind, steps, device)
            yield {"measured": measured, "predicted": predicted}
        except Exception as error:  # the other modes go on
            yield {"error": f"{type(error).__name__}: {error}"}
        gc.collect()


def restore(pipe, side: int, tile_size: int, kind: str, steps: int, device: str) -> int:
    """Restores a picture of noise -> the peak, in bytes."""
    pipe.to(device if kind in ("", "fp8") else "cpu")
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    exec(KINDS[kind], {"pipe": pipe, "torch": torch})
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    options = {"num_inference_steps": steps, "generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    pipe(picture, tile_size=tile_size or None, tile_overlap=128 if tile_size else 0, **options)
    return torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def predict(pipe, side: int, tile_size: int, kind: str, steps: int, device: str) -> int:
    """The peak that the plan says, in bytes."""
    plan = pipe.plan(side, side, num_inference_steps=steps, device=device, kinds=[kind], tile_sizes=[tile_size or None])
    return plan.modes[0].peak


def compare(rows: list[tuple], device: str):
    """A line of the table for each mode; one that fails is told."""
    yield "| model | pixels | mode | steps | predicted MiB | measured MiB | off |\n|---|---|---|---|---|---|---|"
    alike: dict[Any, list[list]] = {}
    for number, (model, *mode) in enumerate(rows):
        alike.setdefault((model, 0 if device == "cuda" else number), []).append(mode)
    for (model, _), modes in alike.items():
        command = [sys.executable, __file__, "--device", device, "--model", model, "--modes", json.dumps(modes)]
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            for side, tile_size, kind, steps in modes:
                name = (f"tiles of {tile_size}" if tile_size else "whole") + (f", {kind}" if kind else "")
                start = f"| {model} | {side} x {side} | {name} | {steps}"
                said = process.stdout.readline() if process.stdout else ""
                if not said:  # it has ended
                    errors.seek(0)
                found: dict[str, Any] = json.loads(said) if said else {"error": (errors.read().strip().splitlines() or ["killed"])[-1]}
                if "error" in found:
                    yield f"{start} | failed: {' '.join(found['error'].split())[:100]} | | |"
                    continue
                off = found["predicted"] / found["measured"] - 1
                yield f"{start} | {found['predicted'] / 2**20:.0f} | {found['measured'] / 2**20:.0f} | {off:+.0%} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", nargs="+", choices=("tiny", "nano", "sdxl", "small-sdxl"), help="(default: all rows)")
    parser.add_argument("--rows", type=int, help="no more than so many (default: all)")
    parser.add_argument("--model", help=argparse.SUPPRESS)  # of the child process
    parser.add_argument("--modes", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    quiet_libraries()
    if arguments.model:
        for found in measure(arguments.model, json.loads(arguments.modes), arguments.device):
            print(json.dumps(found), flush=True)
        return
    rows = [row for row in (ON_GPU if arguments.device == "cuda" else ON_CPU) if not arguments.models or row[0] in arguments.models]
    for line in compare(rows[: arguments.rows], arguments.device):
        print(line, flush=True)


if __name__ == "__main__":
    main()
