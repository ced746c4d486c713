"""The mixture of tasks (FoundIR-v2, Eq. 1): which tasks a source can serve, and how large the share of each is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from .tasks import get_task

logger = logging.getLogger(__name__)


def normalised(proportions: Mapping[str, float]) -> dict[str, float]:
    """The same shares, summing to one. Raises `ValueError` for negative ones and if all are 0."""
    if any(not share >= 0 for share in proportions.values()) or not 0 < sum(proportions.values()) < float("inf"):  # NaN is neither
        raise ValueError(f"`proportions` must be at least 0 and not all 0, got {dict(proportions)}.")
    total = sum(proportions.values())
    return {name: share / total for name, share in proportions.items()}


def matching(proportions: Mapping[str, float], tasks: Iterable[str]) -> dict[str, float]:
    """New shares of the same `tasks`, in their order and summing to one. Raises `ValueError` if they are of others."""
    if proportions.keys() != (names := dict.fromkeys(tasks)).keys():
        raise ValueError(f"`proportions` must be of the tasks {', '.join(names)}; got {', '.join(proportions) or 'none'}.")
    return normalised({name: proportions[name] for name in names})


def available_tasks(proportions: Mapping[str, float], pairs: Mapping[str, int], photographs: int) -> dict[str, float]:
    """The tasks that data can serve and their shares, summing to one.

    A name of the task table is served by degrading clean photographs; a name that pairs bring, by those pairs, which then stand for that
    task alone. If `proportions` name none of the tasks that pairs bring, the pairs join: every sample counts the same, whether it is a pair
    or a clean photograph, and the named tasks share what the photographs have. If they name some, pairs of other tasks are left out.
    Tasks without data are left out too. Whatever is left out is named in the log.

    Args:
        proportions: Share of each task, by name.
        pairs: Of each task that pairs bring, how many there are.
        photographs: How many clean ones.

    Raises:
        ValueError: For a name that is neither of the task table nor of the pairs; for shares that are none.
    """
    shares = normalised({name: share for name, share in proportions.items() if name in pairs or get_task(name)})
    if not any(name in pairs for name in shares):
        samples = photographs + sum(pairs.values())
        shares = {name: share * photographs / samples for name, share in shares.items()}
        shares |= {name: count / samples for name, count in pairs.items()}
    left_out = sorted(pairs.keys() - shares.keys())
    if left_out:
        logger.warning("Pairs of these tasks are not used, the recipe does not name them: %s", ", ".join(left_out))
    idle = sorted(name for name in shares if name not in pairs and not photographs)
    if idle:
        logger.info("No clean photographs to degrade: without %s", ", ".join(idle))
    return normalised({name: share for name, share in shares.items() if name not in idle})
