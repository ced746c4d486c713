from __future__ import annotations

import pytest
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, scene, seeded

from foundir_hf.data.degradations.noise import (
    banding_noise,
    camera_noise,
    color_noise,
    film_grain,
    gaussian_noise,
    poisson_noise,
    salt_and_pepper_noise,
    speckle_noise,
)
from foundir_hf.data.degradations.sampling import to_linear, to_srgb

NOISES = (
    gaussian_noise,
    camera_noise,
    poisson_noise,
    speckle_noise,
    salt_and_pepper_noise,
    color_noise,
    film_grain,
    banding_noise,
)
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def lit(signal: float, side: int = 128, batch: int = 1) -> torch.Tensor:
    """A flat image whose linear light is `signal`."""
    return to_srgb(grey(signal, side, side, batch=batch))


@pytest.mark.parametrize("noise", NOISES)
def test_every_noise_keeps_the_contract_of_degradations(noise):
    assert_contract(noise)


@needs_cuda
@pytest.mark.parametrize("noise", NOISES)
def test_every_noise_is_the_same_on_a_gpu(noise):
    assert_same_on_cuda(noise)


@pytest.mark.parametrize("sigma", [5, 15, 25, 40])
def test_gaussian_noise_has_the_asked_deviation_on_mid_grey(sigma):
    residual = gaussian_noise(grey(0.5, 160, 160), seeded(), sigma=(sigma, sigma)) - 0.5
    assert residual.std() * 255 == pytest.approx(sigma, rel=0.02)
    assert residual.mean() * 255 == pytest.approx(0, abs=0.02 * sigma)


def test_camera_noise_variance_is_shot_times_signal_plus_read_squared():
    shot, read, variances = 0.01, 0.02, []
    for signal in (0.15, 0.3, 0.45, 0.6):
        noisy = camera_noise(lit(signal), seeded(), shot=(shot, shot), read=(read, read), chroma=(0, 0))
        variances.append(float(to_linear(noisy).var()))
        assert variances[-1] == pytest.approx(shot * signal + read**2, rel=0.04)
    assert variances == sorted(variances)


@pytest.mark.parametrize("signal", [0.1, 0.3, 0.6])
def test_poisson_noise_keeps_the_mean_and_its_variance_is_the_signal_over_the_peak(signal):
    counts = to_linear(poisson_noise(lit(signal), seeded(), peak=(150, 150)))
    assert counts.mean() == pytest.approx(signal, rel=0.01)
    assert counts.var() == pytest.approx(signal / 150, rel=0.04)
    assert ((counts * 150) - (counts * 150).round()).abs().max() < 1e-2  # whole photons


def test_there_is_no_shot_noise_on_black():
    assert not poisson_noise(grey(0.0), seeded()).any()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5])
def test_speckle_is_in_proportion_to_the_light_and_keeps_its_mean(sigma):
    for signal in (0.02, 0.1, 0.2):
        light = to_linear(speckle_noise(lit(signal), seeded(), sigma=(sigma, sigma)))
        assert light.mean() == pytest.approx(signal, rel=0.02)
        assert light.std() == pytest.approx(sigma * signal, rel=0.05)


def test_speckle_multiplies_all_channels_alike_and_is_skewed_to_the_bright_side():
    speckle = to_linear(speckle_noise(lit(0.1, batch=2), seeded(), sigma=(0.5, 0.5)))
    assert torch.allclose(speckle[:, 0], speckle[:, 2], atol=1e-6)
    centred = speckle - speckle.mean()
    # The skewness of a gamma variable is twice its relative deviation.
    assert (centred**3).mean() / centred.square().mean() ** 1.5 == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("color_share", [0.0, 1.0])
