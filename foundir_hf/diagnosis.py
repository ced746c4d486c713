"""What is wrong with a photograph, and how much of it a restoration took away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from .models.degradation_classifier_foundir import FoundIRDegradationClassifier

BUNDLED = Path(__file__).parent / "checkpoints" / "diagnosis"


@cache
def load_classifier(folder: str | Path = BUNDLED) -> FoundIRDegradationClassifier:
    """The classifier that ships with the package, or one that `training/train_classifier.py` wrote: on the CPU, in single precision, kept.

    Raises:
        ValueError: `folder` holds none.
    """
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"`folder` must hold a classifier (config.json and safetensors), got {str(folder)!r}.")
    return FoundIRDegradationClassifier.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True).eval()


def diagnose(image: PIL.Image.Image | np.ndarray, classifier: FoundIRDegradationClassifier | None = None) -> dict[str, float]:
    """The probability of every defect, the likeliest first.

    Each is a judgement of its own: a photograph may have several defects or none, so they do not sum to 1. They are calibrated on
    photographs of which every fifth is clean; among one's own photographs damage is rarer, and 60 % is less of an alarm.

    Args:
        image: Of any size and mode; as an array `(height, width, 3)`, `uint8`.
        classifier: Left out, the one that ships.

    Raises:
        ValueError: `image` is neither, or has no pixels.
    """
    classifier = load_classifier() if classifier is None else classifier
    probabilities = classifier.probabilities(_to_tensor(image, "image").to(classifier.device))[0].tolist()
    pairs = zip(classifier.config["defects"], probabilities, strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def removed_score(
    degraded: PIL.Image.Image | np.ndarray,
    restored: PIL.Image.Image | np.ndarray,
    defects: Sequence[str],
    classifier: FoundIRDegradationClassifier | None = None,
) -> float:
    """How much of the named defects is gone from `restored`, by the classifier's judgement: 0 nothing, 1 all. Higher is better.

    It cannot be had by leaving damage in: an output equal to the input scores exactly 0, however sharp or pleasing it is, and a defect is
    judged by a classifier that saw the damage itself with its label, where a no-reference quality model (MUSIQ, ICCV 2021) takes streaks
    of rain for detail. It *can* be had by destroying the picture: a grey image has no rain. It says nothing about what else was lost or
    made up and never compares with the truth, so it is reported beside PSNR, never alone, and never trained on.

    Args:
        degraded, restored: As in [`diagnose`]; their sizes may differ.
        defects: Names that the classifier knows, such as `removes` of a row of the task table.
        classifier: Left out, the one that ships.

    Raises:
        ValueError: See [`removed_share`].
    """
    return removed_share(diagnose(degraded, classifier), diagnose(restored, classifier), defects)


def removed_share(before: Mapping[str, float], after: Mapping[str, float], defects: Sequence[str]) -> float:
    """[`removed_score`] from two verdicts of [`diagnose`].

    With `p` the probability of a defect before and `q` after, `sum(p - min(p, q)) / sum(p)` over the defects: a defect that is certain
    counts fully, one that the classifier did not see in the input hardly at all, and what got worse is not set off against what got better.

    Raises:
        ValueError: `defects` is empty or names one that the verdicts do not.
    """
    if not defects or any(defect not in before for defect in defects):
        raise ValueError(f"`defects` must be one or more of {', '.join(sorted(before))}; got {tuple(defects)}.")
    gone = sum(before[d] - min(before[d], after[d]) for d in set(defects))
    return gone / sum(before[d] for d in set(defects))


def _to_tensor(image: PIL.Image.Image | np.ndarray, name: str) -> torch.Tensor:
    """`(1, 3, height, width)` in [0, 1]."""
    pixels = np.asarray(image.convert("RGB")) if isinstance(image, PIL.Image.Image) else np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"`{name}` must be a Pillow image or a `uint8` array (height, width, 3), got {pixels.dtype} {pixels.shape}.")
    # A copy: torch has no tensors that must not be written to.
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
