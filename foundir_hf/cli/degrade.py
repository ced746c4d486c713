"""`foundir degrade`: the damage of a sub-task, on a photograph of one's own."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import UsageError, check_writable, limit_options, limits, whole
from .photographs import photographs

SEED_HELP = "decides the damage, together with the file's name: renaming the photograph changes it (default: 0)"


def add_parser(commands) -> None:
    parser = commands.add_parser("degrade", parents=[limit_options()], help="damage a photograph as a sub-task does")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("--task", required=True, metavar="NAME", help="a name that `foundir tasks` lists")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=0, help=SEED_HELP)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists (never the input)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the damaged photograph."""
    if arguments.output.exists() and arguments.output.resolve() == arguments.image.resolve():
        raise UsageError(f"{arguments.output}: is the input; originals are never overwritten.")
    if arguments.output.is_dir():
        raise UsageError(f"{arguments.output}: is a folder; `--output` needs a file name.")
    if arguments.output.exists() and not arguments.overwrite:
        raise UsageError(f"{arguments.output}: exists; pass --overwrite to replace it.")
    check_writable(arguments.output.parent)
    import numpy as np
    from PIL import Image

    from ..data.tasks import get_task
    from ..evaluation.degradation import degrade_image
    from ..io.photograph import PhotoError
    from ..io.writing import write_photo

    try:
        task = get_task(arguments.task)
    except ValueError as error:
        raise UsageError(str(error).replace("`task`", "`--task`")) from error
    try:
        ((_, photo),) = photographs([arguments.image], limits(arguments))
        degraded = degrade_image(np.asarray(photo.image.convert("RGB")), task, arguments.image.name, arguments.seed)
        image = Image.fromarray(degraded).convert(photo.image.mode)  # a grey profile describes grey pixels only
        write_photo(photo.changed(pixels=np.asarray(image)), arguments.output)
    except PhotoError as error:
        raise UsageError(str(error)) from error
