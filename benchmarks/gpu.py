"""What is due on a GPU whenever one is at hand, in one run of under ten minutes: `python benchmarks/gpu.py --output gpu.json`.

Parts, in this order; each has a budget of seconds, prints lines that the documents can take, and fails alone:

    degradations  all tasks on the GPU against the CPU, on the same photographs from the same random numbers
    pipeline      `tiny` in single and half precision against the CPU
    attention     benchmarks/attention.py
    sdxl          seconds and peak memory at the paper's size: random weights, half precision
    memory        benchmarks/memory.py: what `pipe.plan` predicts against what the allocator held
    training      benchmarks/training.py: steps of a recipe, their share of the measured peak, and where the time goes

`--small` runs all of it at shrunken sizes, on a CPU too.

A GPU machine without network has PyTorch, transformers, accelerate and peft, perhaps, and needs diffusers, importlib_metadata, zipp and
imagecodecs carried along as wheels. A module that is missing fails the parts that need it, by its name.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from foundir_hf.cli.common import quiet_libraries

ROOT = Path(__file__).parents[1]
# Part -> seconds that it may take; together under ten minutes.
BUDGETS = {"degradations": 75, "pipeline": 40, "attention": 60, "sdxl": 110, "memory": 150, "training": 110}


class DrawnOnCpu(TorchFunctionMode):
    """Random numbers of a generator of the CPU, whatever the device that they are wanted on: GPUs draw others."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.rand, torch.randn, torch.randint, torch.randperm) and "generator" in kwargs:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs.get("device", "cpu"))
        return func(*args, **kwargs)


def degradations(device: torch.device, small: bool) -> Iterator[str]:
    """Every task on both devices with the same random numbers: levels of 255 by which the results differ."""
    from foundir_hf.data.tasks import TASKS

    side, count = (64, 2) if small else (192, 8)
    images = photographs(count, side)
    failed, apart, seconds = 0, 0, 0.0
    for name, task in TASKS.items():
        expected = task.degrade(images, torch.Generator().manual_seed(0))
        start = time.perf_counter()
        try:
            with DrawnOnCpu():
                there = task.degrade(images.to(device), torch.Generator().manual_seed(0)).cpu()
        except Exception as error:  # the others go on
            failed += 1
            yield f"failed: {name} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
            continue
        seconds += time.perf_counter() - start
        difference = 255 * (there - expected).abs()
        mean, most = difference.mean().item(), difference.max().item()
        if not mean <= 0.1:  # NaN too
            apart += 1
            yield f"apart: {name} by {mean:.2f} levels in the mean, {most:.0f} at most"
    yield f"{len(TASKS)} tasks on {count} photographs of {side} pixels, {1000 * seconds / len(TASKS):.1f} ms each: {failed} fail"
    yield f"{len(TASKS) - failed - apart} agree with the CPU to a tenth of a level of 255 in the mean"
    if failed or apart:
        raise RuntimeError(f"{failed} tasks fail, {apart} differ")


