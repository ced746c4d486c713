"""Seconds and peak memory of `restore` by image size, and where they go: one script, one table.

`python benchmarks/restore.py --megapixels 0.25 1 4 16 --steps 0 1`. Each row has a process and so a peak memory of its own.
Absolute seconds on a shared machine say little: read the shares, and compare two versions side by side on the same machine.
Processor seconds say more; those of one thread (`--threads 1`) are the fewest.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from functools import partial
from itertools import product
from typing import Any

# Part -> the methods that the pipeline calls.
PARTS = {"lq_encoder": ["forward"], "unet": ["forward"], "vae": ["encode", "decode"], "tone": ["forward", "apply_curves"]}


def measure(megapixels: float, steps: int, checkpoint: str, tile_size: int, threads: int | None) -> dict:
    """Restores one synthetic photograph in this process."""
    import torch

    from foundir_hf import load_pipeline
    from foundir_hf.cli import quiet_libraries

    quiet_libraries()
    if threads is not None:
        torch.set_num_threads(threads)
    pipeline = load_pipeline(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    seconds: dict[str, float] = defaultdict(float)
    for name, methods in PARTS.items():
        if (module := getattr(pipeline, name)) is not None:
            _time_calls(module, methods, seconds, name)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = torch.rand(1, 3, height, round(height * 4 / 3), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"num_inference_steps": steps, "tile_size": tile_size}
    pipeline(image[..., :256, :256], generator=torch.Generator().manual_seed(0), **options)  # warm up
    seconds.clear()
    before = peak_mebibytes()
    start, processor = time.perf_counter(), time.process_time()
    pipeline(image, generator=torch.Generator().manual_seed(0), **options)
    total = time.perf_counter() - start
    return {
        "seconds": total,
        "processor": time.process_time() - processor,
        "peak_mib": peak_mebibytes(),
        "start_mib": before,
        **{name: seconds[name] / total for name in PARTS},
    }


def _time_calls(module, methods: list[str], seconds: dict[str, float], name: str) -> None:
    running = False  # a method that calls another counts once

    def timed(original, *args, **kwargs):
        nonlocal running
        if running:
            return original(*args, **kwargs)
        running, start = True, time.perf_counter()
        result = original(*args, **kwargs)
        seconds[name] += time.perf_counter() - start
        running = False
        return result

    for method in methods:
        setattr(module, method, partial(timed, getattr(module, method)))


def peak_mebibytes() -> float:
    """The largest resident size of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flops_per_pixel(checkpoint: str, side: int = 1024) -> dict[str, float]:
    """MFLOP per output pixel of each part at one step, counted by torch on `side * side` pixels."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from foundir_hf import load_pipeline

    pipeline = load_pipeline(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    with FlopCounterMode(display=False) as counter:
        pipeline(torch.rand(1, 3, side, side), generator=torch.Generator().manual_seed(0))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    parts = {name: by_module.get(type(getattr(pipeline, name)).__name__, 0) for name in PARTS if name != "vae"}
    parts["vae"] = by_module["Global"] - sum(parts.values())  # it is not called as a module
    return {name: flops / side**2 / 1e6 for name, flops in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and peak memory of `restore` by image size, and where they go.")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 1, 4, 16])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1], help="(default: 0, the fast estimate, and 1)")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--tile-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, help="of the processor (default: one a core)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # the child process
    arguments = parser.parse_args()
    if arguments.one:
        (megapixels,), (steps,) = arguments.megapixels, arguments.steps
        print(json.dumps(measure(megapixels, steps, arguments.checkpoint, arguments.tile_size, arguments.threads)))
        return

    from foundir_hf import load_pipeline
    from foundir_hf.cli import quiet_libraries

    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    parts = {name: module for name in PARTS if (module := getattr(pipeline, name)) is not None}
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in parts.items()}
    flops = flops_per_pixel(arguments.checkpoint)
    print("| part | parameters | share | MFLOP/pixel | share |\n|---|---|---|---|---|")
    for name in parts:
        share, flop_share = parameters[name] / sum(parameters.values()), flops[name] / sum(flops.values())
        print(f"| {name} | {parameters[name]:,} | {share:.0%} | {flops[name]:.3f} | {flop_share:.0%} |")
    print(f"| all | {sum(parameters.values()):,} | | {sum(flops.values()):.3f} | |\n")

    columns = ["megapixels", "steps", "seconds", "s/MP", "processor s/MP", "peak MiB", "before", *parts, "rest"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for megapixels, steps in product(arguments.megapixels, arguments.steps):
        command = [sys.executable, __file__, "--one", "--megapixels", str(megapixels), "--steps", str(steps)]
        command += ["--checkpoint", arguments.checkpoint, "--tile-size", str(arguments.tile_size)]
        if arguments.threads is not None:
            command += ["--threads", str(arguments.threads)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(output.stdout.splitlines()[-1])
        shares = [row[name] for name in parts]
        cells = [f"{megapixels:g}", str(steps), f"{row['seconds']:.1f}"]
        cells += [f"{row[key] / megapixels:.2f}" for key in ("seconds", "processor")]
        cells += [f"{row[key]:.0f}" for key in ("peak_mib", "start_mib")] + [f"{share:.0%}" for share in (*shares, 1 - sum(shares))]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
