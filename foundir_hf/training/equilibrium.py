"""Shares of tasks: data equilibrium scheduling (FoundIR-v2, Eq. 1 and 3) and the strategies that it is compared with.

All of them say, at any step of a stage, the share of each task; whoever draws the data follows. Data equilibrium scheduling looks at how
the scores of a small reference set change; the others follow a plan.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..data.mixture import normalised
from ..io.yaml_files import STRICT_KEYS

Strategy = Literal["mixing", "sequential", "incremental", "des", "replay"]
Limit = Literal["points", "relative"]


@dataclass(frozen=True)
class EquilibriumConfig:
    """How the shares of a stage's tasks change while it runs.

    Args:
        strategy: `"mixing"` keeps the recipe's shares. `"sequential"` trains one task after the other, `"incremental"` (FoundIR, ICCV 2025)
            adds one after the other to those before; both in the recipe's order. `"des"` is data equilibrium scheduling. `"replay"` repeats
            the shares of another run, stretched or shrunk to this stage's steps: the paper records them on a small model for a large one.
        interval: T of Eq. 3, in updates; the paper has 30,000 of 150,000.
        alpha: Of Eq. 3, for scores in decibels.
        min_change, max_change: The largest change of a share in one round; the paper keeps it between 5 % and 10 %.
        limit: What these are of: `"points"`, 0.1 lets a share of 25 % become 35 %; `"relative"`, 27.5 %. The paper does not say, but its
            Table 2 has a share go from 25 % to 45 % in four rounds, which takes points: four times 10 % of itself makes 37 %.
        floor: No share falls below.
        metrics: Of tasks that are not to be judged by PSNR, the metric; the paper takes MUSIQ for super-resolution. See
            [`~foundir_hf.training.validation.metric_scales`] for how they are compared.
        history: Of `"replay"`: the `equilibrium-STAGE.json` of a run.
    """

    strategy: Strategy = "mixing"
    interval: int = 30_000
    alpha: float = 1.0
    min_change: float = 0.0
    max_change: float = 0.1
    limit: Limit = "points"
    floor: float = 0.01
    metrics: Mapping[str, str] = field(default_factory=dict)
    history: str | None = None

    __pydantic_config__ = STRICT_KEYS

    def __post_init__(self):
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"`strategy` must be one of {', '.join(get_args(Strategy))}; got {self.strategy!r}.")
        if (self.strategy == "replay") != (self.history is not None):
            raise ValueError(f"`history` is what `replay` repeats and no other strategy takes; got {self.history!r} for {self.strategy!r}.")
        _check(self.interval, self.alpha, self.min_change, self.max_change, self.limit, self.floor)


def rebalance(
    proportions: Sequence[float],
    changes: Sequence[float],
    *,
    alpha: float = 1.0,
    min_change: float = 0.0,
    max_change: float = 0.1,
    limit: Limit = "points",
    floor: float = 0.0,
) -> list[float]:
    """One round of Eq. 3: shares move towards `lambda_j exp(-alpha ds_j)`, normalised; what has improved least grows most.

    The step is shortened by one factor for all tasks, so that the largest change of a share is `max_change` and the sum stays one: clipping
    every share and normalising afterwards would break the limit. `min_change` lengthens it in the same way.

    Args:
        proportions: lambda, the shares; positive, summing to one.
        changes: ds, the change of each task's score since the last round; higher scores are better.
        alpha: How strongly a change of one counts.
        min_change, max_change: Limits of the largest change. Where no score moved differently from the others, nothing changes.
        limit: Whether these are differences of shares (`"points"`) or parts of each share (`"relative"`).
        floor: Shares are not led below; must not be above any of `proportions`.

    Returns:
        The new shares, in the same order.
    """
    if len(proportions) != len(changes) or not all(math.isfinite(change) for change in changes):
        raise ValueError(f"`changes` must be {len(proportions)} finite numbers, got {list(changes)}.")
    if not all(share > 0 for share in proportions) or not math.isclose(sum(proportions), 1, abs_tol=1e-6):
        raise ValueError(f"`proportions` must be positive and sum to one, got {list(proportions)}.")
    least = min(alpha * change for change in changes)  # the exponential of a difference cannot overflow
    weights = [share * math.exp(least - alpha * change) for share, change in zip(proportions, changes, strict=True)]
    target = _raised_to([weight / sum(weights) for weight in weights], floor)
    largest = max(abs(aim - share) / (share if limit == "relative" else 1) for aim, share in zip(target, proportions, strict=True))
    if largest < 1e-12:
        return list(proportions)
    factor = min(max_change, max(min_change, largest)) / largest
    if factor > 1:  # a longer step than Eq. 3's may not pass the floor either
        room = [(share - floor) / (share - aim) for aim, share in zip(target, proportions, strict=True) if aim < share]
        factor = max(1.0, min([factor, *room]))
    moved = [share + factor * (aim - share) for aim, share in zip(target, proportions, strict=True)]
    return [share / sum(moved) for share in moved]  # the sum is one already, but for rounding


def _raised_to(shares: Sequence[float], floor: float) -> list[float]:
    """The shares with none below `floor`; those above give what is needed, in proportion."""
    low: set[int] = set()
    while True:
        rest = sum(share for i, share in enumerate(shares) if i not in low)
        raised = [floor if i in low else share * (1 - floor * len(low)) / rest for i, share in enumerate(shares)]
        below = {i for i, share in enumerate(raised) if share < floor} - low
        if not below:
            return raised
        low |= below


def _check(interval: int, alpha: float, min_change: float, max_change: float, limit: str, floor: float) -> None:
    if interval < 1:
        raise ValueError(f"`interval` must be at least 1 update, got {interval}.")
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"`alpha` must be a positive number, got {alpha}.")
    if not 0 <= min_change <= max_change < 1 or max_change == 0:
        raise ValueError(
            "`min_change` and `max_change` must satisfy 0 <= min_change <= max_change < 1 and max_change > 0, "
            f"got {min_change} and {max_change}."
        )
    if limit not in get_args(Limit):
        raise ValueError(f"`limit` must be one of {', '.join(get_args(Limit))}; got {limit!r}.")
    if not 0 <= floor < 1:
        raise ValueError(f"`floor` must be in [0, 1), got {floor}.")


class TaskScheduler(ABC):
    """The share of each task at every step of a stage.

    Args:
        proportions: At the beginning, by task; normalised here.
        steps: Updates of the stage.
    """

    needs_scores = False

    def __init__(self, proportions: Mapping[str, float], steps: int):
        self.proportions, self.steps = normalised(proportions), steps
        self.rounds: list[dict[str, Any]] = []
        self.scales: dict[str, float] = {}  # of the scores, see `validation.metric_scales`; set at the first round

    @abstractmethod
    def due(self, step: int) -> bool:
        """Whether [`update`] is to be called before update number `step`."""

    @abstractmethod
    def update(self, step: int, scores: Mapping[str, float] | None = None) -> dict[str, float]:
        """Goes to the shares from update number `step` on; `scores`, higher is better, are wanted if `needs_scores`."""

    def _record(self, step: int, scores: Mapping[str, float] | None) -> dict[str, float]:
        self.rounds.append({"step": step, "proportions": dict(self.proportions), **({"scores": dict(scores)} if scores else {})})
        return self.proportions

    @property
    def history(self) -> dict[str, Any]:
        """What `"replay"` takes, ready for JSON: the stage's steps, and of each round its step, the shares from there on and the scores."""
        return {"steps": self.steps, "rounds": self.rounds}

    def state_dict(self) -> dict[str, Any]:
        """All there is to remember, ready for JSON."""
        return {"proportions": self.proportions, "rounds": self.rounds, "scales": self.scales}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where a run stood. Raises `ValueError` if that run had other tasks."""
        if state["proportions"].keys() != self.proportions.keys():
            raise ValueError(f"The checkpoint has the tasks {', '.join(state['proportions'])}; the run has {', '.join(self.proportions)}.")
        self.proportions, self.rounds, self.scales = dict(state["proportions"]), list(state["rounds"]), dict(state["scales"])


class PlannedScheduler(TaskScheduler):
    """Shares that are known beforehand.

    Args:
        plan: By the step from which on they hold; 0 is among them. All of the same tasks.
        steps: Updates of the stage.
    """

    def __init__(self, plan: Mapping[int, Mapping[str, float]], steps: int):
        self.plan = {step: normalised(plan[step]) for step in sorted(plan)}
        if 0 not in self.plan or any(shares.keys() != self.plan[0].keys() for shares in self.plan.values()):
            raise ValueError(f"`plan` must begin at step 0 and keep to the same tasks, got steps {list(self.plan)}.")
        super().__init__(self.plan[0], steps)

    def due(self, step: int) -> bool:
        return step in self.plan

    def update(self, step: int, scores: Mapping[str, float] | None = None) -> dict[str, float]:
        self.proportions = self.plan[max(start for start in self.plan if start <= step)]
        return self._record(step, scores)


class DataEquilibriumScheduler(TaskScheduler):
    """Re-balances the tasks every `interval` updates by what the model has lately learnt, see [`rebalance`].

    A task whose score has risen less than the others' gets a larger share, one that has risen more a smaller. Scores must be comparable:
    decibels, or other metrics on their scale. The first call of [`update`] only remembers them.

    Args:
        proportions: At the beginning, by task; normalised here. The paper begins with equal ones.
        steps: Updates of the stage.
        interval, alpha, min_change, max_change, limit, floor: See [`EquilibriumConfig`].
    """

    needs_scores = True

    def __init__(
        self,
        proportions: Mapping[str, float],
        steps: int,
        interval: int = 30_000,
        *,
        alpha: float = 1.0,
        min_change: float = 0.0,
        max_change: float = 0.1,
        limit: Limit = "points",
        floor: float = 0.01,
    ):
        super().__init__(proportions, steps)
        _check(interval, alpha, min_change, max_change, limit, floor)
        self.interval, self.alpha, self.floor = interval, alpha, floor
        self.min_change, self.max_change, self.limit = min_change, max_change, limit
        if min(self.proportions.values()) < max(floor, 1e-9):
            raise ValueError(f"`proportions` must all be positive and at least `floor` {floor}, got {self.proportions}.")

    def due(self, step: int) -> bool:
        return step % self.interval == 0

    def update(self, step: int, scores: Mapping[str, float] | None = None) -> dict[str, float]:
        if scores is None or (missing := [name for name in self.proportions if not math.isfinite(scores.get(name, math.nan))]):
            raise ValueError(f"`scores` must be a number for each task, got none for {', '.join(missing if scores else self.proportions)}.")
        if self.rounds:
            before = self.rounds[-1]["scores"]
            shares = rebalance(
                list(self.proportions.values()),
                [scores[name] - before[name] for name in self.proportions],
                alpha=self.alpha,
                min_change=self.min_change,
                max_change=self.max_change,
                limit=self.limit,
                floor=self.floor,
            )
            self.proportions = dict(zip(self.proportions, shares, strict=True))
        return self._record(step, {name: scores[name] for name in self.proportions})


def build_task_scheduler(config: EquilibriumConfig, proportions: Mapping[str, float], steps: int) -> TaskScheduler:
    """The scheduler that a configuration names, for a stage of so many steps and these tasks.

    Raises:
        ValueError: For a history that cannot be read or is of other tasks.
    """
    if config.strategy == "des":
        limits = {"min_change": config.min_change, "max_change": config.max_change, "limit": config.limit, "floor": config.floor}
        return DataEquilibriumScheduler(proportions, steps, config.interval, alpha=config.alpha, **limits)
    plans = {"mixing": _mixing, "sequential": _sequential, "incremental": _incremental}
    plan = _replay(config.history or "", proportions, steps) if config.strategy == "replay" else plans[config.strategy](proportions, steps)
    return PlannedScheduler(plan, steps)


def _mixing(proportions: Mapping[str, float], steps: int) -> dict[int, dict[str, float]]:
    return {0: dict(proportions)}


def _starts(proportions: Mapping[str, float], steps: int) -> list[int]:
    """When each task's part of the stage begins; a part is as long as the task's share is large."""
    shares, starts = normalised(proportions), [0]
    for share in shares.values():
        starts.append(starts[-1] + round(share * steps))
    return starts[:-1]


def _sequential(proportions: Mapping[str, float], steps: int) -> dict[int, dict[str, float]]:
    return {
        start: {name: float(name == current) for name in proportions}
        for start, current in zip(_starts(proportions, steps), proportions, strict=True)
    }


def _incremental(proportions: Mapping[str, float], steps: int) -> dict[int, dict[str, float]]:
    names = list(proportions)
    return {
        start: {name: share * (position <= current) for position, (name, share) in enumerate(proportions.items())}
        for current, start in zip(range(len(names)), _starts(proportions, steps), strict=True)
    }


def _replay(path: str, proportions: Mapping[str, float], steps: int) -> dict[int, dict[str, float]]:
    try:
        history = json.loads(Path(path).read_text(encoding="utf-8"))
        plan = {round(row["step"] * steps / history["steps"]): row["proportions"] for row in history["rounds"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"`history` must be the equilibrium.json of a run, got {path!r}: {error}.") from error
    if not plan or any(shares.keys() != proportions.keys() for shares in plan.values()):
        told = ", ".join(next(iter(plan.values()))) if plan else "none"
        raise ValueError(f"`history` {path!r} is of the tasks {told}; the stage has {', '.join(proportions)}.")
    return plan
