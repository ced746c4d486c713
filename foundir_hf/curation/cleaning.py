"""Ground-truth cleaning: what each photograph is no target for, by rules over its scores. It reads photographs and touches none.

A photograph is *dropped* if no task can use it (flat, tiny, not decodable, a near-duplicate). Otherwise it has *defects*, and a task that
removes one of them must not take the photograph as its target: a foggy forest teaches dehazing to leave fog, and is a fine target for
denoising.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.samples import SampleError, decode_file, sample_file
from ..io.decoder import Decoder
from ..io.files import write_whole
from ..io.limits import DEFAULT_LIMITS, Limits
from ..io.yaml_files import STRICT_KEYS, read_yaml
from .duplicates import fingerprint, nearest_earlier
from .quality import SCORES, score_photo

DEFECTS = ("noise", "blur", "low_resolution", "compression", "darkness", "overexposure", "color", "haze")
DROP = "drop"
# The one score that needs the other photographs: see [`nearest_earlier`].
NEAREST = "nearest"
DEFAULT_RULES = Path(__file__).with_name("cleaning.yaml")
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one photograph.

    Args:
        dropped: No task may use it.
        defects: What it suffers from, names of [`DEFECTS`], each once, in that order.
        reasons: One sentence for each rule that matched.
        scores: What the rules looked at, by name; empty if the file could not be decoded.
    """

    dropped: bool
    defects: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """A threshold on a score.

    Args:
        score: A name of [`SCORES`], `nearest` (bits of 256 that differ from the most similar earlier photograph) or an IQA model's.
        verdict: A name of [`DEFECTS`], or `drop`.
        reason: What is wrong with such a photograph, in a few words.
        above: The rule matches scores above it...
        below: ...or below it. Exactly one of the two.
    """

    score: str
    verdict: str
    reason: str
    above: float | None = None
    below: float | None = None

    __pydantic_config__ = STRICT_KEYS

    def __post_init__(self):
        if not (isinstance(self.score, str) and self.score and isinstance(self.reason, str) and self.reason):
            raise ValueError(f"`score` and `reason` must be text, got {self.score!r} and {self.reason!r}.")
        if self.verdict not in (*DEFECTS, DROP):
            raise ValueError(f"`verdict` must be one of {', '.join((*DEFECTS, DROP))}; got {self.verdict!r}.")
        given = [limit for limit in (self.above, self.below) if limit is not None]
        # Compared, not converted: YAML has whole numbers that no float can hold.
        number = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= sys.float_info.max]
        if len(given) != 1 or not number:
            raise ValueError(f"exactly one of `above` and `below` must be a number, got {self.above!r:.80} and {self.below!r:.80}.")

    def matches(self, value: float) -> bool:
        """Whether a photograph with this score is caught."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def explain(self, value: float) -> str:
        """The sentence for the manifest: what is wrong, the score and the limit."""
        side, limit = ("above", self.above) if self.above is not None else ("below", self.below)
        return f"{self.reason}: {self.score} {value:.3g} is {side} {limit:g}"


def load_rules(path: str | Path = DEFAULT_RULES) -> tuple[Rule, ...]:
    """Reads rules from YAML: a list of mappings with the fields of [`Rule`].

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such list; names the file and the rule.
    """
    rules = read_yaml(path, list[Rule])
    if not rules:
        raise ValueError(f"{path}: must be a list of at least one rule, got [].")
    return tuple(rules)


def judge(scores: Mapping[str, float], rules: Sequence[Rule]) -> Verdict:
    """The verdict on one photograph.

    Raises:
        ValueError: A rule asks for a score that is not among `scores`.
    """
    _check_scores(rules, scores)
    caught = [rule for rule in rules if rule.matches(scores[rule.score])]
    found = {rule.verdict for rule in caught}
    reasons = tuple(rule.explain(scores[rule.score]) for rule in caught)
    return Verdict(DROP in found, tuple(name for name in DEFECTS if name in found), reasons, dict(scores))


def clean(
    paths: Sequence[Path],
    rules: Sequence[Rule],
    *,
    metrics: Mapping[str, Callable[[torch.Tensor], float]] | None = None,
    workers: int = 1,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Verdict]:
    """Scores and judges photographs; a file that cannot be read, or crashes or hangs what decodes it, is dropped with its reason.

    Args:
        paths: Files; the verdicts are in their order. Of near-duplicates the first one stays.
        rules: See [`load_rules`].
        metrics: More scores, by name: each takes pixels `(3, H, W)`, uint8.
        workers: Threads. The result does not depend on it.
        limits: What a file may take.

    Raises:
        ValueError: A rule asks for a score that is not computed.
    """
    metrics = dict(metrics or {})
    _check_scores(rules, (*SCORES, NEAREST, *metrics))

    def examine(path: Path) -> tuple[dict[str, float], np.ndarray] | str:
        try:
            data = sample_file(path.name, path, limits)
            picture = decode_file(path.name, data, decoder.decode, limits).image.convert("RGB")
        except SampleError as error:
            return error.reason
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return score_photo(pixels) | {name: float(metric(pixels)) for name, metric in metrics.items()}, fingerprint(pixels)

    with Decoder() as decoder, ThreadPoolExecutor(workers) as pool:
        results = list(tqdm(pool.map(examine, paths), total=len(paths), desc="scoring photographs", mininterval=1))
    readable = [(path, *result) for path, result in zip(paths, results, strict=True) if not isinstance(result, str)]
    nearest = iter(nearest_earlier([code for _, _, code in readable]))
    verdicts = []
    for result in results:
        if isinstance(result, str):
            verdicts.append(Verdict(True, reasons=(result,)))
            continue
        distance, twin = next(nearest)
        verdict = judge(result[0] | {NEAREST: float(distance)}, rules)
        if twin is not None:  # whoever reads the manifest wants to compare the two
            reasons = (f"{reason} ({readable[twin][0].name})" if f": {NEAREST} " in reason else reason for reason in verdict.reasons)
            verdict = replace(verdict, reasons=tuple(reasons))
        verdicts.append(verdict)
    return verdicts


def catches(rule: Rule, verdicts: Iterable[Verdict]) -> int:
    """How many photographs a rule caught."""
    return sum(rule.score in verdict.scores and rule.matches(verdict.scores[rule.score]) for verdict in verdicts)


def write_manifest(path: str | Path, verdicts: Mapping[str, Verdict], rules: Sequence[Rule]) -> None:
    """Writes verdicts, by file path relative to the photographs' folder with forward slashes, and the rules behind them as JSON."""
    manifest = {
        "version": MANIFEST_VERSION,
        "rules": [{key: value for key, value in asdict(rule).items() if value is not None} for rule in rules],
        "photos": {name: {**asdict(verdict), "scores": _rounded(verdict.scores)} for name, verdict in verdicts.items()},
    }
    write_whole(path, (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode())


def read_manifest(path: str | Path) -> dict[str, Verdict]:
    """Verdicts by file path, relative to the photographs' folder, as [`write_manifest`] wrote them.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no manifest of this version; names the file and what is wrong with it.
    """
    try:
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested too deeply
        raise ValueError(f"{path}: is not JSON: {error}") from error
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if version != MANIFEST_VERSION:
        raise ValueError(f"{path}: must be a cleaning manifest of version {MANIFEST_VERSION}, got version {version!r}.")
    photos = manifest.get("photos")
    if not isinstance(photos, dict):
        raise ValueError(f"{path}: `photos` must map file names to verdicts, got {type(photos).__name__}.")
    return {name: _verdict(row, f"{path}: {name!r}") for name, row in photos.items()}


def _check_scores(rules: Sequence[Rule], known: Sequence[str] | Mapping[str, float]) -> None:
    for rule in rules:
        if rule.score not in known:
            raise ValueError(f"a rule asks for the score {rule.score!r}, which is not computed; there are {', '.join(known)}.")


def _verdict(row: Any, where: str) -> Verdict:
    match row:
        case {"dropped": bool(dropped), "defects": list(defects), "reasons": list(reasons), "scores": dict(scores)}:
            unknown = [name for name in defects if name not in DEFECTS]
            if unknown:
                raise ValueError(f"{where}: `defects` must be of {', '.join(DEFECTS)}; got {unknown[0]!r}.")
            return Verdict(dropped, tuple(defects), tuple(str(reason) for reason in reasons), scores)
    raise ValueError(f"{where}: must hold `dropped`, `defects`, `reasons` and `scores`, got {row!r:.80}.")


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    # Six digits are more than any score is worth, and hide the last bits in which machines differ.
    return {name: float(f"{value:.6g}") for name, value in scores.items()}
