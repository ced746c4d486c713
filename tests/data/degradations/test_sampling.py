from __future__ import annotations

import math

import pytest
import torch
from scenes import grey, seeded

from foundir_hf.data.degradations.sampling import (
    chance,
    coordinates,
    fractal,
    integer,
    log_uniform,
    position,
    scatter,
    smooth_field,
    smoothstep,
    to_linear,
    to_srgb,
)


def test_smooth_fields_are_smooth_and_lie_between_zero_and_one():
    field = smooth_field(grey(0.5, 64, 80, batch=50), seeded())
    assert field.shape == (50, 1, 64, 80)
    assert 0 <= field.min() < 0.1
    assert 0.9 < field.max() <= 1
    steps = torch.cat([field.diff(dim=2).abs().flatten(), field.diff(dim=3).abs().flatten()])
    assert steps.max() < 0.15
    assert not torch.equal(field[0], field[1])


def test_linear_light_and_srgb_are_inverses():
    x = torch.linspace(0, 1, 1001)
    assert torch.allclose(to_srgb(to_linear(x)), x, atol=1e-5)
    assert torch.allclose(to_linear(to_srgb(x)), x, atol=1e-5)
    assert (to_linear(x)[1:-1] < x[1:-1]).all()


def test_whole_numbers_are_equally_likely_and_include_both_ends():
    drawn = integer(grey(0.5, 1, 1, batch=4000), seeded(), 3, 6)
    assert drawn.shape == (4000, 1, 1, 1)
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [3, 4, 5, 6]
    assert counts.min() > 900


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_coins_fall_with_their_probability(probability):
    coins = chance(grey(0.5, 1, 1, batch=4000), seeded(), probability)
    assert coins.dtype == torch.bool
    assert coins.float().mean() == pytest.approx(probability, abs=0.03)


def test_log_uniform_numbers_have_their_median_in_the_geometric_middle():
    drawn = log_uniform(grey(0.5, 1, 1, batch=4000), seeded(), 1, 100)
    assert 1 <= drawn.min() <= drawn.max() <= 100
    assert drawn.median() == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (40, 60)])
def test_coordinates_are_centred_and_in_units_of_the_short_side(size):
    x, y = coordinates(grey(0.5, *size))
    assert (x.shape, y.shape) == ((1, 1, 1, size[1]), (1, 1, size[0], 1))
    assert x.mean() == pytest.approx(0, abs=1e-6)
    assert y.mean() == pytest.approx(0, abs=1e-6)
    assert x.max() - x.min() == pytest.approx((size[1] - 1) / min(size))
    assert y.max() - y.min() == pytest.approx((size[0] - 1) / min(size))


def test_positions_fill_the_frame():
    x, y = position(grey(0.5, 20, 60, batch=2000), seeded())
    assert x.shape == y.shape == (2000, 1, 1, 1)
    assert -1.5 <= x.min() < -1.45 < 1.45 < x.max() <= 1.5
    assert -0.5 <= y.min() < -0.48 < 0.48 < y.max() <= 0.5


def test_a_smooth_step_rises_from_its_lower_to_its_upper_edge():
    x = torch.linspace(-1, 2, 301)
    step = smoothstep(x, 0.0, 1.0)
    assert (step[x <= 0] == 0).all()
    assert (step[x >= 1] == 1).all()
    assert (step.diff() >= 0).all()
    assert step[150] == pytest.approx(0.5, abs=1e-5)
    assert step.diff().max() < 0.016  # slope 1.5


def test_fractal_noise_is_uniform_and_another_one_for_every_image():
    field = fractal(grey(0.5, 96, 128, batch=8), seeded())
    assert field.shape == (8, 1, 96, 128)
    for share in (0.1, 0.3, 0.5, 0.9):
        assert ((field < share).float().mean(dim=(1, 2, 3)) - share).abs().max() < 0.12
    assert not torch.equal(field[0], field[1])
    assert torch.equal(fractal(grey(0.5, 1, 1), seeded()), grey(0.5, 1, 1)[:, :1])


def test_more_persistence_makes_rougher_noise():
    steps = [float(fractal(grey(0.5, 96, 96), seeded(), persistence=p).diff(dim=3).abs().mean()) for p in (0.2, 0.5, 0.8)]
    assert steps == sorted(steps)
    assert steps[2] > 2 * steps[0]


def test_fractal_noise_looks_alike_at_another_size():
    small, large = (fractal(grey(0.5, side, side, batch=16), seeded(), octaves=3) for side in (64, 256))
    across = [(f[..., : f.shape[3] // 2] - f[..., f.shape[3] // 16 :][..., : f.shape[3] // 2]).abs().mean() for f in (small, large)]
    assert across[0] == pytest.approx(float(across[1]), rel=0.15)


def test_scattered_spots_are_round_whole_and_of_the_asked_radius():
    offset, distance, size, own = scatter(grey(0.5, 120, 160, batch=3), seeded(), radius=(0.05, 0.1), pitch=0.4, numbers=2)
    assert offset.shape == (3, 2, 120, 160)
    assert distance.shape == size.shape == (3, 1, 120, 160)
    assert own.shape == (3, 2, 120, 160)
    assert 6 - 1e-3 <= size.min() <= size.max() <= 12 + 1e-3
    assert torch.allclose(distance, offset.square().sum(dim=1, keepdim=True).sqrt(), atol=1e-4)
    # A spot away from the border has the area of its circle: no cell cuts it.
    inside = distance[0, 0] <= 1
    for number in own[0, 0][inside].unique().tolist():
        spot = inside & (own[0, 0] == number)
        rows, columns = torch.nonzero(spot, as_tuple=True)
        if rows.min() > 0 and rows.max() < 119 and columns.min() > 0 and columns.max() < 159:
            radius = float(size[0, 0][spot].mean())
            assert spot.sum() == pytest.approx(math.pi * radius**2, rel=0.1)


def test_the_offset_of_a_spot_points_right_and_down():
    offset, _, size, own = scatter(grey(0.5, 120, 120), seeded(), radius=(0.1, 0.1), pitch=0.5)
    same = own[0, 0, :, 1:] == own[0, 0, :, :-1]
    assert torch.allclose(offset[0, 0].diff(dim=1)[same], 1 / size[0, 0, :, 1:][same], atol=1e-3)
    assert offset[0, 1].diff(dim=1)[same].abs().max() < 1e-3
    same = own[0, 0, 1:] == own[0, 0, :-1]
    assert torch.allclose(offset[0, 1].diff(dim=0)[same], 1 / size[0, 0, 1:][same], atol=1e-3)


def test_wobbly_spots_are_not_round_and_keep_within_their_cells():
    _, round_one, _, own = scatter(grey(0.5, 200, 200), seeded(), radius=(0.06, 0.06), pitch=0.2)
    _, wobbly, _, _ = scatter(grey(0.5, 200, 200), seeded(), radius=(0.06, 0.06), pitch=0.2, wobble=0.35)
    assert ((wobbly <= 1) != (round_one <= 1)).float().mean() > 0.02
    border = (own.diff(dim=3) != 0)[..., :-1, :]
    assert wobbly[..., :-1, 1:][border].min() > 1
