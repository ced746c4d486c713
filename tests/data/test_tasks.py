from __future__ import annotations

import pytest
import torch

from foundir_hf.data.tasks import TASKS, Task, get_task, mix_two


def recording(log: list[str], name: str, order: int) -> Task:
    """An ingredient that writes its name down and leaves the images alone."""

    def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        log.append(name)
        return images

    return Task(name, name, degrade, order)


def test_tasks_are_keyed_by_their_own_names():
    assert all(name == task.name for name, task in TASKS.items())
    assert len({task.name for task in TASKS.values()}) == len(TASKS)


def test_the_table_covers_every_family_and_every_stage_of_the_way_to_the_file():
    families = {task.family for task in TASKS.values()}
    expected = {"noise", "motion blur", "defocus", "jpeg", "down-sampling", "rain", "haze", "low light", "mixture", "clean"}
    assert expected <= families
    assert {task.order for task in TASKS.values()} == {0, 1, 2, 3, 4}


def test_an_unknown_task_is_refused_and_the_accepted_ones_are_named():
    with pytest.raises(ValueError, match="'fog'") as error:
        get_task("fog")
    assert all(name in str(error.value) for name in TASKS)
    assert get_task("haze") is TASKS["haze"]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_degrades_a_batch_of_three_reproducibly(name):
    images = torch.rand(3, 3, 33, 40, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    first, second = (get_task(name).degrade(images, torch.Generator().manual_seed(2)) for _ in range(2))
    assert first.shape == images.shape
    assert torch.isfinite(first).all()
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert torch.equal(first, images) == (name == "clean")


def test_mixtures_apply_two_tasks_of_different_stages_in_physical_order():
    log: list[str] = []
    orders = {"a0": 0, "b0": 0, "c1": 1, "d2": 2, "e2": 2, "f3": 3, "g4": 4}
    ingredients = [recording(log, name, order) for name, order in reversed(orders.items())]
    images, generator = torch.rand(1, 3, 4, 4), torch.Generator().manual_seed(0)
    pairs = set()
    for _ in range(400):
        log.clear()
        mix_two(images, generator, ingredients=ingredients)
        first, second = log  # exactly two
        assert orders[first] < orders[second]
        pairs.add((first, second))
    possible = {(a, b) for a in orders for b in orders if orders[a] < orders[b]}
    assert pairs == possible
