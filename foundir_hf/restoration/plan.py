"""Which photographs are meant and which files they become: decided before any work, without the model."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePath

import PIL.Image

from ..io.files import IMAGE_SUFFIXES
from ..io.names import READ_SUFFIXES, how_to_install, missing_extra, written_name
from .manifest import MANIFEST, read_records

# What a folder is called that may not be read.
UNREADABLE = "folder that cannot be read"
# What looks like a file of a picture and cannot be written, besides all that Pillow knows.
_OTHER_SUFFIXES = (READ_SUFFIXES - IMAGE_SUFFIXES) | {".gif", ".jxl", ".pdf", ".psd", ".raw", ".svg"}


@dataclass(frozen=True)
class Job:
    """A photograph to restore.

    Args:
        source: Its file.
        target: The file to write.
        name: What messages call it.
        place: What they call the file to write; left out, its path.
    """

    source: Path
    target: Path
    name: str
    place: str = ""

    @property
    def written(self) -> str:
        """What messages call the file to write."""
        return self.place or str(self.target)


@dataclass(frozen=True)
class Plan:
    """Work to do.

    Args:
        jobs: In the order of the paths given.
        folder: Of the outputs and their manifest.
        single: Whether the output was named, not only its folder.
        passed_over: Files that are no photographs by their names, by kind.
    """

    jobs: list[Job]
    folder: Path
    single: bool = False
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


def plan_photos(
    paths: Sequence[Path], output: Path, *, listed: Sequence[Path] = (), suffix: str | None = None, overwrite: bool = False
) -> Plan:
    """Which file becomes which.

    Args:
        paths, listed: See [`find_photos`].
        output: A folder, in which photographs keep their paths relative to the folder given; or a file name for a single photograph.
        suffix: Of the format that photographs in a folder are written in, see [`written_name`].
        overwrite: Whether outputs may exist of which the manifest knows nothing.

    Raises:
        ValueError: In a line that names the path, if something is missing or would be lost.
    """
    try:
        return _plan(paths, output, listed, suffix, overwrite)
    except OSError as error:  # a name too long, a folder that may not be read
        raise ValueError(f"{error.filename}: {error.strerror}.") from error


def _plan(paths: Sequence[Path], output: Path, listed: Sequence[Path], suffix: str | None, overwrite: bool) -> Plan:
    own = output.suffix.lower()
    names_file = own in IMAGE_SUFFIXES and not output.is_dir()
    if not names_file and not output.is_dir() and (own in _OTHER_SUFFIXES or own in PIL.Image.registered_extensions()):
        raise ValueError(f"`--output` {output}: cannot write {output.suffix}; accepted are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    found = find_photos(paths, listed, outside=None if names_file else output)
    if any(path.is_dir() and path.resolve() == output.resolve() for path in paths):
        _forget_made(found, output)
    if names_file and (len(found.photos) > 1 or any(path.is_dir() for path in paths)):
        raise ValueError(f"`--output` {output} names a file; several photographs need a folder.")
    if names_file and suffix:
        raise ValueError(f"`--format` is for folders and -; `--output` {output} says its format itself.")
    jobs = [
        Job(source, output if names_file else output / written_name(below, suffix), str(source)) for source, below in found.photos.items()
    ]
    _check_targets(jobs)
    plan = Plan(jobs, output.parent if names_file else output, names_file, found.passed_over)
    existing = [] if overwrite else [job for job in jobs if job.target.exists()]
    # Read after the outputs were looked for: another process enters them before it writes them.
    known = read_records(plan.folder) if existing else {}
    for job in existing:
        if known.get(plan.output(job), {}).get("status") not in ("writing", "restored"):
            raise ValueError(f"{job.target}: exists; pass --overwrite to replace it.")
    return plan


def _forget_made(found: Found, output: Path) -> None:
    """Takes out what was made of other photographs in the same folder, as its manifest says."""
    made = {name for name, record in read_records(output).items() if record["status"] in ("writing", "restored")}
    for file, below in list(found.photos.items()):
        if below.as_posix() in made:
            found.photos.pop(file)


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
            resolved = Path(os.path.realpath(file))  # which takes links that lead to themselves
            if resolved in seen or (hidden and resolved.is_relative_to(hidden)):
                continue
            seen.add(resolved)
            kind = _no_photograph(file)
            if kind is None:
                found.photos[file] = file.relative_to(kept or root)
            elif file.name != MANIFEST:
                found.passed_over.setdefault(kind, []).append(file)
    if not found.photos:
        given = [*paths, *listed]
        if len(given) == 1 and given[0].is_file():
            extra = missing_extra(given[0].suffix.lower())
            why = f"{how_to_install(extra)}." if extra else f"not a photograph by its name; known are {', '.join(sorted(READ_SUFFIXES))}."
            raise ValueError(f"{given[0]}: {why}")
        raise ValueError(f"{given[0] if len(given) == 1 else 'The paths given'}: holds no photographs.")
    return found


def _no_photograph(file: Path) -> str | None:
    """What a file is that is no photograph, or cannot be read as one."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return "broken link"
    if stat.S_ISDIR(mode):
        return "linked folder" if file.is_symlink() else UNREADABLE
    if not stat.S_ISREG(mode):
        return "FIFO, socket or device"
    return kind_by_name(file)


def kind_by_name(file: PurePath) -> str | None:
    """What a file is by its name that is no photograph, or cannot be read as one; none if it can."""
    if file.name.startswith("._"):  # what macOS keeps beside a file: never a photograph, whatever the suffix
        return "._*"
    suffix = file.suffix.lower()
    extra = missing_extra(suffix)
    if extra:
        return f"{suffix} ({how_to_install(extra)})"
    return None if suffix in READ_SUFFIXES else suffix or "no suffix"


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
    """What is in a folder and its sub-folders, sorted by path; links to folders are not followed."""

    found = []

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        found.append(Path(error.filename))  # which is no photograph: it is listed, and the others are restored

    for parent, folders, names in os.walk(folder, onerror=note):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [Path(parent, name) for name in [*names, *links]]
    return sorted(found)
