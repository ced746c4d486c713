"""A data set in memory: samples decoded once, on the device that trains."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .samples import Sample, SampleError, Source, cut
from .sources import CleanFiles

logger = logging.getLogger(__name__)


class InMemoryPhotographs:
    """Samples on one device, and random crops of them: for sets that fit into its memory.

    Args:
        source: What to decode, or paths of clean photographs. What cannot be used is named in the log, skipped, and kept in `skipped` with
            the reason.
        device: Where the pixels live: 468 megapixels take 1.4 GB, pairs twice as much.
        numbers: Take these samples only.
    """

    def __init__(self, source: Source | Sequence[Path], device: torch.device | str = "cpu", numbers: Sequence[int] | None = None):
        samples = source if isinstance(source, Source) else CleanFiles(source)
        numbers = range(len(samples)) if numbers is None else numbers
        self.skipped: dict[str, str] = {}

        def decode(index: int) -> Sample | SampleError:
            try:
                sample = samples[index]
            except SampleError as error:
                return error
            lq = None if sample.lq is None else sample.lq.contiguous().to(device)
            return replace(sample, hq=sample.hq.contiguous().to(device), lq=lq)

        self.samples: list[Sample] = []
        with ThreadPoolExecutor(4) as pool:
            for decoded in tqdm(pool.map(decode, numbers), total=len(numbers), desc="decoding photographs", mininterval=5):
                if isinstance(decoded, SampleError):
                    self.skipped[decoded.name] = decoded.reason
                    logger.warning("Skipped %s", decoded)
                else:
                    self.samples.append(decoded)
        self.device = torch.device(device)
        if not self.samples:
            raise ValueError(f"None of the {len(numbers)} photographs could be decoded.")

    def __len__(self) -> int:
        return len(self.samples)

    def crops(
        self, which: Sequence[int], size: int, generator: torch.Generator, max_shrink: float = 6.0
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Random `uint8` crops of the samples numbered `which`, see [`cut`]: of their HQ, `(len(which), 3, size, size)`, and of each LQ."""
        draws = torch.rand(len(which), 4, generator=generator, device=generator.device).tolist()
        crops = [cut(self.samples[index], size, draw, max_shrink) for index, draw in zip(which, draws, strict=True)]
        return torch.stack([hq for hq, _ in crops]), [lq for _, lq in crops]
