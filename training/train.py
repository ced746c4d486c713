"""Trains a recipe: `accelerate launch training/train.py training/configs/tiny.yaml --data PHOTOS --output runs/tiny`.

Run it again with the same arguments and it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from foundir_hf.training.build import build_modules, load_modules
from foundir_hf.training.config import TrainConfig
from foundir_hf.training.loop import train


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
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoints, components, log")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        config = TrainConfig.from_yaml(arguments.recipe)
        if config.initial_checkpoint is None:
            modules, noise_scheduler = build_modules(config.configuration, config.seed)
        else:
            modules, noise_scheduler = load_modules(config.initial_checkpoint)
        train(
            config,
            modules,
            noise_scheduler,
            arguments.data,
            arguments.output,
            validation=arguments.validation,
            manifest=arguments.manifest,
            in_memory=arguments.data_in_memory,
            workers=arguments.workers,
        )
    except (ImportError, OSError, ValueError) as error:
        parser.exit(2, f"train: {error}\n")


if __name__ == "__main__":
    main()
