"""One photograph's work, which waits in the line for its turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .line import Ticket
from .work import Work

if TYPE_CHECKING:
    from .engine import Engine


class Job(Work):
    """Work that stands in an engine's line. Making one starts it.

    Args:
        engine: Whose line it stands in. Raises [`LineFullError`] if that is full.
        seconds: That it is expected to take.
        work: What to do when the turn has come. It gets this job and calls `step` often, which raises [`StoppedError`] after a `cancel`.
    """

    def __init__(self, engine: Engine, seconds: float, work: Callable[[Job], Any]):
        super().__init__()
        self.seconds, self.done, self.total, self.label = seconds, 0, 0, ""
        self.ticket: Ticket = engine.line.enter(seconds)
        self._engine, self._work = engine, work
        self.start()

    @property
    def elapsed(self) -> float | None:
        """Seconds since its turn came; none before."""
        return None if self.ticket.started is None else time.monotonic() - self.ticket.started

    def check(self) -> None:
        """Raises [`StoppedError`] if nobody wants it any more, or if the server stops."""
        if self._engine.is_closing:
            self.cancel()
        super().check()

    def step(self, done: int | None = None, total: int | None = None) -> None:
        """Says how far the work is; raises [`StoppedError`] if nobody wants it any more."""
        self.check()
        if done is not None:
            self.done = done
        if total is not None:
            self.total = total

    def do(self) -> Any:
        """Waits for the turn and for the model, and works."""
        try:
            while not self.ticket.wait(0.2):
                self.check()
            self._engine.wait_until_ready(self.check)
            self.check()
            return self._work(self)
        finally:
            self.ticket.leave()
