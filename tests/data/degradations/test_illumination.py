from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, picture, scene, seeded

from foundir_hf.data.degradations.illumination import back_light, color_cast, fading, lamps, low_light, over_exposure, vignetting
from foundir_hf.data.degradations.sampling import to_linear, to_srgb

ILLUMINATIONS = [low_light, back_light, over_exposure, color_cast, fading, vignetting]


@pytest.mark.parametrize("degrade", ILLUMINATIONS)
def test_illumination_keeps_the_contract_of_degradations(degrade):
    assert_contract(degrade, per_image=0.005)


@needs_cuda
@pytest.mark.parametrize("degrade", ILLUMINATIONS)
def test_illumination_is_the_same_on_a_gpu(degrade):
    assert_same_on_cuda(degrade)


def ramp(batch: int = 1) -> torch.Tensor:
    """Grey from 0.1 to 0.6."""
    return torch.linspace(0.1, 0.6, 64).view(1, 1, 1, -1).expand(batch, 3, 8, -1).clone()


def test_less_exposure_is_darker_everywhere():
    image = scene()
    steps = [image] + [low_light(image, seeded(), exposure=(e, e), gamma=(1.0, 1.0), noise=(0, 0)) for e in (0.8, 0.4, 0.2, 0.05)]
    for brighter, darker in pairwise(steps):
        assert (darker < brighter).all()
    assert torch.allclose(to_linear(steps[3]), 0.2 * to_linear(image), atol=1e-5)


def test_back_light_darkens_the_foreground_and_not_the_background():
    image = grey(0.9, 96, 96, batch=6)
    image[..., 30:, 30:66] = 0.3
    result = back_light(image, seeded(), depth=(3, 3), sky=(0.5, 0.5), flare=(0, 0))
    foreground, background = (result - image)[..., 50:80, 42:54], (result - image)[..., :12, :12]
    assert (foreground.amax(dim=(1, 2, 3)) < -0.1).all()
    assert background.min() >= -0.01
    assert torch.allclose(to_linear(result).amin(dim=(2, 3)), torch.full((6, 3), 0.3**2.2 / 8), rtol=0.4)


def test_the_boundary_of_back_light_lies_on_the_edges_of_the_picture():
    image = grey(0.9, 96, 96)
    image[..., 40:, 30:66] = 0.25
    result = back_light(image, seeded(2), depth=(3, 3), sky=(0, 0), flare=(0, 0))
    stops = (to_linear(result) / to_linear(image)).log2()[0, 0]
    steps = stops[60].diff().abs()
    assert int(steps.argmax()) in (29, 65)
    assert steps.max() > 20 * steps.median()


def test_over_exposure_only_brightens_and_saturates():
    for stops in (0.05, 0.5, 1.0, 3.0):
        for roll_off in (0.0, 0.5):
            image = torch.linspace(0, 1, 256).view(1, 1, 1, -1).expand(1, 3, 1, -1)
            result = over_exposure(image, seeded(), stops=(stops, stops), roll_off=(roll_off, roll_off))
            assert (result >= image - 1e-5).all()
            assert (result.diff(dim=3) >= -1e-6).all()
            assert result[..., -1].min() == pytest.approx(1, abs=1e-5)
    assert (result == 1).float().mean() > 0.4


def test_over_exposure_doubles_the_light_per_stop_in_the_shadows():
    result = over_exposure(grey(0.3), seeded(), stops=(2, 2), roll_off=(0, 0))
    assert torch.allclose(to_linear(result), 4 * to_linear(grey(0.3)), atol=1e-4)


def test_a_roll_off_bends_before_it_clips():
    image = to_srgb(grey(0.45))
    hard, soft = (to_linear(over_exposure(image, seeded(), stops=(1, 1), roll_off=(r, r))) for r in (0.0, 0.4))
    assert torch.allclose(hard, torch.full_like(hard, 0.9), atol=1e-4)
    assert torch.allclose(soft, torch.full_like(soft, 0.9 - 0.3**2 / 1.6), atol=1e-4)  # the parabola from 0.6 to 1.4


def test_a_color_cast_keeps_the_ratios_and_the_luminance_of_grey():
    linear = to_linear(color_cast(ramp(batch=5), seeded(), strength=(0.2, 0.5)))
    ratios = linear / linear[:, 1:2]
    assert torch.allclose(ratios, ratios.mean(dim=(2, 3), keepdim=True).expand_as(ratios), rtol=1e-3)
    luminance = (linear * torch.tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)).sum(dim=1)
    assert torch.allclose(luminance, to_linear(ramp(batch=5))[:, 0], rtol=1e-3)
    assert ((ratios - 1).abs().amax(dim=(1, 2, 3)) > 0.02).all()


def test_color_casts_of_no_strength_change_nothing():
    assert torch.allclose(color_cast(scene(batch=2), seeded(), strength=(0, 0)), scene(batch=2), atol=1e-5)


def test_fading_lifts_black_lowers_contrast_and_bleaches_unequally():
    result = fading(ramp(batch=8), seeded(), amount=(0.5, 0.5))
    black = fading(grey(0.0, batch=8), seeded(), amount=(0.5, 0.5))
    assert black.min() > 0.15
    spread = result.amax(dim=3) - result.amin(dim=3)
    assert (spread < 0.5).all()
    assert ((black.mean(dim=(2, 3)).amax(dim=1) - black.mean(dim=(2, 3)).amin(dim=1)) > 0.01).all()
    redder = black.mean(dim=(2, 3))
    assert (redder[:, 0] > redder[:, 2]).float().mean() > 0.7  # cyan goes first


def test_more_fading_loses_more():
    spreads = [float(fading(ramp(), seeded(), amount=(a, a)).std(dim=3).mean()) for a in (0.1, 0.3, 0.5, 0.7)]
    assert spreads == sorted(spreads, reverse=True)


def test_vignetting_keeps_the_axis_and_follows_the_fourth_power_of_the_cosine():
    result = to_linear(vignetting(grey(0.8, 61, 81), seeded(), strength=(0.75, 0.75), shift=0.0)) / 0.8**2.2
    assert result[..., 30, 40].min() == pytest.approx(1, abs=1e-5)
    half_diagonal, corner = (61**2 + 81**2) ** 0.5 / 2, (30**2 + 40**2) ** 0.5
    tangent = ((1 / 0.25) ** 0.5 - 1) * (corner / half_diagonal) ** 2
    assert result[0, 0, 0, 0] == pytest.approx((1 + tangent) ** -2, rel=1e-3)
    assert (result[0, 0, 30, 40:].diff() < 0).all()


def test_vignetting_is_not_always_centred():
    result = vignetting(grey(0.8, 61, 81, batch=4), seeded(), shift=0.1)
    brightest = result[:, 0].flatten(1).argmax(dim=1)
    assert len(set(brightest.tolist())) == 4


def test_the_first_lamp_is_always_on_and_others_half_of_the_time():
    found = lamps(picture(40, 60).expand(200, -1, -1, -1), seeded(), count=4)
    on = torch.stack([power.amax(dim=(1, 2, 3)) > 0 for _, power, _ in found])
    assert on[0].all()
    assert 0.35 < on[1:].float().mean() < 0.65
    for distance, power, size in found:
        assert distance.shape == (200, 1, 40, 60)
        assert distance.amin(dim=(1, 2, 3)).max() < 0.04  # inside the frame
        assert power.max() <= 1
        assert 0.5 <= size.min() <= size.max() <= 2
