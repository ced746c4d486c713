"""Which photographs are meant and which files they become: decided before any work, without the model."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import PIL.Image

from .files import IMAGE_SUFFIXES
from .manifest import MANIFEST, read_records

# What looks like a file of a picture and cannot be written, besides all that Pillow knows.
_CAMERA_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2")
_OTHER_SUFFIXES = frozenset({*_CAMERA_SUFFIXES, ".avif", ".gif", ".heic", ".heif", ".jxl", ".pdf", ".psd", ".svg"})


@dataclass(frozen=True)
class Job:
    """A photograph to restore.

    Args:
        source: Its file.
        target: The file to write.
        name: What messages call it.
    """

    source: Path
    target: Path
    name: str


@dataclass(frozen=True)
class Plan:
    """Work to do.

    Args:
        jobs: In the order of the paths given.
        folder: Of the outputs and their manifest.
        passed_over: Files that are no photographs by their names, by kind.
    """

    jobs: list[Job]
    folder: Path
    passed_over: dict[str, list[Path]] = field(default_factory=dict)

    def output(self, job: Job) -> str:
        """What the manifest calls the file that a photograph becomes: its path below `folder`."""
        return job.target.relative_to(self.folder).as_posix()


@dataclass
class Found:
    """Photographs by their names, and the rest.

    Args:
        photos: File -> its path below an output folder.
        passed_over: Files that are no photographs, by kind: a suffix, say.
    """

    photos: dict[Path, Path] = field(default_factory=dict)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)


def plan_photos(paths: Sequence[Path], output: Path, *, listed: Sequence[Path] = (), overwrite: bool = False) -> Plan:
    """Which file becomes which.

    Args:
        paths, listed: See [`find_photos`].
        output: A folder, in which photographs keep their paths relative to the folder given; or a file name for a single photograph.
        overwrite: Whether outputs may exist of which the manifest knows nothing.

    Raises:
        ValueError: In a line that names the path, if something is missing or would be lost.
    """
    try:
        return _plan(paths, output, listed, overwrite)
    except OSError as error:  # a name too long, a folder that may not be read
        raise ValueError(f"{error.filename}: {error.strerror}.") from error


def _plan(paths: Sequence[Path], output: Path, listed: Sequence[Path], overwrite: bool) -> Plan:
    suffix = output.suffix.lower()
    names_file = suffix in IMAGE_SUFFIXES and not output.is_dir()
    if not names_file and not output.is_dir() and (suffix in _OTHER_SUFFIXES or suffix in PIL.Image.registered_extensions()):
        raise ValueError(f"`--output` {output}: cannot write {output.suffix}; accepted are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    found = find_photos(paths, listed, outside=output)
    if names_file and (len(found.photos) > 1 or any(path.is_dir() for path in paths)):
        raise ValueError(f"`--output` {output} names a file; several photographs need a folder.")
    jobs = [Job(source, output if names_file else output / below, str(source)) for source, below in found.photos.items()]
    _check_targets(jobs)
    plan = Plan(jobs, output.parent if names_file else output, found.passed_over)
    existing = [] if overwrite else [job for job in jobs if job.target.exists()]
    # Read after the outputs were looked for: another process enters them before it writes them.
    known = read_records(plan.folder) if existing else {}
    for job in existing:
        if known.get(plan.output(job), {}).get("status") not in ("writing", "restored"):
            raise ValueError(f"{job.target}: exists; pass --overwrite to replace it.")
    return plan


def _check_targets(jobs: list[Job]) -> None:
    """Refuses to write over an input, or two inputs to one file."""
    inputs = {job.source.resolve() for job in jobs}
    sources: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in inputs:
            raise ValueError(f"{job.target}: is an input; originals are never overwritten.")
        if target in sources:
            raise ValueError(f"{job.source} and {sources[target]} would both be written to {job.target}.")
        sources[target] = job.source


def find_photos(paths: Sequence[Path], listed: Sequence[Path] = (), outside: Path | None = None) -> Found:
    """Photographs by their names, each once.

    Args:
        paths: Photographs, folders (searched recursively) and patterns such as `a/**/*.jpg`.
        listed: More of them, which keep their relative paths.
        outside: A folder that is passed by when it lies in one of those searched.

    Raises:
        ValueError: If a path leads to nothing, or none to a photograph.
        OSError: If a folder cannot be read.
    """
    found, seen = Found(), set()
    outside = outside.resolve() if outside else None
    roots = [(path, None) for path in paths] + [(path, None if path.is_absolute() or ".." in path.parts else Path()) for path in listed]
    for path, kept in roots:
        root, files = _files(path)
        hidden = outside if outside and root.resolve() in outside.parents else None
        for file in files:
            resolved = file.resolve()
            if resolved in seen or (hidden and resolved.is_relative_to(hidden)):
                continue
            seen.add(resolved)
            if file.name.startswith("._"):  # what macOS keeps beside a file: never a photograph, whatever the suffix
                found.passed_over.setdefault("._*", []).append(file)
            elif file.suffix.lower() in IMAGE_SUFFIXES:
                found.photos[file] = file.relative_to(kept or root)
            elif file.name != MANIFEST:
                found.passed_over.setdefault(file.suffix.lower() or "no suffix", []).append(file)
    if not found.photos:
        given = [*paths, *listed]
        if len(given) == 1 and given[0].is_file():
            raise ValueError(f"{given[0]}: not a photograph by its name; known are {', '.join(sorted(IMAGE_SUFFIXES))}.")
        raise ValueError(f"{given[0] if len(given) == 1 else 'The paths given'}: holds no photographs.")
    return found


def _files(path: Path) -> tuple[Path, Iterable[Path]]:
    """A path or pattern -> the folder that names are relative to, and the files."""
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        return path, _walk(path)
    if glob.has_magic(str(path)) and (matches := sorted(map(Path, glob.glob(str(path), recursive=True)))):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
        return root, [file for match in matches for file in (_walk(match) if match.is_dir() else [match])]
    raise ValueError(f"{path}: no such file or folder.")


def _walk(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders, sorted by path."""

    def refuse(error: OSError) -> None:
        raise error

    found = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(path for path in found if path.is_file())
