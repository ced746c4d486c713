"""What a run trains on and validates with: opens the source, decides whether it stays in memory, reads the cleaning manifest."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from PIL import Image

from .augmentation import NO_AUGMENTATION, Augmentation
from .hub_datasets import HubStream
from .memory import InMemoryPhotographs
from .pairs import PairBatch, PairSource, reference_pairs
from .pool import PairPool
from .samples import Source, seed_of
from .sources import open_source
from .stream import PairStream

logger = logging.getLogger(__name__)

InMemory = Literal["auto", "yes", "no"]
IN_MEMORY_PIXELS = 10**9  # 3 GB
# What a process of a pool makes at once: four tasks of eight pairs.
POOLED, TOGETHER = 32, 8


class TrainingData:
    """What a run learns from, and what it is measured with while it runs.

    Args:
        data: What to train on, see [`~foundir_hf.data.sources.open_source`].
        device: Where batches are made.
        validation: What to measure with; left out, the `val` split of `data`. `held_out` says whether training sees none of it.
        reference_samples: How many of them for each task, drawn by a seed of their own: the same in every run.
        manifest: Written by `foundir clean` for the folder `data`.
        in_memory: Decode everything once and keep it on `device`; `"auto"` does so up to a thousand megapixels (3 GB), counted on a sample.
        process, processes: Number of this training process, of so many.
        workers: Processes that decode for each training process, where data are not in memory.
        pool_workers: Processes that make pairs ahead for each training process, see [`~foundir_hf.data.pool.PairPool`]; 0 makes every pair
            for its step. Data must be in memory.
    """

    def __init__(
        self,
        data: str | Path,
        device: torch.device | str = "cpu",
        *,
        validation: str | Path | None = None,
        reference_samples: int = 10,
        manifest: str | Path | None = None,
        in_memory: InMemory = "auto",
        process: int = 0,
        processes: int = 1,
        workers: int = 2,
        pool_workers: int = 0,
    ):
        if in_memory not in get_args(InMemory):
            raise ValueError(f"`in_memory` must be one of {', '.join(get_args(InMemory))}; got {in_memory!r}.")
        self.device, self.process, self.processes, self.workers, self.pool_workers = device, process, processes, workers, pool_workers
        source = open_source(data, "train")
        self.verdicts = {}
        if manifest is not None:
            from ..curation.cleaning import read_manifest  # brings the scores and their libraries, which training needs for nothing else

            self.verdicts = read_manifest(manifest)
        if self.verdicts and isinstance(source, Source) and not any(source.name(i) in self.verdicts for i in range(len(source))):
            raise ValueError(
                f"`manifest` {str(manifest)!r} knows none of the samples; it says {next(iter(self.verdicts))!r}, they are called "
                f"{source.name(0)!r}."
            )
        self.source: InMemoryPhotographs | Source | HubStream = source
        if isinstance(source, Source):
            if in_memory == "yes" or (in_memory == "auto" and estimate_pixels(source) <= IN_MEMORY_PIXELS):
                self.source = InMemoryPhotographs(source, "cpu" if pool_workers else device)
        elif in_memory == "yes":
            raise ValueError(f"A streamed data set cannot be kept in memory, got `in_memory` 'yes' for {str(data)!r}.")
        if pool_workers and not isinstance(self.source, InMemoryPhotographs):
            raise ValueError(f"`pool_workers` needs data in memory (`in_memory` 'yes'), got {pool_workers} for {str(data)!r}.")
        measured = open_source(data if validation is None else validation, "val")
        if isinstance(measured, HubStream):  # its first rows, which training sees too
            measured = measured.first(3 * reference_samples)
        self.held_out = validation is not None or (isinstance(source, Source) and not _share_names(source, measured))
        self.validation = InMemoryPhotographs(measured, numbers=_some_of_each_task(measured, reference_samples))
        self.reference_samples = reference_samples

    def reference(self, tasks: Mapping[str, float], size: int = 192) -> dict[str, PairBatch]:
        """The pairs that a stage of these tasks is measured with, see [`~foundir_hf.data.pairs.reference_pairs`]."""
        return reference_pairs(self.validation, tasks, self.reference_samples, size, verdicts=self.verdicts)

    def batches(
        self,
        proportions: Mapping[str, float],
        batch_size: int,
        crop_size: int,
        context_size: int,
        seed: int,
        augmentation: Augmentation = NO_AUGMENTATION,
    ) -> PairSource | PairStream | PairPool:
        """The training pairs of one stage, see [`~foundir_hf.data.pairs.PairSource`].

        From memory every process can draw every batch; they divide the batches' numbers among themselves. Streams are divided already.
        """
        if self.pool_workers and isinstance(self.source, InMemoryPhotographs):
            seed = seed_of(seed, self.process)  # every process has a pool of its own
            pairs = PairSource(
                self.source, proportions, POOLED, crop_size, context_size, seed, self.verdicts, augmentation, together=TOGETHER
            )
            return PairPool(pairs, batch_size, self.device, self.pool_workers)
        shape = (proportions, batch_size, crop_size, context_size)
        if isinstance(self.source, InMemoryPhotographs):
            return PairSource(self.source, *shape, seed=seed, verdicts=self.verdicts, augmentation=augmentation)
        place = {"process": self.process, "processes": self.processes, "workers": self.workers}
        return PairStream(self.source, *shape, seed=seed, device=self.device, verdicts=self.verdicts, augmentation=augmentation, **place)


def _share_names(source: Source, measured: Source) -> bool:
    return not {source.name(i) for i in range(len(source))}.isdisjoint(measured.name(i) for i in range(len(measured)))


def _some_of_each_task(source: Source, count: int) -> list[int]:
    """Numbers of up to `count` pairs of each task, and of three times as many clean photographs, which all tasks share."""
    numbers: dict[str | None, list[int]] = {}
    for number in torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).tolist():
        numbers.setdefault(source.task(number), []).append(number)
    return sorted(number for task, members in numbers.items() for number in members[: 3 * count if task is None else count])


def estimate_pixels(source: Source, probes: int = 32) -> float:
    """About how many pixels a source holds, HQ and LQ together, by the headers of some of its files."""
    numbers = sorted({round(i * (len(source) - 1) / max(1, probes - 1)) for i in range(probes)})
    pixels, readable = 0, 0
    for number in numbers:
        try:
            hq, lq = source.encoded(number)
            with Image.open(io.BytesIO(hq)) as image:
                pixels += image.width * image.height * (1 if lq is None else 2)  # an LQ is enlarged to its HQ
            readable += 1
        except Exception:  # Pillow's readers raise whatever a broken file leads them to; it is named when it is read
            continue
    return pixels / max(1, readable) * len(source)
