"""What the `sdxl` recipe costs on GPUs, calculated: floating point operations of its updates, counted, over a rate that was measured.

    python benchmarks/cost.py                    # from an H100's 0.972 s and 3.553 s for 4 and 20 steps at 1024 x 1024 in half precision
    python benchmarks/cost.py --step 0.12 --gpus 64

Nothing is computed: the model is built without weights. A backward pass counts as two forward ones, and gradient checkpointing as a third;
it is taken to run at the rate of a forward pass. Not counted: the exchange between GPUs, the optimizer, validation, checkpoints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from foundir_hf.training.build import build_modules
from foundir_hf.training.config import TrainConfig

RECIPE = Path(__file__).parents[1] / "training" / "configs" / "sdxl.yaml"


def forward_teraflops(side: int) -> dict[str, float]:
    """Of each part of `sdxl`, for a picture of `side * side` pixels."""
    with torch.device("meta"), torch.no_grad():
        modules, _ = build_modules("sdxl")
        image, latents = torch.empty(1, 3, side, side), torch.empty(1, 4, side // 8, side // 8)
        features, text = torch.empty(1, 512, side // 8, side // 8), modules.unet.empty_prompt(1, side, side)
        parts: dict[str, Callable] = {
            "unet": lambda: modules.unet(latents, torch.empty(1), lq_hidden_states=features, **text),
            "lq_encoder": lambda: modules.lq_encoder(image),
            "vae": lambda: modules.vae.encode(image),
        }
        counted = {}
        for name, part in parts.items():
            with FlopCounterMode(display=False) as counter:
                part()
            counted[name] = counter.get_total_flops() / 1e12
    return counted


def main() -> None:
    """Prints the calculation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=float, default=(3.553 - 0.972) / 16, help="seconds of a denoising step at --side (default: 0.161)")
    parser.add_argument("--side", type=int, default=1024, help="pixels (default: 1024)")
    parser.add_argument("--gpus", type=int, default=8, help="(default: 8)")
    arguments = parser.parse_args()
    rate = forward_teraflops(arguments.side)["unet"] / arguments.step
    print(f"measured: {rate:.1f} TFLOP/s\n")
    print("| stage | updates | TFLOP a crop | seconds an update | hours | GPU hours |\n|---|---|---|---|---|---|")
    config = TrainConfig.from_yaml(RECIPE)
    passes = 4 if config.gradient_checkpointing else 3
    for stage in config.stages:
        forward = forward_teraflops(stage.crop_size)
        trained = {name: passes if any(key.startswith(name) for key in stage.trainable) else 1 for name in forward}
        crop = sum(trained[name] * flops for name, flops in forward.items())
        seconds = stage.batch_size * crop / rate / arguments.gpus
        hours = stage.steps * seconds / 3600
        print(f"| {stage.name} | {stage.steps:,} | {crop:.1f} | {seconds:.2f} | {hours:.1f} | {hours * arguments.gpus:.0f} |")


if __name__ == "__main__":
    main()
