"""Which photograph may be the target of which task, and how tasks are shared out over photographs of which some are unfit for some.

A foggy forest teaches dehazing to leave fog; for denoising it is as good as any. The cleaning manifest names the defects, the task table
what each task removes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ..data.tasks import TASKS, Task

if TYPE_CHECKING:
    from .cleaning import Verdict


def is_fit(verdict: Verdict | None, task: Task | None) -> bool:
    """Whether a photograph may be a target of a task: not dropped, and without a defect that the task removes. No verdict, no objection."""
    return verdict is None or not (verdict.dropped or (task is not None and set(verdict.defects) & set(task.removes)))


class TaskShares:
    """Draws tasks for photographs that come in any order, so that every photograph is used and no task gets one that is unfit for it.

    Photographs are grouped by the set of tasks they are fit for. The table of probabilities (group x task) has zeros where a photograph is
    unfit; the rest is scaled in turn to the size of every group and to the proportion of every task (iterative proportional fitting, Deming
    and Stephan, Ann. Math. Statist. 1940). So tasks keep their proportions exactly, in expectation, wherever that is possible: the
    photographs that may not be dehazed serve the other tasks more often, the others dehazing. Where it is not possible (all photographs
    foggy but one), every photograph is still used and the proportions are as near as the zeros allow.

    Args:
        tasks: In the order of the draws' numbers.
        proportions: Of each task; may change, see [`set_proportions`].
        verdicts: Of the cleaning manifest, by sample name.
        names: The samples' names, as far as they are known beforehand; `None` takes those of `verdicts`.
    """

    def __init__(self, tasks: Sequence[Task], proportions: Sequence[float], verdicts: Mapping[str, Verdict], names: Sequence[str] | None):
        self.tasks, self.verdicts = tasks, verdicts
        self.sizes: dict[tuple[bool, ...], int] = {}
        for name in verdicts if names is None else names:
            group = self._group(name)
            self.sizes[group] = self.sizes.get(group, 0) + 1
        if names is None:
            self.sizes.setdefault((True,) * len(self.tasks), 1)  # for samples that the manifest does not know
        self.set_proportions(proportions)

    def set_proportions(self, proportions: Sequence[float]) -> None:
        """Shares the tasks out anew; normalised here. Raises `ValueError` if a task with a share has no photograph fit for it."""
        shares = torch.tensor(proportions, dtype=torch.float64)
        if not bool((shares >= 0).all() and shares.sum() > 0):
            raise ValueError(f"`proportions` must be at least 0 and not all 0, got {list(proportions)}.")
        asked = shares > 0
        # A photograph that is unfit for all tasks with a share has no row: for now it is not wanted.
        groups = [group for group in self.sizes if any(fit and share for fit, share in zip(group, asked.tolist(), strict=True))]
        fit = torch.tensor(groups, dtype=torch.float64).reshape(-1, len(self.tasks)) * asked
        idle = [task.name for task, share, used in zip(self.tasks, asked.tolist(), fit.sum(0).tolist(), strict=True) if share and not used]
        if idle:
            raise ValueError(f"No photograph is fit for {', '.join(idle)}: the cleaning manifest leaves nothing to learn from.")
        sizes = torch.tensor([self.sizes[group] for group in groups], dtype=torch.float64)
        self.weights = dict(zip(groups, _fit_margins(fit, sizes / sizes.sum(), shares / shares.sum()).float(), strict=True))

    def _group(self, name: str) -> tuple[bool, ...]:
        verdict = self.verdicts.get(name)
        return tuple(is_fit(verdict, task) for task in self.tasks)

    def uses(self, name: str) -> bool:
        """Whether a photograph is ever of use: fit for any of these tasks."""
        return any(self._group(name))

    def wants(self, name: str) -> bool:
        """Whether a photograph is of use now: fit for a task that has a share."""
        return self._group(name) in self.weights

    def draw(self, names: Sequence[str], generator: torch.Generator) -> list[str]:
        """A task for each photograph, by name; every one of them must be wanted."""
        weights = torch.stack([self.weights[self._group(name)] for name in names]).to(generator.device)
        return [self.tasks[i].name for i in torch.multinomial(weights, 1, generator=generator)[:, 0].tolist()]


def task_called(name: str | None) -> Task | None:
    """The row of the task table called `name`; `None` for tasks that only their data set knows."""
    return TASKS.get(name) if name is not None else None


def _fit_margins(table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Scales a table (1 allowed, 0 not) until its margins are `rows` and `columns`; rows end exact. Returns every row as probabilities."""
    table = table * columns
    for _ in range(1000):
        table = table * (rows / table.sum(1))[:, None]
        sums = table.sum(0)
        if torch.allclose(sums, columns, rtol=1e-6, atol=0):
            break
        # Columns without a share, and those that infeasible margins have driven to nothing, stay there.
        table = table * (columns / sums.clamp(min=1e-12))
    return table / table.sum(1, keepdim=True)
