from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, picture, scene, seeded

from foundir_hf.data.degradations.weather import night_rain, rain, raindrops, snow

WEATHERS = [rain, night_rain, raindrops, snow]


@pytest.mark.parametrize("degrade", WEATHERS)
def test_weather_keeps_the_contract_of_degradations(degrade):
    assert_contract(degrade)


@needs_cuda
@pytest.mark.parametrize("degrade", WEATHERS)
def test_weather_is_the_same_on_a_gpu(degrade):
    assert_same_on_cuda(degrade)


def test_rain_brightens_a_dark_scene_in_near_vertical_streaks():
    dark = grey(0.2, 96, 96, batch=8)
    streaks = rain(dark, seeded(), veil=(0, 0)) - dark
    assert streaks.min() >= -1e-6
    assert (streaks.flatten(1).mean(dim=1) > 0.003).all()
    upright, sideways = (streaks.diff(dim=d).square().mean(dim=(1, 2, 3)) for d in (2, 3))
    assert (upright < sideways).float().mean() >= 0.75  # tilted up to 40 degrees: mostly
    streaks = rain(dark, seeded(), veil=(0, 0), tilt=0.05) - dark
    upright, sideways = (streaks.diff(dim=d).square().mean(dim=(1, 2, 3)) for d in (2, 3))
    assert (upright < 0.4 * sideways).all()


def test_sparser_rain_touches_fewer_pixels():
    dark = grey(0.2, 96, 96, batch=4)
    touched = [float((rain(dark, seeded(), veil=(0, 0), sparsity=(s, s)) - dark > 0.02).float().mean()) for s in (0.5, 2.0, 3.0)]
    assert touched == sorted(touched, reverse=True)
    assert touched[-1] < 0.5 * touched[0]


def test_a_veil_lifts_the_black_between_the_streaks():
    black = grey(0.0, 96, 96, batch=4)
    clear, misty = (rain(black, seeded(), veil=(v, v), sparsity=(2.5, 2.5)).flatten(1).quantile(0.2, dim=1) for v in (0.0, 0.5))
    assert (clear < 0.01).all()
    assert (misty > 0.03).all()


def test_rain_at_night_shows_near_lamps_only():
    image = grey(0.4, 96, 96, batch=6)
    wet, dry = (night_rain(image, seeded(), exposure=(0.02, 0.02), strength=(s, s)) for s in (1.0, 0.0))
    assert (dry.flatten(1).median(dim=1).values < 0.4).all()
    streaks = (wet**2.2 - dry**2.2).amax(dim=1, keepdim=True)
    assert streaks.min() >= -1e-5
    lit = F.max_pool2d(dry.amax(dim=1, keepdim=True), 17, stride=1, padding=8)
    near = torch.where(lit > lit.flatten(1).quantile(0.8, dim=1).view(-1, 1, 1, 1), streaks, 0.0).sum() / (6 * 0.2 * 96**2)
    far = torch.where(lit < lit.flatten(1).quantile(0.2, dim=1).view(-1, 1, 1, 1), streaks, 0.0).sum() / (6 * 0.2 * 96**2)
    assert near > 1.5 * far


def test_drops_leave_the_pixels_outside_unchanged():
    image = scene(120, 160, batch=4)
    touched = (raindrops(image, seeded(), amount=(0.5, 0.5)) != image).any(dim=1).float().mean(dim=(1, 2))
    assert ((touched > 0.02) & (touched < 0.5)).all()
    assert torch.equal(raindrops(image, seeded(), amount=(0, 0)), image)


def test_more_and_larger_drops_cover_more():
    image = picture(120, 160)
    few, many = (float((raindrops(image, seeded(), amount=(a, a)) != image).float().mean()) for a in (0.2, 0.9))
    assert many > 2 * few


def test_drops_show_the_scene_upside_down():
    image = grey(0.0, 240, 240, batch=2)
    image[..., :120, :] = 0.8  # a bright sky over dark ground
    result = raindrops(image, seeded(1), radius=(0.05, 0.1), amount=(1, 1), softness=(0.2, 0.2))
    on_ground = (result - image)[..., 124:148, :]  # drops here show sky in their lower part
    on_sky = (result - image)[..., 92:116, :]
    assert on_ground.max() > 0.5
    assert on_sky.min() < -0.3


def test_snow_only_brightens_and_more_flakes_cover_more():
    image = grey(0.3, 120, 160, batch=4)
    shares = []
    for amount in (0.1, 0.4, 0.9):
        flakes = snow(image, seeded(), amount=(amount, amount), veil=(0, 0)) - image
        assert flakes.min() >= -1e-6
        assert (flakes.amax(dim=(1, 2, 3)) > 0.2).all()
        shares.append(float((flakes > 0.02).float().mean()))
    assert shares == sorted(shares)
    assert shares[-1] < 0.5


def test_falling_flakes_are_longer_than_still_ones():
    dark = grey(0.1, 160, 160, batch=4)
    still, falling = (snow(dark, seeded(), speed=(s, s), tilt=0.0, veil=(0, 0)) - dark for s in (0.0, 3.0))
    for flakes, low, high in ((still, 0.75, 1.33), (falling, 0.0, 0.7)):
        upright, sideways = (flakes.diff(dim=d).square().mean() for d in (2, 3))
        assert low < upright / sideways < high


def test_flakes_grow_with_the_picture():
    def width(side: int) -> float:
        """Mean length of the runs of snow in the rows, in pixels."""
        mask = (snow(grey(0.0, side, side), seeded(4), speed=(0, 0), veil=(0, 0), size=(0.01, 0.03)) > 0.05)[0, 0].int()
        return float(mask.sum() / (mask.diff(dim=1) == 1).sum().clamp(min=1))

    assert width(400) == pytest.approx(2 * width(200), rel=0.35)
