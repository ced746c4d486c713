"""`foundir tasks`: the sub-tasks, as a table and as pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import UsageError, check_writable, whole

if TYPE_CHECKING:
    from ..data.tasks import Task

WIDTH = 320  # pixels: weather and lens damage are made for photographs, not for thumbnails
SHOWN = 216  # pixels of them on the sheet: at 320 its file has twice as many bytes


def add_parser(commands) -> None:
    parser = commands.add_parser("tasks", help="list the sub-tasks, or draw them all")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a contact sheet instead (JPEG or PNG)")
    parser.add_argument("--image", type=Path, action="append", metavar="IMAGE", help="of the sheet; repeatable (default: samples)")
    parser.add_argument("--family", action="append", metavar="NAME", help="only this family; repeatable")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=0, help="same seed, same pictures (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace a sheet that exists (never a photograph on it)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the table, or writes the sheet."""
    from ..data.tasks import TASKS

    families = list(dict.fromkeys(task.family for task in TASKS.values()))
    unknown = sorted(set(arguments.family or ()) - set(families))
    if unknown:
        raise UsageError(f"`--family` must be one of {', '.join(families)}; got {unknown[0]!r}.")
    tasks = [task for task in TASKS.values() if not arguments.family or task.family in arguments.family]
    if arguments.sheet is None:
        print(to_table(tasks))
        return
    _check_sheet(arguments.sheet, arguments.image, arguments.overwrite)
    from ..io.photograph import PhotoError

    try:
        write_sheet(tasks, arguments.sheet, arguments.image, arguments.seed)
    except (PhotoError, ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"{arguments.sheet}: {len(tasks)} sub-tasks")


def to_table(tasks: Sequence[Task]) -> str:
    """A Markdown table, a row a task."""
    from ..data.tasks import STAGES

    lines = ["| name | family | where | removes | degradation | reference | metric |", "|---|---|---|---|---|---|---|"]
    for task in tasks:
        cells = (task.name, task.family, STAGES[task.stage], ", ".join(task.removes), describe(task), task.reference, task.metric)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{len(tasks)} sub-tasks in {len({task.family for task in tasks})} families"])


def describe(task: Task) -> str:
    """The degradation with all its ranges, those of the row and those it has by default."""
    ranges = ", ".join(f"{key} {_text(value)}" for key, value in task.parameters.items())
    return f"{task.degradation.__name__}({ranges})"


def write_sheet(tasks: Sequence[Task], path: Path, images: Sequence[Path] | None, seed: int) -> None:
    """Writes a picture of every task, on `images` in turn; left out, the sample photographs."""
    import numpy as np
    from PIL import Image, ImageOps
    from tqdm.auto import tqdm

    from ..evaluation.degradation import degrade_image
    from ..evaluation.suites import SAMPLES
    from ..io.decoder import read_rgb
    from ..io.folder import list_photos
    from ..io.pictures import contact_sheet, write_picture

    files = images or list_photos(SAMPLES)
    size = (WIDTH, WIDTH * 2 // 3)
    photos = [np.asarray(ImageOps.fit(Image.fromarray(read_rgb(file)), size, Image.Resampling.LANCZOS)) for file in files]
    cells = []
    for number, task in enumerate(tqdm(tasks, desc="degrading", disable=None)):
        which = number % len(files)
        cells.append((task.name, Image.fromarray(degrade_image(photos[which], task, files[which].name, seed))))
    write_picture(contact_sheet(cells, columns=5, width=SHOWN), path, quality=60)


def _check_sheet(path: Path, images: Sequence[Path] | None, overwrite: bool) -> None:
    """Refuses what must not be written before anything is drawn."""
    from ..evaluation.suites import SAMPLES
    from ..io.folder import list_photos
    from ..io.pictures import PICTURE_SUFFIXES

    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"{path}: `--sheet` must end in one of {', '.join(PICTURE_SUFFIXES)}.")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; `--sheet` needs a file name.")
    if path.exists() and any(path.resolve() == image.resolve() for image in images or list_photos(SAMPLES)):
        raise UsageError(f"{path}: is an input; originals are never overwritten.")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it.")
    check_writable(path.parent)


def _text(value: Any) -> str:
    """Ranges as `low..high`, ingredients by their names."""
    from ..data.tasks import Task

    if isinstance(value, Task):
        return value.name.removeprefix("mild_")
    if isinstance(value, tuple):
        return (" + " if isinstance(value[0], Task) else " and " if isinstance(value[0], tuple) else "..").join(map(_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
