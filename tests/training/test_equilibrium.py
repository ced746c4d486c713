"""Data equilibrium scheduling and the strategies beside it."""

from __future__ import annotations

import json
import math
import random

import pytest

from foundir_hf.training.equilibrium import DataEquilibriumScheduler, EquilibriumConfig, PlannedScheduler, build_task_scheduler, rebalance

FOUR = {"deblur": 1.0, "dehaze": 1.0, "low_light": 1.0, "sr": 1.0}


def test_within_the_limit_a_round_is_exactly_equation_3():
    shares, changes, alpha = [0.5, 0.3, 0.2], [0.02, -0.01, 0.03], 1.3
    weights = [share * math.exp(-alpha * change) for share, change in zip(shares, changes, strict=True)]
    assert rebalance(shares, changes) == rebalance(shares, changes, alpha=1.0)
    assert rebalance(shares, changes, alpha=alpha) == pytest.approx([weight / sum(weights) for weight in weights], abs=1e-12)


@pytest.mark.parametrize("limit", ["points", "relative"])
@pytest.mark.parametrize("seed", range(20))
def test_every_round_stays_on_the_simplex_within_its_limits_and_above_the_floor(seed, limit):
    draws = random.Random(seed)
    shares = [draws.uniform(0.05, 1) for _ in range(7)]
    shares = [share / sum(shares) for share in shares]
    floor = min(shares) * draws.uniform(0, 1)
    for _ in range(30):
        changes = [draws.gauss(0, 10 ** draws.uniform(-3, 3)) for _ in shares]
        moved = rebalance(shares, changes, alpha=draws.uniform(0.1, 5), min_change=0.05, max_change=0.1, limit=limit, floor=floor)
        assert sum(moved) == pytest.approx(1, abs=1e-12)
        assert max(abs(new - old) / (old if limit == "relative" else 1) for new, old in zip(moved, shares, strict=True)) <= 0.1 + 1e-9
        assert min(moved) >= floor - 1e-12
        shares = moved


def test_a_score_that_fell_raises_the_share_and_the_same_change_for_all_moves_nothing():
    assert rebalance([0.5, 0.5], [-1.0, 0.0])[0] > 0.5  # fell
    assert rebalance([0.5, 0.5], [3.0, 1.0])[0] < 0.5  # rose most
    assert rebalance([0.2, 0.8], [2.0, 2.0]) == pytest.approx([0.2, 0.8])


@pytest.mark.parametrize(("limit", "least"), [("points", 0.05), ("relative", 0.0125)])
def test_a_small_difference_is_raised_to_the_least_change(limit, least):
    moved = rebalance([0.25] * 4, [0.001, 0, 0, 0], min_change=0.05, limit=limit)
    assert max(abs(share - 0.25) for share in moved) == pytest.approx(least)
    assert moved[1] == moved[2] == moved[3] > 0.25 > moved[0]


def test_a_share_that_is_at_its_floor_stays_there_in_a_round_that_is_lengthened():
    assert rebalance([0.05, 0.475, 0.475], [9.0, 0.01, 0.0], min_change=0.05, floor=0.05) == pytest.approx([0.05, 0.425, 0.525])


@pytest.mark.parametrize(
    ("shares", "changes", "message"),
    [
        ([0.5, 0.5], [1.0], "`changes` must be 2 finite numbers"),
        ([0.5, 0.5], [1.0, math.nan], "`changes` must be 2 finite numbers"),
        ([1.0, 0.0], [1.0, 1.0], "`proportions` must be positive and sum to one"),
        ([0.5, 0.6], [1.0, 1.0], "`proportions` must be positive and sum to one"),
    ],
)
def test_what_is_no_round_is_refused(shares, changes, message):
    with pytest.raises(ValueError, match=message):
        rebalance(shares, changes)


def test_the_scheduler_remembers_first_and_then_moves_towards_what_improved_least():
    scheduler = DataEquilibriumScheduler(FOUR, 100, 25)
    assert [step for step in range(100) if scheduler.due(step)] == [0, 25, 50, 75]
    assert scheduler.update(0, dict.fromkeys(FOUR, 20.0)) == dict.fromkeys(FOUR, 0.25)
    shares = scheduler.update(25, {"deblur": 20.1, "dehaze": 24.0, "low_light": 23.0, "sr": 19.5})
    assert shares["sr"] > shares["deblur"] > shares["low_light"] > shares["dehaze"]
    assert [row["step"] for row in scheduler.history["rounds"]] == [0, 25]
    assert scheduler.history["rounds"][1]["scores"]["sr"] == 19.5
    with pytest.raises(ValueError, match="got none for sr"):
        scheduler.update(50, {"deblur": 20.1, "dehaze": 24.0, "low_light": 23.0})


