"""Metrics: PSNR, SSIM and MS-SSIM against a ground truth, on RGB or on the luma of the super-resolution literature; damage removed.

Images are `(height, width, 3)` or `(height, width)` on the scale of 8 bits: `uint8`, or floating point for inputs that were never rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .perceptual import PERCEPTUAL, Perceptual

# The command line reads the names below for its help: torch is imported where it is used, so that help does not wait for it.
if TYPE_CHECKING:
    import torch

PEAK = 255
_SSIM_WINDOW = 11  # pixels: a Gaussian of deviation 1.5, cut at 3.5 deviations


class MissingExtraError(ImportError):
    """A library of an optional extra is not installed; the message is one line and names the extra."""


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels, over all pixels and channels; infinite if the two are equal."""
    error = np.mean((image.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(image: np.ndarray, truth: np.ndarray) -> float | None:
    """Structural similarity (Wang et al., TIP 2004) with their Gaussian window, mean over channels; `None` below 11 pixels."""
    if min(truth.shape[:2]) < _SSIM_WINDOW:
        return None
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingExtraError("SSIM needs scikit-image: pip install 'foundir_hf[eval]'.") from error
    value = structural_similarity(
        image.astype(np.float64),
        truth.astype(np.float64),
        data_range=PEAK,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if truth.ndim == 3 else None,
    )
    return float(value)  # pyright: ignore[reportArgumentType] (a tuple only when maps are asked for)


def ms_ssim(image: np.ndarray, truth: np.ndarray) -> float | None:
    """Multi-scale SSIM over five octaves (Wang et al., Asilomar 2003), as torchmetrics has it; `None` below 176 pixels."""
    if min(truth.shape[:2]) < _SSIM_WINDOW * 2**4:
        return None
    try:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure
    except ImportError as error:
        raise MissingExtraError("MS-SSIM needs torchmetrics: pip install 'foundir_hf[eval]'.") from error
    import torch

    def tensor(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.atleast_3d(pixels).astype(np.float32)).permute(2, 0, 1)[None]

    return float(measure(tensor(image), tensor(truth), data_range=float(PEAK)))


def to_luma(image: np.ndarray) -> np.ndarray:
    """Y of ITU-R BT.601 in [16, 235], not rounded: `(height, width, 3)` -> `(height, width)`. Super-resolution is measured on it."""
    return 16 + image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / PEAK


def crop_border(image: np.ndarray, border: int) -> np.ndarray:
    """Without `border` pixels on every side; super-resolution by x4 leaves out 4."""
    height, width = image.shape[:2]
    if 2 * border >= min(height, width):
        raise ValueError(f"`crop` must leave something of an image of {width}x{height} pixels, got {border}.")
    return image[border : height - border, border : width - border]


FULL_REFERENCE: dict[str, Callable[[np.ndarray, np.ndarray], float | None]] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
REMOVED = "removed"  # see `foundir_hf.diagnosis.removed_score`: 0 to 1, higher is better, never read alone
METRICS = (*FULL_REFERENCE, REMOVED, *PERCEPTUAL)
DEFAULT_METRICS = (*FULL_REFERENCE, REMOVED)


class Meter:
    """Several metrics at once.

    Args:
        names: Of [`METRICS`]. PSNR is always measured: gains are told in it.
        device: For the perceptual metrics, which are networks.

    Raises:
        ValueError: For an unknown name.
        MissingExtraError: If a library is not installed, before anything was measured.
    """

    def __init__(self, names: Sequence[str] = DEFAULT_METRICS, device: str | torch.device = "cpu"):
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            raise ValueError(f"`metrics` must be among {', '.join(METRICS)}; got {', '.join(map(repr, unknown))}.")
        self.names = tuple(name for name in METRICS if name in names or name == "psnr")
        self._perceptual = {name: Perceptual(name, device) for name in self.names if name in PERCEPTUAL}
        probe = np.zeros((176, 176), np.uint8)
        for name in self.names:
            if name in FULL_REFERENCE:
                FULL_REFERENCE[name](probe, probe)

    @staticmethod
    def judge(image: np.ndarray) -> dict[str, float]:
        """The defects of an image, see [`~foundir_hf.diagnosis.diagnose`]; what was never rounded is rounded for it."""
        from ..diagnosis import diagnose

        return diagnose(np.rint(image.clip(0, PEAK)).astype(np.uint8))

    def measure(
        self,
        image: np.ndarray,
        truth: np.ndarray | None,
        *,
        before: Mapping[str, float] | None = None,
        defects: Sequence[str] = (),
        channel: str = "rgb",
        crop: int = 0,
    ) -> dict[str, float | None]:
        """Every metric of one image, `(height, width, 3)`; `None` where there is no truth, no known defect, or too small an image.

        Args:
            before, defects: What [`judge`] says of the input, and what is to be removed from it, for `removed`.
            channel: `"rgb"`, or `"y"` for [`to_luma`]; perceptual metrics always see colours.
            crop: Pixels left out on every side.
        """
        if truth is not None and image.shape != truth.shape:
            raise ValueError(f"`image` must have the shape of its truth {truth.shape}, got {image.shape}.")
        image, truth = crop_border(image, crop), None if truth is None else crop_border(truth, crop)
        values: dict[str, float | None] = {name: metric(image, truth) for name, metric in self._perceptual.items()}
        if before is not None and defects:
            from ..diagnosis import removed_share

            values[REMOVED] = removed_share(before, self.judge(image), defects)
        if truth is not None:
            pair = (to_luma(image), to_luma(truth)) if channel == "y" else (image, truth)
            values |= {name: metric(*pair) for name, metric in FULL_REFERENCE.items() if name in self.names}
        return {name: values.get(name) for name in self.names}
