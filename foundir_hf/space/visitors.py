"""Who is on the page, and which programs have called: each with files and work of their own, gone when they leave or after an hour."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..io.photograph import Photo
from .limits import CALLS_KEPT, DECODED_MEGABYTES, IDLE_SECONDS
from .work import StoppedError, Work

# Results that are kept of an open page.
_KEPT = 8
# What nobody uses, such as an upload that no call followed, goes after this many seconds, or earlier if there is no room.
_UNUSED_SECONDS = 600
DISK_MEGABYTES = 4000  # of everybody's files together; with more there is no room for uploads


@dataclass(eq=False)
class Visitor:
    """One open page, or one call of a program.

    Args:
        folder: Theirs alone; its name cannot be guessed.
        session: Gradio's. A page has one of its own, while calls may share one: language models all do.
        job: What is done for them now.
        source: The photograph as it was uploaded.
        decoded: That file's name and its photograph, as long as there is memory for it.
        size: Its width and height.
        shown: What the page shows of it, if that is another file.
        example: Its name, if it is one of ours.
        uploads: Files that they have sent.
        files: Those of them that are in the second tab.
        results: Folders of results, the oldest first.
        begun: Work that has not ended yet.
        is_calling: Whether the call has not been answered yet.
        seen: When they last did something, by `time.monotonic`.
        is_gone: Whether they have left.
    """

    folder: Path
    session: str | None = None
    job: Work | None = None
    source: str | None = None
    decoded: tuple[str, Photo] | None = None
    size: tuple[int, int] | None = None
    shown: str | None = None
    example: str | None = None
    uploads: set[str] = field(default_factory=set)
    files: tuple[str, ...] = ()
    results: deque[Path] = field(default_factory=deque)
    begun: list[Work] = field(default_factory=list)
    is_calling: bool = False
    seen: float = field(default_factory=time.monotonic)
    is_gone: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether something is done for them."""
        return self.is_calling or any(not work.is_finished for work in self.begun)

    def room(self, is_result: bool = True) -> Path:
        """A new folder. Of a result, the oldest one goes; what a photograph is shown by stays. Raises [`StoppedError`] for who has left."""
        if self.is_gone:
            raise StoppedError("The page was left.")
        while is_result and len(self.results) >= _KEPT:
            shutil.rmtree(self.results.popleft(), ignore_errors=True)
        room = self.folder / secrets.token_urlsafe(12)
        room.mkdir(parents=True)
        if is_result:
            self.results.append(room)
        return room

    def stop(self) -> None:
        """Ends what is done for them."""
        if self.job is not None:
            self.job.cancel()
            self.job = None

    @contextmanager
    def follows(self, work: Work) -> Iterator[None]:
        """Theirs, as long as somebody follows it; stopped if nobody does before its end."""
        self.job = work
        self.begun.append(work)
        if self.is_gone:
            work.cancel()
        try:
            yield
        finally:
            if not work.is_finished:
                work.cancel()
            if self.job is work:
                self.job = None
            self.begun = [one for one in self.begun if not one.is_finished]  # whose results are megabytes
            self.seen = time.monotonic()


