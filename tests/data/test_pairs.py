from __future__ import annotations

import numpy as np
import pytest
import torch
from picture_files import coordinates, save
from PIL import Image

from foundir_hf.curation.cleaning import Verdict
from foundir_hf.data.augmentation import Augmentation
from foundir_hf.data.memory import InMemoryPhotographs
from foundir_hf.data.pairs import PairBatch, PairSource, make_batch
from foundir_hf.data.sources import open_source


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> InMemoryPhotographs:
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:70, 0:90]
    paths = []
    for i in range(3):
        picture = np.stack([40 + x * 2, 60 + y * (i + 1), 128 + 60 * np.sin(x / (3 + i)) * np.cos(y / 5)], axis=-1)
        paths.append(folder / f"{i}.png")
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return InMemoryPhotographs(paths)


def source(bank: InMemoryPhotographs, proportions: dict[str, float], **changes) -> PairSource:
    options = {"batch_size": 4, "crop_size": 16, "context_size": 32, **changes}
    return PairSource(bank, proportions, **options)


def equal(a: PairBatch, b: PairBatch) -> bool:
    return torch.equal(a.hq, b.hq) and torch.equal(a.lq, b.lq) and a.tasks == b.tasks


MIXED = {"gaussian_noise": 1.0, "jpeg": 1.0, "haze": 1.0, "motion_blur": 0.5, "mixture": 0.5, "clean": 0.5}


def test_a_batch_depends_on_seed_and_step_alone(bank):
    one, other = source(bank, MIXED, seed=3), source(bank, MIXED, seed=3)
    in_order = [one.batch(one.generator(step)) for step in range(6)]
    first = other.batch(other.generator(5))
    assert equal(first, in_order[5])
    assert all(equal(other.batch(other.generator(step)), in_order[step]) for step in (2, 0, 5, 4))
    assert not any(equal(in_order[i], in_order[j]) for i in range(6) for j in range(i))
    reseeded = source(bank, MIXED, seed=4)
    assert not equal(reseeded.batch(reseeded.generator(5)), in_order[5])


def test_batches_have_their_shapes_and_lie_between_minus_one_and_one(bank):
    pairs = source(bank, MIXED, batch_size=6)
    for step in range(4):
        batch = pairs.batch(pairs.generator(step))
        assert batch.hq.shape == batch.lq.shape == (6, 3, 16, 16)
        assert len(batch.tasks) == 6
        for tensor in (batch.hq, batch.lq):
            assert tensor.isfinite().all()
            assert -1 <= tensor.min() < tensor.max() <= 1


def test_proportions_decide_how_often_a_task_is_drawn(bank):
    proportions = {"clean": 3.0, "gaussian_noise": 1.0, "low_light": 2.0, "haze": 0.0}
    pairs = source(bank, proportions, batch_size=64, crop_size=8, context_size=8)
    drawn = [task for step in range(25) for task in pairs.batch(pairs.generator(step)).tasks]
    expected = {name: len(drawn) * share / 6 for name, share in proportions.items()}
    assert drawn.count("haze") == 0
    deviation = sum((drawn.count(name) - count) ** 2 / count for name, count in expected.items() if count)
    assert deviation < 9.2  # chi square with two degrees of freedom, 1 %


def test_shares_can_change_and_must_be_of_the_same_tasks(bank):
    pairs = source(bank, {"clean": 1.0, "haze": 1.0, "jpeg": 2.0}, batch_size=64, crop_size=8, context_size=8)
    assert pairs.proportions == {"clean": 0.25, "haze": 0.25, "jpeg": 0.5}
    pairs.set_proportions({"haze": 3.0, "jpeg": 0.0, "clean": 1.0})
    tasks = [task for step in range(25) for task in pairs.batch(pairs.generator(step)).tasks]
    assert tasks.count("jpeg") == 0
    assert (tasks.count("haze") - 1200) ** 2 / 1200 + (tasks.count("clean") - 400) ** 2 / 400 < 6.6  # one degree of freedom, 1 %
    with pytest.raises(ValueError, match="must be of the tasks clean, haze, jpeg; got haze"):
        pairs.set_proportions({"haze": 1.0})
    with pytest.raises(ValueError, match="at least 0 and not all 0"):
        pairs.set_proportions({"haze": 0.0, "jpeg": 0.0, "clean": 0.0})


