"""Means and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foundir_hf.evaluation.benchmark import Score
from foundir_hf.evaluation.statistics import bootstrap_interval, summarise


def score(family: str, task: str, image: str, before: float, after: float, **others: float) -> Score:
    methods = {"input": {"psnr": before}, "restored": {"psnr": after}} | {name: {"psnr": value} for name, value in others.items()}
    return Score("set", family, task, image, methods, tuple(others))


SCORES = [
    score("noise", "gaussian_noise", "a.png", 20.0, 26.0, nlm=25.0, median=21.0),
    score("clean", "clean", "a.png", math.inf, 40.0),
    score("noise", "camera_noise", "a.png", 30.0, 31.0, nlm=29.0),
    score("noise", "gaussian_noise", "b.png", 22.0, math.inf, nlm=28.0, median=22.0),
    score("clean", "clean", "b.png", math.inf, math.inf),
    score("same", "same", "b.png", math.inf, math.inf),
]


def test_summaries_average_finite_scores_by_group_in_order_of_appearance():
    rows = summarise(SCORES)
    assert [row["family"] for row in rows] == ["noise", "clean", "same"]
    shown = [[row[k] for k in ("images", "psnr_input", "psnr_output", "gain")] for row in rows]
    assert shown == [[3, 25.0, 28.5, 3.5], [2, None, 40.0, None], [1, None, None, None]]
    assert [row["identical"] for row in rows] == [{"restored": 1}, {"input": 2, "restored": 1}, {"input": 1, "restored": 1}]
    assert [(row["task"], row["images"]) for row in summarise(SCORES, "task")[:3]] == [
        ("gaussian_noise", 2),
        ("clean", 2),
        ("camera_noise", 1),
    ]


def test_the_best_baseline_is_one_that_ran_on_every_image():
    noise = summarise(SCORES)[0]
    assert noise["baselines"] == ["nlm", "median"]
    best = noise["best_baseline"]
    assert (best["name"], best["psnr"]) == ("nlm", pytest.approx((25 + 29 + 28) / 3))
    assert best["gain"] == pytest.approx((5 - 1 + 6) / 3)
    assert noise["methods"]["median"]["psnr"] == 21.5
    assert summarise(SCORES)[1]["best_baseline"] is None


def test_tasks_of_one_name_in_two_sets_are_told_apart():
    other = Score("other", "noise", "gaussian_noise", "a.png", SCORES[0].methods)
    assert [row["task"] for row in summarise([SCORES[0], SCORES[1], other], "task")] == [
        "set/gaussian_noise",
        "clean",
        "other/gaussian_noise",
    ]


def test_without_a_restoration_inputs_and_baselines_are_still_summarised():
    row = summarise([Score("set", "noise", "noise", "a", {"input": {"psnr": 20.0}, "nlm": {"psnr": 25.0}}, ("nlm",))])[0]
    assert (row["psnr_input"], row["psnr_output"], row["gain"]) == (20.0, None, None)
    assert row["best_baseline"]["gain"] == 5.0
    unmeasured = summarise([Score("set", "real", "real", "a", {"input": {"psnr": None}, "restored": {"psnr": None}})])[0]
    assert (unmeasured["images"], unmeasured["psnr_input"], unmeasured["gain"]) == (1, None, None)


def test_intervals_cover_the_mean_and_are_the_same_in_every_run():
    values = np.random.default_rng(1).normal(2, 1, 40)
    names = [str(i) for i in range(40)]
    interval = bootstrap_interval(values, names, seed=0)
    assert interval is not None
    low, high = interval
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 40**0.5, rel=0.1)  # the normal approximation
    assert bootstrap_interval(values, names, seed=0) == interval
    assert bootstrap_interval(values, names, seed=1) != interval
    assert bootstrap_interval([1.0, 2.0], ["a", "a"]) is None
    assert bootstrap_interval([3.0, 3.0], ["a", "b"]) == (3.0, 3.0)


def test_damage_of_one_photograph_is_no_independent_evidence():
    values = np.random.default_rng(1).normal(2, 1, 10)
    once = bootstrap_interval(values, [str(i) for i in range(10)])
    repeated = bootstrap_interval(np.tile(values, 9), [str(i) for i in range(10)] * 9)
    assert repeated == pytest.approx(once)


def test_intervals_have_the_stated_coverage():
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = bootstrap_interval(random.normal(0, 1, 30), [str(i) for i in range(30)], seed=trial)
        assert interval is not None
        hits += interval[0] <= 0 <= interval[1]
    assert 0.88 <= hits / 200 <= 0.98
