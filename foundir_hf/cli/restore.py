"""`foundir restore`: photographs and folders of photographs."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..io.files import IMAGE_SUFFIXES, is_url
from ..io.names import written_name
from ..restoration.manifest import MANIFEST
from .common import (
    UsageError,
    adapter_options,
    check_writable,
    limit_options,
    limits,
    memory_size,
    model_options,
    number,
    restoration_options,
    some_path,
    some_place,
    told,
    whole,
)
from .engine import check_map, make_batch
from .results import conclude, preview, tell
from .streams import STREAM, read_paths, receive_photo, send_file, suffix_by_content

if TYPE_CHECKING:
    from ..restoration.batch import Batch
    from ..restoration.plan import Plan


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "restore",
        parents=[model_options(), adapter_options(), restoration_options(), limit_options()],
        help="restore photographs and folders of photographs",
        description="The same command again goes on where it stopped, by the manifest foundir.jsonl in the output folder. "
        "HEIC and camera raws need the extras heic and raw, and are written as PNG and TIFF.",
    )
    parser.add_argument(
        "paths", nargs="*", type=some_place, metavar="PATH", help="photograph, folder (searched recursively), pattern; - is stdin"
    )
    parser.add_argument("--files-from", type=some_path, metavar="FILE", help="more paths, one a line (or as of find -print0); - is stdin")
    parser.add_argument(
        "-o", "--output", type=some_place, required=True, metavar="OUT", help="folder, or a file name for a single photograph; - is stdout"
    )
    formats = sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
    parser.add_argument("--format", choices=formats, help="of photographs in a folder or on stdout (default: the input's)")
    parser.add_argument(
        "--captions",
        metavar="FILE|.SUFFIX",
        help="prompts: a .jsonl or .csv of `file_name` and `text`, or .txt for text files beside the photographs",
    )
    parser.add_argument(
        "--caption-model", metavar="MODEL", help="folder or Hub repository of an image-to-text model that writes the prompts"
    )
    parser.add_argument(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help="tiles as large as fit into 8GB, say, of the GPU, or of main memory for the whole process; instead of --tile-size",
    )
    parser.add_argument("--upscale", type=number(1, 8), default=1.0, help="enlarge by this factor (default: 1)")
    parser.add_argument(
        "--metadata",
        choices=("keep", "strip-gps", "none"),
        default="keep",
        help="EXIF, XMP, IPTC, text: keep all, all but the place, or none but the colour profile (default: keep)",
    )
    parser.add_argument("--no-record", action="store_true", help="do not write into XMP what was done; `foundir info FILE` reads it")
    parser.add_argument("--quality", type=whole(1, 100), help="of JPEG (default: as the input, at least 95) and WebP (default: lossless)")
    parser.add_argument("--change-map", type=some_path, metavar="FILE", help="picture of where and how much a single photograph changed")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist (never an input)")
    parser.add_argument("--dry-run", action="store_true", help="write nothing; list what would be done and how long it may take")
    parser.add_argument("--json", action="store_true", help="print a JSON object a photograph instead of a line")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: many workers, here or in a cluster; takes URLs too (extra scale)"
    )
    parser.add_argument("--workers", type=whole(1, 100_000), help="of --engine ray (default: one for each GPU, or every four cores)")
    parser.set_defaults(run=run, checks_first=True)


def run(arguments: argparse.Namespace) -> None:
    """Restores every photograph that is not restored yet; one that fails is told and skipped."""
    if arguments.engine == "ray":
        from .scaled import restore_scaled

        restore_scaled(arguments)
        return
    if arguments.workers:
        raise UsageError("`--workers` is for --engine ray.")
    if arguments.output == STREAM and (arguments.json or arguments.dry_run):
        raise UsageError("`--output` - is the photograph itself; --json and --dry-run would print beside it.")
    with tempfile.TemporaryDirectory(prefix="foundir-") as streams:
        try:
            plan = _plan(arguments, Path(streams))
            check_map(arguments, len(plan.jobs))
            check_writable(plan.folder)
            # A folder has a manifest; beside a single file that was named nothing else appears.
            kept = not plan.single or (plan.folder / MANIFEST).exists()
            batch = make_batch(arguments, plan, None if kept else {}, [job.name for job in plan.jobs])
            if arguments.dry_run:
                preview(arguments, batch)
            else:
                _restore(arguments, batch)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:  # of a photograph none arrives here
            raise UsageError(told(error)) from error
        if arguments.output == STREAM:
            send_file(plan.jobs[0].target)


def _plan(arguments: argparse.Namespace, streams: Path) -> Plan:
    """The plan, with files in `streams` in place of stdin and stdout. Raises `ValueError`, `OSError`."""
    from ..restoration.plan import plan_photos

    given = read_paths(arguments.files_from) if arguments.files_from else []
    for place in [*arguments.paths, *given, arguments.output]:
        if is_url(place):
            raise ValueError(f"{place}: URLs need --engine ray.")
    paths, listed, output = arguments.paths, list(map(Path, given)), arguments.output
    if not paths and not listed:
        raise ValueError("nothing to restore; give a photograph, a folder, or --files-from.")
    from_stdin, to_stdout = STREAM in paths, output == STREAM
    if (from_stdin or to_stdout) and len([*paths, *listed]) > 1:
        raise ValueError("`-` is a single photograph; several need files and folders.")
    if from_stdin and not to_stdout and (output.suffix.lower() not in IMAGE_SUFFIXES or output.is_dir()):
        raise ValueError(f"`--output` {output}: a photograph from stdin has no name; give a file name or -.")
    if from_stdin:
        paths = [receive_photo(streams, limits(arguments))]
    suffix = f".{arguments.format}" if arguments.format else None
    if to_stdout:
        source = [*paths, *listed][0]
        output = streams / f"stdout{suffix or suffix_by_content(source) or written_name(source).suffix}"
        suffix = None
    plan = plan_photos(paths, output, listed=listed, suffix=suffix, overwrite=arguments.overwrite)
    return replace(plan, jobs=[replace(job, name=str(STREAM)) for job in plan.jobs]) if from_stdin else plan


def _restore(arguments: argparse.Namespace, batch: Batch) -> None:
    """Runs the batch and tells of every photograph. Raises [`WorkError`] if some failed."""
    from tqdm.auto import tqdm

    single, start, results = len(batch.plan.jobs) == 1, time.monotonic(), []
    for result in tqdm(
        batch.run(), total=len(batch.plan.jobs), desc="photographs", unit="photo", disable=True if single else None, leave=False
    ):
        results.append(result)
        tell(arguments, result, quiet=single)
    counts, elapsed = Counter(result.status for result in results), tqdm.format_interval(time.monotonic() - start)
    summary = f"{counts['restored']} of {len(results)} restored, {counts['skipped']} before, {counts['failed']} failed, in {elapsed}."
    conclude(batch.plan.passed_over, results, summary)
