"""How long a stage goes on."""

from __future__ import annotations

import re
import time

_UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration:
    """So many steps, or so much time: then the learning rate falls by the clock, whatever the device's speed.

    Args:
        steps: Of the stage.
        seconds: Instead of `steps`.
        spent: Seconds that earlier runs of the stage took.
    """

    def __init__(self, steps: int, seconds: float | None = None, spent: float = 0.0):
        self.steps, self.seconds = steps, seconds
        self._earlier, self._began = spent, None

    def begin(self) -> None:
        """Starts the clock."""
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds that the stage took so far, of earlier runs and since [`begin`]."""
        return self._earlier + (0.0 if self._began is None else time.monotonic() - self._began)

    def steps_in_all(self, step: int) -> int:
        """How many steps the stage has; by the clock, how many it comes to at the pace of the first `step`. It is over at that many."""
        if self.seconds is None:
            return self.steps
        return step if self.spent >= self.seconds else max(step + 1, round(step * self.seconds / max(self.spent, 1e-3)))


def parse_duration(text: str) -> float:
    """`90s`, `12m` or `1.5h` in seconds. Raises `ValueError` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or not (seconds := float(match[1]) * _UNITS[match[2]]):
        raise ValueError(f"a duration is a number above 0 and s, m or h, such as 12m; got {text!r}")
    return seconds
