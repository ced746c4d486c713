"""Who is on the page: each with files and a job of their own, both gone when they leave, and all of them when the server stops."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .work import StoppedError, Work

# Results that are kept of a visitor: a program may fetch one while it asks for the next.
_KEPT = 8


@dataclass
class Visitor:
    """One open page, or one program.

    Args:
        folder: Theirs alone; its name cannot be guessed.
        job: What is done for them now.
        source: The photograph as it was uploaded.
        size: Its width and height.
        shown: What the page shows of it, if that is another file.
        example: Its name, if it is one of ours.
        uploads: Files that the page has been sent.
        results: Folders of results, the oldest first.
        begun: Work that may not have ended yet.
        is_gone: Whether they have left.
    """

    folder: Path
    job: Work | None = None
    source: str | None = None
    size: tuple[int, int] | None = None
    shown: str | None = None
    example: str | None = None
    uploads: set[str] = field(default_factory=set)
    results: deque[Path] = field(default_factory=deque)
    begun: list[Work] = field(default_factory=list)
    is_gone: bool = False

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
        self.begun = [one for one in self.begun if not one.is_finished] + [work]
        if self.is_gone:
            work.cancel()
        try:
            yield
        finally:
            if not work.is_finished:
                work.cancel()
            if self.job is work:
                self.job = None


class Visitors:
    """All of them.

    Args:
        root: Folder of the files; below gradio's own, so that gradio serves them and makes no copies.
    """

    def __init__(self, root: Path):
        self.root, self._visitors, self._lock = root, {}, threading.Lock()

    def of(self, session: str | None) -> Visitor:
        """By gradio's session, which a page has as long as it is open."""
        with self._lock:
            if session not in self._visitors:
                self._visitors[session] = Visitor(self.root / secrets.token_urlsafe(16))
            return self._visitors[session]

    def leave(self, session: str | None) -> None:
        """Stops a visitor's work and deletes their files. An upload that somebody else has sent too, byte for byte, stays for them."""
        with self._lock:
            visitor = self._visitors.pop(session, None)
            if visitor is None:
                return
            shared = set().union(*(other.uploads for other in self._visitors.values()))
        visitor.is_gone = True
        visitor.stop()
        shutil.rmtree(visitor.folder, ignore_errors=True)
        if unfinished := [work for work in visitor.begun if not work.is_finished]:
            # What was being written as they left makes the folder again.
            threading.Thread(target=_remove_after, args=(unfinished, visitor.folder), daemon=True).start()
        for upload in visitor.uploads - shared:
            _remove(upload, self.root)

    def forget(self, visitor: Visitor, upload: str) -> None:
        """Deletes an upload that a visitor has replaced."""
        with self._lock:
            visitor.uploads.discard(upload)
            if any(upload in other.uploads for other in self._visitors.values()):
                return
        _remove(upload, self.root)

    def close(self) -> None:
        """Stops everybody's work."""
        for session in list(self._visitors):
            self.leave(session)

    def __len__(self) -> int:
        return len(self._visitors)


def _remove_after(works: list[Work], folder: Path) -> None:
    for work in works:
        work.cancel()
        work.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _remove(upload: str, root: Path) -> None:
    """A file that gradio keeps in a folder of its own."""
    path = Path(upload)
    if path.resolve().is_relative_to(root.resolve()):
        path.unlink(missing_ok=True)
