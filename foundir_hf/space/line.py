"""The line of visitors: one photograph is restored at a time, in the order of arrival, and everybody knows how long it will take."""

from __future__ import annotations

import threading
import time


class LineFullError(Exception):
    """Nobody else can be taken in."""


class Ticket:
    """A place in the line. `seconds` is how long its own work is expected to take."""

    def __init__(self, line: Line, seconds: float):
        self._line, self.seconds = line, seconds
        self.started: float | None = None

    def wait(self, timeout: float) -> bool:
        """Waits for the turn, at most `timeout` seconds; whether it has come."""
        return self._line.wait(self, timeout)

    def leave(self) -> None:
        """Gives the place up, during the turn or before; the next one may start. Again does nothing."""
        self._line.leave(self)


class Line:
    """First come, first served.

    Args:
        limit: Tickets at a time.
    """

    def __init__(self, limit: int):
        self.limit, self._tickets, self._moved = limit, [], threading.Condition()

    def enter(self, seconds: float) -> Ticket:
        """A place at the end, for work of about that many seconds. Raises [`LineFullError`]."""
        with self._moved:
            if len(self._tickets) >= self.limit:
                raise LineFullError(f"{self.limit} photos are waiting already; please try again in {round(self._seconds() / 60) or 1} min.")
            ticket = Ticket(self, seconds)
            self._tickets.append(ticket)
            return ticket

    @property
    def seconds(self) -> float:
        """Until somebody who came now would have the turn."""
        with self._moved:
            return self._seconds()

    @property
    def is_empty(self) -> bool:
        """Whether nobody is there."""
        return not self._tickets

    def ahead(self, ticket: Ticket) -> tuple[int, float]:
        """How many are before a ticket, and how long they will take."""
        with self._moved:
            if ticket not in self._tickets:
                return 0, 0.0
            place = self._tickets.index(ticket)
            return place, self._seconds(place)

    def wait(self, ticket: Ticket, timeout: float) -> bool:
        """See [`Ticket.wait`]."""
        with self._moved:
            if ticket not in self._tickets:
                return False
            come = self._moved.wait_for(lambda: self._tickets[:1] == [ticket], timeout)
            if come and ticket.started is None:
                ticket.started = time.monotonic()
            return come

    def leave(self, ticket: Ticket) -> None:
        """See [`Ticket.leave`]."""
        with self._moved:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
                self._moved.notify_all()

    def _seconds(self, place: int | None = None) -> float:
        now = time.monotonic()
        return sum(max(0.0, t.seconds - (now - t.started if t.started else 0)) for t in self._tickets[:place])
