from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy.ndimage
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, scene, seeded

from foundir_hf.data.degradations.blur import (
    camera_shake,
    convolve,
    defocus_blur,
    filter_planes,
    gaussian_blur,
    gaussian_psf,
    glass_blur,
    motion_blur,
    motion_psf,
    rotation_blur,
    shake_psf,
    zoom_blur,
)
from foundir_hf.data.degradations.sampling import to_linear

BLURS = {
    "motion": motion_blur,
    "defocus": defocus_blur,
    "gaussian": gaussian_blur,
    "anisotropic": partial(gaussian_blur, ratio=(1.5, 4)),
    # Larger than by default, for pictures of 48 x 64 pixels.
    "zoom": partial(zoom_blur, amount=(0.1, 0.5)),
    "rotation": partial(rotation_blur, angle=(5, 20)),
    "shake": camera_shake,
    "glass": glass_blur,
}
every_blur = pytest.mark.parametrize("name", BLURS)


def coordinates(psf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.arange(psf.shape[-1], dtype=torch.double) - psf.shape[-1] // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return y, x


@every_blur
def test_every_blur_keeps_the_contract_of_degradations(name):
    assert_contract(BLURS[name])


@needs_cuda
@every_blur
def test_every_blur_is_the_same_on_a_gpu(name):
    assert_same_on_cuda(BLURS[name])


@every_blur
def test_blur_keeps_constant_images_and_the_mean_but_removes_detail(name):
    blur = BLURS[name]
    for level in (0.0, 0.3, 1.0):
        assert torch.allclose(blur(grey(level, 33, 47, batch=3), seeded()), grey(level, 33, 47, batch=3), atol=2e-3 if level == 0 else 1e-5)
    sharp = scene(batch=3)
    blurred = blur(sharp, seeded())
    # Some average linear light, as the sensor does.
    linear = to_linear if name in ("zoom", "rotation", "shake") else torch.clone
    assert torch.allclose(linear(blurred).mean(dim=(2, 3)), linear(sharp).mean(dim=(2, 3)), atol=0.04)
    assert (blurred.diff(dim=3).abs().mean(dim=(1, 2, 3)) < 0.7 * sharp.diff(dim=3).abs().mean(dim=(1, 2, 3))).all()


# --- Point spread functions ---


@pytest.mark.parametrize(
    "psf",
    [
        partial(motion_psf, length=(5, 23), bend=0.6),
        partial(shake_psf, extent=(5, 25)),
        partial(gaussian_psf, sigma=(0.1, 4), ratio=(1, 3)),
    ],
)
def test_psfs_are_non_negative_sum_to_one_and_differ(psf):
    psf = psf(grey(0.5, batch=6), seeded())
    assert psf.shape[:2] == (6, 1)
    assert psf.shape[2] == psf.shape[3]
    assert psf.shape[3] % 2 == 1
    assert psf.min() >= 0
    assert torch.allclose(psf.sum(dim=(1, 2, 3)), torch.ones(6), atol=1e-5)
    assert all((psf[i] - psf[j]).abs().max() > 1e-3 for i in range(6) for j in range(i))


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4, math.pi / 2, 2.5])
def test_a_straight_motion_psf_extends_along_its_angle(angle):
    length = 15.0
    psf = motion_psf(grey(0.5), seeded(), length=(length, length), angle=(angle, angle))[0, 0].double()
    y, x = coordinates(psf)
    assert (psf * x).sum() == pytest.approx(0, abs=1e-3)
    assert (psf * y).sum() == pytest.approx(0, abs=1e-3)
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    assert (psf * along**2).sum().sqrt() == pytest.approx(length / math.sqrt(12), rel=0.1)  # of a uniform line
    assert (psf * across**2).sum().sqrt() < 0.6


@pytest.mark.parametrize("extent", [8.0, 20.0])
def test_a_shaken_psf_is_a_thin_centred_path_of_its_extent(extent):
    for psf in shake_psf(grey(0.5, batch=12), seeded(), extent=(extent, extent))[:, 0].double():
        y, x = coordinates(psf)
        assert (psf * x).sum() == pytest.approx(0, abs=0.05)
        assert (psf * y).sum() == pytest.approx(0, abs=0.05)
        drawn = psf > 0.02 * psf.max()
        sides = [int(drawn.any(dim=d).nonzero().max() - drawn.any(dim=d).nonzero().min()) for d in (0, 1)]
        assert max(sides) == pytest.approx(extent, abs=4)  # ends that were passed in a hurry are faint, the pen adds its width
        assert drawn.float().sum() < 0.7 * (extent + 3) ** 2  # a path, not a disc


