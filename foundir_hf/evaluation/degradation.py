"""Seeded damage of one photograph: the sub-tasks of the table, and the degradations that published tables are measured with."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..data.tasks import TASKS, Task


@dataclass(frozen=True)
class Degradation:
    """One kind of damage, as a suite lists it.

    Args:
        name: Of the sub-task, or of the protocol and its parameter.
        family: The group that tables report.
        defects: What it leaves to remove: baselines are chosen by it.
        apply: `(truth, image name, seed) -> degraded`, `(height, width, 3)`: `uint8`, or floating point on the scale of 8 bits where the
            protocol does not round. Smaller than the truth for super-resolution.
        multiple: The truth is cropped to multiples of this first.
    """

    name: str
    family: str
    defects: tuple[str, ...]
    apply: Callable[[np.ndarray, str, int], np.ndarray]
    multiple: int = 1


def seeded(name: str, image_name: str, seed: int) -> torch.Generator:
    """Random numbers that depend on the seed, the damage and the file's name, and on nothing else."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}/{image_name}".encode()))


def degrade_image(truth: np.ndarray, task: Task, image_name: str, seed: int) -> np.ndarray:
    """Degradation of one `uint8` image by a sub-task, rounded to `uint8`; see [`seeded`]."""
    clean = torch.from_numpy(truth.copy()).permute(2, 0, 1)[None].float() / 255
    degraded = task.degrade(clean, seeded(task.name, image_name, seed))[0].clamp(0, 1)
    return (degraded * 255).round().byte().permute(1, 2, 0).numpy()


def _noise(truth: np.ndarray, image_name: str, seed: int, *, name: str, sigma: float) -> np.ndarray:
    """White Gaussian noise, neither clipped nor rounded (DnCNN, TIP 2017, and the denoising tables since)."""
    noise = torch.randn(truth.shape, generator=seeded(name, image_name, seed), dtype=torch.float64).numpy()
    return truth + sigma * noise


def _jpeg(truth: np.ndarray, image_name: str, seed: int, *, quality: int) -> np.ndarray:
    """libjpeg at `quality`, 4:2:0 (ARCNN, ICCV 2015, and the deblocking tables since; theirs on grey images)."""
    buffer = io.BytesIO()
    Image.fromarray(truth).save(buffer, "JPEG", quality=quality, subsampling=2)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def _bicubic(truth: np.ndarray, image_name: str, seed: int, *, factor: int) -> np.ndarray:
    """`factor` times smaller by the anti-aliased bicubic kernel with a = -0.5, as MATLAB's `imresize` (SRCNN, TPAMI 2016)."""
    size = (truth.shape[1] // factor, truth.shape[0] // factor)
    return np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.BICUBIC))


# protocol -> its parameter, accepted range, family, defect.
_PROTOCOLS: dict[str, tuple[str, float, float, str, str]] = {
    "noise": ("sigma", 0, 255, "noise", "noise"),
    "jpeg": ("quality", 1, 95, "compression", "compression"),
    "bicubic": ("factor", 2, 8, "resolution", "low_resolution"),
}


def _protocol(row: dict[str, Any]) -> list[Degradation]:
    """`{protocol: noise, sigma: 25}`, `{protocol: jpeg, quality: [10, 20]}`, `{protocol: bicubic, factor: 4}`."""
    kind = row.get("protocol")
    if not isinstance(kind, str) or kind not in _PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(_PROTOCOLS)}; got {kind!r}.")
    parameter, low, high, family, defect = _PROTOCOLS[kind]
    if set(row) != {"protocol", parameter}:
        raise ValueError(
            f"protocol {kind!r} takes `{parameter}` and nothing else, got {', '.join(sorted(map(str, set(row) - {'protocol'})))}."
        )
    values = row[parameter] if isinstance(row[parameter], list) else [row[parameter]]
    if not values:
        raise ValueError(f"`{parameter}` of protocol {kind!r} must be a number or a list of some, got [].")
    damages = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int if kind != "noise" else (int, float)) or not low <= value <= high:
            raise ValueError(f"`{parameter}` of protocol {kind!r} must be a number in [{low:g}, {high:g}], got {value!r}.")
        name = f"{kind}_{parameter}_{value:g}"
        if kind == "noise":
            apply, multiple = partial(_noise, name=name, sigma=value), 1
        elif kind == "jpeg":
            apply, multiple = partial(_jpeg, quality=int(value)), 1
        else:
            apply, multiple = partial(_bicubic, factor=int(value)), int(value)
        damages.append(Degradation(name, family, (defect,), apply, multiple))
    return damages


def _at_severity(row: dict[str, Any]) -> Degradation:
    """`{task: motion_blur, length: 15}`: a sub-task whose ranges are narrowed to values, or to other ranges."""
    values = {name: value for name, value in row.items() if name != "task"}
    if row["task"] not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {row['task']!r}.")
    task = TASKS[row["task"]]
    accepted = [name for name, value in task.parameters.items() if isinstance(value, tuple)]
    if not values or not set(values) <= set(accepted):
        raise ValueError(f"task {task.name!r} takes {', '.join(accepted)}, at least one of them; got {', '.join(map(str, values))}.")
    ranges, name = {}, task.name
    for parameter, value in values.items():
        ends = value if isinstance(value, list) else [value, value]
        if len(ends) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
            raise ValueError(f"`{parameter}` of task {task.name!r} must be a number or a range of two, got {value!r}.")
        ranges[parameter] = tuple(ends)
        name += f"_{parameter}_" + "-".join(f"{end:g}" for end in dict.fromkeys(ends))
    narrowed = replace(task, name=name, ranges={**task.ranges, **ranges})
    return Degradation(name, task.family, tuple(task.removes), partial(_by_task, task=narrowed))


def select_degradations(rows: list[Any]) -> tuple[Degradation, ...]:
    """What a suite's `tasks` name.

    Args:
        rows: Names of sub-tasks, patterns of names (`foundir_*`), families, `all`, protocols (`{protocol: noise, sigma: 25}`), or
            sub-tasks of one severity (`{task: motion_blur, length: 15}`).

    Raises:
        ValueError: If a row names nothing, there is none, or the same damage is named twice.
    """
    if not rows:
        raise ValueError("`tasks` must name at least one, got [].")
    chosen: dict[str, Degradation] = {}
    for row in rows:
        if isinstance(row, dict):
            found = [_at_severity(row)] if "task" in row else _protocol(row)
        else:
            tasks = [t for t in TASKS.values() if row == "all" or row == t.family or fnmatchcase(t.name, str(row))]
            if not tasks:
                families = ", ".join(dict.fromkeys(t.family for t in TASKS.values()))
                raise ValueError(f"`tasks` must name sub-tasks ({', '.join(TASKS)}), families ({families}) or all; got {row!r}.")
            found = [Degradation(t.name, t.family, tuple(t.removes), partial(_by_task, task=t)) for t in tasks]
        for damage in found:
            if damage.name in chosen:
                raise ValueError(f"`tasks` names {damage.name!r} twice.")
            chosen[damage.name] = damage
    return tuple(chosen.values())


def _by_task(truth: np.ndarray, image_name: str, seed: int, *, task: Task) -> np.ndarray:
    return degrade_image(truth, task, image_name, seed)
