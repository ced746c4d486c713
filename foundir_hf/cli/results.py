"""What a person, or a script, is told of a batch: a line or an object a photograph on stdout, all else on stderr."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .common import WorkError, one_line
from .streams import STREAM

if TYPE_CHECKING:
    from ..restoration.batch import Batch, Result


def tell(arguments: argparse.Namespace, result: Result, *, quiet: bool) -> None:
    """Prints what became of a photograph; `quiet` leaves its failure to [`conclude`]."""
    from tqdm.auto import tqdm

    if arguments.json:  # with the paths as they were given, which a script can open
        tqdm.write(json.dumps({**result.record, "input": result.job.name, "output": result.job.written}))
    elif result.status != "failed" and arguments.output != STREAM:
        again = " (restored before)" if result.status == "skipped" else ""
        tqdm.write(one_line(f"{result.job.name} -> {result.job.written}{again}"))
    told = [f"{result.job.name}: {note}." for note in result.record.get("notes", []) if result.status == "restored"]
    for text in told if result.status != "failed" or quiet else [result.record["error"]]:
        tqdm.write(one_line(f"foundir: {text}"), file=sys.stderr)


def conclude(passed_over: Mapping[str, list[Path]], results: list[Result], summary: str) -> None:
    """Tells what was passed over, and the summary. Raises [`WorkError`] if a photograph failed, or a folder could not be looked into."""
    from ..restoration.plan import UNREADABLE

    tell_passed_over(passed_over)
    if any(result.status == "failed" for result in results):
        raise WorkError(results[0].record["error"] if len(results) == 1 else summary)
    if UNREADABLE in passed_over:
        raise WorkError(summary)
    print(f"foundir: {summary}", file=sys.stderr)


def tell_passed_over(passed_over: Mapping[str, list[Path]]) -> None:
    """Prints a line a kind of files that are no photographs."""
    for kind, files in sorted(passed_over.items()):
        print(one_line(f"foundir: passed over {len(files)} x {kind}: {files[0]}{', ...' if len(files) > 1 else ''}"), file=sys.stderr)


def preview(arguments: argparse.Namespace, batch: Batch, workers: int = 1) -> None:
    """Tells what would be done, and how long so many workers may take. Raises [`WorkError`] if some would fail."""
    from tqdm.auto import tqdm

    results = list(batch.preview())
    for result in results:
        tell(arguments, result, quiet=len(results) == 1)
    counts = Counter(result.status for result in results)
    megapixels = sum(result.record["megapixels"] for result in results if result.status == "pending")
    summary = f"dry run: {counts['pending']} to restore, {counts['skipped']} restored before, {counts['failed']} would fail"
    if megapixels:
        seconds, measured = batch.seconds_per_megapixel()
        how = "by earlier photographs" if measured else "by a small picture"
        shared = f", {workers} workers" if workers > 1 else ""
        time = tqdm.format_interval(megapixels * seconds / workers)
        summary += f"; {megapixels:.1f} megapixels, about {time} ({seconds:.2f} s a megapixel, {how}{shared})"
    conclude(batch.plan.passed_over, results, f"{summary}.")