def test_four_rounds_can_do_what_the_papers_table_2_shows():
    shares = [0.25] * 4
    for _ in range(4):
        shares = rebalance(shares, [0.0, 0.0, 3.0, -3.0], min_change=0.05, max_change=0.1, floor=0.05)
    assert shares[3] > 0.45
    assert shares[2] < 0.125


def test_a_scheduler_goes_on_from_its_state_exactly():
    scores = [{name: 20 + round(math.sin(i * j), 3) for j, name in enumerate(FOUR, 1)} for i in range(6)]
    whole, first, second = (DataEquilibriumScheduler(FOUR, 60, 10) for _ in range(3))
    for i in range(6):
        whole.update(10 * i, scores[i])
    for i in range(3):
        first.update(10 * i, scores[i])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for i in range(3, 6):
        second.update(10 * i, scores[i])
    assert second.state_dict() == whole.state_dict()
    with pytest.raises(ValueError, match="has the tasks a; the run has deblur"):
        whole.load_state_dict({"proportions": {"a": 1.0}, "rounds": [], "scales": {}})


def shares_over(strategy: str, steps: int, shares: dict[str, float] = FOUR) -> list[dict[str, float]]:
    scheduler = build_task_scheduler(EquilibriumConfig(strategy), shares, steps)
    assert not scheduler.needs_scores
    found = []
    for step in range(steps):
        if scheduler.due(step):
            scheduler.update(step)
        found.append(scheduler.proportions)
    return found


def test_mixing_keeps_the_shares():
    assert shares_over("mixing", 8, {"a": 3.0, "b": 1.0}) == [{"a": 0.75, "b": 0.25}] * 8


def test_sequential_trains_one_task_after_the_other_as_long_as_its_share_says():
    order = [max(shares, key=shares.get) for shares in shares_over("sequential", 8, {"a": 3.0, "b": 1.0})]
    assert order == ["a"] * 6 + ["b"] * 2
    assert all(sorted(shares.values()) == [0, 1] for shares in shares_over("sequential", 8, {"a": 3.0, "b": 1.0}))


def test_incremental_adds_one_task_after_the_other():
    found = shares_over("incremental", 8)
    assert [sum(share > 0 for share in shares.values()) for shares in found] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert found[2] == {"deblur": 0.5, "dehaze": 0.5, "low_light": 0.0, "sr": 0.0}


def test_replay_repeats_another_run_at_its_own_length(tmp_path):
    scheduler = DataEquilibriumScheduler(FOUR, 100, 25)
    for i in range(4):
        scheduler.update(25 * i, {name: 20.0 + i * j for j, name in enumerate(FOUR)})
    path = tmp_path / "equilibrium.json"
    path.write_text(json.dumps(scheduler.history))
    replayed = build_task_scheduler(EquilibriumConfig("replay", history=str(path)), FOUR, 1000)
    assert [step for step in range(1000) if replayed.due(step)] == [0, 250, 500, 750]
    for i, row in enumerate(scheduler.rounds):
        assert replayed.update(250 * i) == pytest.approx(row["proportions"])
    with pytest.raises(ValueError, match="is of the tasks deblur, dehaze, low_light, sr; the stage has a"):
        build_task_scheduler(EquilibriumConfig("replay", history=str(path)), {"a": 1.0}, 10)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"must be the equilibrium\.json of a run"):
        build_task_scheduler(EquilibriumConfig("replay", history=str(path)), FOUR, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "random"}, "`strategy` must be one of mixing, sequential, incremental, des, replay; got 'random'"),
        ({"strategy": "replay"}, "`history` is what `replay` repeats"),
        ({"history": "x.json"}, "`history` is what `replay` repeats"),
        ({"interval": 0}, "`interval` must be at least 1"),
        ({"alpha": -1.0}, "`alpha` must be a positive number"),
        ({"min_change": 0.2}, "0 <= min_change <= max_change < 1"),
        ({"max_change": 0.0}, "0 <= min_change <= max_change < 1"),
        ({"floor": 1.0}, "`floor` must be in"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        EquilibriumConfig(**changes)
    assert EquilibriumConfig(interval=1).interval == 1  # a round at every update


def test_a_share_below_the_floor_at_the_beginning_is_refused():
    with pytest.raises(ValueError, match=r"at least `floor` 0\.1"):
        DataEquilibriumScheduler({"a": 1.0, "b": 0.05}, 10, 5, floor=0.1)
    with pytest.raises(ValueError, match="must begin at step 0"):
        PlannedScheduler({5: {"a": 1.0}}, 10)


def test_a_recipe_that_names_only_the_strategy_gets_the_function_s_own_limits():
    from_config, by_itself = (
        build_task_scheduler(EquilibriumConfig("des"), {"a": 1, "b": 1}, 10),
        DataEquilibriumScheduler({"a": 1, "b": 1}, 10),
    )
    for name in ("interval", "alpha", "min_change", "max_change", "limit", "floor"):
        assert getattr(from_config, name) == getattr(by_itself, name), name
