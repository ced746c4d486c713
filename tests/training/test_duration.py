from __future__ import annotations

import time

import pytest

from foundir_hf.training.duration import Duration, parse_duration


def test_by_steps_the_clock_does_not_count():
    duration = Duration(7, spent=1e6)
    duration.begin()
    assert [duration.steps_in_all(step) for step in (0, 3, 9)] == [7, 7, 7]


def test_by_the_clock_steps_follow_from_the_pace(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    duration = Duration(7, seconds=60, spent=10)
    now = 500.0
    duration.begin()
    assert duration.spent == 10  # setting up took as long as it took
    now = 505.0
    assert duration.spent == 15
    assert duration.steps_in_all(30) == 120
    assert duration.steps_in_all(0) == 1  # a stage has a step
    now = 550.0
    assert duration.steps_in_all(30) == 30


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("12m", 720), ("1.5h", 5400), (" 2m ", 120)])
def test_durations_are_numbers_with_a_unit(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "m", "0s", "-3m", "12 min", "1e3s"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="such as 12m; got"):
        parse_duration(text)
