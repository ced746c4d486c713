"""What is uploaded for a batch: photographs and zips, which may mean no good, into one folder."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..io.files import IMAGE_SUFFIXES
from ..io.limits import Limits
from ..io.photograph import PhotoError
from .limits import BATCH_PHOTOS, PAGE_LIMITS, batch_megabytes


def gather(files: Sequence[str], folder: Path, limits: Limits = PAGE_LIMITS) -> list[str]:
    """Puts photographs, and those in zips, into `folder`, under names of their own.

    Args:
        files: As they were uploaded.
        folder: New.
        limits: What a photograph may take.

    Returns:
        Names of what was left out: no photographs by their names.

    Raises:
        PhotoError: If it is too much, or a zip is damaged or encrypted.
    """
    folder.mkdir(parents=True)
    left_out, total, count = [], 0, 0

    def admit(name: str, size: int) -> Path | None:
        nonlocal total, count
        path = PurePosixPath(name.replace("\\", "/"))
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("._"):
            left_out.append(name)
            return None
        total, count = total + size, count + 1
        if count > BATCH_PHOTOS:
            raise PhotoError(f"These are more than {BATCH_PHOTOS} photos; the page takes that many at a time.")
        together = batch_megabytes(limits)
        if size > limits.megabytes * 1e6 or total > together * 1e6:
            raise PhotoError(f"Photos may have {limits.megabytes:g} MB each and {together:g} MB together, unpacked.")
        # Never a path that leads elsewhere: only plain names of it are kept.
        parts = [part for part in path.parts if part not in ("/", ".", "..") and ":" not in part]
        target = folder.joinpath(*parts)
        for number in range(2, 10_000):
            if not target.exists():
                break
            target = folder.joinpath(*parts).with_stem(f"{path.stem}-{number}")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    for file in files:
        if not zipfile.is_zipfile(file) or Path(file).suffix.lower() != ".zip":
            target = admit(Path(file).name, Path(file).stat().st_size)
            if target is not None:
                _link(Path(file), target)
            continue
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in archive.infolist():
                    if entry.is_dir() or entry.filename.startswith("__MACOSX/"):
                        continue
                    target = admit(entry.filename, entry.file_size)
                    if target is None:
                        continue
                    with archive.open(entry) as source, target.open("wb") as sink:
                        # What the archive says of a size may be a lie.
                        _copy(source, sink, entry.file_size)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError) as error:
            if isinstance(error, PhotoError):
                raise
            raise PhotoError(f"{Path(file).name}: cannot be unpacked: {' '.join(str(error).split())}") from error
    if not count:
        raise PhotoError(f"There are no photos in it; known are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    return left_out


def _link(file: Path, target: Path) -> None:
    """The same file under another name, which takes no room; where the file system has no such thing, a copy."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _copy(source, sink, size: int) -> None:
    left = size
    while block := source.read(1 << 20):
        left -= len(block)
        if left < 0:
            raise PhotoError("A file in the zip is larger than the zip says.")
        sink.write(block)
