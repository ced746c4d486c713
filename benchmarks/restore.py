"""Seconds and peak memory of `restore` by image size, and where they go: one script, one table.

`python benchmarks/restore.py --megapixels 0.25 1 4 16`. Each size runs in a process of its own, so that its peak memory is its own.
Absolute seconds on a shared machine say little: read the shares, and compare two versions side by side on the same machine.
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


def measure(megapixels: float, checkpoint: str, tile_size: int) -> dict:
    """Restores one synthetic photograph in this process."""
    import torch

    from foundir_hf import load_pipeline
    from foundir_hf.cli import quiet_libraries

    quiet_libraries()
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
    start = time.perf_counter()
    pipeline(image, generator=torch.Generator().manual_seed(0), tile_size=tile_size)
    total = time.perf_counter() - start
    return {
        "megapixels": megapixels,
        "seconds": total,
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
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)  # the child process
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one, arguments.checkpoint, arguments.tile_size)))
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

    print("| megapixels | seconds | s/MP | peak MiB | before | LQ encoder | UNet | decoder | rest |\n|---|---|---|---|---|---|---|---|---|")
    for megapixels in arguments.megapixels:
        command = [sys.executable, __file__, "--one", str(megapixels), "--checkpoint", arguments.checkpoint]
        output = subprocess.run([*command, "--tile-size", str(arguments.tile_size)], check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(output.stdout.splitlines()[-1])
        rest = 1 - sum(row[name] for name in PARTS)
        print(
            f"| {megapixels:g} | {row['seconds']:.1f} | {row['seconds'] / megapixels:.2f} | {row['peak_mib']:.0f} | {row['start_mib']:.0f} "
            f"| {row['lq_encoder']:.0%} | {row['unet']:.0%} | {row['vae']:.0%} | {rest:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
