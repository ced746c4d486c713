"""`foundir restore --engine ray`: the same over many workers, with URLs as well as paths."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from .common import UsageError, check_writable, told
from .engine import check_map, make_batch
from .results import conclude, preview, tell
from .streams import STREAM, read_paths

if TYPE_CHECKING:
    from ..restoration.batch import Batch
    from ..restoration.remote import Transfers


def restore_scaled(arguments: argparse.Namespace) -> None:
    """Restores on Ray. Raises [`UsageError`], and [`WorkError`] if some photographs failed."""
    if STREAM in [*arguments.paths, arguments.output]:
        raise UsageError("`-` is for --engine local.")
    try:
        _restore(arguments)
    except (ValueError, OSError) as error:  # of a photograph none arrives here
        raise UsageError(told(error)) from error


def _restore(arguments: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    from ..io.files import IMAGE_SUFFIXES, is_url, remove_unfinished
    from ..restoration.manifest import Manifest, read_records
    from ..restoration.plan import Plan
    from ..restoration.remote import RemoteManifest, plan_transfers
    from ..restoration.scale import check_existing, restore_on_ray

    output = str(arguments.output)
    if Path(output).suffix.lower() in IMAGE_SUFFIXES and not Path(output).is_dir():
        raise ValueError(f"`--output` {output} names a file; --engine ray needs a folder.")
    listed = read_paths(arguments.files_from) if arguments.files_from else []
    suffix = f".{arguments.format}" if arguments.format else None
    plan = plan_transfers(arguments.paths, arguments.output, listed, suffix)
    check_map(arguments, len(plan.items))
    batch = make_batch(arguments, Plan([], Path()), {}, [item.source for item in plan.items])
    if arguments.dry_run:
        _preview(arguments, batch, plan)
        return
    with ExitStack() as stack:
        if is_url(output):
            ledger = stack.enter_context(RemoteManifest(output))
            check_existing(batch, plan.items, output, ledger.records)
        else:
            check_writable(Path(output))
            check_existing(batch, plan.items, output, read_records(Path(output)))
            ledger = stack.enter_context(Manifest(Path(output)))
            if not ledger.join():
                raise ValueError(f"{output}: another foundir works there; --engine ray needs the folder for itself.")
            ledger.refresh()
            for folder in {Path(item.target).parent for item in plan.items}:
                remove_unfinished(folder)
        start, results = time.monotonic(), []
        running = restore_on_ray(batch, plan.items, output, ledger, workers=arguments.workers)
        for result in tqdm(running, total=len(plan.items), desc="photographs", unit="photo", disable=None, leave=False):
            results.append(result)
            tell(arguments, result, quiet=len(plan.items) == 1)
    counts, elapsed = Counter(result.status for result in results), tqdm.format_interval(time.monotonic() - start)
    summary = f"{counts['restored']} of {len(results)} restored, {counts['skipped']} before, {counts['failed']} failed, in {elapsed}."
    conclude(plan.passed_over, results, summary)


def _preview(arguments: argparse.Namespace, batch: Batch, transfers: Transfers) -> None:
    """Tells what would be done, without Ray. Raises `ValueError` for URLs."""
    from ..io.files import is_url
    from ..restoration.manifest import read_records
    from ..restoration.plan import Job, Plan
    from ..restoration.scale import check_existing

    output = str(arguments.output)
    for place in (output, *(item.source for item in transfers.items)):
        if is_url(place):
            raise ValueError(f"{place}: `--dry-run` is for paths; to know how large it is, everything at a URL would have to be fetched.")
    records = read_records(Path(output))
    check_existing(batch, transfers.items, output, records)
    jobs = [Job(Path(item.source), Path(item.target), item.source, item.target) for item in transfers.items]
    with batch.decoder:
        preview(arguments, batch.part(Plan(jobs, Path(output), passed_over=transfers.passed_over), records), arguments.workers or 1)
