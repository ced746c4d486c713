"""Training pairs made on the device: clean crops, a task for each, and its damage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .photos import PhotoBank
from .tasks import get_task


@dataclass
class PairBatch:
    """A batch of training pairs in [-1, 1].

    Args:
        hq: Clean crops, `(batch, 3, size, size)`.
        lq: The same crops, degraded.
        thumbnail: A small copy of the degraded surroundings of each crop, `(batch, 3, 64, 64)`, as whole-image statistics see them.
        tasks: The name of each pair's task.
    """

    hq: torch.Tensor
    lq: torch.Tensor
    thumbnail: torch.Tensor
    tasks: list[str]


class PairSource:
    """Draws pairs; batch number `step` depends on `seed` and `step` alone, so that an interrupted run goes on where it was.

    Args:
        photos: The clean photographs.
        proportions: Share of each task, by name; normalised here.
        batch_size: Pairs a batch.
        crop_size: Side of the crops.
        context_size: Side of the surroundings that are degraded together with the crop, so that its thumbnail shows more than the crop.
        thumbnail_size: Side of the thumbnail.
        seed: Of the whole stream.
    """

    def __init__(
        self,
        photos: PhotoBank,
        proportions: Mapping[str, float],
        batch_size: int,
        crop_size: int,
        context_size: int,
        thumbnail_size: int = 64,
        seed: int = 0,
    ):
        if context_size < crop_size:
            raise ValueError(f"`context_size` must be at least `crop_size` {crop_size}, got {context_size}.")
        self.photos = photos
        self.tasks = [get_task(name) for name in proportions]
        self.weights = torch.tensor(list(proportions.values()), dtype=torch.float, device=photos.device)
        self.batch_size, self.crop_size, self.context_size = batch_size, crop_size, context_size
        self.thumbnail_size, self.seed = thumbnail_size, seed

    def generator(self, step: int) -> torch.Generator:
        """The random numbers of one step; the objective goes on drawing from it after the batch is made."""
        # A large odd factor keeps the streams of neighbouring seeds apart.
        return torch.Generator(self.photos.device).manual_seed((self.seed * 1_000_003 + step) % 2**63)

    def batch(self, generator: torch.Generator) -> PairBatch:
        """One batch, drawn from `generator`."""
        device = self.photos.device
        clean = self.photos.crops(self.batch_size, self.context_size, generator)
        drawn = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=generator).tolist()
        degraded = torch.empty_like(clean)
        for index in sorted(set(drawn)):  # images of the same task are degraded together
            members = [i for i, task in enumerate(drawn) if task == index]
            degraded[members] = self.tasks[index].degrade(clean[members], generator)
        degraded = (degraded * 255).round() / 255  # a file has 8 bits

        thumbnail = F.adaptive_avg_pool2d(degraded, self.thumbnail_size)
        # The JPEG grid starts anywhere in a crop, as it does in a cropped photograph.
        room = self.context_size - self.crop_size + 1
        top, left = torch.randint(room, (2,), generator=generator, device=device).tolist()
        window = (..., slice(top, top + self.crop_size), slice(left, left + self.crop_size))
        return PairBatch(
            hq=clean[window] * 2 - 1,
            lq=degraded[window] * 2 - 1,
            thumbnail=thumbnail * 2 - 1,
            tasks=[self.tasks[i].name for i in drawn],
        )
