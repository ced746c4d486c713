"""The table of sub-tasks: a row is a name, a family and a recipe. Adding a task is adding a row.

Every recipe takes `(images, generator)` and returns the degraded images: `(batch, 3, height, width)` in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from .degradations.blur import defocus_blur, motion_blur
from .degradations.compression import jpeg
from .degradations.illumination import low_light
from .degradations.noise import camera_noise, gaussian_noise
from .degradations.resolution import downsample
from .degradations.weather import haze, rain

Degradation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Task:
    """One sub-task.

    Args:
        name: Unique, as the command line and configurations spell it.
        family: The group that tables report.
        degrade: Clean images -> degraded images.
        order: Where it happens on the way from the scene to the file (0 scene, 1 light, 2 lens, 3 sensor, 4 file): mixtures obey it.
    """

    name: str
    family: str
    degrade: Degradation
    order: int


def mix_two(images: torch.Tensor, generator: torch.Generator, *, ingredients: Sequence[Task]) -> torch.Tensor:
    """Two different degradations in physical order: the first of a random shuffle and the next one of another family and stage."""
    order = torch.randperm(len(ingredients), generator=generator, device=images.device).tolist()
    first = ingredients[order[0]]
    second = next(t for t in (ingredients[i] for i in order[1:]) if t.order != first.order)
    for task in sorted((first, second), key=lambda task: task.order):
        images = task.degrade(images, generator)
    return images


def unchanged(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A clean photograph: the model must learn to leave it alone."""
    return images


_SINGLE = (
    Task("gaussian_noise", "noise", gaussian_noise, 3),
    Task("camera_noise", "noise", camera_noise, 3),
    Task("motion_blur", "motion blur", motion_blur, 2),
    Task("defocus_blur", "defocus", defocus_blur, 2),
    Task("jpeg", "jpeg", jpeg, 4),
    Task("downsample_x2", "down-sampling", partial(downsample, factor=2), 3),
    Task("downsample_x4", "down-sampling", partial(downsample, factor=4), 3),
    Task("rain", "rain", rain, 0),
    Task("haze", "haze", haze, 0),
    Task("low_light", "low light", low_light, 1),
)
# Ingredients of mixtures are milder than the same damage alone: two full doses leave nothing to restore.
_MILD = (
    Task("gaussian_noise", "noise", partial(gaussian_noise, sigma=(5, 30)), 3),
    Task("motion_blur", "motion blur", partial(motion_blur, length=(5, 15)), 2),
    Task("defocus_blur", "defocus", partial(defocus_blur, radius=(1, 3)), 2),
    Task("jpeg", "jpeg", partial(jpeg, quality=(20, 80)), 4),
    Task("downsample_x2", "down-sampling", partial(downsample, factor=2), 3),
    Task("rain", "rain", rain, 0),
    Task("haze", "haze", partial(haze, density=(0.4, 1.6)), 0),
    Task("low_light", "low light", partial(low_light, exposure=(0.12, 0.5)), 1),
)

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (*_SINGLE, Task("mixture", "mixture", partial(mix_two, ingredients=_MILD), 0), Task("clean", "clean", unchanged, 0))
}


def get_task(name: str) -> Task:
    """The row called `name`."""
    try:
        return TASKS[name]
    except KeyError:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {name!r}.") from None
