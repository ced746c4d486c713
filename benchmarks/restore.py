"""Seconds and peak memory of `restore` by image size, and where they go: one script, one table.

`python benchmarks/restore.py --megapixels 0.25 1 4 16`. Each size runs in a process of its own, so that its peak memory is its own.
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

PARTS = ("lq_encoder", "unet", "vae")


def measure(megapixels: float, checkpoint: str, tile_size: int, threads: int | None) -> dict:
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
    for name in PARTS:
        _time_calls(getattr(pipeline, name), "decode" if name == "vae" else "forward", seconds, name)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = torch.rand(1, 3, height, round(height * 4 / 3), generator=torch.Generator().manual_seed(0))
    pipeline(image[..., :256, :256], generator=torch.Generator().manual_seed(0))  # warm up
    seconds.clear()
    before = peak_mebibytes()
    start, processor = time.perf_counter(), time.process_time()
    pipeline(image, generator=torch.Generator().manual_seed(0), tile_size=tile_size)
    total = time.perf_counter() - start
    return {
        "megapixels": megapixels,
        "seconds": total,
        "processor": time.process_time() - processor,
        "peak_mib": peak_mebibytes(),
        "start_mib": before,
        **{name: seconds[name] / total for name in PARTS},
    }


def _time_calls(module, method: str, seconds: dict[str, float], name: str) -> None:
    original = getattr(module, method)

    def timed(*args, **kwargs):
        start = time.perf_counter()
        result = original(*args, **kwargs)
        seconds[name] += time.perf_counter() - start
        return result

    setattr(module, method, timed)


def peak_mebibytes() -> float:
    """The largest resident size of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flops_per_pixel(checkpoint: str, side: int = 256) -> dict[str, float]:
    """MFLOP per output pixel of each part at one step, counted by torch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from foundir_hf import load_pipeline

    pipeline = load_pipeline(checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    with FlopCounterMode(display=False, mods=[pipeline.lq_encoder, pipeline.unet, pipeline.vae]) as counter:  # pyright: ignore
        pipeline(torch.rand(1, 3, side, side), generator=torch.Generator().manual_seed(0))
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    total = by_module["Global"]
    encoder = by_module.get(type(pipeline.lq_encoder).__name__, 0)
    unet = by_module.get(type(pipeline.unet).__name__, 0)
    parts = {"lq_encoder": encoder, "unet": unet, "vae": total - encoder - unet}
    return {name: flops / side**2 / 1e6 for name, flops in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds and peak memory of `restore` by image size, and where they go.")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 1, 4, 16])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--tile-size", type=int, default=1024)
    parser.add_argument("--threads", type=int, help="of the processor (default: one a core)")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)  # the child process
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.checkpoint, arguments.tile_size, arguments.threads)))
        return

    from foundir_hf import load_pipeline
    from foundir_hf.cli import quiet_libraries

    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    parameters = {name: sum(p.numel() for p in getattr(pipeline, name).parameters()) for name in PARTS}
    flops = flops_per_pixel(arguments.checkpoint)
    print("| part | parameters | share | MFLOP/pixel | share |\n|---|---|---|---|---|")
    for name in PARTS:
        share, flop_share = parameters[name] / sum(parameters.values()), flops[name] / sum(flops.values())
        print(f"| {name} | {parameters[name]:,} | {share:.0%} | {flops[name]:.3f} | {flop_share:.0%} |")
    print(f"| all | {sum(parameters.values()):,} | | {sum(flops.values()):.3f} | |\n")

    columns = ["megapixels", "seconds", "s/MP", "processor s/MP", "peak MiB", "before", *PARTS, "rest"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for megapixels in arguments.megapixels:
        command = [sys.executable, __file__, "--one", str(megapixels), "--checkpoint", arguments.checkpoint]
        command += ["--tile-size", str(arguments.tile_size)]
        if arguments.threads is not None:
            command += ["--threads", str(arguments.threads)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(output.stdout.splitlines()[-1])
        shares = [row[name] for name in PARTS]
        cells = [f"{megapixels:g}", f"{row['seconds']:.1f}", *(f"{row[key] / megapixels:.2f}" for key in ("seconds", "processor"))]
        cells += [f"{row[key]:.0f}" for key in ("peak_mib", "start_mib")] + [f"{share:.0%}" for share in (*shares, 1 - sum(shares))]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
