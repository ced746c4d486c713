"""Measuring a pipeline: what it gains over its input on seeded damage of clean photographs and on real pairs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from ..data.photos import list_photos
from ..data.tasks import TASKS, Task
from ..pipelines.pipeline_foundir import FoundIRPipeline


@dataclass(frozen=True)
class Score:
    """One restored image.

    Args:
        family: Of the damage, or the name of the paired set.
        task: Sub-task, or the name of the paired set.
        image: File name of the ground truth.
        psnr_input, psnr_output: In decibels against the ground truth, RGB, 8 bits.
    """

    family: str
    task: str
    image: str
    psnr_input: float
    psnr_output: float


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR in decibels of two `uint8` images, over all pixels and channels; infinite if they are equal."""
    error = np.mean((image.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def read_rgb(path: Path) -> np.ndarray:
    """`(height, width, 3)`, `uint8`, upright."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def degrade_image(truth: np.ndarray, task: Task, image_name: str, seed: int) -> np.ndarray:
    """Seeded damage of one `uint8` image; it depends on the seed, the task and the file's name, and on nothing else."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{task.name}/{image_name}".encode()))
    clean = torch.from_numpy(truth.copy()).permute(2, 0, 1)[None].float() / 255
    degraded = task.degrade(clean, generator)[0].clamp(0, 1)
    return (degraded * 255).round().byte().permute(1, 2, 0).numpy()


def synthetic_pairs(folder: Path, seed: int, limit: int | None) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """`(family, task, name, degraded, truth)` for every task of the table and every clean photograph of a folder."""
    for path in list_photos(folder)[:limit]:
        truth = read_rgb(path)
        for task in TASKS.values():
            yield task.family, task.name, path.name, degrade_image(truth, task, path.name, seed), truth


def folder_pairs(name: str, folder: Path, limit: int | None) -> Iterator[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """The same from `GT/` and `LQ/`, whose files share their stems; a smaller LQ is enlarged to its truth's size (bicubic)."""
    degraded_by_stem = {path.stem: path for path in list_photos(folder / "LQ")}
    for path in list_photos(folder / "GT")[:limit]:
        if path.stem not in degraded_by_stem:
            raise ValueError(f"`{folder}`: GT/{path.name} has no partner in LQ/.")
        truth = read_rgb(path)
        with Image.open(degraded_by_stem[path.stem]) as image:
            degraded = np.asarray(image.convert("RGB").resize(truth.shape[1::-1], Image.Resampling.BICUBIC))
        yield name, name, path.name, degraded, truth


def evaluate(
    pipeline: FoundIRPipeline,
    *,
    clean: Path | None = None,
    paired: dict[str, Path] | None = None,
    seed: int = 0,
    limit: int | None = None,
    **options,
) -> list[Score]:
    """Restores every pair and scores it.

    Args:
        pipeline: What to measure.
        clean: Folder of clean photographs, to be damaged by every task of the table.
        paired: Folders with `GT/` and `LQ/`, by name.
        seed: Of the damage and of the restoration.
        limit: At most so many photographs of each folder.
        options: Of [`FoundIRPipeline.__call__`].
    """
    pairs = list(synthetic_pairs(clean, seed, limit)) if clean else []
    for name, folder in (paired or {}).items():
        pairs += folder_pairs(name, folder, limit)
    pipeline.set_progress_bar_config(disable=True)
    scores = []
    for family, task, name, degraded, truth in tqdm(pairs, desc="evaluating", mininterval=5):
        generator = torch.Generator().manual_seed(seed)
        restored = np.asarray(pipeline(Image.fromarray(degraded), generator=generator, **options).images[0])
        scores.append(Score(family, task, name, psnr(degraded, truth), psnr(restored, truth)))
    return scores


def summarise(scores: list[Score], key: str = "family") -> list[dict]:
    """Mean PSNR of input and output and the gain by family (or `"task"`), in order of appearance; undamaged inputs count for nothing."""
    rows = []
    for group in dict.fromkeys(getattr(score, key) for score in scores):
        members = [s for s in scores if getattr(s, key) == group]
        finite = [s for s in members if np.isfinite(s.psnr_input) and np.isfinite(s.psnr_output)]
        row = {key: group, "images": len(members), "psnr_input": None, "psnr_output": None, "gain": None}
        if finite:
            row["psnr_input"] = float(np.mean([s.psnr_input for s in finite]))
            row["psnr_output"] = float(np.mean([s.psnr_output for s in finite]))
            row["gain"] = row["psnr_output"] - row["psnr_input"]
        elif members:
            outputs = [s.psnr_output for s in members if np.isfinite(s.psnr_output)]
            row["psnr_output"] = float(np.mean(outputs)) if outputs else None
        rows.append(row)
    return rows


def to_table(rows: list[dict]) -> str:
    """A Markdown table of [`summarise`]'s rows."""
    if not rows:
        raise ValueError("`rows` must hold at least one row, got none.")
    key = next(iter(rows[0]))

    def cell(value: float | None, form: str = ".2f") -> str:
        return "-" if value is None else format(value, form)

    lines = [f"| {key} | images | input dB | output dB | gain |", "|---|---|---|---|---|"]
    lines += [
        f"| {r[key]} | {r['images']} | {cell(r['psnr_input'])} | {cell(r['psnr_output'])} | {cell(r['gain'], '+.2f')} |" for r in rows
    ]
    return "\n".join(lines)


def to_report(scores: list[Score], **context) -> dict:
    """Everything as JSON-ready data: context, per family, per task, per image."""
    finite = [{k: (v if v != float("inf") else None) for k, v in asdict(s).items()} for s in scores]
    return {**context, "families": summarise(scores), "tasks": summarise(scores, "task"), "images": finite}
