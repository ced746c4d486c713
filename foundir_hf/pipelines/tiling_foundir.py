"""Overlapping tiles and their blending, as pure functions of sizes.

Hub code: this file is copied verbatim next to the pipeline, so it imports torch only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """One tile of a map.

    Args:
        rows, columns: Where it lies.
        weight (`torch.Tensor` of shape `(1, 1, height, width)`): Its share in the blend; the shares of all tiles sum to one everywhere.
    """

    rows: slice
    columns: slice
    weight: torch.Tensor

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tile's part of `(..., height, width)`."""
        return tensor[..., self.rows, self.columns]


class TileGrid:
    """Cuts a `height x width` map into tiles of at most `tile_size`, neighbours sharing at least `overlap`.

    Args:
        height, width (`int`): Of the map.
        tile_size (`int` or `None`): Longest side of a tile; `None` makes a single tile of any size.
        overlap (`int`): Shared by neighbours; must be smaller than `tile_size`.
    """

    def __init__(self, height: int, width: int, tile_size: int | None, overlap: int):
        if tile_size is not None and not 0 <= overlap < tile_size:
            raise ValueError(f"`tile_overlap` must lie in [0, tile_size), got {overlap} for tiles of {tile_size}.")
        self.height, self.width = height, width
        self.row_spans = _spans(height, tile_size, overlap)
        self.column_spans = _spans(width, tile_size, overlap)

    def __len__(self) -> int:
        return len(self.row_spans) * len(self.column_spans)

    def tiles(self, scale: int = 1, device: torch.device | str = "cpu") -> Iterator[Tile]:
        """The tiles, row by row, of this map enlarged by `scale`."""
        row_weights = _blend_weights(self.row_spans, scale, device)
        column_weights = _blend_weights(self.column_spans, scale, device)
        for (top, bottom), row_weight in zip(self.row_spans, row_weights, strict=True):
            for (left, right), column_weight in zip(self.column_spans, column_weights, strict=True):
                yield Tile(
                    slice(top * scale, bottom * scale),
                    slice(left * scale, right * scale),
                    (row_weight[:, None] * column_weight[None, :])[None, None],
                )


def _spans(length: int, tile_size: int | None, overlap: int) -> list[tuple[int, int]]:
    if tile_size is None or length <= tile_size:
        return [(0, length)]
    stride = tile_size - overlap
    starts = [*range(0, length - tile_size, stride), length - tile_size]  # the last tile is moved back rather than made smaller
    return [(start, start + tile_size) for start in starts]


def _blend_weights(spans: list[tuple[int, int]], scale: int, device: torch.device | str) -> list[torch.Tensor]:
    """Per span a 1-D weight that ramps linearly where it overlaps its neighbours; the ramps of two neighbours sum to one."""
    spans = [(start * scale, end * scale) for start, end in spans]
    weights = [torch.ones(end - start, device=device) for start, end in spans]
    for i in range(len(spans) - 1):
        shared = spans[i][1] - spans[i + 1][0]
        if shared > 0:
            ramp = (torch.arange(shared, device=device) + 0.5) / shared
            weights[i][-shared:] *= 1 - ramp
            weights[i + 1][:shared] *= ramp
    # Where the last tile was moved back, three spans may meet.
    total = torch.zeros(spans[-1][1], device=device)
    for (start, end), weight in zip(spans, weights, strict=True):
        total[start:end] += weight
    return [weight / total[start:end] for (start, end), weight in zip(spans, weights, strict=True)]
