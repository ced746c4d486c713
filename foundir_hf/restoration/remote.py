"""Photographs and manifests at URLs, by fsspec: `s3://bucket/photos`, `gs://...`, `file:///...`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ..io.files import is_url, write_whole
from ..io.limits import Limits
from ..io.names import written_name
from .manifest import MANIFEST, enter_lines
from .plan import find_photos, kind_by_name

# Seconds after which what was added to a manifest is written.
_SECONDS = 30.0


@dataclass(frozen=True)
class Transfer:
    """A photograph to restore, wherever it is.

    Args:
        source: Its path or URL.
        target: The path or URL to write.
        output: What the manifest calls that.
    """

    source: str
    target: str
    output: str


@dataclass
class Transfers:
    """Work to do.

    Args:
        items: The photographs.
        passed_over: As in [`Found`].
    """

    items: list[Transfer] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)


def plan_transfers(
    paths: Sequence[Path | str], output: Path | str, listed: Sequence[Path | str] = (), suffix: str | None = None
) -> Transfers:
    """Which photograph becomes which, where some places are URLs; the rules are those of [`plan_photos`].

    Raises:
        ValueError: In a line that names the place, if something is missing or would be lost.
    """
    found, transfers = find_photos_anywhere(paths, output, listed), Transfers()
    transfers.passed_over = found.passed_over
    taken: dict[str, str] = {}
    for source, below in found.photos.items():
        name = written_name(PurePosixPath(below), suffix).as_posix()
        target = f"{str(output).rstrip('/')}/{name}"
        if target == source:
            raise ValueError(f"{target}: is an input; originals are never overwritten.")
        if target in taken:
            raise ValueError(f"{source} and {taken[target]} would both be written to {target}.")
        taken[target] = source
        transfers.items.append(Transfer(source, target, name))
    return transfers


@dataclass
class FoundAnywhere:
    """Photographs by their names, and the rest.

    Args:
        photos: Path or URL -> the path below an output folder.
        passed_over: As in [`Found`].
    """

    photos: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)


def find_photos_anywhere(paths: Sequence[Path | str], output: Path | str, listed: Sequence[Path | str] = ()) -> FoundAnywhere:
    """[`find_photos`], at URLs too: each is a photograph or a folder, searched recursively. Raises `ValueError`."""
    found = FoundAnywhere()
    local, beside = ([Path(place) for place in places if not is_url(place)] for places in (paths, listed))
    if local or beside:
        here = find_photos(local, beside, outside=None if is_url(output) else Path(output))
        found.photos |= {str(file): below.as_posix() for file, below in here.photos.items()}
        found.passed_over |= here.passed_over
    for url in (place for place in [*paths, *listed] if isinstance(place, str) and is_url(place)):
        files, root, system = _listing(url)
        if not files:
            raise ValueError(f"{url}: no such file or folder.")
        hidden = url_to_fs(output)[1].rstrip("/") + "/" if isinstance(output, str) and is_url(output) else None
        for file in files:
            if hidden and hidden != f"{root}/" and file.startswith(hidden):
                continue
            name = PurePosixPath(file)
            # The keys of objects may be anything, and become paths.
            kind = "name that leads elsewhere" if ".." in name.parts else kind_by_name(name)
            below = name.relative_to(PurePosixPath(root)) if file != root else PurePosixPath(name.name)
            if kind is None:
                found.photos[system.unstrip_protocol(file)] = below.as_posix()
            elif not _is_manifest(name.name):
                found.passed_over.setdefault(kind, []).append(Path(below))
    if not found.photos:
        given = [*paths, *listed]
        raise ValueError(f"{given[0] if len(given) == 1 else 'The paths given'}: holds no photographs.")
    return found


def _listing(url: str) -> tuple[list[str], str, fsspec.AbstractFileSystem]:
    """The files at a URL, sorted, its path there, and its file system. Raises `ValueError`."""
    with _naming(url):
        system, root = url_to_fs(url)
        root = root.rstrip("/")
        files = sorted(file for file in system.find(root) if not file.endswith("/"))  # what consoles put where they show a folder
    return files, root, system


@contextlib.contextmanager
def _naming(url: str) -> Iterator[None]:
    """Turns whatever a service raises, or a library that is not installed, into `ValueError` of one line that names the place."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{url}: {' '.join(str(error).split()) or type(error).__name__}") from error


def existing(output: str) -> set[str]:
    """What is there below a URL, as paths relative to it. Raises `ValueError` if that cannot be known."""
    try:
        files, root, _ = _listing(output)
    except ValueError as error:
        if isinstance(error.__cause__, FileNotFoundError):  # nothing yet, as some services say it
            return set()
        raise
    return {PurePosixPath(file).relative_to(root).as_posix() for file in files if file != root}


def fetch(url: str, limits: Limits) -> bytes:
    """The bytes of a file at a URL. Raises [`PhotoError`] if it is too large, and whatever its service does."""
    system, path = url_to_fs(url)
    limits.check_bytes(system.size(path) or 0)  # not every service knows
    content = system.cat_file(path)
    limits.check_bytes(len(content))
    return content


def store(url: str, content: bytes) -> None:
    """Writes a file at a URL: whole or not at all where files are objects, or local. Raises whatever its service does."""
    system, path = url_to_fs(url)
    if isinstance(system, LocalFileSystem):
        write_whole(path, content)
    else:
        system.pipe_file(path, content)


def _is_manifest(name: str) -> bool:
    return name == MANIFEST or (name.startswith("foundir-") and name.endswith(".jsonl"))


class RemoteManifest:
    """`foundir.jsonl` at a URL, for one process at a time.

    Objects cannot be appended to: lines go into parts, `foundir-*.jsonl`, at least every half minute; [`close`] puts them together.

    Args:
        folder: The URL. Raises `ValueError`, here and wherever something is written, for whatever its service does.
    """

    def __init__(self, folder: str):
        self.records: dict[str, dict[str, Any]] = {}
        self._system, self._root = url_to_fs(folder.rstrip("/"))
        self._url, self._lines, self._written = folder.rstrip("/"), [], time.monotonic()
        there = sorted(filter(_is_manifest, existing(folder)))
        self._parts = [name for name in there if name != MANIFEST]
        with _naming(self._url):
            self._content = [self._system.cat_file(f"{self._root}/{name}") for name in sorted(there, key=lambda name: name != MANIFEST)]
        for content in self._content:
            enter_lines(self.records, content)

    def __enter__(self) -> RemoteManifest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, *records: dict[str, Any]) -> None:
        """Adds records, which have an `output` and a `status`; several at a time are written at once."""
        self._lines += [json.dumps(record).encode() + b"\n" for record in records]
        if len(records) > 1 or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added since the last time."""
        if self._lines:
            numbers = map("foundir-{:08}.jsonl".format, count(len(self._parts)))
            name = next(name for name in numbers if name not in self._parts)  # a kill may have left some of them
            content = b"".join(self._lines)
            with _naming(self._url):
                store(f"{self._url}/{name}", content)
            self._parts.append(name)
            self._content.append(content)
            self._lines = []
        self._written = time.monotonic()

    def close(self) -> None:
        """Writes all as one file in place of the parts."""
        self.flush()
        if self._parts:
            with _naming(self._url):
                store(f"{self._url}/{MANIFEST}", b"".join(self._content))
                for name in self._parts:
                    self._system.rm_file(f"{self._root}/{name}")
            self._parts = []
