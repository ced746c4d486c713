"""Pairs made ahead, and drawn several times."""

from __future__ import annotations

import time

import pytest
import torch
from picture_files import save_numbered

from foundir_hf.data.augmentation import Augmentation
from foundir_hf.data.loading import TrainingData
from foundir_hf.data.memory import InMemoryPhotographs
from foundir_hf.data.pairs import PairSource
from foundir_hf.data.pool import PairPool
from foundir_hf.io.folder import list_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    save_numbered(folder, 5, size=(60, 80))
    return folder


@pytest.fixture
def pool(folder):
    pairs = PairSource(InMemoryPhotographs(list_photos(folder)), {"clean": 1.0, "low_light": 0.0}, 8, 16, 24, seed=3, together=4)
    pool = PairPool(pairs, batch_size=6, device="cpu", workers=2, gigabytes=1e-4)
    yield pool
    pool.close()


def wait_for(pool: PairPool, made: int) -> None:
    while pool.made < made:
        pool.batch(pool.generator(0))
        time.sleep(0.01)


def test_it_draws_what_processes_make_and_forgets_the_oldest(pool):
    assert len(pool.hq) == 65  # a tenth of a megabyte
    wait_for(pool, 200)
    batch = pool.batch(pool.generator(0))
    assert batch.hq.shape == batch.lq.shape == (6, 3, 16, 16)
    assert torch.equal(batch.hq, batch.lq)
    assert batch.tasks == ["clean"] * 6
    assert -1 <= batch.hq.min() < batch.hq.max() <= 1
    assert not torch.equal(pool.hq[0], pool.hq[1])


def test_no_pair_is_drawn_half_replaced(pool):
    wait_for(pool, 65)
    for step in range(400):  # while the processes replace
        batch = pool.batch(pool.generator(step))
        assert torch.equal(batch.hq, batch.lq)


def test_a_pair_stays_a_pair_when_it_is_mirrored(folder):
    pairs = PairSource(InMemoryPhotographs(list_photos(folder)), {"salt_and_pepper_noise": 1.0}, 8, 16, 24, together=8)
    pool = PairPool(pairs, batch_size=64, device="cpu", workers=1, gigabytes=1e-4)
    batch = pool.batch(pool.generator(1))
    pool.close()
    assert batch.tasks == ["salt_and_pepper_noise"] * 64
    # Impulses leave most pixels alone, in a pair of the same picture alone.
    assert ((batch.lq == batch.hq).float().mean(dim=(1, 2, 3)) > 0.7).all()


def test_new_shares_reach_the_processes(pool):
    wait_for(pool, 8)
    pool.set_proportions({"clean": 0.0, "low_light": 1.0})
    assert pool.proportions == {"clean": 0.0, "low_light": 1.0}
    wait_for(pool, pool.made + 300)  # what was under way, and then all of the pool
    batch = pool.batch(pool.generator(0))
    assert batch.tasks == ["low_light"] * 6
    assert (batch.lq.mean(dim=(1, 2, 3)) < batch.hq.mean(dim=(1, 2, 3))).all()


def test_what_fails_in_a_process_is_told_to_who_waits(folder):
    pairs = PairSource(InMemoryPhotographs(list_photos(folder)), {"clean": 1.0}, 8, 16, 24)
    pairs.augmentation = Augmentation(tone=-1.0, texture="a lot")  # type: ignore[arg-type]
    pool = PairPool(pairs, batch_size=6, device="cpu", workers=1)
    with pytest.raises(TypeError):
        pool.batch(pool.generator(0))


def test_pools_are_of_data_in_memory(folder):
    with pytest.raises(ValueError, match="`pool_workers` needs data in memory"):
        TrainingData(folder, in_memory="no", pool_workers=2)
    with pytest.raises(ValueError, match="`workers` must be at least 1, got 0"):
        PairPool(PairSource(InMemoryPhotographs(list_photos(folder)), {"clean": 1.0}, 8, 16, 24), 8, "cpu", workers=0)


def test_neighbours_share_their_task(folder):
    pairs = PairSource(InMemoryPhotographs(list_photos(folder)), {"clean": 1.0, "low_light": 1.0, "jpeg": 1.0}, 12, 16, 24, together=4)
    tasks = [pairs.batch(pairs.generator(step)).tasks for step in range(8)]
    assert all(names[k] == names[k - k % 4] for names in tasks for k in range(12))
    assert len({name for names in tasks for name in names}) == 3
    with pytest.raises(ValueError, match="`together` must divide `batch_size` 12, got 5"):
        PairSource(pairs.photos, {"clean": 1.0}, 12, 16, 24, together=5)
