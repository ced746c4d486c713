"""`foundir export`: a folder that diffusers loads without this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import check_writable, checkpoint_folder, load, model_options


def add_parser(commands) -> None:
    """Adds the verb to the command line."""
    parser = commands.add_parser("export", parents=[model_options()], help="write a folder that diffusers loads without this package")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the folder."""
    check_writable(arguments.output)
    pipeline = load(arguments)
    from ..hub import stored_dtype

    # As they are stored: the same files, so that an adapter of the one fits the other.
    pipeline.to(stored_dtype(checkpoint_folder(arguments))).save_pretrained(arguments.output)
    print(f"{arguments.output}: DiffusionPipeline.from_pretrained({str(arguments.output)!r}, trust_remote_code=True)")
