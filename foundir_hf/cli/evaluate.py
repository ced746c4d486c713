"""`foundir evaluate`: measuring."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import __version__
from .common import UsageError, check_writable, checkpoint_folder, load, model_options, pipeline_options, restoration_options, whole


def add_parser(commands) -> None:
    """Adds the verb to the command line."""
    parser = commands.add_parser(
        "evaluate", parents=[model_options(), restoration_options()], help="measure PSNR on seeded damage and on pairs"
    )
    parser.add_argument("--clean", type=Path, metavar="DIR", help="clean photographs, damaged by every task")
    parser.add_argument("--paired", type=Path, action="append", default=[], metavar="DIR", help="folder with GT/ and LQ/; repeatable")
    parser.add_argument("--limit", type=whole(1, 10**9), help="at most so many photographs of each folder")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints a table, writes the report."""
    if arguments.clean is None and not arguments.paired:
        raise UsageError("`evaluate` needs --clean or --paired.")
    if arguments.output is not None:
        check_writable(arguments.output.parent)
        if arguments.output.is_dir():
            raise UsageError(f"{arguments.output}: is a folder; the report needs a file name.")
    pipeline = load(arguments)
    from ..evaluation.benchmark import evaluate, summarise, to_report, to_table
    from ..hub import checkpoint_hashes

    paired = {folder.resolve().name: folder for folder in arguments.paired}
    options = pipeline_options(arguments)
    try:
        scores = evaluate(pipeline, clean=arguments.clean, paired=paired, seed=arguments.seed, limit=arguments.limit, **options)
    except (ValueError, OSError) as error:  # a folder without photographs, a file that is none
        raise UsageError(str(error)) from error
    rows = summarise(scores)
    print(to_table(rows))
    gains = [row["gain"] for row in rows if row["gain"] is not None]
    if gains:
        print(f"\nmean gain {sum(gains) / len(gains):+.2f} dB; {sum(g > 0 for g in gains)} of {len(gains)} families gain")
    if arguments.output is not None:
        hashes = checkpoint_hashes(checkpoint_folder(arguments))
        report = to_report(
            scores, version=__version__, checkpoint=arguments.checkpoint, hashes=hashes, seed=arguments.seed, options=options
        )
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
