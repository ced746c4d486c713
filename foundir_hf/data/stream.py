"""An endless, seeded, resumable stream of crops out of any source, decoded by worker processes; and training pairs made of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from ..curation.fitness import TaskShares, is_fit, task_called
from .augmentation import NO_AUGMENTATION, Augmentation
from .hub_datasets import HubStream
from .mixture import available_tasks, matching, normalised
from .pairs import PairBatch, make_batch, step_generator
from .samples import Sample, SampleError, Source, cut, decode_sample, seed_of
from .tasks import get_task

if TYPE_CHECKING:
    from ..curation.cleaning import Verdict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crop:
    """What a worker hands over: the crops of one sample as `uint8` arrays `(3, size, size)`, or why there are none.

    Args:
        name: Of the sample.
        task: Of a pair.
        hq: The clean crop.
        lq: The degraded crop of a pair.
        error: Why the sample was skipped; then there are no crops.
        mark: Of a streamed source: the epoch and place after this sample.
    """

    name: str
    task: str | None = None
    hq: np.ndarray | None = None  # arrays travel through the pipe; a tensor would hold a file descriptor until it is used
    lq: np.ndarray | None = None
    error: str | None = None
    mark: tuple[int, int] | None = None


class CropStream:
    """Crops of a source, one after the other, for one of several training processes.

    At random access ([`Source`]) the order is one endless sequence: a seeded permutation an epoch, of which process `r` of `p` takes every
    `p`-th element from the `r`-th on. So every sample is seen once an epoch, by one process; the number of workers changes nothing, and
    the position, a single number, is all there is to remember. A streamed source ([`HubStream`]) is shared out among all workers of all
    processes, and each remembers its place.

    Positions count what was handed out, not what workers have read ahead, and count skipped samples too: a resumed stream goes on with
    exactly the crop that would have come next.

    Args:
        source: Where samples come from.
        size: Side of the crops.
        seed: Of the order and of the crops.
        process: Number of this process...
        processes: ...of so many.
        workers: Processes that decode. 0 decodes in this one.
        read_ahead: Crops that are prepared in advance, at least.
        uses: Of a streamed source: whether a sample of this name and task is wanted; left out, all are.
        numbers: Of a source at random access: the numbers of the wanted samples; left out, all are.
    """

    def __init__(
        self,
        source: Source | HubStream,
        size: int,
        *,
        seed: int = 0,
        process: int = 0,
        processes: int = 1,
        workers: int = 2,
        read_ahead: int = 16,
        uses: Callable[[str, str | None], bool] | None = None,
        numbers: Sequence[int] | None = None,
    ):
        self.process, self.processes, self.workers, self.read_ahead = process, processes, workers, read_ahead
        self.skipped: dict[str, str] = {}
        self.position = 0
        self.reader: _OrderedReader | _StreamReader
        self._failures, self._crops = 0, None
        if isinstance(source, Source):
            self.numbers = list(range(len(source)) if numbers is None else numbers)
            if not self.numbers:
                raise ValueError("None of the samples is of use: the cleaning manifest leaves nothing to learn from.")
            self.reader = _OrderedReader(source, size, seed)
            self.order = _Order(self.numbers, seed, process, processes)
        else:
            readers = max(1, workers)
            self.reader = _StreamReader(source, size, seed, process * readers, processes * readers, uses, [(0, 0)] * readers)

    def __iter__(self) -> Iterator[Crop]:
        return self

    def __next__(self) -> Crop:
        """The next crop. What cannot be used is skipped, named in the log once, and kept in `skipped` with the reason."""
        while True:
            if self._crops is None:
                self._crops = iter(self._loader())
            try:
                item: Crop = next(self._crops)
            except ValueError as error:  # a worker's traceback comes with it; its last line is the message
                raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error
            if isinstance(self.reader, _StreamReader) and item.mark is not None:
                self.reader.marks[self.position % len(self.reader.marks)] = item.mark
            self.position += 1
            if item.error is None:
                self._failures = 0
                return item
            if item.name not in self.skipped:
                self.skipped[item.name] = item.error
                logger.warning("Skipped %s: %s (%d so far)", item.name, item.error, len(self.skipped))
            self._failures += 1
            # A streamed source ends the same way in its reader, which alone knows when its epoch is over.
            if isinstance(self.reader, _OrderedReader) and self._failures > len(self.numbers):
                raise ValueError(f"None of the {len(self.numbers)} samples can be used; the last one: {item.name}: {item.error}.")

    def _loader(self) -> DataLoader:
        options: dict[str, Any] = {"batch_size": None, "num_workers": self.workers, "collate_fn": _as_is}
        options["generator"] = torch.Generator()  # the loader's own seed must not be drawn from the training's random numbers
        if self.workers:
            options["prefetch_factor"] = max(2, -(-self.read_ahead // self.workers))
        if isinstance(self.reader, _StreamReader):
            self.reader.turn = self.position % len(self.reader.marks)
            return DataLoader(self.reader, **options)
        self.order.start = self.position
        return DataLoader(self.reader, sampler=self.order, **options)

    def close(self) -> None:
        """Ends the workers; the next crop starts new ones where these were."""
        self._crops = None

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands, ready for JSON."""
        state: dict[str, Any] = {"position": self.position, "processes": self.processes}
        if isinstance(self.reader, _StreamReader):
            return {**state, "workers": len(self.reader.marks), "marks": [list(mark) for mark in self.reader.marks]}
        return {**state, "samples": len(self.numbers)}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Goes on where a run stood.

        With as many processes as then, every one goes on with exactly its next crop. With another number of processes, a source at random
        access goes on where the furthest of them was: no sample is seen twice in the epoch, and for every skipped one some may be missed.
        A streamed source is refused with another number of processes or workers.

        Args:
            states: What [`state_dict`] said in every process, by its number.
        """
        self.close()
        same = len(states) == self.processes
        if isinstance(self.reader, _StreamReader):
            readers = len(self.reader.marks)
            if not same or any(len(state.get("marks", ())) != readers for state in states):
                then = f"{len(states)} processes with {len(states[0].get('marks', ()))} workers each"
                raise ValueError(
                    f"A streamed data set goes on with as many processes and workers as it began with: {then}, "
                    f"got {self.processes} with {readers}."
                )
            self.position = int(states[self.process]["position"])
            self.reader.marks = [(int(epoch), int(place)) for epoch, place in states[self.process]["marks"]]
            return
        samples = {state.get("samples") for state in states}
        if samples != {len(self.numbers)}:
            raise ValueError(f"The checkpoint was made with {samples} samples, the data now hold {len(self.numbers)}: not the same data.")
        if same:
            self.position = int(states[self.process]["position"])
        else:
            done = max(int(state["position"]) for state in states) * len(states)
            self.position = -(-done // self.processes)


class _Order(Sampler[tuple[int, int]]):
    """The endless order of one process: places in the sequence of all processes, and the number of the sample there."""

    def __init__(self, numbers: list[int], seed: int, process: int, processes: int):
        self.numbers, self.seed, self.process, self.processes, self.start = numbers, seed, process, processes, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        shuffled, shuffled_epoch = [], -1
        for position in count(self.start):
            place = position * self.processes + self.process
            epoch, within = divmod(place, len(self.numbers))
            if epoch != shuffled_epoch:
                generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
                shuffled, shuffled_epoch = torch.randperm(len(self.numbers), generator=generator), epoch
            yield place, self.numbers[int(shuffled[within])]


class _OrderedReader(Dataset):
    """Cuts the sample of a number; the place in the sequence decides where."""

    def __init__(self, source: Source, size: int, seed: int):
        self.source, self.size, self.seed = source, size, seed

    def __getitem__(self, item: tuple[int, int]) -> Crop:
        place, number = item
        try:
            return _cut(self.source[number], self.size, seed_of(self.seed, 0, place))
        except SampleError as error:
            return Crop(error.name, error=error.reason)


class _StreamReader(IterableDataset):
    """Cuts what a streamed source brings to this worker; `marks` are the epoch and place where each of the process's workers goes on."""

    def __init__(
        self,
        source: HubStream,
        size: int,
        seed: int,
        first_slot: int,
        slots: int,
        uses: Callable[[str, str | None], bool] | None,
        marks: list[tuple[int, int]],
    ):
        self.source, self.size, self.seed, self.uses = source, size, seed, uses
        self.first_slot, self.slots, self.marks, self.turn = first_slot, slots, marks, 0

    def __iter__(self) -> Iterator[Crop]:
        worker = get_worker_info()
        # Workers take turns; after a restart the first of them takes the turn that comes next.
        number = ((worker.id if worker else 0) + self.turn) % len(self.marks)
        slot = self.first_slot + number
        epoch, start = self.marks[number]
        while True:
            usable, place, problem = start > 0, start, "it holds no sample"
            rows = self.source.read(self.seed, epoch, slot, self.slots)
            for place, (name, task, row) in enumerate(islice(rows, start, None), start + 1):
                if self.uses is not None and not self.uses(name, task):
                    continue
                try:
                    hq, lq = self.source.columns.files(row, name)
                    sample = decode_sample(name, hq, lq, task)
                    crop = _cut(sample, self.size, seed_of(self.seed, 1, slot, epoch, place), (epoch, place))
                    usable = True
                except (SampleError, OSError) as error:
                    problem = str(error)
                    crop = Crop(name, error=error.reason if isinstance(error, SampleError) else problem, mark=(epoch, place))
                yield crop
            if not usable:
                raise ValueError(f"Share {slot + 1} of {self.slots} of the streamed data set is of no use: {problem}. Try fewer workers.")
            epoch, start = epoch + 1, 0


