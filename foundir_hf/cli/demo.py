"""`foundir demo`: what the checkpoint does, to look at."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import check_writable, load, model_options


def add_parser(commands) -> None:
    parser = commands.add_parser("demo", parents=[model_options()], help="damage and restore sample photographs, show what was gained")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="OUT", help="folder for the pictures (default: demo)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the pictures and prints the table."""
    check_writable(arguments.output)
    pipeline = load(arguments)
    from ..evaluation.demo import run_demo

    print(run_demo(pipeline, arguments.output, arguments.seed))
    print(f"\nLook at {arguments.output / 'overview.jpg'} (damaged | restored | original).")
