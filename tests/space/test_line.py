"""The line of visitors."""

from __future__ import annotations

import threading

import pytest

from foundir_hf.space.line import Line, LineFullError


def test_tickets_have_their_turn_in_the_order_of_arrival_and_know_what_is_before_them():
    line = Line(3)
    first, second, third = (line.enter(seconds) for seconds in (10, 20, 30))
    assert first.wait(0)
    assert not second.wait(0)
    for ticket, before, seconds in ((second, 1, 10), (third, 2, 30)):
        ahead, wait = line.ahead(ticket)
        assert ahead == before
        assert seconds - 1 < wait <= seconds
    assert 59 < line.seconds <= 60
    second.leave()  # who gives up in the line frees the place
    assert line.ahead(third)[0] == 1
    first.leave()
    assert third.wait(0)
    third.leave()
    third.leave()
    assert line.is_empty


def test_a_full_line_takes_nobody_and_says_so():
    line = Line(1)
    ticket = line.enter(90)
    with pytest.raises(LineFullError, match="1 photos are waiting already; please try again in 2 min"):
        line.enter(1)
    ticket.leave()
    assert line.enter(1).wait(0)


def test_one_works_at_a_time_whatever_the_threads_do():
    line, inside, most, lock = Line(50), 0, 0, threading.Lock()

    def visit() -> None:
        nonlocal inside, most
        ticket = line.enter(1)
        while not ticket.wait(1):
            pass
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        ticket.leave()

    threads = [threading.Thread(target=visit) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert line.is_empty
