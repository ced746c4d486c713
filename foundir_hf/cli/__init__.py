"""`foundir`: the command line. Thin over the API; a file a verb; every failure a person can cause is one line and exit code 2."""

from __future__ import annotations

import argparse
import sys

from .. import __version__
from . import adapt, clean, degrade, demo, diagnose, evaluate, export, info, pack, restore, tasks
from .common import Parser, UsageError, quiet_libraries

VERBS = (restore, demo, evaluate, info, export, tasks, degrade, pack, clean, diagnose, adapt)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        quiet_libraries()
        arguments.run(arguments)
    except UsageError as error:
        print(f"foundir: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("foundir: interrupted; files already written are whole.", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="foundir", description="Restore damaged photographs.")
    parser.add_argument("--version", action="version", version=f"foundir_hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for verb in VERBS:
        verb.add_parser(commands)
    return parser