@pytest.mark.parametrize("density", [0.02, 0.2])
def test_salt_and_pepper_hit_the_asked_share_of_pixels_equally_often(density, color_share):
    images = grey(0.4, 200, 200)
    result = salt_and_pepper_noise(images, seeded(), density=(density, density), color_share=color_share)
    hit = result != images
    assert hit.float().mean() == pytest.approx(density, rel=0.1)
    assert set(result[hit].tolist()) == {0.0, 1.0}
    assert result[hit].mean() == pytest.approx(0.5, abs=0.05)
    together = (hit.all(dim=1) | ~hit.any(dim=1)).all()
    assert bool(together) == (color_share == 0)


def test_color_noise_leaves_brightness_alone_and_is_stronger_in_the_shadows():
    levels = [color_noise(grey(level, batch=4), seeded(), sigma=(8, 8)) - level for level in (0.3, 0.7)]
    assert all((LUMA * residual).sum(dim=1).abs().max() < 2e-3 for residual in levels)
    assert levels[0].std() / levels[1].std() == pytest.approx(0.85 / 0.65, rel=0.01)
    assert levels[0][:, 2].std() / 1.772 * 255 == pytest.approx(0.85 * 8, rel=0.15)  # Cb


def test_color_noise_comes_in_blotches_of_its_radius():
    def correlation(radius: float, lag: int) -> float:
        residual = color_noise(grey(0.5, 128, 128, batch=3), seeded(), radius=(radius, radius))[:, 2] - 0.5
        return float((residual[..., lag:] * residual[..., :-lag]).mean() / residual.square().mean())

    # Smoothing by a Gaussian of deviation r correlates neighbours at distance d by exp(-d^2 / 4 r^2).
    for radius in (1.5, 4.0):
        assert correlation(radius, 3) == pytest.approx(float(torch.tensor(-9 / (4 * radius**2)).exp()), abs=0.08)


def test_film_grain_is_strongest_in_mid_tones_and_absent_in_black_and_white():
    stds = [
        float((film_grain(grey(level, 128, 128), seeded(), strength=(10, 10)) - level).std()) * 255 for level in (0.0, 0.1, 0.5, 0.9, 1.0)
    ]
    assert stds[0] < 1e-3
    assert stds[4] < 1e-3
    assert stds[2] == pytest.approx(10, rel=0.1)
    assert stds[1] == pytest.approx(10 * 0.6, rel=0.1)
    assert stds[3] == pytest.approx(stds[1], rel=0.05)


def test_film_grain_is_mostly_brightness_and_coarser_grains_are_smoother():
    grain = film_grain(grey(0.5, 96, 96, batch=4), seeded(), strength=(10, 10), chroma=(0, 0)) - 0.5
    assert torch.allclose(grain[:, 0], grain[:, 1], atol=1e-6)
    roughness = []
    for size in (0.4, 0.8, 1.5):
        grain = film_grain(grey(0.5, 96, 96), seeded(), strength=(10, 10), size=(size, size)) - 0.5
        roughness.append(float(grain.diff(dim=3).std() / grain.std()))
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[2] < 0.6 * roughness[0]


def test_banding_is_constant_along_the_lines_of_the_sensor():
    ways = set()
    for residual in banding_noise(lit(0.3, 64, batch=16), seeded()) - lit(0.3, 64, batch=16):
        rows, columns = (residual.std(dim=d).max() < 1e-6 for d in (2, 1))
        assert bool(rows) != bool(columns)
        ways.add("rows" if rows else "columns")
    assert ways == {"rows", "columns"}


def test_banding_does_not_depend_on_the_signal_in_linear_light():
    for signal in (0.3, 0.6):
        offsets = to_linear(banding_noise(lit(signal, 64, batch=64), seeded(), strength=(0.01, 0.01))) - signal
        assert offsets.mean() == pytest.approx(0, abs=1e-3)
        assert 0.005 < offsets.std() < 0.011  # the drift takes its share


def test_unclipped_gaussian_noise_leaves_the_range():
    assert gaussian_noise(scene(), seeded(), sigma=(60, 60), clip=False).min() < 0