def test_a_calm_camera_moves_straight_and_a_nervous_one_does_not():
    def straightness(anxiety: float) -> torch.Tensor:
        """Share of the PSF's variance along its main direction, averaged over many."""
        psf = shake_psf(grey(0.5, batch=64), seeded(), extent=(20, 20), anxiety=(anxiety, anxiety))[:, 0].double()
        y, x = coordinates(psf)
        xx, yy, xy = ((psf * m).sum(dim=(1, 2)) for m in (x * x, y * y, x * y))
        covariance = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -1)
        variances = torch.linalg.eigvalsh(covariance)
        return (variances[:, 1] / variances.sum(dim=1)).mean()

    assert straightness(0.0) > 0.98
    assert straightness(0.0) > straightness(0.3) > straightness(1.0)


def test_a_gaussian_psf_has_sigma_along_its_axis_and_less_across():
    sigma, ratio = 3.0, 2.0
    angles = set()
    for psf in gaussian_psf(grey(0.5, batch=8), seeded(), sigma=(sigma, sigma), ratio=(ratio, ratio))[:, 0].double():
        y, x = coordinates(psf)
        xx, yy, xy = ((psf * m).sum() for m in (x * x, y * y, x * y))
        variances, axes = torch.linalg.eigh(torch.stack([torch.stack([xx, xy]), torch.stack([xy, yy])]))
        assert variances.sqrt().tolist() == pytest.approx([sigma / ratio, sigma], rel=0.03)
        angles.add(round(float(torch.atan2(axes[1, 1], axes[0, 1]) % math.pi), 2))
    assert len(angles) == 8


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.0, 6.0])
def test_defocus_turns_a_point_into_a_disc_of_its_radius(radius):
    point = torch.zeros(1, 3, 41, 41)
    point[..., 20, 20] = 1
    disc = defocus_blur(point, seeded(), radius=(radius, radius))[0, 0]
    axis = torch.arange(41) - 20
    distance = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    assert disc.sum() == pytest.approx(1, abs=1e-3)
    assert disc[distance >= radius + 0.5].max() < 1e-5
    inside = disc[distance <= radius - 0.5]
    assert inside.max() - inside.min() < 1e-5
    assert 1 / inside.max() == pytest.approx(math.pi * radius**2, rel=0.15)


def test_gaussian_blur_equals_scipys():
    images = scene(40, 48)
    blurred = gaussian_blur(images, seeded(), sigma=(1.6, 1.6))
    for channel in range(3):
        expected = scipy.ndimage.gaussian_filter(images[0, channel].numpy(), 1.6, radius=5, mode="mirror")
        assert np.abs(blurred[0, channel].numpy() - expected).max() < 1e-5


# --- Sweeps ---


