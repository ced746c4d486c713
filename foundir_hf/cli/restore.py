"""`foundir restore`: photographs and folders of photographs."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..files import IMAGE_SUFFIXES
from .common import (
    UsageError,
    adapter_options,
    check_writable,
    generator,
    load,
    model_options,
    number,
    pipeline_options,
    restoration_options,
    some_path,
    weight_hashes,
    whole,
)
from .results import conclude, tell
from .streams import STREAM, read_paths, receive_photo, send_file, suffix_by_content

if TYPE_CHECKING:
    from ..batch import Batch
    from ..plan import Plan


def add_parser(commands) -> None:
    """Adds the verb to the command line."""
    parser = commands.add_parser(
        "restore",
        parents=[model_options(), adapter_options(), restoration_options()],
        help="restore photographs and folders of photographs",
        description="The same command again goes on where it stopped, by the manifest foundir.jsonl beside the restored photographs.",
    )
    parser.add_argument(
        "paths", nargs="*", type=some_path, metavar="PATH", help="photograph, folder (searched recursively), pattern; - is stdin"
    )
    parser.add_argument("--files-from", type=some_path, metavar="FILE", help="more paths, one a line (or as of find -print0); - is stdin")
    parser.add_argument(
        "-o", "--output", type=some_path, required=True, metavar="OUT", help="folder, or a file name for a single photograph; - is stdout"
    )
    formats = sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
    parser.add_argument("--format", choices=formats, help="of a photograph on stdout (default: that of the input)")
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
    parser.set_defaults(run=run, checks_first=True)


def run(arguments: argparse.Namespace) -> None:
    """Restores every photograph that is not restored yet; one that fails is told and skipped."""
    if arguments.output == STREAM and (arguments.json or arguments.dry_run):
        raise UsageError("`--output` - is the photograph itself; --json and --dry-run would print beside it.")
    if arguments.format and arguments.output != STREAM:
        raise UsageError("`--format` is for `--output` -; a file name says its format by its suffix.")
    with tempfile.TemporaryDirectory(prefix="foundir-") as streams:
        try:
            plan = _plan(arguments, Path(streams))
            _check_map(arguments, plan)
            check_writable(plan.folder)
            batch = _batch(arguments, plan)
            if arguments.dry_run:
                _preview(arguments, batch)
            else:
                _restore(arguments, batch)
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:  # of a photograph none arrives here
            raise UsageError(str(error)) from error
        if arguments.output == STREAM:
            send_file(plan.jobs[0].target)


def _plan(arguments: argparse.Namespace, streams: Path) -> Plan:
    """The plan, with files in `streams` in place of stdin and stdout. Raises `ValueError`, `OSError`."""
    from ..plan import plan_photos

    paths, output = arguments.paths, arguments.output
    listed = read_paths(arguments.files_from) if arguments.files_from else []
    if not paths and not listed:
        raise ValueError("nothing to restore; give a photograph, a folder, or --files-from.")
    from_stdin, to_stdout = STREAM in paths, output == STREAM
    if (from_stdin or to_stdout) and len([*paths, *listed]) > 1:
        raise ValueError("`-` is a single photograph; several need files and folders.")
    if from_stdin and not to_stdout and (output.suffix.lower() not in IMAGE_SUFFIXES or output.is_dir()):
        raise ValueError(f"`--output` {output}: a photograph from stdin has no name; give a file name or -.")
    if from_stdin:
        paths = [receive_photo(streams)]
    if to_stdout:
        source = [*paths, *listed][0]
        output = streams / f"stdout{f'.{arguments.format}' if arguments.format else suffix_by_content(source) or source.suffix}"
    plan = plan_photos(paths, output, listed=listed, overwrite=arguments.overwrite)
    return replace(plan, jobs=[replace(job, name=str(STREAM)) for job in plan.jobs]) if from_stdin else plan


def _batch(arguments: argparse.Namespace, plan: Plan) -> Batch:
    """The engine, with the model loaded."""
    pipeline = load(arguments)
    from ..batch import Batch
    from ..formats.record import with_record
    from ..photo import Photo, restore_photo, write_photo
    from ..pictures import change_map, write_picture

    options = {**pipeline_options(arguments, pipeline), "upscale": arguments.upscale}
    # On terminals only (`None`): a bar over the tiles of a single photograph, or that of `_restore` over the photographs.
    pipeline.set_progress_bar_config(disable=None if len(plan.jobs) == 1 else True, leave=False, desc="restoring")
    facts = {"version": __version__, "weights": weight_hashes(arguments), "seed": arguments.seed}
    writing = {"metadata": arguments.metadata, "quality": arguments.quality}
    record = {
        "software": f"foundir_hf {__version__}",
        "checkpoint": str(arguments.checkpoint),
        "weights": ", ".join(f"{name} {digest[:16]}" for name, digest in facts["weights"].items()),
        "settings": json.dumps(options),
        "seed": str(arguments.seed),
    }

    def restored(photo: Photo) -> Photo:
        result = restore_photo(pipeline, photo, generator=generator(arguments), **options)
        if arguments.change_map:
            write_picture(change_map(photo.image, result.image), arguments.change_map)
        if result is photo or arguments.no_record or arguments.metadata == "none":
            return result
        return result.changed(metadata=with_record(result.metadata, record))

    return Batch(
        plan,
        restored,
        {**facts, **options, **writing, "record": not arguments.no_record},
        write=partial(write_photo, **writing),
        overwrite=arguments.overwrite,
    )


def _check_map(arguments: argparse.Namespace, plan: Plan) -> None:
    """Raises [`UsageError`] unless `--change-map` names a picture that can be written, of a single photograph."""
    from ..pictures import PICTURE_SUFFIXES

    path = arguments.change_map
    if path is None:
        return
    if len(plan.jobs) > 1:
        raise UsageError(f"`--change-map` is of a single photograph; there are {len(plan.jobs)}.")
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"`--change-map` {path}: must end in one of {', '.join(PICTURE_SUFFIXES)}.")
    if path.exists() and not arguments.overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it.")
    check_writable(path.parent)


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
    conclude(batch.plan, results, summary)


def _preview(arguments: argparse.Namespace, batch: Batch) -> None:
    """Tells what would be done, and how long it may take. Raises [`WorkError`] if some would fail."""
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
        summary += f"; {megapixels:.1f} megapixels, about {tqdm.format_interval(megapixels * seconds)} ({seconds:.2f} s a megapixel, {how})"
    conclude(batch.plan, results, f"{summary}.")
