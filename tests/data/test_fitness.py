from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from picture_files import save_numbered

from foundir_hf.curation.cleaning import Verdict
from foundir_hf.curation.fitness import TaskShares, is_fit
from foundir_hf.data.sources import open_source
from foundir_hf.data.stream import PairStream
from foundir_hf.data.tasks import get_task

HAZY, DARK, BOTH = Verdict(False, ("haze",)), Verdict(False, ("darkness",)), Verdict(False, ("haze", "darkness"))
PROPORTIONS = {"haze": 2.0, "low_light": 1.0, "gaussian_noise": 1.0}


def shares(verdicts: dict[str, Verdict], names: list[str] | None, proportions: dict[str, float] = PROPORTIONS) -> TaskShares:
    return TaskShares([get_task(name) for name in proportions], list(proportions.values()), verdicts, names)


def table(verdicts: dict[str, Verdict], names: list[str]) -> torch.Tensor:
    """Probability of every task (column) for every photograph (row)."""
    drawn = shares(verdicts, names)
    return torch.stack([drawn.weights[drawn._group(name)] for name in names])


def test_a_photograph_is_unfit_where_it_was_dropped_or_has_what_the_task_removes():
    assert is_fit(HAZY, get_task("gaussian_noise"))
    assert not is_fit(HAZY, get_task("haze"))
    assert not is_fit(Verdict(True), get_task("clean"))
    assert is_fit(None, get_task("haze"))
    assert is_fit(HAZY, None)  # a task that only its data set knows
    assert not is_fit(Verdict(True), None)


def test_tasks_keep_their_proportions_over_photographs_of_which_some_are_unfit():
    names = [f"{i}.png" for i in range(100)]
    verdicts = dict.fromkeys(names[:30], HAZY) | dict.fromkeys(names[30:45], DARK) | dict.fromkeys(names[45:50], BOTH)
    chances = table(verdicts, names)
    assert (chances[:30, 0] == 0).all()
    assert (chances[30:45, 1] == 0).all()
    assert chances[45].tolist() == [0, 0, 1]
    assert torch.allclose(chances.sum(1), torch.ones(100))
    assert chances.mean(0).tolist() == pytest.approx([0.5, 0.25, 0.25], abs=1e-4)


def test_where_proportions_cannot_be_kept_every_photograph_is_still_used():
    names = [f"{i}.png" for i in range(10)]
    chances = table(dict.fromkeys(names[:8], HAZY), names)
    assert torch.allclose(chances.sum(1), torch.ones(10))
    assert chances[8:, 0].tolist() == pytest.approx([1, 1], abs=1e-2)  # the fit ones do what the others cannot
    assert chances.mean(0)[0] == pytest.approx(0.2, abs=1e-2)
    assert chances[0, 1:].tolist() == pytest.approx([0.5, 0.5], abs=1e-2)


def test_of_a_stream_the_manifest_says_how_many_are_fit_and_unknown_photographs_are():
    verdicts = dict.fromkeys(["a", "b"], HAZY) | {"c": Verdict(False)}
    drawn = shares(verdicts, None)
    generator = torch.Generator().manual_seed(0)
    assert set(drawn.draw(["a"] * 200, generator)) == {"low_light", "gaussian_noise"}
    assert "haze" in drawn.draw(["never seen"] * 50, generator)


def test_a_task_without_any_fit_photograph_and_an_empty_list_of_tasks_are_refused():
    with pytest.raises(ValueError, match="No photograph is fit for haze"):
        shares({"a": HAZY}, ["a"])
    with pytest.raises(ValueError, match="must be at least 0 and not all 0"):
        shares({}, None, {"haze": 0.0})


def test_shares_can_change_and_photographs_that_no_task_with_a_share_can_use_are_not_wanted():
    tasks = shares({"a": HAZY, "b": Verdict(False)}, ["a", "b"], {"haze": 1.0, "clean": 1.0})
    assert tasks.wants("a")
    assert tasks.wants("b")
    tasks.set_proportions([1.0, 0.0])
    assert tasks.wants("b")
    assert not tasks.wants("a")
    assert tasks.uses("a")  # later, maybe
    assert set(tasks.draw(["b"] * 20, torch.Generator().manual_seed(0))) == {"haze"}
    tasks.set_proportions([0.0, 1.0])
    assert set(tasks.draw(["a", "b"] * 10, torch.Generator().manual_seed(0))) == {"clean"}


def test_the_stream_never_gives_a_task_an_unfit_photograph_and_leaves_out_the_useless(tmp_path):
    save_numbered(tmp_path, 8, size=(32, 32))
    verdicts = {f"{i:02d}.png": HAZY for i in range(4)} | {"07.png": Verdict(True)}
    stream = PairStream(open_source(tmp_path), {"haze": 1.0, "clean": 1.0}, 14, 16, 16, workers=0, verdicts=verdicts)
    drawn = Counter()
    for step in range(10):
        batch = stream.batch(stream.generator(step))
        drawn.update((task, round(float(hq[2].mean() + 1) * 127.5)) for task, hq in zip(batch.tasks, batch.hq, strict=True))
    assert {number for task, number in drawn if task == "haze"} == {4, 5, 6}
    assert {number for task, number in drawn if task == "clean"} >= {0, 1, 2, 3}
    assert {number: sum(n for (_, other), n in drawn.items() if other == number) for number in range(8)} == dict.fromkeys(range(7), 20) | {
        7: 0
    }


def test_pairs_are_left_out_by_what_their_own_task_removes(tmp_path):
    for folder in ("haze/HQ", "haze/LQ", "snowfall/HQ", "snowfall/LQ"):
        save_numbered(tmp_path / folder, 2)
    verdicts = {"haze/HQ/00.png": HAZY, "snowfall/HQ/00.png": HAZY, "snowfall/HQ/01.png": Verdict(True)}
    stream = PairStream(open_source(tmp_path), {"gaussian_noise": 1.0}, 4, 16, 16, workers=0, verdicts=verdicts)
    assert {crop.name for crops in stream.streams.values() for crop in islice(crops, 3)} == {"haze/HQ/01.png", "snowfall/HQ/00.png"}
