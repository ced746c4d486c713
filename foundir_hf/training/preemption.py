"""Pre-emption: schedulers of clusters send a signal some time before they end a process."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class PreemptedError(RuntimeError):
    """Training was told to end, and ended after it had written a checkpoint."""


class Preemption:
    """A context in which SIGTERM (and SIGUSR1, which Slurm's `--signal` likes) sets `requested` instead of ending the process.

    Outside the main thread, which alone may listen to signals, nothing changes.

    Args:
        requested: Whether it has been asked for before.
    """

    def __init__(self, requested: bool = False):
        self.requested = requested

    def __enter__(self) -> Preemption:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
