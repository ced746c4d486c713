"""What somebody waits for: work in a thread of its own, which they watch, and which they can stop."""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any


class StoppedError(Exception):
    """The visitor has stopped the work, or left."""


class Work(ABC):
    """A piece of work. Of its own it does nothing: whoever made it calls `start`.

    Attributes:
        result: What it came to; none before the end.
        error: What ended it instead, `StoppedError` after a `cancel`.
    """

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._stop, self._finished = threading.Event(), threading.Event()

    @abstractmethod
    def do(self) -> Any:
        """The work itself, which calls `check` often."""

    def start(self) -> None:
        """Begins. ZeroGPU tells visitors apart by what gradio keeps in the context, so the thread has it too."""
        threading.Thread(target=contextvars.copy_context().run, args=(self._run,), daemon=True).start()

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._finished.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Stops it at its next `check`."""
        self._stop.set()

    def check(self) -> None:
        """Raises [`StoppedError`] if nobody wants it any more."""
        if self._stop.is_set():
            raise StoppedError("Cancelled.")

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, at most `timeout` seconds; whether it has come."""
        return self._finished.wait(timeout)

    def watch(self, poll: float = 0.25) -> Iterator[None]:
        """Comes back every `poll` seconds until the end."""
        while not self.wait(poll):
            yield

    def outcome(self) -> Any:
        """After the end: the result. Raises what ended it instead."""
        if self.error is not None:
            raise self.error
        return self.result

    def _run(self) -> None:
        try:
            self.result = self.do()
        except BaseException as error:
            self.error = error
        finally:
            self._finished.set()
