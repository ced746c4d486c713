from __future__ import annotations

import io
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from foundir_hf.data.degradations.blur import convolve, defocus_blur, motion_blur, motion_psf
from foundir_hf.data.degradations.compression import _dct_matrix, jpeg
from foundir_hf.data.degradations.illumination import low_light
from foundir_hf.data.degradations.noise import camera_noise, gaussian_noise
from foundir_hf.data.degradations.resolution import downsample
from foundir_hf.data.degradations.sampling import smooth_field, to_linear, to_srgb
from foundir_hf.data.degradations.weather import haze, rain

DEGRADATIONS = {
    "gaussian_noise": gaussian_noise,
    "camera_noise": camera_noise,
    "motion_blur": motion_blur,
    "defocus_blur": defocus_blur,
    "jpeg": jpeg,
    "downsample_x2": partial(downsample, factor=2),
    "downsample_x4": partial(downsample, factor=4),
    "rain": rain,
    "haze": haze,
    "low_light": low_light,
}
# Down-sampling draws its interpolation once for the whole batch, as documented.
PER_IMAGE = sorted(set(DEGRADATIONS) - {"downsample_x2", "downsample_x4"})

every_degradation = pytest.mark.parametrize("name", sorted(DEGRADATIONS))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(height: int = 48, width: int = 64, batch: int = 1) -> torch.Tensor:
    """Gradients, sharp edges and fine texture: `(batch, 3, height, width)`, all images equal."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    texture = torch.rand(3, height, width, generator=seeded(99)) * 0.2
    picture = torch.stack([x / max(1, width), y / max(1, height), ((x // 9 + y // 7) % 2).float()]) * 0.7 + 0.05 + texture
    return picture.clamp(0, 1).expand(batch, -1, -1, -1).clone()


def grey(level: float, height: int = 64, width: int = 64, batch: int = 1) -> torch.Tensor:
    return torch.full((batch, 3, height, width), level)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def assert_images_like(result: torch.Tensor, images: torch.Tensor) -> None:
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


# --- What holds for all of them ---


@every_degradation
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 5), (4, 4), (8, 8), (7, 3), (33, 47), (48, 64)])
def test_any_size_gives_finite_images_of_the_same_shape(name, size):
    images = scene(*size, batch=2)
    for seed in range(3):
        assert_images_like(DEGRADATIONS[name](images, seeded(seed)), images)


@every_degradation
def test_the_same_seed_gives_the_same_result(name):
    images = scene(batch=3)
    assert torch.equal(DEGRADATIONS[name](images, seeded(5)), DEGRADATIONS[name](images, seeded(5)))


@every_degradation
def test_another_seed_gives_another_result(name):
    images = scene(batch=2)
    first = DEGRADATIONS[name](images, seeded(0))
    differs = [not torch.equal(first, DEGRADATIONS[name](images, seeded(seed))) for seed in range(1, 30)]
    # Down-sampling has only three outcomes, the others never repeat one.
    assert any(differs) if name.startswith("downsample") else all(differs)


@pytest.mark.parametrize("name", PER_IMAGE)
def test_equal_images_of_a_batch_are_degraded_differently(name):
    result = DEGRADATIONS[name](scene(batch=4), seeded())
    # Far beyond rounding: another strength, not another last digit.
    assert all((result[i] - result[j]).abs().max() > 0.02 for i in range(4) for j in range(i))


@every_degradation
def test_the_input_is_not_modified_and_damage_is_done(name):
    images = scene(batch=2)
    before = images.clone()
    result = DEGRADATIONS[name](images, seeded())
    assert torch.equal(images, before)
    assert all((result[i] - before[i]).abs().mean() > 1e-3 for i in range(2))


# --- Sampling ---


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


# --- Noise ---


@pytest.mark.parametrize("sigma", [5, 15, 25, 40])
def test_gaussian_noise_has_the_asked_deviation_on_mid_grey(sigma):
    residual = gaussian_noise(grey(0.5, 160, 160), seeded(), sigma=(sigma, sigma)) - 0.5
    assert residual.std() * 255 == pytest.approx(sigma, rel=0.02)
    assert residual.mean() * 255 == pytest.approx(0, abs=0.02 * sigma)


def test_camera_noise_variance_is_shot_times_signal_plus_read_squared():
    shot, read, variances = 0.01, 0.02, []
    for signal in (0.15, 0.3, 0.45, 0.6):
        image = to_srgb(grey(signal, 128, 128))
        noisy = camera_noise(image, seeded(), shot=(shot, shot), read=(read, read), chroma=(0, 0))
        variances.append(float(to_linear(noisy).var()))
        assert variances[-1] == pytest.approx(shot * signal + read**2, rel=0.04)
    assert variances == sorted(variances)


# --- Blur ---


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 4, math.pi / 2, 2.5])
def test_a_straight_motion_psf_extends_along_its_angle(angle):
    length = 15.0
    psf = motion_psf(grey(0.5), seeded(), length=(length, length), angle=(angle, angle))[0, 0].double()
    axis = torch.arange(psf.shape[0], dtype=torch.double) - psf.shape[0] // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    assert (psf * x).sum() == pytest.approx(0, abs=1e-3)
    assert (psf * y).sum() == pytest.approx(0, abs=1e-3)
    along, across = x * math.cos(angle) + y * math.sin(angle), -x * math.sin(angle) + y * math.cos(angle)
    assert (psf * along**2).sum().sqrt() == pytest.approx(length / math.sqrt(12), rel=0.1)  # of a uniform line
    assert (psf * across**2).sum().sqrt() < 0.6


def test_motion_psfs_are_non_negative_sum_to_one_and_differ():
    psf = motion_psf(grey(0.5, batch=6), seeded(), length=(5, 23), bend=0.6)
    assert psf.shape == (6, 1, 27, 27)
    assert psf.min() >= 0
    assert torch.allclose(psf.sum(dim=(1, 2, 3)), torch.ones(6), atol=1e-5)
    assert all((psf[i] - psf[j]).abs().max() > 1e-3 for i in range(6) for j in range(i))


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


@pytest.mark.parametrize("blur", [motion_blur, defocus_blur])
def test_blur_keeps_constant_images_and_the_mean_but_removes_detail(blur):
    assert torch.allclose(blur(grey(0.3, 33, 47, batch=3), seeded()), grey(0.3, 33, 47, batch=3), atol=1e-5)
    sharp = scene(batch=3)
    blurred = blur(sharp, seeded())
    assert torch.allclose(blurred.mean(dim=(2, 3)), sharp.mean(dim=(2, 3)), atol=0.02)
    assert (blurred.diff(dim=3).abs().mean(dim=(1, 2, 3)) < 0.7 * sharp.diff(dim=3).abs().mean(dim=(1, 2, 3))).all()


# --- Compression ---


def test_the_dct_matrix_is_orthonormal_and_starts_with_the_mean():
    matrix = _dct_matrix(torch.device("cpu"), torch.double)
    assert torch.allclose(matrix @ matrix.T, torch.eye(8, dtype=torch.double), atol=1e-12)
    assert torch.allclose(matrix[0], torch.full((8,), 8**-0.5, dtype=torch.double))


def pillow_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    buffer = io.BytesIO()
    Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return torch.from_numpy(np.asarray(Image.open(buffer)).copy()).permute(2, 0, 1)[None].float() / 255


def picture(height: int, width: int) -> torch.Tensor:
    """Shading, coloured shapes and waves, with 8 bits."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    waves = 0.15 * torch.sin(20 * x * (1.2 + y))
    disc = ((x - 0.2) ** 2 + (y + 0.1) ** 2 < 0.3).float()
    planes = torch.stack([0.5 + 0.3 * x + 0.1 * disc, 0.5 + 0.3 * y - 0.2 * disc, 0.4 + 0.2 * x * y + 0.15 * disc]) + waves
    return (planes.clamp(0, 1) * 255).round()[None] / 255


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
@pytest.mark.parametrize("size", [(128, 160), (75, 101)])
def test_jpeg_gives_what_pillow_gives(quality, size):
    image = picture(*size)
    ours, theirs = jpeg(image, seeded(), quality=(quality, quality)), pillow_jpeg(image, quality)
    assert psnr(ours, theirs) >= 38
    assert psnr(ours, image) == pytest.approx(psnr(theirs, image), abs=1.0)