def point(y: int, x: int, side: int = 101) -> torch.Tensor:
    """A small soft light on black, which survives resampling."""
    axis = torch.arange(side)
    dot = torch.exp(-((axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2) / (2 * 1.2**2))
    return dot.expand(1, 3, -1, -1).clone()


def spread(light: torch.Tensor) -> tuple[float, float]:
    """Standard deviations of the light's place, vertical and horizontal."""
    weight = to_linear(light)[0, 0].double()
    weight /= weight.sum()
    result = []
    for dim in (0, 1):
        profile = weight.sum(dim=1 - dim)
        axis = torch.arange(len(profile), dtype=torch.double)
        mean = (profile * axis).sum()
        result.append(float((profile * (axis - mean) ** 2).sum().sqrt()))
    return result[0], result[1]


def test_zoom_leaves_the_center_and_draws_lines_away_from_it():
    zoom = partial(zoom_blur, generator=seeded(), amount=(0.3, 0.3), offset=0.0)
    assert torch.allclose(zoom(point(50, 50))[..., 50, 50], torch.ones(1, 3), atol=0.12)
    before, (vertical, horizontal) = spread(point(50, 85)), spread(zoom(point(50, 85)))
    # A line from 35 exp(-0.131) to 35 exp(0.131) pixels away from the middle.
    length = 35 * 2 * math.sinh(math.log(1.3) / 2)
    assert horizontal == pytest.approx(math.hypot(before[1], length / math.sqrt(12)), rel=0.1)
    assert vertical == pytest.approx(before[0], rel=0.25)


def test_rotation_leaves_the_axis_and_draws_arcs_around_it():
    rotate = partial(rotation_blur, generator=seeded(), angle=(20, 20), offset=0.0)
    assert torch.allclose(rotate(point(50, 50))[..., 50, 50], torch.ones(1, 3), atol=0.05)
    before, (vertical, horizontal) = spread(point(50, 85)), spread(rotate(point(50, 85)))
    assert vertical == pytest.approx(math.hypot(before[0], 35 * math.radians(20) / math.sqrt(12)), rel=0.1)
    assert horizontal == pytest.approx(before[1], rel=0.35)


def test_sweeps_have_no_gaps_between_their_views():
    line = to_linear(rotation_blur(point(50, 90), seeded(), angle=(30, 30), offset=0.0))[0, 0].amax(dim=1)
    lit = line[42:59]  # well inside of the arc, which is 21 pixels long
    assert lit.min() > 0.8 * lit.max()


def test_the_optical_axis_differs_among_images():
    centers = []
    # Where a picture of noise stays sharp is the axis.
    noise = torch.rand(1, 1, 80, 80, generator=seeded(3)).expand(6, 3, -1, -1)
    swept = rotation_blur(noise, seeded(), angle=(25, 25), offset=0.3)
    detail = filter_planes((swept - filter_planes(swept, torch.full((6, 1, 5, 5), 1 / 25))).square(), torch.full((6, 1, 9, 9), 1 / 81))
    for image in detail.mean(dim=1):
        centers.append(divmod(int(image.argmax()), 80))
    assert len(set(centers)) >= 5
    assert all(10 <= c <= 70 for center in centers for c in center)


# --- Glass ---


def test_glass_shows_pixels_from_within_its_radius_and_scatters_edges():
    edge = grey(0.0, 64, 64)
    edge[..., 32:] = 1.0
    frosted = glass_blur(edge, seeded(), radius=(4, 4), sigma=(0.3, 0.3))
    assert frosted[..., :26].max() < 1e-3
    assert frosted[..., 38:].min() > 1 - 1e-3
    near = frosted[0, 0, :, 30:34]
    assert near.diff(dim=0).abs().mean() > 0.1  # neighbours along the edge come from different sides of it


# --- Convolution ---


def test_convolving_with_a_delta_is_the_identity():
    images = scene(21, 30, batch=2)
    delta = torch.zeros(2, 1, 9, 9)
    delta[..., 4, 4] = 1
    assert torch.allclose(convolve(images, delta), images, atol=1e-5)


@pytest.mark.parametrize(("size", "side", "mode"), [((13, 18), 5, "mirror"), ((33, 47), 11, "mirror"), ((4, 7), 9, "nearest")])
def test_convolution_equals_scipys_with_a_psf_per_image(size, side, mode):
    images = torch.rand(2, 3, *size, generator=seeded(1))
    psf = torch.rand(2, 1, side, side, generator=seeded(2)) ** 3  # not symmetric
    psf /= psf.sum(dim=(2, 3), keepdim=True)
    result = convolve(images, psf)
    for i in range(2):
        for channel in range(3):
            expected = scipy.ndimage.convolve(images[i, channel].double().numpy(), psf[i, 0].double().numpy(), mode=mode)
            assert np.abs(result[i, channel].numpy() - expected).max() < 1e-5


def test_planes_outside_the_range_of_images_are_filtered_but_not_clamped():
    planes = 5 * torch.randn(1, 2, 12, 12, generator=seeded())
    delta = torch.zeros(1, 1, 3, 3)
    delta[..., 1, 1] = 1
    assert torch.allclose(filter_planes(planes, delta), planes, atol=1e-5)
