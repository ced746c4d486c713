from __future__ import annotations

import math

import pytest
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, scene, seeded

from foundir_hf.data.degradations.haze import depth_proxy, dust, haze, layered_haze, night_haze, nonhomogeneous_haze, thin_cloud
from foundir_hf.data.degradations.sampling import to_linear

HAZES = [haze, layered_haze, nonhomogeneous_haze, night_haze, dust, thin_cloud]


@pytest.mark.parametrize("degrade", HAZES)
def test_haze_keeps_the_contract_of_degradations(degrade):
    assert_contract(degrade)


@needs_cuda
@pytest.mark.parametrize("degrade", HAZES)
def test_haze_is_the_same_on_a_gpu(degrade):
    assert_same_on_cuda(degrade)


def test_the_depth_proxy_is_larger_at_the_top_and_lies_in_its_range():
    depth = depth_proxy(grey(0.5, 40, 50, batch=100), seeded())
    assert depth.shape == (100, 1, 40, 50)
    assert 0.25 <= depth.min() < 0.3
    assert 0.9 < depth.max() <= 1
    assert depth[:, :, :10].mean() > depth[:, :, -10:].mean() + 0.1


def test_layers_of_haze_end_where_things_do():
    image = grey(0.9, 96, 96, batch=8)
    image[..., 40:, 30:66] = 0.25
    how = {"density": (2.0, 2.0), "airlight": (0.6, 0.6), "tint": 0.0}
    transmission = (layered_haze(image, seeded(2), **how) - 0.6) / (image - 0.6)
    steps = transmission[:, 0, 60].diff().abs()
    assert all(int(step) in (29, 65) for step in steps.argmax(dim=1))
    assert (steps[:, [29, 65]].amax(dim=1) > 2.5 * steps.median(dim=1).values).all()


def test_what_is_nearest_stands_before_the_haze():
    how = {"density": (3.0, 3.0), "airlight": (0.9, 0.9), "tint": 0.0}
    near, far = (layered_haze(scene(batch=4), seeded(), distance=(d, d), **how) - scene(batch=4) for d in (0.0, 0.5))
    nearest = [change.abs().amax(dim=1).flatten(1).quantile(0.02, dim=1) for change in (near, far)]
    assert (nearest[0] < 0.7 * nearest[1]).all()
    assert nearest[0].mean() < 0.3 * nearest[1].mean()


@pytest.mark.parametrize("degrade", [haze, nonhomogeneous_haze, dust])
def test_air_of_no_density_changes_nothing(degrade):
    assert torch.allclose(degrade(scene(batch=2), seeded(), density=(0, 0)), scene(batch=2), atol=1e-6)


def test_clouds_of_no_opacity_change_nothing():
    assert torch.allclose(thin_cloud(scene(batch=2), seeded(), opacity=(0, 0)), scene(batch=2), atol=1e-6)


def test_very_dense_haze_is_the_airlight():
    result = haze(scene(batch=3), seeded(), density=(60, 60), airlight=(0.8, 0.8), tint=0.0)
    assert torch.allclose(result, torch.full_like(result, 0.8), atol=1e-4)


def test_denser_haze_has_less_contrast():
    contrasts = [float(haze(scene(), seeded(), density=(d, d)).std()) for d in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert contrasts == sorted(contrasts, reverse=True)
    assert contrasts[-1] < 0.5 * contrasts[0]


def test_haze_follows_the_scattering_equation():
    density, airlight = 1.5, 0.85
    dark, light = (
        haze(grey(level, batch=3), seeded(), density=(density, density), airlight=(airlight, airlight), tint=0) for level in (0.1, 0.6)
    )
    transmission = (light - dark) / (0.6 - 0.1)  # of I = J t + A (1 - t), for two scenes J under one haze
    assert torch.allclose((dark - 0.1 * transmission) / (1 - transmission), torch.tensor(airlight), atol=1e-4)
    assert transmission.min() >= math.exp(-density) - 1e-5
    assert transmission.max() <= math.exp(-density * 0.25) + 1e-5
    assert transmission.max() - transmission.min() > 0.05


def transmission(degrade, **ranges) -> torch.Tensor:
    """Of the air, from a black and a grey scene under the same one."""
    black, light = (degrade(grey(level, 96, 96, batch=6), seeded(3), **ranges) for level in (0.0, 0.5))
    return (light - black) / 0.5


def test_banks_of_haze_leave_clear_and_hidden_places():
    clear = transmission(nonhomogeneous_haze, density=(4, 4), cover=(0.5, 0.5)).flatten(1)
    assert (clear.quantile(0.9, dim=1) > 0.6).all()
    assert (clear.quantile(0.05, dim=1) < 0.2).all()
    even = transmission(haze, density=(4, 4)).flatten(1)
    assert (clear.std(dim=1) > 1.2 * even.std(dim=1)).all()


def test_more_cover_means_more_haze():
    means = [float(transmission(nonhomogeneous_haze, density=(3, 3), cover=(c, c)).mean()) for c in (0.2, 0.5, 0.9)]
    assert means == sorted(means, reverse=True)


def test_dust_is_yellow_and_takes_more_blue_than_red():
    through = transmission(dust, density=(1.5, 1.5)).mean(dim=(2, 3))
    assert (through[:, 0] > through[:, 1]).all()
    assert (through[:, 1] > through[:, 2]).all()
    thick = dust(scene(batch=6), seeded(), density=(60, 60)).mean(dim=(2, 3))
    assert (thick[:, 0] > thick[:, 1] * 1.1).all()
    assert (thick[:, 1] > thick[:, 2] * 1.2).all()


def test_thin_clouds_brighten_a_part_of_the_scene_and_leave_the_rest():
    image = grey(0.3, 96, 96, batch=6)
    cloud = thin_cloud(image, seeded(), opacity=(0.9, 0.9), cover=(0.5, 0.5)) - image
    assert cloud.min() >= -1e-6
    share = (cloud > 1e-4).float().mean(dim=(1, 2, 3))
    assert ((share > 0.4) & (share < 0.6)).all()
    assert (cloud.amax(dim=(1, 2, 3)) > 0.2).all()


def test_at_night_the_air_is_dark_but_for_coloured_lamps():
    image = grey(0.5, 96, 96, batch=8)
    result = night_haze(image, seeded(), exposure=(0.05, 0.05), density=(1, 1))
    assert (result.flatten(1).median(dim=1).values < 0.5).all()
    assert (result.amax(dim=(1, 2, 3)) > 0.9).all()
    # A lamp glows over more than its own disc, and its light falls off.
    linear = to_linear(result).amax(dim=1).flatten(1)
    assert (linear.quantile(0.99, dim=1) > 1.3 * linear.median(dim=1).values).all()
    tints = result.mean(dim=(2, 3))
    assert (tints / tints.mean(dim=1, keepdim=True)).std(dim=0).max() > 0.01