def test_jpeg_damage_falls_with_quality():
    image = picture(96, 96)
    scores = [psnr(jpeg(image, seeded(), quality=(q, q)), image) for q in (5, 10, 20, 40, 60, 80, 95)]
    assert scores == sorted(scores)
    assert scores[-1] - scores[0] > 8


# --- Resolution ---


@pytest.mark.parametrize("factor", [2, 4])
def test_downsampling_keeps_constant_images(factor):
    image = grey(102 / 255, 33, 47)
    assert all(torch.allclose(downsample(image, seeded(seed), factor=factor), image, atol=1e-5) for seed in range(12))


def test_downsampling_by_four_removes_more_detail_than_by_two():
    image = scene(64, 64)
    detail = [float(image.diff(dim=3).abs().mean())]
    detail += [float(downsample(image, seeded(), factor=factor, smooth_share=1.0).diff(dim=3).abs().mean()) for factor in (2, 4)]
    assert detail[0] > 1.1 * detail[1] > 1.1 * 1.1 * detail[2]
    scores = [psnr(downsample(image, seeded(), factor=factor, smooth_share=1.0), image) for factor in (2, 4)]
    assert scores[0] > scores[1] + 0.5


# --- Illumination ---


def test_less_exposure_is_darker_everywhere():
    image = scene()
    steps = [image] + [low_light(image, seeded(), exposure=(e, e), gamma=(1.0, 1.0), noise=(0, 0)) for e in (0.8, 0.4, 0.2, 0.05)]
    for brighter, darker in pairwise(steps):
        assert (darker < brighter).all()
    assert torch.allclose(to_linear(steps[3]), 0.2 * to_linear(image), atol=1e-5)


# --- Weather ---


def test_haze_of_no_density_changes_nothing():
    assert torch.allclose(haze(scene(batch=2), seeded(), density=(0, 0)), scene(batch=2), atol=1e-6)


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
