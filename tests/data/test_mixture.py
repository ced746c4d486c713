"""Which tasks data can serve."""

from __future__ import annotations

import math

import pytest

from foundir_hf.data.mixture import available_tasks, matching, normalised


def test_clean_photographs_serve_the_tasks_of_the_table():
    assert available_tasks({"haze": 3.0, "rain": 1.0}, {}, 10) == {"haze": 0.75, "rain": 0.25}
    with pytest.raises(ValueError, match="hayz"):
        available_tasks({"hayz": 1.0}, {}, 10)


def test_pairs_that_the_recipe_does_not_name_join_sample_by_sample():
    shares = available_tasks({"haze": 1.0, "rain": 1.0}, {"Task1": 30}, 10)
    assert shares == pytest.approx({"haze": 0.125, "rain": 0.125, "Task1": 0.75})
    assert available_tasks({"clean": 1.0}, {"Task1": 30, "Task2": 10}, 0) == {"Task1": 0.75, "Task2": 0.25}


def test_a_recipe_that_names_pairs_decides_their_shares_and_leaves_out_the_others(caplog):
    assert available_tasks({"Task1": 1.0, "haze": 3.0}, {"Task1": 30, "Task2": 10}, 5) == {"Task1": 0.25, "haze": 0.75}
    assert "Task2" in caplog.text
    assert available_tasks({"Task1": 1.0, "haze": 3.0}, {"Task1": 30}, 0) == {"Task1": 1.0}  # nothing to degrade


def test_pairs_of_a_task_of_the_table_stand_for_it():
    assert available_tasks({"haze": 1.0, "rain": 1.0}, {"haze": 30}, 10) == {"haze": 0.5, "rain": 0.5}


@pytest.mark.parametrize("shares", [{}, {"haze": 0.0}, {"haze": -1.0, "rain": 2.0}, {"haze": math.nan}, {"haze": math.inf}])
def test_what_is_no_share_is_refused(shares):
    with pytest.raises(ValueError, match="at least 0 and not all 0"):
        normalised(shares)


def test_new_shares_are_of_the_same_tasks_in_their_order():
    assert list(matching({"b": 1.0, "a": 3.0}, ["a", "b"]).items()) == [("a", 0.75), ("b", 0.25)]
    with pytest.raises(ValueError, match="of the tasks a, b; got a, c"):
        matching({"a": 1.0, "c": 1.0}, ["a", "b"])
