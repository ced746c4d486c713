"""Trains a recipe: `accelerate launch training/train.py training/configs/tiny.yaml --data PHOTOS --output runs/tiny`.

Run it again with the same arguments and it goes on from its last checkpoint. Told to end (SIGTERM), it writes one first and ends with 143.
"""

from __future__ import annotations

import argparse
import logging
import signal
from dataclasses import replace
from pathlib import Path

import torch.distributed

from foundir_hf.cli import quiet_libraries
from foundir_hf.training.build import prepare_modules
from foundir_hf.training.config import StageConfig, TrainConfig
from foundir_hf.training.duration import parse_duration
from foundir_hf.training.loop import train
from foundir_hf.training.preemption import PreemptedError


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains a recipe; run again with the same arguments, it goes on from its last checkpoint.")
    parser.add_argument("recipe", type=Path, help="YAML file, see training/configs")
    parser.add_argument("--data", required=True, help="folder of photographs, pairs or tar shards, or hf://NAME[:SPLIT]; see README.md")
    parser.add_argument("--validation", metavar="DATA", help="the same to validate with (default: the `val` split of --data)")
    parser.add_argument(
        "--manifest", type=Path, metavar="FILE", help="written by `foundir clean`: no task learns from photographs unfit for it"
    )
    parser.add_argument("--data-in-memory", choices=("auto", "yes", "no"), default="auto", help="decode once and keep (default: if small)")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes for each training process (default: 2)")
    parser.add_argument(
        "--pool",
        type=int,
        default=0,
        metavar="N",
        help="N processes make pairs ahead, and each pair is learnt from several times: for a GPU that learns faster than pairs are made "
        "(default: 0, every pair is made for its step)",
    )
    parser.add_argument("--for", dest="duration", metavar="TIME", help="end by the clock (90s, 12m, 1.5h), whatever the stages' steps")
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoints, components, log")
    parser.add_argument(
        "--resume", default="latest", metavar="WHERE", help="latest (default), never (refuses a folder with checkpoints), or a checkpoint"
    )
    parser.add_argument(
        "--equilibrium",
        nargs="+",
        metavar=("STRATEGY", "HISTORY"),
        help="how the tasks' shares change, instead of what the recipe says: mixing, sequential, incremental, des, or replay with the "
        "equilibrium-STAGE.json of another run",
    )
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it tells of every file of every checkpoint
    quiet_libraries()
    code, message = 0, None
    try:
        config = TrainConfig.from_yaml(arguments.recipe)
        if arguments.seed is not None:
            config = replace(config, seed=arguments.seed)
        if arguments.equilibrium is not None:
            config = replace(config, stages=tuple(with_strategy(stage, *arguments.equilibrium) for stage in config.stages))
        seconds = arguments.duration and parse_duration(arguments.duration)
        modules, noise_scheduler = prepare_modules(config)
        train(
            config,
            modules,
            noise_scheduler,
            arguments.data,
            arguments.output,
            resume=arguments.resume,
            validation=arguments.validation,
            manifest=arguments.manifest,
            in_memory=arguments.data_in_memory,
            workers=arguments.workers,
            pool_workers=arguments.pool,
            seconds=seconds or None,
        )
    except PreemptedError as error:
        code, message = 128 + signal.SIGTERM, f"train: {error}\n"
    except (ImportError, OSError, ValueError, FloatingPointError) as error:
        code, message = 2, f"train: {' '.join(str(error).split())}\n"  # libraries write paragraphs
    # Only here, when no traceback holds the loop any more: DDP's reducer waits for ever where it is the last to know its process group.
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    parser.exit(code, message)


def with_strategy(stage: StageConfig, strategy: str, history: str | None = None, *rest: str) -> StageConfig:
    """The stage with another strategy; stages of a single task have no shares to change."""
    if rest:
        raise ValueError(f"--equilibrium takes a strategy and, for replay, a history; got {' '.join(rest)} as well.")
    if len(stage.tasks) < 2:
        return stage
    return replace(stage, equilibrium=replace(stage.equilibrium, strategy=strategy, history=history))


if __name__ == "__main__":
    main()
