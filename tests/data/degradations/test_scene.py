from __future__ import annotations

import pytest
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, picture, scene, seeded

from foundir_hf.data.degradations.sampling import coordinates, to_linear
from foundir_hf.data.degradations.scene import lens_flare, moire, reflection, shadow, underwater

SCENES = [underwater, shadow, lens_flare, moire, reflection]


@pytest.mark.parametrize("degrade", SCENES)
def test_scene_keeps_the_contract_of_degradations(degrade):
    assert_contract(degrade)


@needs_cuda
@pytest.mark.parametrize("degrade", SCENES)
def test_scene_is_the_same_on_a_gpu(degrade):
    assert_same_on_cuda(degrade)


def test_water_takes_red_first():
    result = to_linear(underwater(grey(0.6, batch=16), seeded())).mean(dim=(2, 3))
    assert (result[:, 0] < 0.9 * result[:, 1:].amax(dim=1)).all()


def test_the_ocean_is_blue_and_the_coast_is_green():
    ocean, coast = (underwater(grey(0.6), seeded(), water=(w, w), depth=(5, 5)).mean(dim=(0, 2, 3)) for w in (0.0, 4.0))
    assert ocean[2] >= ocean[1] > ocean[0]
    assert coast[1] > coast[0] > coast[2]


def test_farther_water_has_less_contrast_and_at_no_distance_none_is_lost():
    image = picture(64, 64)
    spreads = []
    for metres in (0.0, 2.0, 6.0, 20.0):
        linear = to_linear(underwater(image, seeded(), distance=(metres, metres), depth=(0, 0), water=(1, 1)))[:, 1]
        spreads.append(float(linear.std() / linear.mean()))
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[0] == pytest.approx(float(to_linear(image)[:, 1].std() / to_linear(image)[:, 1].mean()), rel=0.02)
    assert spreads[-1] < 0.2 * spreads[0]


def test_a_camera_stretches_what_it_sees_in_water_but_not_its_colours_apart():
    plain, stretched = (underwater(picture(64, 64), seeded(), levels=levels) for levels in (None, (1.0, 1.0)))
    assert stretched.quantile(0.98) - stretched.quantile(0.02) > 0.9 > plain.quantile(0.98) - plain.quantile(0.02) + 0.1
    inside = (stretched > 0.02) & (stretched < 0.98)
    slope = (plain[inside] - plain[inside].mean()) / (stretched[inside] - stretched[inside].mean())
    assert slope.quantile(0.9) - slope.quantile(0.1) < 0.05 * slope.median()  # one line for all colours


def test_a_shadow_darkens_inside_leaves_the_outside_and_is_bluish():
    image = grey(0.7, 96, 96, batch=16)
    ratio = to_linear(shadow(image, seeded(), light=(0.3, 0.3))) / to_linear(image)
    assert ratio.max() <= 1 + 1e-5
    lit = (ratio > 0.999).all(dim=1).flatten(1)
    deep = (ratio[:, 1] < 0.31).flatten(1)
    assert (lit.float().mean(dim=1) > 0.1).all()
    assert (deep.float().mean(dim=1) > 0.02).all()
    umbra = [ratio[i].flatten(1)[:, deep[i]].mean(dim=1) for i in range(16)]
    assert all(red < green < blue for red, green, blue in umbra)


def test_a_wider_penumbra_is_a_softer_edge():
    image = grey(0.7, 96, 96, batch=4)
    steps = [float(shadow(image, seeded(), penumbra=(w, w), ragged=(0, 0)).diff(dim=3).abs().max()) for w in (0.005, 0.05, 0.2)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 3 * steps[-1]


def test_a_flare_only_adds_light_and_burns_out_at_its_source():
    image = grey(0.2, 96, 128, batch=8)
    result = lens_flare(image, seeded(), strength=(1, 1))
    assert (result >= image).all()
    assert (result.amax(dim=(1, 2, 3)) > 0.99).all()
    x, y = coordinates(image)
    peak = result.mean(dim=1).flatten(1).argmax(dim=1)
    for index in range(8):
        row, column = divmod(int(peak[index]), 128)
        away = ((x - x[..., column]) ** 2 + (y - y[:, :, row : row + 1]) ** 2).sqrt()[0, 0]
        rings = [result[index, 1][(away >= near) & (away < near + 0.1)].median() for near in (0.0, 0.1, 0.4)]
        assert rings[0] > rings[1] > rings[2]


def test_ghosts_lie_on_the_line_from_the_source_through_the_centre():
    image = grey(0.0, 128, 128, batch=12)
    with_ghosts, without = (to_linear(lens_flare(image, seeded(), ghosts=(g, g), strength=(0.3, 0.3))) for g in (0.2, 0.0))
    ghosts = (with_ghosts - without).mean(dim=1, keepdim=True)
    assert ghosts.min() > -1e-4
    x, y = coordinates(image)
    weight = ghosts / ghosts.sum(dim=(2, 3), keepdim=True)
    moments = torch.stack([(weight * a * b).sum(dim=(1, 2, 3)) for a, b in ((x, x), (x, y), (y, y))])
    source = without.mean(dim=1).flatten(1).argmax(dim=1)
    source_x, source_y = (source % 128 - 63.5) / 128, (source // 128 - 63.5) / 128
    far = (source_x**2 + source_y**2).sqrt()
    across = (moments[0] * source_y**2 - 2 * moments[1] * source_x * source_y + moments[2] * source_x**2) / far**2
    assert (across[far > 0.15].sqrt() < 0.08).all()


def test_moire_is_coloured_and_averages_out():
    image = grey(0.6, 128, 128, batch=8)
    ratio = to_linear(moire(image, seeded(), strength=(0.3, 0.3))) / to_linear(image)
    assert (ratio.mean(dim=(1, 2, 3)) - 1).abs().max() < 0.12
    deviation = ratio - ratio.mean(dim=(2, 3), keepdim=True)
    assert (deviation.std(dim=(2, 3)) > 0.05).all()
    red, blue = deviation[:, 0].flatten(1), deviation[:, 2].flatten(1)
    assert (torch.nn.functional.cosine_similarity(red, blue) < 0.5).all()


def test_more_fringes_are_finer():
    steps = [float(moire(grey(0.6, 128, 128), seeded(), fringes=(n, n)).diff(dim=3).abs().mean()) for n in (2, 6, 18)]
    assert steps == sorted(steps)


def test_a_reflection_shows_the_mirrored_scene():
    images = grey(0.3, 64, 64)
    images[0, :, 20:44, 4:20] = 1.0  # on the left: mirrored it lies on the right
    result = reflection(images, seeded(), strength=(0.8, 0.8), ghost=(0, 0))
    added = (result - images)[0].mean(dim=0)
    assert added[24:40, 50:].mean() > added[:12, 50:].mean() + 0.05


def test_reflections_of_no_strength_change_nothing():
    assert torch.allclose(reflection(scene(batch=2), seeded(), strength=(0, 0)), scene(batch=2), atol=1e-5)
