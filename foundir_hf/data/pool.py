"""Training pairs made ahead by processes of their own, kept on the device, and drawn several times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import Event, Lock, Thread
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from .pairs import PairBatch, PairSource, step_generator
from .samples import seed_of


class PairPool:
    """What `pairs` makes, for a device that learns faster: an H100 took 8,000 pairs of 128 pixels a second, and 15 cores made 1,800.

    Processes make pairs without end. The newest lie on the device, and batches are drawn from them at random, mirrored by a coin. What a
    batch holds depends on how fast all of that goes: a run with a pool cannot be repeated bit by bit.

    Args:
        pairs: In main memory.
        batch_size: Pairs a batch.
        device: Where batches are drawn.
        workers: Processes that make pairs.
        gigabytes: Of the device, for the pool.
    """

    def __init__(self, pairs: PairSource, batch_size: int, device: torch.device | str, workers: int, gigabytes: float = 8.0):
        if workers < 1:
            raise ValueError(f"`workers` must be at least 1, got {workers}.")
        self.pairs, self.batch_size, self.device = pairs, batch_size, torch.device(device)
        pairs.weights.share_memory_()  # new shares reach the processes
        shape = (3, pairs.crop_size, pairs.crop_size)
        capacity = max(batch_size, int(gigabytes * 1e9 / (2 * 3 * pairs.crop_size**2)))
        self.hq, self.lq = (torch.empty((capacity, *shape), dtype=torch.uint8, device=self.device) for _ in range(2))
        self.tasks = [""] * capacity
        self.made, self._stop, self._problem = 0, Event(), None
        self._replacing = Lock()  # a pair's two pictures are replaced, and drawn, together
        # Forked, because the photographs are gigabytes that nobody wants copied.
        pinned = self.device.type == "cuda"
        loader = DataLoader(
            _Endless(pairs), batch_size=None, num_workers=workers, prefetch_factor=4, pin_memory=pinned, multiprocessing_context="fork"
        )
        self._thread = Thread(target=self._collect, args=(loader,), daemon=True)
        self._thread.start()

    @property
    def proportions(self) -> dict[str, float]:
        return self.pairs.proportions

    def set_proportions(self, proportions: Mapping[str, float]) -> None:
        """As of [`~foundir_hf.data.pairs.PairSource.set_proportions`], of the pairs that are made from now on."""
        weights = self.pairs.weights
        self.pairs.set_proportions(proportions)
        self.pairs.weights = weights.copy_(self.pairs.weights)

    def generator(self, step: int) -> torch.Generator:
        """The random numbers of one step."""
        return step_generator(self.pairs.seed, step, self.device)

    def batch(self, generator: torch.Generator) -> PairBatch:
        """One batch of what there is; waits until there is as much as a batch."""
        while self.made < self.batch_size:
            if self._problem is not None:
                raise self._problem
            self._stop.wait(0.01)
        number = min(self.made, len(self.hq))  # oldest and newest alike
        which = torch.randint(number, (self.batch_size,), generator=generator, device=self.device)
        mirrored = torch.rand(self.batch_size, 1, 1, 1, generator=generator, device=self.device) < 0.5
        places = which.tolist()
        with self._replacing:
            hq, lq = self.hq[which], self.lq[which]
            tasks = [self.tasks[place] for place in places]
        hq, lq = (images.float() / 127.5 - 1 for images in (hq, lq))
        hq, lq = (torch.where(mirrored, images.flip(3), images) for images in (hq, lq))
        return PairBatch(hq, lq, tasks)

    def _collect(self, loader: DataLoader) -> None:
        try:
            for hq, lq, tasks in loader:
                if self._stop.is_set():
                    return
                start = self.made % len(self.hq)
                length = min(len(tasks), len(self.hq) - start)
                with self._replacing:
                    for images, new in ((self.hq, hq), (self.lq, lq)):
                        images[start : start + length].copy_(new[:length], non_blocking=True)
                    self.tasks[start : start + length] = tasks[:length]
                    self.made += length
        except Exception as error:  # of a process; told where it is waited for
            self._problem = error

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a resumed run fills its pool anew."""
        return {}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to do, see [`state_dict`]."""

    def close(self) -> None:
        """Ends the processes."""
        self._stop.set()
        self._thread.join()


class _Endless(IterableDataset):
    """Batches of a [`PairSource`] as bytes, without end; every process draws its own."""

    def __init__(self, pairs: PairSource):
        self.pairs = pairs

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        worker = get_worker_info()
        generator = torch.Generator().manual_seed(seed_of(self.pairs.seed, worker.id if worker else 0))
        while True:
            batch = self.pairs.batch(generator)
            hq, lq = ((images * 127.5 + 127.5).round().to(torch.uint8) for images in (batch.hq, batch.lq))
            yield hq, lq, batch.tasks
