"""Near-duplicates: fingerprints of photographs and the distances between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

BITS = 256


def fingerprint(pixels: torch.Tensor) -> np.ndarray:
    """A difference hash: whether each cell of a 16 x 17 copy is darker than its right neighbour (N. Krawetz, 2013, "Kind of like that").

    Args:
        pixels: `(3, H, W)`, uint8.

    Returns:
        `(4,)`, uint64: 256 bits that shrinking, compressing and small changes of exposure hardly touch.
    """
    red, green, blue = pixels[None].float().unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    cells = F.adaptive_avg_pool2d(luma, (16, 17))[0]
    bits = (cells[:, 1:] > cells[:, :-1]).flatten().numpy()
    return np.packbits(bits).view(np.uint64)


def nearest_earlier(fingerprints: Sequence[np.ndarray]) -> list[tuple[int, int | None]]:
    """For each fingerprint the most similar one before it: `(bits that differ, its index)`; `(256, None)` for the first.

    Of unrelated photographs about 128 bits differ. Compares all pairs: a second for ten thousand photographs.
    """
    codes = np.stack(fingerprints) if fingerprints else np.empty((0, BITS // 64), np.uint64)
    found: list[tuple[int, int | None]] = []
    for index, code in enumerate(codes):
        if not index:
            found.append((BITS, None))
            continue
        distances = np.bitwise_count(codes[:index] ^ code).sum(axis=1)
        closest = int(distances.argmin())
        found.append((int(distances[closest]), closest))
    return found