def _cut(sample: Sample, size: int, seed: int, mark: tuple[int, int] | None = None) -> Crop:
    draws = torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist()
    hq, lq = cut(sample, size, draws)
    return Crop(sample.name, sample.task, np.ascontiguousarray(hq), None if lq is None else np.ascontiguousarray(lq), mark=mark)


def _as_is(item: Crop) -> Crop:
    return item


class PairStream:
    """Training pairs out of any source: crops from [`CropStream`]s, degraded on `device`.

    What [`~foundir_hf.data.pairs.PairSource`] is for samples in memory, with the same batches. But here photographs come in their order and
    each is then given a task that it is fit for, see [`~foundir_hf.curation.fitness.TaskShares`]; and of a source at random access the
    pairs of every task come in an order of their own. So shares may change at any time: every order goes on where it was, nothing is lost
    and nothing repeated within its epoch. Photographs that none of the tasks can use are left out. Batch number `step` depends on `seed`,
    on `step`, and on the positions of the streams.

    Args:
        source: Where samples come from.
        proportions, batch_size, crop_size, context_size, augmentation: As there. What pairs a streamed source
            ([`HubStream`]) brings is not known beforehand: they come as they come, with their own tasks, and `proportions` share out the
            clean photographs.
        seed: The same in all processes.
        device: Where batches are made.
        process, processes: See [`CropStream`].
        workers: Processes that decode, shared out among the streams; each has at least one, unless this is 0.
        verdicts: Of the cleaning manifest, by sample name.
    """

    def __init__(
        self,
        source: Source | HubStream,
        proportions: Mapping[str, float],
        batch_size: int,
        crop_size: int,
        context_size: int,
        seed: int = 0,
        *,
        device: torch.device | str = "cpu",
        process: int = 0,
        processes: int = 1,
        workers: int = 2,
        verdicts: Mapping[str, Verdict] | None = None,
        augmentation: Augmentation = NO_AUGMENTATION,
    ):
        if context_size < crop_size:
            raise ValueError(f"`context_size` must be at least `crop_size` {crop_size}, got {context_size}.")
        self.batch_size, self.crop_size, self.augmentation = batch_size, crop_size, augmentation
        self.seed, self.device, self.verdicts = seed, torch.device(device), verdicts or {}
        self.fixed_pairs = isinstance(source, HubStream) and bool(source.columns.lq)

        # Which samples each stream reads; `None` is the stream of clean photographs, or of everything where nothing is known beforehand.
        numbers: dict[str | None, list[int]] = {None: []}
        if isinstance(source, Source):
            for number in range(len(source)):
                numbers.setdefault(source.task(number), []).append(number)
            photographs = [source.name(number) for number in numbers[None]]
            pairs = {name: len(members) for name, members in numbers.items() if name is not None}
            shares = available_tasks(proportions, pairs, len(photographs))
        else:
            photographs, pairs, shares = None, {}, normalised({get_task(name).name: share for name, share in proportions.items()})
        synthetic = [name for name in shares if name not in pairs]
        # Of clean photographs, and of what a streamed source brings.
        self.tasks = None
        if synthetic:
            self.tasks = TaskShares(
                [get_task(name) for name in synthetic], [shares[name] for name in synthetic], self.verdicts, photographs or None
            )
        streams: list[str | None] = [*([None] if synthetic else []), *(name for name in shares if name in pairs)]
        self.streams = {
            name: CropStream(
                source,
                context_size,
                seed=seed if name is None else seed_of(seed, *name.encode()),
                process=process,
                processes=processes,
                workers=workers and max(1, workers // len(streams)),
                read_ahead=2 * batch_size,
                uses=self._uses,
                numbers=[i for i in numbers[name] if self._uses(source.name(i), name)] if isinstance(source, Source) else None,
            )
            for name in streams
        }
        self._share_out(shares)

    @property
    def skipped(self) -> dict[str, str]:
        """Samples that could not be used, and why."""
        return {name: reason for stream in self.streams.values() for name, reason in stream.skipped.items()}

    def set_proportions(self, proportions: Mapping[str, float]) -> None:
        """As in [`~foundir_hf.data.pairs.PairSource`]. A streamed source of pairs brings its tasks in its own order and is refused."""
        if self.fixed_pairs and proportions != self.proportions:
            raise ValueError(
                "The shares of a streamed data set of pairs cannot be changed: its tasks come as they come. Use hf:// instead."
            )
        self._share_out(matching(proportions, self.proportions))

    def _share_out(self, proportions: dict[str, float]) -> None:
        self.proportions = proportions
        synthetic = [share for name, share in self.proportions.items() if name not in self.streams]
        # Of each stream, the share of the samples that come from it.
        self.weights = torch.tensor(
            [sum(synthetic) if name is None else self.proportions[name] for name in self.streams], device=self.device
        )
        if self.tasks is not None and sum(synthetic) > 0:
            self.tasks.set_proportions(synthetic)

    def _uses(self, name: str, task: str | None) -> bool:
        """Whether a sample is ever of use: a pair if it is fit for its own task, a photograph if it is fit for any."""
        return is_fit(self.verdicts.get(name), task_called(task)) if task or self.tasks is None else self.tasks.uses(name)

    def generator(self, step: int) -> torch.Generator:
        """The random numbers of one step, see [`~foundir_hf.data.pairs.step_generator`]."""
        return step_generator(self.seed, step, self.device)

    def batch(self, generator: torch.Generator) -> PairBatch:
        """The next batch; its tasks and their damage are drawn from `generator`."""
        names = list(self.streams)
        drawn = [0] * self.batch_size
        if len(names) > 1:
            drawn = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=generator).tolist()
        crops = [self._next(names[number]) for number in drawn]
        hq = torch.stack([torch.from_numpy(crop.hq) for crop in crops]).to(self.device)
        lq = [None if crop.lq is None else torch.from_numpy(crop.lq).to(self.device) for crop in crops]
        clean = [crop.name for crop in crops if crop.lq is None]
        tasks = iter(self.tasks.draw(clean, generator) if self.tasks is not None and clean else [])
        return make_batch(hq, lq, [crop.task or next(tasks) for crop in crops], self.crop_size, generator, self.augmentation)

    def _next(self, stream: str | None) -> Crop:
        """The next crop of a stream; photographs that no task with a share can use wait for their next epoch."""
        while True:
            crop = next(self.streams[stream])
            if crop.lq is not None or self.tasks is None or self.tasks.wants(crop.name):
                return crop

    def state_dict(self) -> dict[str, Any]:
        """Where this process stands, ready for JSON. The shares are not part of it: whoever changes them keeps them."""
        return {name or "": stream.state_dict() for name, stream in self.streams.items()}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Goes on where a run stood, see [`CropStream.load_state_dict`]."""
        expected = {name or "" for name in self.streams}
        if any(state.keys() != expected for state in states):
            raise ValueError(
                f"The checkpoint was made with pairs of {sorted(states[0])}, the data now hold {sorted(expected)}: not the same data."
            )
        for name, stream in self.streams.items():
            stream.load_state_dict([state[name or ""] for state in states])

    def close(self) -> None:
        """Ends the workers."""
        for stream in self.streams.values():
            stream.close()
