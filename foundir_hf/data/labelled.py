"""Photographs with known defects: what a classifier of degradations learns from. The labels are what the task table says of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..curation.cleaning import Verdict
from .degradations.compression import jpeg
from .memory import InMemoryPhotographs
from .tasks import TASKS, Task, compose

# How many rows of the table damage one photograph: none, one, two, three. Rows may have several defects themselves.
ROWS_SHARES = (0.2, 0.45, 0.22, 0.13)


@dataclass
class LabelledBatch:
    """Photographs and what is wrong with them.

    Args:
        images: `(batch, 3, size, size)` in [0, 1], with the 256 levels of a file.
        labels: `(batch, len(defects))`, 1 where the photograph has the defect.
        known: The same shape, False where a label may be wrong: the photograph came with that defect, and no row added it.
        rows: Names of the rows of the task table that damaged each photograph; empty for a clean one.
    """

    images: torch.Tensor
    labels: torch.Tensor
    known: torch.Tensor
    rows: list[tuple[str, ...]]


class LabelledSource:
    """Draws damaged photographs; batch number `step` depends on `seed` and `step` alone.

    Defects are drawn evenly, then a row of the table that has the defect: a defect with one row is seen as often as one with twenty. Rows
    with random contents (`mixture`) name no defects and are never drawn.

    Args:
        photos: The clean photographs.
        defects: Names, in the order of the labels; each must be in `removes` of a row.
        batch_size: Photographs a batch.
        sizes: Sides of the crops; one is drawn for each batch.
        camera_share: The share of photographs that are saved as a JPEG of quality 90 to 98 at last, which no viewer would call a defect.
        rows_shares: The shares of photographs with 0, 1, 2, ... rows.
        verdicts: Of the cleaning manifest, by sample name: which photographs have defects of their own.
        seed: Of the whole stream.
    """

    def __init__(
        self,
        photos: InMemoryPhotographs,
        defects: Sequence[str],
        batch_size: int,
        sizes: Sequence[int],
        *,
        camera_share: float = 0.4,
        rows_shares: Sequence[float] = ROWS_SHARES,
        verdicts: Mapping[str, Verdict] | None = None,
        seed: int = 0,
    ):
        self.photos, self.defects, self.batch_size, self.sizes, self.seed = photos, tuple(defects), batch_size, tuple(sizes), seed
        self.camera_share, self.rows_shares = camera_share, torch.tensor(rows_shares, device=photos.device)
        own = [verdicts[sample.name].defects if verdicts and sample.name in verdicts else () for sample in photos.samples]
        self.own = torch.tensor([[defect in defects for defect in self.defects] for defects in own], device=photos.device)
        self.rows = {defect: [task for task in TASKS.values() if defect in task.removes] for defect in self.defects}
        unknown = [defect for defect, rows in self.rows.items() if not rows]
        if unknown:
            raise ValueError(f"`defects` must be named in `removes` of a row of the task table; {', '.join(unknown)} are not.")
        others = sorted({d for task in TASKS.values() for d in task.removes} - set(self.defects))
        if others:
            raise ValueError(
                f"`defects` must hold every defect of the task table, or photographs would be mislabelled; {', '.join(others)} miss."
            )

    def generator(self, step: int) -> torch.Generator:
        """The random numbers of one step."""
        # A large odd factor keeps the streams of neighbouring seeds apart.
        return torch.Generator(self.photos.device).manual_seed((self.seed * 1_000_003 + step) % 2**63)

    def batch(self, generator: torch.Generator) -> LabelledBatch:
        """One batch, drawn from `generator`."""
        size = self.sizes[_draw(len(self.sizes), generator)]
        which = torch.randint(len(self.photos), (self.batch_size,), generator=generator, device=generator.device).tolist()
        images = self.photos.crops(which, size, generator)[0].float() / 255
        counts = torch.multinomial(self.rows_shares, self.batch_size, replacement=True, generator=generator).tolist()
        rows = [self._draw_rows(count, generator) for count in counts]
        images = torch.cat([compose(image[None], generator, parts=parts) for image, parts in zip(images, rows, strict=True)])
        camera = torch.rand(self.batch_size, generator=generator, device=images.device) < self.camera_share
        if camera.any():
            images[camera] = jpeg(images[camera], generator, quality=(90, 98), subsampling=1)
        labels = [[float(any(defect in row.removes for row in parts)) for defect in self.defects] for parts in rows]
        labels = torch.tensor(labels, device=images.device)
        return LabelledBatch(
            images=(images.clamp(0, 1) * 255).round() / 255,
            labels=labels,
            known=(labels > 0) | ~self.own[which],
            rows=[tuple(row.name for row in parts) for parts in rows],
        )

    def _draw_rows(self, count: int, generator: torch.Generator) -> list[Task]:
        chosen: list[Task] = []
        for _ in range(count):
            candidates = self.rows[self.defects[_draw(len(self.defects), generator)]]
            row = candidates[_draw(len(candidates), generator)]
            # The same damage twice is a dose the table does not know.
            if not any(set(row.removes) & set(other.removes) for other in chosen):
                chosen.append(row)
        return chosen


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device=generator.device))
