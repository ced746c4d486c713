"""`foundir restore`: photographs and folders of photographs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
)


def add_parser(commands) -> None:
    """Adds the verb to the command line."""
    parser = commands.add_parser(
        "restore",
        parents=[model_options(), adapter_options(), restoration_options()],
        help="restore photographs and folders of photographs",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photograph, or folder (searched recursively)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder, or a file name for a single photograph")
    parser.add_argument("--upscale", type=number(1, 8), default=1.0, help="enlarge by this factor (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist (never an input)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Restores every photograph; one that fails is told and skipped."""
    from tqdm.auto import tqdm

    jobs = plan_outputs(arguments.paths, arguments.output, overwrite=arguments.overwrite)
    pipeline = load(arguments)
    from ..photo import PhotoError, read_photo, restore_photo, write_photo

    options = {**pipeline_options(arguments, pipeline), "upscale": arguments.upscale}
    single = len(jobs) == 1
    # One bar, on terminals only (`None`): over the tiles of a single photograph, or over the photographs.
    pipeline.set_progress_bar_config(disable=None if single else True, leave=False, desc="restoring")
    failures = []
    for source, target in tqdm(jobs, desc="photographs", unit="photo", disable=True if single else None):
        try:
            photo = restore_photo(pipeline, read_photo(source), generator=generator(arguments), **options)
            write_photo(photo, target)
        except (PhotoError, ValueError) as error:  # one bad photograph must not stop the others
            failures.append(str(error))
        except (MemoryError, RuntimeError) as error:  # torch says it with a RuntimeError
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            failures.append(f"{source}: out of memory; try a smaller --tile-size.")
        else:
            tqdm.write(f"{source} -> {target}")
            continue
        if not single:
            tqdm.write(f"foundir: {failures[-1]}", file=sys.stderr)
    if failures and single:
        raise UsageError(failures[0])
    if failures:
        raise UsageError(f"{len(failures)} of {len(jobs)} photographs were not restored.")


def plan_outputs(paths: list[Path], output: Path, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file becomes which; raises [`UsageError`] before any work is done.

    A folder's photographs keep their relative paths below `output`. A single photograph may be given a file name instead.
    """
    import PIL.Image

    from ..data.photos import IMAGE_SUFFIXES
    from ..photo import WRITERS

    jobs: list[tuple[Path, Path]] = []
    if output.suffix.lower() in PIL.Image.registered_extensions() and output.suffix.lower() not in WRITERS and not output.is_dir():
        raise UsageError(f"`--output` {output}: cannot write {output.suffix}; accepted are {', '.join(sorted(WRITERS))}.")
    names_file = output.suffix.lower() in WRITERS and not output.is_dir()
    if names_file and (len(paths) > 1 or paths[0].is_dir()):
        raise UsageError(f"`--output` {output} names a file; several photographs need a folder.")
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise UsageError(f"{path}: holds no photographs.")
            jobs += [(p, output / p.relative_to(path)) for p in inside]
        elif path.is_file():
            target = output if names_file else output / path.name
            if target.suffix.lower() not in WRITERS:
                known = ", ".join(sorted(IMAGE_SUFFIXES))
                raise UsageError(f"{path}: not a photograph by its name; known are {known}.")
            jobs.append((path, target))
        else:
            raise UsageError(f"{path}: no such file or folder.")

    targets: dict[Path, Path] = {}
    inputs = {source.resolve() for source, _ in jobs}
    for source, target in jobs:
        resolved = target.resolve()
        if resolved in inputs:
            raise UsageError(f"{target}: is an input; originals are never overwritten.")
        if resolved in targets:
            raise UsageError(f"{source} and {targets[resolved]} would both be written to {target}.")
        if target.exists() and not overwrite:
            raise UsageError(f"{target}: exists; pass --overwrite to replace it.")
        targets[resolved] = source
    check_writable(output.parent if names_file else output)
    return jobs
