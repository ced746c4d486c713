"""Checkpoints of a run: everything that its next step depends on, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from ..data.pairs import PairSource
from ..data.pool import PairPool
from ..data.stream import PairStream
from .config import StageConfig
from .equilibrium import TaskScheduler


@dataclass
class Progress:
    """Where a run stands.

    Args:
        stage: Number of the stage.
        step: Its finished steps.
        samples: Pairs learnt from in all stages.
        skipped: Updates that were skipped in all stages because a loss or gradient was not finite; `skipped_in_a_row` up to this step.
        loss: Smoothed.
        seconds: That the stage took so far, where it goes by the clock.
    """

    stage: int = 0
    step: int = 0
    samples: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss: float | None = None
    seconds: float = 0.0


def save_checkpoint(
    accelerator: Accelerator,
    output: Path,
    progress: Progress,
    source: PairSource | PairStream | PairPool,
    tasks: TaskScheduler,
    stage: StageConfig,
    keep: int = 2,
) -> None:
    """Writes `checkpoint-STAGE-STEP`; it gets that name when it is whole. Older ones than the last `keep` are removed.

    It holds the weights, the optimizer, its schedule, the averaged weights and the random numbers (accelerate's `save_state`), the place in
    the data, the tasks' shares and scores, the progress, and the stage's settings.
    """
    final = output / f"checkpoint-{progress.stage:02d}-{progress.step:08d}"
    unfinished = output / "checkpoint.unfinished"
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    positions = gather_object([source.state_dict()])
    if accelerator.is_main_process:
        state = {
            "data.json": positions,
            "equilibrium.json": tasks.state_dict(),
            "progress.json": asdict(progress),
            "stage.json": _plain(stage),
        }
        for name, content in state.items():
            (unfinished / name).write_text(json.dumps(content), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        for old in sorted(output.glob("checkpoint-*"))[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(
    accelerator: Accelerator,
    checkpoint: Path,
    source: PairSource | PairStream | PairPool,
    tasks: TaskScheduler,
    stage: StageConfig,
) -> None:
    """Brings everything that `accelerator` prepared, and the arguments, to where they were. The progress is read by [`read_progress`].

    Raises:
        ValueError: If the stage was begun with other settings: the run would be neither the one recipe nor the other.
    """
    begun, now = _read(checkpoint, "stage.json"), _plain(stage)
    if changed := [f"{name} {begun.get(name)!r} -> {now[name]!r}" for name in now if begun.get(name) != now[name]]:
        raise ValueError(
            f"Stage {stage.name!r} of {str(checkpoint)!r} was begun with other settings: {', '.join(changed)}. Go on with the recipe that "
            "it was begun with, or start into another run folder."
        )
    accelerator.load_state(str(checkpoint))
    source.load_state_dict(_read(checkpoint, "data.json"))
    tasks.load_state_dict(_read(checkpoint, "equilibrium.json"))
    source.set_proportions(tasks.proportions)


def read_progress(checkpoint: Path) -> Progress:
    """The progress that a checkpoint was written at."""
    return Progress(**_read(checkpoint, "progress.json"))


def find_checkpoint(output: Path, resume: str | Path = "latest") -> Path | None:
    """The checkpoint to go on from.

    Args:
        output: Run folder.
        resume: `"latest"` is its newest, or none if it has none. `"never"` is none, and refuses a folder that has some: they would be
            overwritten. Otherwise a checkpoint's own folder.

    Raises:
        ValueError: As said, and for a folder that is no checkpoint.
    """
    newest = max(output.glob("checkpoint-*"), default=None)
    if str(resume) == "latest":
        return newest
    if str(resume) == "never":
        if newest is not None:
            raise ValueError(f"`resume` 'never' wants a run folder without checkpoints; {str(output)!r} holds {newest.name}.")
        return None
    if not (Path(resume) / "progress.json").is_file():
        raise ValueError(f"`resume` must be 'latest', 'never' or a checkpoint's folder, got {str(resume)!r}.")
    return Path(resume)


def _plain(stage: StageConfig) -> dict[str, Any]:
    """A stage's settings as JSON has them."""
    return json.loads(json.dumps(asdict(stage)))


def _read(checkpoint: Path, name: str):
    try:
        return json.loads((checkpoint / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(checkpoint)!r} is no checkpoint that this version can go on from: {name}: {error}.") from error
