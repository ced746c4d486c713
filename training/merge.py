"""Merges checkpoints: `python training/merge.py OUT runs/a/pipeline tiny --weights 7 3 --part lq_encoder.refiner.=runs/refine/pipeline`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from foundir_hf.training.merge import merge


def main() -> None:
    parser = argparse.ArgumentParser(description="The weighted mean of checkpoints, and parts of others as they are.")
    parser.add_argument("output", type=Path, help="folder that does not exist yet")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="bundled name, folder or Hub repository")
    parser.add_argument("--weights", nargs="+", type=float, help="of the checkpoints, made to sum to 1 (default: equal)")
    parser.add_argument(
        "--part", action="append", default=[], metavar="PREFIX=CHECKPOINT", help="parameters whose names begin so (repeatable)"
    )
    arguments = parser.parse_args()
    try:
        if arguments.output.exists():
            raise ValueError(f"`output` {arguments.output} exists; nothing is overwritten.")
        if wrong := [part for part in arguments.part if not all(part.partition("="))]:
            raise ValueError(f"`--part` must be PREFIX=CHECKPOINT, got {wrong[0]!r}.")
        weights = arguments.weights or [1.0] * len(arguments.checkpoints)
        if len(weights) != len(arguments.checkpoints):
            raise ValueError(f"`--weights` must have one for each of the {len(arguments.checkpoints)} checkpoints, got {len(weights)}.")
        pipeline = merge(dict(zip(arguments.checkpoints, weights, strict=True)), dict(part.split("=", 1) for part in arguments.part))
    except (OSError, ValueError) as error:
        parser.exit(2, f"merge: {error}\n")
    pipeline.to(torch.float16).save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
