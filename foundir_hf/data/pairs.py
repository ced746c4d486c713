"""Training pairs made on the device: crops, a task for each, and its damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..curation.fitness import is_fit, task_called
from .augmentation import NO_AUGMENTATION, Augmentation
from .memory import InMemoryPhotographs
from .mixture import available_tasks, matching
from .samples import seed_of
from .tasks import TONE_DEFECTS, get_task

if TYPE_CHECKING:
    from ..curation.cleaning import Verdict


@dataclass
class PairBatch:
    """A batch of training pairs in [-1, 1].

    Args:
        hq: Clean crops, `(batch, 3, size, size)`.
        lq: The same crops, degraded.
        tasks: The name of each pair's task.
    """

    hq: torch.Tensor
    lq: torch.Tensor
    tasks: list[str]


def make_batch(
    hq: torch.Tensor,
    lq: Sequence[torch.Tensor | None],
    tasks: Sequence[str],
    crop_size: int,
    generator: torch.Generator,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> PairBatch:
    """Degrades crops by their tasks, unless they bring their LQ, and cuts the training crops out of them.

    Args:
        hq: Clean surroundings, `uint8`, `(batch, 3, context, context)`, on the generator's device.
        lq: The same degraded, or `None` for those to be degraded by the task of the same number.
        tasks: Of each image; names of the task table where `lq` is `None`.
        crop_size: Side of the training crops.
        generator: Of everything random.
        augmentation: Of clean crops; pairs stay as they are.
    """
    clean = hq.float() / 255
    alone = [i for i, given in enumerate(lq) if given is None]
    if alone:
        mends_tones = [bool(TONE_DEFECTS.intersection(get_task(tasks[i]).removes)) for i in alone]
        clean[alone] = augmentation(clean[alone], generator, torch.tensor(mends_tones, device=clean.device))
    degraded = torch.empty_like(clean)
    for i, given in enumerate(lq):
        if given is not None:
            degraded[i] = given.float() / 255
    drawn = [name if given is None else None for given, name in zip(lq, tasks, strict=True)]
    for name in sorted({name for name in drawn if name is not None}):  # images of the same task are degraded together
        members = [i for i, task in enumerate(drawn) if task == name]
        degraded[members] = get_task(name).degrade(clean[members], generator)
    degraded = (degraded * 255).round() / 255  # a file has 8 bits

    # The JPEG grid starts anywhere in a crop, as it does in a cropped photograph.
    room = clean.shape[-1] - crop_size + 1
    top, left = torch.randint(room, (2,), generator=generator, device=clean.device).tolist()
    window = (..., slice(top, top + crop_size), slice(left, left + crop_size))
    return PairBatch(clean[window] * 2 - 1, degraded[window] * 2 - 1, list(tasks))


def step_generator(seed: int, step: int, device: torch.device | str) -> torch.Generator:
    """The random numbers of one step; the objective goes on drawing from it after the batch is made."""
    # A large odd factor keeps the streams of neighbouring seeds apart.
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)


def reference_pairs(
    photos: InMemoryPhotographs, tasks: Iterable[str], count: int, size: int, verdicts: Mapping[str, Verdict] | None = None
) -> dict[str, PairBatch]:
    """Fixed pairs to measure with (D_ref of FoundIR-v2: ten a task): for each task the same ones in every run, whatever the other tasks.

    Args:
        photos: Held-out samples. Pairs serve their own task, whether it is among `tasks` or not.
        tasks: What clean photographs are degraded by.
        count: Pairs a task; fewer if there are not so many samples. None is taken twice.
        size: Side of the crops, one of each sample, in pixels.
        verdicts: Of the cleaning manifest, by sample name.

    Returns:
        By task; tasks that no sample serves are missing.
    """
    pairs = dict.fromkeys(sample.task for sample in photos.samples if sample.task is not None)
    found = {}
    for name in dict.fromkeys([*tasks, *pairs]):
        generator = torch.Generator(photos.device).manual_seed(seed_of(*name.encode()))
        members = _members(photos, name, name in pairs, verdicts or {})
        order = torch.randperm(len(members), generator=generator, device=photos.device).tolist()
        if which := [members[number] for number in order[:count]]:
            hq, lq = photos.crops(which, size, generator)
            found[name] = make_batch(hq, lq, [name] * len(which), size, generator)
    return found


def _members(photos: InMemoryPhotographs, task: str, paired: bool, verdicts: Mapping[str, Verdict]) -> list[int]:
    """Numbers of the samples that serve a task: its pairs, or the clean photographs that are fit for it."""
    own, row = task if paired else None, task_called(task)
    return [i for i, sample in enumerate(photos.samples) if sample.task == own and is_fit(verdicts.get(sample.name), row)]


class PairSource:
    """Draws pairs from memory; batch number `step` depends on `seed` and `step` alone, so that an interrupted run goes on where it was.

    The task is drawn first, then one of the samples that serve it: pairs of that task, or photographs that are fit to be degraded by it.

    Args:
        photos: The samples.
        proportions: Share of each task, by name, see [`~foundir_hf.data.mixture.available_tasks`]; may change, see [`set_proportions`].
        batch_size: Pairs a batch.
        crop_size: Side of the crops.
        context_size: Side of the surroundings that are degraded together with the crop: streaks and blur come in from outside.
        seed: Of the whole stream.
        verdicts: Of the cleaning manifest, by sample name.
        augmentation: See [`make_batch`].
        together: So many neighbours in a batch share their task, and are degraded at once: pairs cost less, and batches are less mixed.
    """

    def __init__(
        self,
        photos: InMemoryPhotographs,
        proportions: Mapping[str, float],
        batch_size: int,
        crop_size: int,
        context_size: int,
        seed: int = 0,
        verdicts: Mapping[str, Verdict] | None = None,
        augmentation: Augmentation = NO_AUGMENTATION,
        together: int = 1,
    ):
        if context_size < crop_size:
            raise ValueError(f"`context_size` must be at least `crop_size` {crop_size}, got {context_size}.")
        if batch_size % together:
            raise ValueError(f"`together` must divide `batch_size` {batch_size}, got {together}.")
        self.photos, self.together = photos, together
        self.batch_size, self.crop_size, self.context_size = batch_size, crop_size, context_size
        self.seed, self.augmentation = seed, augmentation
        pairs = Counter(sample.task for sample in photos.samples if sample.task is not None)
        shares = available_tasks(proportions, pairs, sum(sample.lq is None for sample in photos.samples))
        self.members = {name: _members(photos, name, name in pairs, verdicts or {}) for name in shares}
        self.set_proportions(shares)

    def set_proportions(self, proportions: Mapping[str, float]) -> None:
        """From the next batch on the tasks have these shares; normalised here.

        Raises:
            ValueError: If they are not shares of the tasks that the data serve, or of a task that nothing is fit for.
        """
        self.proportions = matching(proportions, self.members)
        idle = [name for name, share in self.proportions.items() if share > 0 and not self.members[name]]
        if idle:
            raise ValueError(f"No photograph is fit for {', '.join(idle)}: the cleaning manifest leaves nothing to learn from.")
        self.weights = torch.tensor(list(self.proportions.values()), dtype=torch.float, device=self.photos.device)

    def generator(self, step: int) -> torch.Generator:
        """The random numbers of one step, see [`step_generator`]."""
        return step_generator(self.seed, step, self.photos.device)

    def batch(self, generator: torch.Generator) -> PairBatch:
        """One batch, drawn from `generator`."""
        device = self.photos.device
        drawn = torch.multinomial(self.weights, self.batch_size // self.together, replacement=True, generator=generator)
        drawn = drawn.repeat_interleave(self.together).tolist()
        draws = torch.rand(self.batch_size, generator=generator, device=device).tolist()
        names = list(self.members)
        tasks = [names[number] for number in drawn]
        which = [self.members[task][int(draw * len(self.members[task]))] for task, draw in zip(tasks, draws, strict=True)]
        hq, lq = self.photos.crops(which, self.context_size, generator)
        return make_batch(hq, lq, tasks, self.crop_size, generator, self.augmentation)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: batches follow from their numbers."""
        return {}

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to do, see [`state_dict`]."""

    def close(self) -> None:
        """Nothing to end."""
