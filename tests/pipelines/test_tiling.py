"""Tiles cover everything once, in total, and blend smoothly."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from foundir_hf.pipelines.tiling_foundir import TileGrid

SIZES = [(1, 1, 8, 2), (8, 8, 8, 4), (9, 8, 8, 4), (31, 17, 8, 2), (40, 64, 16, 0), (33, 100, 16, 12), (25, 25, 8, 7)]


@pytest.mark.parametrize(("height", "width", "tile_size", "overlap"), SIZES)
@pytest.mark.parametrize("scale", [1, 4])
def test_the_weights_of_all_tiles_sum_to_one_everywhere(height, width, tile_size, overlap, scale):
    total = torch.zeros(1, 1, height * scale, width * scale)
    grid = TileGrid(height, width, tile_size, overlap)
    tiles = list(grid.tiles(scale))
    for tile in tiles:
        assert (tile.weight > 0).all()
        assert tile.of(total).shape == tile.weight.shape
        tile.of(total).add_(tile.weight)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert len(tiles) == len(grid)


@pytest.mark.parametrize(("height", "width", "tile_size", "overlap"), SIZES)
def test_tiles_are_as_large_as_asked_and_neighbours_share_the_overlap(height, width, tile_size, overlap):
    grid = TileGrid(height, width, tile_size, overlap)
    for spans, length in ((grid.row_spans, height), (grid.column_spans, width)):
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(end - start == min(tile_size, length) for start, end in spans)
        assert all(left[1] - right[0] >= overlap for left, right in pairwise(spans))


def test_a_map_cut_into_tiles_and_blended_is_itself():
    picture = torch.randn(1, 3, 37, 53)
    blended = torch.zeros_like(picture)
    for tile in TileGrid(37, 53, 16, 6).tiles():
        tile.of(blended).add_(tile.of(picture) * tile.weight)
    torch.testing.assert_close(blended, picture)


def test_the_blend_has_no_steps():
    """Two tiles that disagree by one must not show an edge larger than one ramp's step."""
    blended = torch.zeros(1, 1, 8, 28)
    for index, tile in enumerate(TileGrid(8, 28, 16, 4).tiles()):
        tile.of(blended).add_(index * tile.weight)
    assert blended.diff(dim=3).abs().max() <= 0.25 + 1e-6
    assert blended[..., 0].max() == 0
    assert blended[..., -1].min() == 1


def test_no_tile_size_means_a_single_tile():
    grid = TileGrid(1000, 3, None, 0)
    assert len(grid) == 1
    (tile,) = grid.tiles()
    assert tile.weight.shape == (1, 1, 1000, 3)


@pytest.mark.parametrize("overlap", [8, 9, -1])
def test_an_overlap_that_is_no_smaller_than_the_tile_is_refused(overlap):
    with pytest.raises(ValueError, match="tile_overlap"):
        TileGrid(20, 20, 8, overlap)