def test_each_pair_carries_the_damage_of_its_task(bank):
    pairs = source(bank, {"clean": 1.0, "gaussian_noise": 1.0, "low_light": 1.0}, batch_size=32, crop_size=8, context_size=8)
    batch = pairs.batch(pairs.generator(0))
    assert set(batch.tasks) == {"clean", "gaussian_noise", "low_light"}
    levels = (batch.lq + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-3)  # a file has 8 bits
    for lq, hq, task in zip(batch.lq, batch.hq, batch.tasks, strict=True):
        if task == "clean":
            assert (lq - hq).abs().max() <= 1 / 255 + 1e-6  # half a level of [-1, 1]
        elif task == "low_light":
            assert lq.mean() < hq.mean() - 0.1
        else:
            assert (lq - hq).std() > 0.01
            assert lq.mean() == pytest.approx(float(hq.mean()), abs=0.15)


def test_surroundings_smaller_than_the_crop_and_unknown_tasks_are_refused(bank):
    with pytest.raises(ValueError, match="`context_size` must be at least `crop_size` 16, got 8"):
        source(bank, {"clean": 1.0}, context_size=8)
    with pytest.raises(ValueError, match="gaussian_noise"):
        source(bank, {"gausian_noise": 1.0})


# --- Photographs unfit for a task, and pairs in memory ---


@pytest.fixture
def tinted(tmp_path) -> InMemoryPhotographs:
    """Three photographs that their blue channel tells apart: 50, 100, 150."""
    for i, name in enumerate("abc"):
        save(tmp_path / f"{name}.png", coordinates(32, 32, blue=50 * (i + 1)))
    return InMemoryPhotographs(open_source(tmp_path))


def test_no_task_draws_a_photograph_that_is_unfit_for_it(tinted):
    verdicts = {"a.png": Verdict(False, ("haze",)), "b.png": Verdict(True)}
    pairs = source(tinted, {"haze": 1.0, "gaussian_noise": 1.0}, batch_size=64, crop_size=8, context_size=8, verdicts=verdicts)
    drawn = set()
    for step in range(4):
        batch = pairs.batch(pairs.generator(step))
        drawn |= {(task, round(float(hq[2].mean() + 1) * 127.5)) for task, hq in zip(batch.tasks, batch.hq, strict=True)}
    assert drawn == {("haze", 150), ("gaussian_noise", 50), ("gaussian_noise", 150)}


def test_a_task_that_no_photograph_is_fit_for_is_refused(tinted):
    verdicts = {f"{name}.png": Verdict(False, ("haze",)) for name in "abc"}
    with pytest.raises(ValueError, match="No photograph is fit for haze"):
        source(tinted, {"haze": 1.0, "clean": 1.0}, verdicts=verdicts)
    source(tinted, {"haze": 0.0, "clean": 1.0}, verdicts=verdicts)  # nobody asks for it


def test_pairs_in_memory_keep_their_lq_and_their_task(tmp_path):
    save(tmp_path / "Task1" / "HQ_folder" / "a.png", coordinates(40, 40))
    save(tmp_path / "Task1" / "LQ_folder" / "a.png", 255 - coordinates(40, 40))
    pairs = source(InMemoryPhotographs(open_source(tmp_path)), {"gaussian_noise": 1.0})
    batch = pairs.batch(pairs.generator(0))
    assert batch.tasks == ["Task1"] * 4
    assert torch.allclose(batch.lq, -batch.hq, atol=1e-5)


def test_pairs_keep_their_tone_and_clean_crops_get_another():
    hq = torch.full((2, 3, 32, 32), 120, dtype=torch.uint8)
    batch = make_batch(hq, [hq[0], None], ["a pair", "clean"], 16, torch.Generator().manual_seed(0), augmentation=Augmentation(tone=1.0))
    assert torch.allclose(batch.hq[0], torch.tensor(120 / 255 * 2 - 1))
    assert (batch.hq[1] - batch.hq[0]).abs().max() > 0.01
    assert torch.allclose(batch.lq[1], batch.hq[1], atol=2 / 255)
