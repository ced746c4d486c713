"""Metrics that are networks, by pyiqa: its weights are fetched on first use, so neither it nor they are needed until asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the command line's help reads the names below and need not wait for torch
    import torch

# name -> whether it compares with a ground truth. LPIPS (CVPR 2018) and DISTS (TPAMI 2022) are distances, lower is better; MUSIQ (ICCV
# 2021, 0 to 100) and CLIP-IQA (AAAI 2023, 0 to 1) judge a picture alone, higher is better.
PERCEPTUAL = {"lpips": True, "dists": True, "musiq": False, "clipiqa": False}
LOWER_IS_BETTER = frozenset({"lpips", "dists"})


class PerceptualUnavailableError(RuntimeError):
    """pyiqa or a metric's weights cannot be had here; the message is one line and says what to do."""


class Perceptual:
    """One perceptual metric.

    Args:
        name: A key of [`PERCEPTUAL`].
        device: Where it runs.

    Raises:
        PerceptualUnavailableError: If pyiqa is not installed or its weights cannot be fetched.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        import torch

        self.needs_truth = PERCEPTUAL[name]
        self.device = torch.device(device)
        try:
            import pyiqa  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise PerceptualUnavailableError(f"`{name}` needs pyiqa: pip install 'foundir_hf[iqa]', or leave the metric out.") from error
        try:
            self._metric = pyiqa.create_metric(name, device=self.device)
        except Exception as error:  # a download through three libraries: their errors have nothing in common
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise PerceptualUnavailableError(f"`{name}`: its weights cannot be loaded ({reason}); leave the metric out.") from error

    def __call__(self, image: np.ndarray, truth: np.ndarray | None) -> float | None:
        """Images `(height, width, 3)` on the scale of 8 bits; `None` if the metric needs a truth and there is none."""
        if self.needs_truth and truth is None:
            return None
        tensors = [self._tensor(pixels) for pixels in (image, truth)[: 1 + self.needs_truth] if pixels is not None]
        import torch

        with torch.no_grad():
            return float(self._metric(*tensors))

    def _tensor(self, pixels: np.ndarray) -> torch.Tensor:
        import torch

        unit = torch.from_numpy(pixels.astype(np.float32) / 255).clamp(0, 1)
        return unit.permute(2, 0, 1)[None].to(self.device)
