"""Time that a photograph may take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, function: Callable[[], T], what: str) -> T:
    """`function()`, in a thread of its own.

    Raises [`TimeoutError`] after so many seconds, and whatever the function does. What takes too long is left behind: no thread can be
    stopped from outside, but the process may go on, and end.
    """
    outcome: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            outcome.append((True, function()))
        except BaseException as error:
            outcome.append((False, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(min(seconds, threading.TIMEOUT_MAX))
    if not outcome:
        raise TimeoutError(_message(what, seconds))
    done, result = outcome[0]
    if not done:
        raise result
    return result


@contextmanager
def stops_after(seconds: float, modules: Iterable[Any], what: str) -> Iterator[None]:
    """Inside, every call of one of the modules (of torch) after so many seconds raises [`TimeoutError`]: between two tiles, say."""
    end = time.monotonic() + seconds

    def check(*_: Any) -> None:
        if time.monotonic() > end:
            raise TimeoutError(_message(what, seconds))

    hooks = [module.register_forward_pre_hook(check) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _message(what: str, seconds: float) -> str:
    return f"{what} took longer than {seconds:g} seconds (--max-seconds)"
