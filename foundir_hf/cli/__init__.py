"""`foundir`: the command line. Thin over the API; a file a verb; every failure a person can cause is one line.

Exit codes: 0, all was done; 1, work failed, in part or whole; 2, it was asked for wrongly and nothing was done; 130, Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys

from .. import __version__
from . import adapt, clean, convert, degrade, demo, diagnose, evaluate, export, info, pack, push_space, restore, serve, tasks
from .common import Parser, UsageError, WorkError, one_line, quiet_libraries

VERBS = (restore, serve, demo, evaluate, info, export, convert, push_space, tasks, degrade, pack, clean, diagnose, adapt)


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot spell
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        if not getattr(arguments, "checks_first", False):  # before the libraries, which take seconds to import
            quiet_libraries()
        arguments.run(arguments)
    except (UsageError, WorkError) as error:
        print(f"foundir: {one_line(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("foundir: interrupted; files already written are whole.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has had enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="foundir", description="Restore damaged photographs.")
    parser.add_argument("--version", action="version", version=f"foundir_hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for verb in VERBS:
        verb.add_parser(commands)
    return parser