def pipeline(device: torch.device, small: bool) -> Iterator[str]:
    """The checkpoint that ships, from the same noise, on both devices."""
    from foundir_hf import load_pipeline

    side = 128 if small else 768
    image = photographs(1, side)
    options: dict[str, Any] = {"output_type": "pt", "tile_size": side // 2, "tile_overlap": 32}
    noise = torch.randn(1, 48, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    expected: Any = load_pipeline("tiny")(image, latents=noise, **options).images
    for dtype in (torch.float32, torch.float16 if device.type == "cuda" else torch.bfloat16):
        pipe = load_pipeline("tiny", device=device, dtype=dtype)
        restored: Any = pipe(image, latents=noise, **options).images
        error = 255 * (restored - expected).abs()
        name = str(dtype).removeprefix("torch.")
        yield f"tiny, {side} pixels in tiles, {name}: {error.max():.3f} levels of 255 from the CPU at most, {error.mean():.4f} in the mean"


def attention(device: torch.device, small: bool) -> Iterator[str]:
    """benchmarks/attention.py."""
    shrunken = ["--scale", "64", "--steps", "1", "--without-model", "--backends", "native,_native_math"] if small else []
    yield from script("attention.py", "--device", device.type, *shrunken)


def sdxl(device: torch.device, small: bool) -> Iterator[str]:
    """Seconds and peak memory by size and steps."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from memory import build

    start = time.perf_counter()
    pipe = build("small-sdxl" if small else "sdxl", device.type).to(device)
    parameters = sum(weight.numel() for part in pipe._models().values() for weight in part.parameters())
    yield f"built in {time.perf_counter() - start:.1f} s, {parameters / 1e9:.2f} billion parameters, {pipe.unet.dtype}"
    yield "| pixels | tiles of | steps | seconds | peak GiB | TFLOP/s |\n|---|---|---|---|---|---|"
    rows = [(64, None, 1), (128, 64, 2)] if small else [(512, None, 1), (1024, None, 4), (1024, None, 20), (2048, 1024, 4)]
    for side, tile_size, steps in rows:
        image, options = torch.rand(1, 3, side, side), {"tile_size": tile_size, "tile_overlap": 32 if small and tile_size else 0}
        if tile_size and not small:
            options["tile_overlap"] = 128
        with FlopCounterMode(display=False) as counter:  # and warm
            pipe(image, num_inference_steps=steps, output_type="pt", **options)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        pipe(image, num_inference_steps=steps, output_type="pt", **options)  # ends on the CPU
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        rate = counter.get_total_flops() / seconds / 1e12
        yield f"| {side} x {side} | {tile_size or ''} | {steps} | {seconds:.3f} | {peak:.2f} | {rate:.3g} |"


def memory(device: torch.device, small: bool) -> Iterator[str]:
    """benchmarks/memory.py."""
    yield from script("memory.py", "--device", device.type, *(["--models", "small-sdxl", "--rows", "1"] if small else []))


def training(device: torch.device, small: bool) -> Iterator[str]:
    """benchmarks/training.py, and a profile of steps of `tiny`."""
    if small:
        shrunken = (
            "--configuration",
            "nano",
            "--batch-size",
            "2",
            "--crop-size",
            "64",
            "--steps",
            "1",
            "--rounds",
            "1",
            "--only",
            "the recipe",
        )
        yield from script("training.py", *shrunken, "--profile")
    else:
        recipe = str(ROOT / "training" / "configs" / "tiny.yaml")
        yield from script("training.py", recipe, "--stage", "regions", "--only", "the recipe", "--rounds", "3", "--profile")


def photographs(count: int, side: int) -> torch.Tensor:
    """Crops of those that ship, `(count, 3, side, side)` in [0, 1]."""
    import numpy as np
    from PIL import Image

    files = sorted((ROOT / "foundir_hf" / "samples").rglob("*.jpg")) + sorted((ROOT / "foundir_hf" / "samples").rglob("*.png"))
    crops = []
    for index in range(count):
        with Image.open(files[index % len(files)]) as image:
            crop = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255)
    return torch.stack(crops)


def script(name: str, *arguments: str) -> Iterator[str]:
    """Another benchmark's lines as it prints them; what it says of a failure is raised."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                yield line.rstrip()
        if process.wait():
            raise RuntimeError(f"{name}: {last_line(errors)}")


def last_line(errors: IO[str]) -> str:
    """Of what a process said to stderr; into a file, for a pipe that nobody reads would stop it."""
    errors.seek(0)
    return " ".join((errors.read().strip().splitlines() or ["no word"])[-1].split())


PARTS = {part.__name__: part for part in (degradations, pipeline, attention, sdxl, memory, training)}


def run(name: str, small: bool, device: str, budget: float) -> dict[str, Any]:
    """A part in a process of its own, with all that it starts ended when its time is up: its lines, seconds, and what went wrong."""
    command = [sys.executable, __file__, "--part", name, "--device", device, *(["--small"] if small else [])]
    start, lines = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
        clock = threading.Timer(budget, os.killpg, (process.pid, signal.SIGKILL))
        clock.start()
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            print(line.rstrip(), flush=True)
        process.wait()
        clock.cancel()
        found: dict[str, Any] = {"lines": lines, "seconds": round(time.monotonic() - start, 1)}
        if process.returncode == -signal.SIGKILL:
            over = found["seconds"] >= budget
            found["error"] = f"its {budget:.0f} seconds were over" if over else "it was killed, for its memory perhaps"
        elif process.returncode:
            found["error"] = last_line(errors)
    return found


def main() -> None:
    """Runs the parts that time is left for, and writes what they said; the exit code is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--small", action="store_true", help="shrunken sizes, for a CPU")
    parser.add_argument("--seconds", type=float, default=580, help="for all of it (default: 580)")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="what all parts said (default: gpu.json)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # the process of a part
    arguments = parser.parse_args()
    if arguments.part:
        quiet_libraries()
        for line in PARTS[arguments.part](torch.device(arguments.device), arguments.small):
            print(line, flush=True)
        return
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}", flush=True)
    deadline, found = time.monotonic() + arguments.seconds, {"device": where, "torch": torch.__version__, "small": arguments.small}
    for name in arguments.parts:
        print(f"\n## {name}\n", flush=True)
        left = deadline - time.monotonic()
        # On a CPU nothing hurries.
        budget = min(BUDGETS[name], left) if arguments.device == "cuda" else left
        found[name] = run(name, arguments.small, arguments.device, budget) if budget > 5 else {"error": "no time was left for it"}
        if "error" in found[name]:
            print(f"{name} failed: {found[name]['error']}", flush=True)
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")  # what there is so far
    sys.exit(any("error" in found[name] for name in arguments.parts))


if __name__ == "__main__":
    main()