class Visitors:
    """All of them.

    Args:
        root: Folder of the files; below gradio's own, so that gradio serves them and makes no copies.
    """

    def __init__(self, root: Path):
        self.root, self._lock = root, threading.Lock()
        self._pages: dict[str | None, Visitor] = {}
        self._calls: list[Visitor] = []  # the oldest first
        self._own: set[Path] = set()

    def of(self, session: str | None) -> Visitor:
        """An open page, by gradio's session."""
        with self._lock:
            if session not in self._pages:
                self._pages[session] = Visitor(self._folder(), session)
            visitor = self._pages[session]
            visitor.seen = time.monotonic()
            return visitor

    @contextmanager
    def call(self, session: str | None) -> Iterator[Visitor]:
        """A program's call, whose files stay for the program to fetch: until its session ends, for an hour, or until as many others have
        called as are kept. Not every program has a session that ends."""
        visitor = Visitor(self._folder(), session, is_calling=True)
        with self._lock:
            self._calls.append(visitor)
        try:
            yield visitor
        finally:
            visitor.is_calling, visitor.seen = False, time.monotonic()
            self.sweep()

    def leave(self, session: str | None) -> None:
        """Stops the work of a session and deletes its files. An upload that somebody else has sent too, byte for byte, stays for them."""
        with self._lock:
            gone = [visitor for visitor in self._all() if visitor.session == session]
        self._remove(gone)

    def settle(self) -> None:
        """What is in the folder by now is the page's own, and stays: pictures of the examples, which a visitor may well upload."""
        self._own = {path.resolve() for path in self.root.rglob("*")}

    def sweep(self) -> None:
        """Removes who has done nothing for an hour, of the calls that have been answered all but the latest, and files that nobody has
        used for ten minutes."""
        now = time.monotonic()
        with self._lock:
            answered = [call for call in self._calls if not call.is_busy]
            idle = answered + [page for page in self._pages.values() if not page.is_busy]
        self._remove([*answered[:-CALLS_KEPT], *(visitor for visitor in idle if now - visitor.seen > IDLE_SECONDS)])
        for path in self._unused():
            if _age(path) > _UNUSED_SECONDS:
                _delete(path)

    def make_room(self) -> bool:
        """Whether there is room for an upload; for that, what nobody uses goes, the oldest first."""
        excess = sum(_size(path) for path in self._entries()) - DISK_MEGABYTES * 1e6
        for path in sorted(self._unused(), key=_age, reverse=True) if excess > 0 else ():
            excess -= _size(path)
            _delete(path)
            if excess <= 0:
                break
        return excess <= 0

    def holds(self, path: str) -> bool:
        """Whether a path is one of visitors' files, or was."""
        return Path(path).resolve().is_relative_to(self.root.resolve())

    def remember(self, visitor: Visitor, path: str, photo: Photo) -> None:
        """Keeps a decoded photograph with who sent it; if all of them take too much memory, those of who did nothing for longest go."""
        visitor.decoded = path, photo
        with self._lock:
            latest = sorted((other for other in self._pages.values() if other.decoded), key=lambda other: -other.seen)
        total = 0
        for other in latest:
            if (decoded := other.decoded) is None:
                continue
            total += _bytes(decoded[1])
            if total > DECODED_MEGABYTES * 1e6 and other is not visitor:
                other.decoded = None

    def forget(self, visitor: Visitor, upload: str) -> None:
        """Deletes an upload that a visitor has replaced."""
        with self._lock:
            visitor.uploads.discard(upload)
            if upload in self._uploads():
                return
        self._delete_upload(upload)

    def close(self) -> None:
        """Stops everybody's work."""
        self._remove(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _entries(self) -> list[Path]:
        return list(self.root.iterdir()) if self.root.is_dir() else []

    def _unused(self) -> list[Path]:
        """Folders of uploads that are nobody's, and files that uploads which broke off have left."""
        with self._lock:
            used = {visitor.folder for visitor in self._all()} | {Path(upload).parent for upload in self._uploads()}
        return [path for path in self._entries() if path not in used and path.resolve() not in self._own]

    def _folder(self) -> Path:
        return self.root / secrets.token_urlsafe(16)

    def _uploads(self) -> set[str]:
        return set().union(*(visitor.uploads for visitor in self._all()))

    def _all(self) -> list[Visitor]:
        return [*self._pages.values(), *self._calls]

    def _delete_upload(self, upload: str) -> None:
        """A file that gradio keeps in a folder of its own."""
        path = Path(upload).resolve()
        if self.holds(upload) and path not in self._own:
            path.unlink(missing_ok=True)

    def _remove(self, gone: Iterable[Visitor]) -> None:
        gone = set(gone)
        with self._lock:
            self._pages = {session: page for session, page in self._pages.items() if page not in gone}
            self._calls = [call for call in self._calls if call not in gone]
            shared = self._uploads()
        for visitor in gone:
            visitor.is_gone, visitor.decoded = True, None
            visitor.stop()
            shutil.rmtree(visitor.folder, ignore_errors=True)
            if unfinished := [work for work in visitor.begun if not work.is_finished]:
                # What was being written as they left makes the folder again.
                threading.Thread(target=_remove_after, args=(unfinished, visitor.folder), daemon=True).start()
            for upload in visitor.uploads - shared:
                self._delete_upload(upload)


def _bytes(photo: Photo) -> int:
    return photo.pixels.nbytes + (0 if photo.alpha is None else photo.alpha.nbytes) + (len(photo.encoded[1]) if photo.encoded else 0)


def _remove_after(works: list[Work], folder: Path) -> None:
    for work in works:
        work.cancel()
        work.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder, which may vanish meanwhile."""
    size = 0
    for file in path.rglob("*") if path.is_dir() else (path,):
        with suppress(FileNotFoundError):
            size += file.stat().st_size if file.is_file() else 0
    return size


def _age(path: Path) -> float:
    """Seconds since something was put there."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
