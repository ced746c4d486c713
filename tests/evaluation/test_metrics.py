"""Metrics: equal to the libraries' and to the formulas that they are named after."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from foundir_hf.evaluation.metrics import DEFAULT_METRICS, METRICS, Meter, crop_border, ms_ssim, psnr, ssim, to_luma


def pixels(height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return (np.stack([x * 4, y * 4, (x + y) * 2], axis=-1) + noise).clip(0, 255).astype(np.uint8)


def test_psnr_equals_scikit_images():
    for seed in range(5):
        a, b = pixels(17, 23, seed), pixels(17, 23, seed + 10)
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-6)
    assert psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)) == 0  # no wrap-around of bytes
    assert psnr(pixels(), pixels()) == math.inf


def test_psnr_does_not_round_what_was_never_rounded():
    truth = np.full((8, 8, 3), 100, np.uint8)
    assert psnr(truth + 0.25, truth) == pytest.approx(10 * math.log10(255**2 / 0.0625))


def reference_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al., TIP 2004, equation 13, written out."""

    def smooth(image):
        return gaussian_filter(image, 1.5, truncate=3.5)

    a, b = a.astype(float), b.astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b, cov = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2, smooth(a * b) - mean_a * mean_b
    index = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return index[5:-5, 5:-5].mean()


def test_ssim_is_the_paper_s_and_scikit_images_with_its_settings():
    a, b = pixels(seed=1), pixels(seed=2)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert ssim(a, b) == pytest.approx(structural_similarity(a, b, channel_axis=2, **options), abs=1e-4)
    assert ssim(a, b) == pytest.approx(np.mean([reference_ssim(a[..., c], b[..., c]) for c in range(3)]), abs=1e-6)
    assert ssim(to_luma(a), to_luma(b)) == pytest.approx(reference_ssim(to_luma(a), to_luma(b)), abs=1e-6)
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_and_ms_ssim_need_room_for_their_windows():
    assert ssim(pixels(10, 40), pixels(10, 40)) is None
    assert ssim(pixels(11, 40), pixels(11, 40)) == pytest.approx(1)
    assert ms_ssim(pixels(175, 180), pixels(175, 180)) is None
    assert ms_ssim(pixels(176, 180), pixels(176, 180)) == pytest.approx(1, abs=1e-3)  # single precision


def test_ms_ssim_forgives_what_only_the_finest_scale_shows():
    truth = pixels(176, 176)
    noisy = (truth + np.random.default_rng(3).normal(0, 25, truth.shape)).clip(0, 255).round().astype(np.uint8)
    value, single = ms_ssim(noisy, truth), ssim(noisy, truth)
    assert value is not None
    assert single is not None
    assert single < value < 1
    assert ms_ssim(to_luma(noisy), to_luma(truth)) is not None


def test_luma_is_bt_601_in_studio_range():
    row = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert to_luma(row)[0] == pytest.approx([16, 235, 81.481, 144.553, 40.966])


def test_the_border_is_left_out_and_something_must_be_left():
    assert crop_border(pixels(10, 12), 4).shape == (2, 4, 3)
    assert np.array_equal(crop_border(pixels(), 0), pixels())
    with pytest.raises(ValueError, match=r"`crop` .* 12x8 pixels, got 4"):
        crop_border(pixels(8, 12), 4)


def test_a_meter_measures_what_it_was_asked_for_in_a_fixed_order():
    a, b = pixels(seed=1), pixels(seed=2)
    assert Meter(("ssim", "psnr")).measure(a, b) == {"psnr": psnr(a, b), "ssim": ssim(a, b)}
    luma = Meter(("psnr",)).measure(a, b, channel="y", crop=4)
    assert luma["psnr"] == pytest.approx(psnr(to_luma(a)[4:-4, 4:-4], to_luma(b)[4:-4, 4:-4]))
    assert luma["psnr"] != pytest.approx(psnr(a, b), abs=0.1)
    assert Meter().measure(a, None) == dict.fromkeys(DEFAULT_METRICS)
    assert list(Meter(("ms_ssim",)).measure(a, b)) == ["psnr", "ms_ssim"]  # gains are told in PSNR
    assert set(DEFAULT_METRICS) < set(METRICS)


def test_a_meter_refuses_unknown_metrics_and_other_sizes():
    with pytest.raises(ValueError, match=r"`metrics` must be among psnr, .*; got 'mse'"):
        Meter(("psnr", "mse"))
    with pytest.raises(ValueError, match=r"`image` must have the shape of its truth \(40, 48, 3\), got \(40, 40, 3\)"):
        Meter(("psnr",)).measure(pixels(40, 40), pixels())


def test_removed_is_nothing_for_the_input_itself_and_most_for_the_clean_photograph():
    from foundir_hf.data.tasks import get_task
    from foundir_hf.evaluation.degradation import degrade_image
    from foundir_hf.evaluation.suites import SAMPLES
    from foundir_hf.io.decoder import read_rgb

    truth = read_rgb(SAMPLES / "coffee.jpg")
    degraded = degrade_image(truth, get_task("gaussian_noise"), "coffee.jpg", 0)
    meter = Meter(["removed"])
    before = meter.judge(degraded)
    same, clean = (meter.measure(image, truth, before=before, defects=("noise",))["removed"] for image in (degraded, truth))
    assert same == 0
    assert clean is not None
    assert clean > 0.5
    assert meter.measure(truth, truth, before=before)["removed"] is None  # nothing to remove is named
