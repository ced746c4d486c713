"""Classical baselines: each removes what it is there for, none needs to be told how much there is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foundir_hf.evaluation.baselines import BASELINES, BY_DEFECT, choose, enlarge, estimate_sigma, for_defects, run_baseline
from foundir_hf.evaluation.degradation import select_degradations
from foundir_hf.evaluation.metrics import psnr
from foundir_hf.evaluation.suites import SAMPLES
from foundir_hf.io.decoder import read_rgb


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    with Image.open(SAMPLES / "astronaut.jpg") as image:
        return np.asarray(image.convert("RGB").resize((96, 96), Image.Resampling.LANCZOS))


def gain(name: str, degraded: np.ndarray, truth: np.ndarray) -> float:
    return psnr(run_baseline(name, degraded), truth) - psnr(degraded, truth)


def test_noise_is_estimated_without_a_truth():
    flat = np.full((64, 64, 3), 0.5)
    for sigma in (0.02, 0.1):
        noisy = flat + np.random.default_rng(0).normal(0, sigma, flat.shape)
        assert estimate_sigma(noisy) == pytest.approx(sigma, rel=0.1)
    assert estimate_sigma(flat) == 0
    assert estimate_sigma(np.zeros((1, 1, 3))) == 0


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 3), (33, 20, 3)])
def test_every_baseline_takes_any_image_and_keeps_its_size(name, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for pixels in (image, np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), image - 20.0):
        result = run_baseline(name, pixels)
        assert result.shape == shape
        assert result.dtype == np.uint8


def test_denoisers_gain_on_noise_of_an_unknown_level(truth):
    for sigma in (15, 50):
        noisy = select_degradations([{"protocol": "noise", "sigma": sigma}])[0].apply(truth, "a", 0)
        assert gain("nlm", noisy, truth) > 1.5
        assert gain("total_variation", noisy, truth) > 1.5


def test_deblocking_gains_on_jpeg(truth):
    rough = select_degradations([{"protocol": "jpeg", "quality": 10}])[0].apply(truth, "a", 0)
    assert gain("total_variation", rough, truth) > 0


def test_sharpeners_gain_on_blur(truth):
    blurred = np.asarray(enlarge(enlarge(truth, (48, 48), Image.Resampling.BOX), (96, 96), Image.Resampling.BILINEAR))
    for name in ("unsharp", "wiener"):
        assert gain(name, blurred, truth) > 0.3


def test_the_dark_channel_gains_on_haze_and_gamma_on_darkness(truth):
    haze = (truth * 0.5 + 230 * 0.5).round().astype(np.uint8)
    assert gain("dark_channel", haze, truth) > 3
    dark = (255 * (truth / 255) ** 2.5 * 0.7).round().astype(np.uint8)
    assert gain("auto_gamma", dark, truth) > 3
    grey = np.full((8, 8, 3), 30, np.uint8)
    assert run_baseline("auto_gamma", grey).mean() == pytest.approx(0.45 * 255, abs=0.5)


def test_grey_world_takes_a_colour_cast_out():
    grey = np.random.default_rng(0).integers(40, 160, (16, 16, 1)).repeat(3, axis=2)
    cast = (grey * [1.2, 1.0, 0.8]).round().astype(np.uint8)
    balanced = run_baseline("gray_world", cast).astype(int)
    assert np.ptp(balanced, axis=2).max() <= 2
    assert np.ptp(cast.astype(int), axis=2).max() > 50


def test_the_median_takes_streaks_out():
    truth = np.full((40, 40, 3), 90, np.uint8)
    rainy = truth.copy()
    rainy[:, ::9] = 220
    assert np.array_equal(run_baseline("median", rainy), truth)


def test_several_defects_get_a_chain_from_file_to_scene(truth):
    chosen = for_defects(("darkness", "noise", "compression"))
    assert chosen == ("total_variation", "nlm", "auto_gamma", "total_variation+nlm+auto_gamma")
    steps = run_baseline("auto_gamma", run_baseline("nlm", run_baseline("total_variation", truth)))
    chained = run_baseline("total_variation+nlm+auto_gamma", truth)
    assert np.abs(chained.astype(int) - steps).max() <= 6  # the chain rounds once
    assert for_defects(("noise",)) == BY_DEFECT["noise"]
    assert for_defects(("moire", "clean")) == ()
    assert not any("+" in name for name in for_defects(("darkness", "noise", "haze", "rain")))  # a mixture of nobody knows what


def test_suites_name_baselines_or_defects_and_nothing_else():
    assert choose(["haze", "clahe"]) == ("clahe", "dark_channel")
    with pytest.raises(ValueError, match=r"`baselines` must be among nlm, .* or defects .*; got 'bm3d'"):
        choose(["bm3d"])


def test_photographs_are_enlarged_as_the_literature_does():
    image = read_rgb(SAMPLES / "coffee.jpg")[:40, :60]
    large = enlarge(image, (80, 120), Image.Resampling.BICUBIC)
    assert large.shape == (80, 120, 3)
    assert np.array_equal(large, np.asarray(Image.fromarray(image).resize((120, 80), Image.Resampling.BICUBIC)))
