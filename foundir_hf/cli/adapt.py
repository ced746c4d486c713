"""`foundir adapt`: a checkpoint taught what one's own photographs suffer from."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .common import UsageError, check_writable, number, whole


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "adapt",
        help="adapt a checkpoint to pairs, or to a kind of damage",
        description="Trains an adapter (see docs/adapters.md). The same command again goes on where it stopped; OUT.run keeps the run.",
    )
    parser.add_argument("data", help="folder of pairs (HQ/ beside LQ/), or of clean photographs with --task; shards and hf:// too")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder of the adapter; must not exist yet")
    parser.add_argument(
        "--method", choices=("lora", "adaptir", "full"), default="lora", help="full trains the components whole (default: lora)"
    )
    parser.add_argument("--rank", type=whole(1, 1024), default=8, help="of LoRA (default: 8)")
    parser.add_argument("--dora", action="store_true", help="LoRA with magnitudes of its own")
    parser.add_argument(
        "--components",
        nargs="+",
        choices=("lq_encoder", "unet", "tone"),
        help="what is adapted (default: lq_encoder, tone if the pairs differ in it, unet if lq_encoder restores nothing or by full)",
    )
    parser.add_argument("--targets", choices=("convolutions", "attention"), default="convolutions", help="(default: convolutions)")
    parser.add_argument("--reduction", type=whole(1, 1024), default=8, help="of AdaptIR's bottleneck (default: 8)")
    parser.add_argument("--task", action="append", default=[], metavar="NAME", help="sub-task that photographs learn; repeatable")
    parser.add_argument("--steps", type=whole(1, 10**7), default=400, help="default: 400")
    parser.add_argument("--batch-size", type=whole(1, 4096), default=4, help="crops a step (default: 4)")
    parser.add_argument("--crop-size", type=whole(16, 4096), help="pixels, a multiple of 16 (default: 64, or 192 to learn tones)")
    parser.add_argument("--learning-rate", type=number(1e-8, 1), help="peak (default: by method and components)")
    parser.add_argument("--validation", metavar="DATA", help="pairs or photographs to measure with (default: the `val` split of DATA)")
    parser.add_argument("--checkpoint", default="tiny", help="bundled name, folder or Hub repository (default: tiny)")
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), default=0, help="default: 0")
    parser.add_argument("--tracker", action="append", default=[], metavar="NAME", help="tensorboard, wandb, ...; repeatable")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Trains, prints what is gained on the reference pairs."""
    if arguments.crop_size and arguments.crop_size % 16:
        raise UsageError(f"`--crop-size` must be a multiple of 16, got {arguments.crop_size}.")
    check_writable(arguments.output.parent)
    from ..adapters.adapt import adapt, adaptation_recipe, usual_components
    from ..adapters.attach import AdapterConfig
    from ..training.preemption import PreemptedError

    try:
        components, adapter = arguments.components, None
        if components is None:
            components = usual_components(arguments.checkpoint, arguments.data, arguments.task, arguments.validation)
            if arguments.method == "full" and "unet" not in components:
                components = (*components, "unet")
        print(f"components: {' '.join(components)}")
        if arguments.method != "full":
            adapter = AdapterConfig(
                arguments.method,
                components=components,
                targets=arguments.targets,
                rank=arguments.rank,
                dora=arguments.dora,
                reduction=arguments.reduction,
            )
        config = adaptation_recipe(
            arguments.checkpoint,
            adapter,
            components=components,
            tasks=arguments.task,
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            crop_size=arguments.crop_size,
            learning_rate=arguments.learning_rate,
            seed=arguments.seed,
            trackers=arguments.tracker,
        )
        done = adapt(config, arguments.data, arguments.output, validation=arguments.validation)
    except PreemptedError as error:
        print(f"foundir: {error}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from error
    except (ImportError, OSError, ValueError, FloatingPointError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    for task, gain in done.gains.items():
        print(
            f"{task}: input {gain.before:.2f} dB, {arguments.checkpoint} {gain.base:.2f} dB, adapted {gain.after:.2f} dB "
            f"({gain.after - gain.base:+.2f}, {gain.pairs} pairs)"
        )
    if worse := [task for task, gain in done.gains.items() if not gain.after >= gain.base]:  # no number is worse too
        rate = config.stages[0].learning_rate
        print(f"Worse than without it: {', '.join(worse)}. A --learning-rate below {rate:g} or an adapter a kind of damage may mend that.")
    if not done.held_out:
        print("Training saw these pairs: give --validation, or val/ beside train/, for numbers that say something.")
    print(f"-> {arguments.output} ({done.size})")
