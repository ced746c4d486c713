from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch

from foundir_hf.data.tasks import SCENE, STAGES, TASKS, Task, compose, get_task, mix
from foundir_hf.evaluation.metrics import METRICS

# PAPERS.md lists the folders of FoundIR's benchmark (ICCV 2025).
FOUNDIR20 = (
    *("01_blur", "02_blur_noise", "03_blur_jpeg", "04_blur_noise_jpeg", "05_noise", "06_jpeg", "07_noise_jpeg", "08_haze"),
    *("09_lowlight_haze", "10_rain", "11_raindrop", "12_night_rain", "13_rain_haze", "14_lowlight", "15_lowlight_blur"),
    *("16_lowlight_noise", "17_lowlight_jpeg", "18_lowlight_blur_noise", "19_lowlight_blur_jpeg", "20_lowlight_noise_jpeg"),
)
every_task = pytest.mark.parametrize("name", sorted(TASKS))


def recording(log: list[str], name: str, stage: int) -> Task:
    """An ingredient that writes its name down and leaves the images alone."""

    def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        log.append(name)
        return images

    return Task(name, name, degrade, {}, stage)


def scene(batch: int, size: tuple[int, int] = (48, 64)) -> torch.Tensor:
    """The same picture `batch` times: gradients, edges, texture."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    picture = torch.stack([x / size[1], y / size[0], ((x // 9 + y // 7) % 2).float()]) * 0.7 + 0.1
    picture = picture + 0.1 * torch.rand(3, *size, generator=torch.Generator().manual_seed(5))
    return picture.clamp(0, 1).expand(batch, -1, -1, -1).clone()


def test_the_table_names_more_than_fifty_tasks_in_ten_families():
    damages = [task for task in TASKS.values() if task.family != "clean"]
    assert len(damages) >= 50
    assert len({task.family for task in damages}) >= 10
    assert {task.stage for task in damages} == set(range(len(STAGES)))


def test_single_damages_alone_are_more_than_fifty():
    assert sum(task.degradation not in (compose, mix) and task.family not in ("foundir20", "clean") for task in TASKS.values()) >= 50


def test_tasks_are_keyed_by_their_own_names():
    assert all(name == task.name for name, task in TASKS.items())


def test_foundirs_benchmark_is_there_by_name_and_in_order():
    assert [name for name, task in TASKS.items() if task.family == "foundir20"] == [f"foundir_{name}" for name in FOUNDIR20]


@every_task
def test_every_row_is_data_that_its_recipe_accepts(name):
    task = TASKS[name]
    parameters = inspect.signature(task.degradation).parameters
    accepted = {key for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert set(task.ranges) <= accepted
    assert task.reference
    assert task.removes or name == "clean"
    assert task.metric in METRICS


@every_task
def test_every_task_degrades_a_batch_reproducibly_and_leaves_its_input_alone(name):
    images = scene(3)
    before = images.clone()
    first, second, *others = (get_task(name).degrade(images, torch.Generator().manual_seed(seed)) for seed in (2, 2, 3, 4, 5, 6, 7))
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert torch.isfinite(first).all()
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, second)
    assert torch.equal(images, before)
    assert torch.equal(first, images) == (name == "clean")
    assert all(torch.equal(first, other) for other in others) == (name == "clean")


@every_task
def test_every_task_takes_one_pixel(name):
    result = get_task(name).degrade(torch.full((2, 3, 1, 1), 0.5), torch.Generator().manual_seed(0))
    assert result.shape == (2, 3, 1, 1)
    assert torch.isfinite(result).all()


def test_an_unknown_task_is_refused_and_the_accepted_ones_are_named():
    with pytest.raises(ValueError, match="'fog'") as error:
        get_task("fog")
    assert all(name in str(error.value) for name in TASKS)
    assert get_task("haze") is TASKS["haze"]


def test_composites_run_in_physical_order_whatever_order_they_are_written_in():
    log: list[str] = []
    parts = [recording(log, name, stage) for name, stage in (("file", 4), ("first", 0), ("sensor", 3), ("second", 0))]
    compose(scene(1), torch.Generator(), parts=parts)
    assert log == ["first", "second", "sensor", "file"]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.degradation is compose])
def test_a_composite_removes_what_its_parts_remove(name):
    task = TASKS[name]
    assert len(task.ranges["parts"]) >= 2
    assert set(task.removes) == {defect for part in task.ranges["parts"] for defect in part.removes}
    assert task.stage == min(part.stage for part in task.ranges["parts"])


@pytest.mark.parametrize("count", [2, 3])
def test_mixtures_apply_tasks_of_different_stages_in_physical_order(count):
    log: list[str] = []
    stages = {"a0": 0, "b0": 0, "c1": 1, "d2": 2, "e2": 2, "f3": 3, "g4": 4}
    ingredients = [recording(log, name, stage) for name, stage in reversed(stages.items())]
    images, generator = torch.rand(1, 3, 4, 4), torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(1000):
        log.clear()
        mix(images, generator, ingredients=ingredients, count=count)
        assert [stages[name] for name in log] == sorted({stages[name] for name in log})
        assert len(log) == count
        seen.add(tuple(log))
    pairs = {(a, b) for a in stages for b in stages if stages[a] < stages[b]}
    triples = {(a, b, c) for a, b in pairs for c in stages if stages[b] < stages[c]}
    assert seen == (pairs if count == 2 else triples)


def test_a_mixture_of_more_than_there_are_stages_is_refused():
    log: list[str] = []
    ingredients = [recording(log, "a", 0), recording(log, "b", 0), recording(log, "c", 1)]
    with pytest.raises(ValueError, match="`count` must be at most the 2 stages"):
        mix(scene(1), torch.Generator(), ingredients=ingredients, count=3)


def test_a_new_task_is_one_row():
    row = replace(TASKS["haze"], name="thin_haze", ranges={"density": (0.1, 0.3)}, stage=SCENE)
    thin, thick = (task.degrade(scene(2), torch.Generator().manual_seed(1)) for task in (row, TASKS["dense_haze"]))
    assert (thin - scene(2)).abs().mean() < (thick - scene(2)).abs().mean()


@every_task
def test_what_the_other_images_show_decides_nothing(name):
    images = scene(3)
    others = images.clone()
    others[1] = torch.rand(images[1].shape, generator=torch.Generator().manual_seed(8))
    first, second = (get_task(name).degrade(batch, torch.Generator().manual_seed(4)) for batch in (images, others))
    assert torch.allclose(first[0], second[0], atol=1e-5)
    assert torch.allclose(first[2], second[2], atol=1e-5)
