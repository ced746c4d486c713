"""From scores to means: by family, by task, with intervals that say how far the choice of photographs matters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .benchmark import INPUT, RESTORED, Score

RESAMPLES = 2000


def bootstrap_interval(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile interval of the mean (Efron & Tibshirani, 1993, chapter 13), from 2000 seeded resamples of photographs.

    Args:
        values: One number per measurement, say gains: input and output of an image stay together.
        clusters: The photograph behind each: several kinds of damage of one photograph are no independent measurements.

    Returns:
        Lower and upper end; `None` for fewer than two photographs.
    """
    names = list(dict.fromkeys(clusters))
    if len(names) < 2:
        return None
    index = np.array([names.index(name) for name in clusters])
    sums, counts = np.bincount(index, weights=np.asarray(values)), np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _mean(values: Iterable[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(finite)) if finite else None


def _gain(members: list[Score], method: str, seed: int) -> dict[str, Any]:
    """Mean PSNR gain of a method over the input with its interval, over the images where both are finite."""
    pairs = []
    for score in members:
        before, after = score.methods[INPUT].get("psnr"), score.methods.get(method, {}).get("psnr")
        if before is not None and after is not None and math.isfinite(before) and math.isfinite(after):
            pairs.append((after - before, f"{score.set}/{score.image}"))
    if not pairs:
        return {"gain": None, "interval": None}
    gains, clusters = zip(*pairs, strict=True)
    interval = bootstrap_interval(gains, clusters, seed)
    return {"gain": float(np.mean(gains)), "interval": None if interval is None else list(interval)}


def summarise(scores: Sequence[Score], key: str = "family", seed: int = 0) -> list[dict[str, Any]]:
    """Means by family (or `"task"`), in order of appearance.

    Args:
        scores: Of [`~foundir_hf.evaluation.benchmark.measure`].
        key: `"family"` or `"task"`; tasks of one name in several sets are told apart as `SET/TASK`.
        seed: Of the bootstrap.

    Returns:
        Rows with `images`; `psnr_input`, `psnr_output`, `gain` and its `interval`, over the images where both are finite (an input that
        equals its truth has nothing to gain: then `psnr_output` is over all); `best_baseline` (name, PSNR, gain, interval) among
        those run on every image; `baselines`, all their names; `identical`, the number of images by method that equal their truth; and
        `methods`, every metric's mean by method over its finite values, and gains.
    """
    sets = {score.task: {s.set for s in scores if s.task == score.task} for score in scores}

    def label(score: Score) -> str:
        return f"{score.set}/{score.task}" if key == "task" and len(sets[score.task]) > 1 else getattr(score, key)

    rows = []
    for group in dict.fromkeys(map(label, scores)):
        members = [score for score in scores if label(score) == group]
        names = list(dict.fromkeys(name for score in members for name in score.methods))
        both = [s for s in members if _finite(s.methods[INPUT].get("psnr")) and _finite(s.methods.get(RESTORED, {}).get("psnr"))]
        methods: dict[str, dict[str, Any]] = {}
        for name in names:
            metrics = dict.fromkeys(metric for s in members for metric in s.methods.get(name, {}))
            methods[name] = {metric: _mean(s.methods.get(name, {}).get(metric) for s in members) for metric in metrics}
            if name != INPUT:
                methods[name] |= _gain(members, name, seed)
        everywhere = [name for name in names if all(name in score.baselines for score in members)]
        best = max((name for name in everywhere if methods[name].get("psnr") is not None), key=lambda n: methods[n]["psnr"], default=None)
        identical = {n: sum(s.methods.get(n, {}).get("psnr") == math.inf for s in members) for n in names}
        psnr_input = _mean(s.methods[INPUT].get("psnr") for s in (both or members))
        rows.append(
            {
                key: group,
                "images": len(members),
                "psnr_input": psnr_input,
                "psnr_output": _mean(s.methods.get(RESTORED, {}).get("psnr") for s in (both or members)),
                **_gain(members, RESTORED, seed),
                "best_baseline": None if best is None else {"name": best, **{k: methods[best][k] for k in ("psnr", "gain", "interval")}},
                "baselines": list(dict.fromkeys(name for score in members for name in score.baselines)),
                "identical": {name: count for name, count in identical.items() if count},
                "methods": methods,
            }
        )
    return rows
