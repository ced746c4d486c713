"""Published numbers, reproduced: the protocol is theirs.

Needs their photographs: `FOUNDIR_TEST_DATA=DIR pytest tests/evaluation/test_protocol.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from foundir_hf.evaluation.degradation import select_degradations
from foundir_hf.evaluation.metrics import Meter, to_luma
from foundir_hf.evaluation.suites import ImageSet, load_suite

DATA = Path(os.environ.get("FOUNDIR_TEST_DATA", "nowhere"))
pytestmark = pytest.mark.skipif("FOUNDIR_TEST_DATA" not in os.environ, reason="FOUNDIR_TEST_DATA names no folder")


def inputs(image_set: ImageSet) -> tuple[float, float]:
    """Mean PSNR and SSIM of a set's inputs."""
    meter = Meter(("psnr", "ssim"))
    values = [meter.measure(c.degraded, c.truth, channel=c.channel, crop=c.crop) for c in image_set.cases(0)]
    return float(np.mean([v["psnr"] for v in values])), float(np.mean([v["ssim"] for v in values]))


@pytest.mark.parametrize(("sigma", "published"), [(15, 24.61), (25, 20.17), (50, 14.15)])
def test_noisy_cbsd68_has_the_published_psnr(sigma, published):
    damages = select_degradations([{"protocol": "noise", "sigma": sigma}])
    assert inputs(ImageSet("clean", DATA / "CBSD68" / "GT", "CBSD68", damages))[0] == pytest.approx(published, abs=0.01)


# Bicubic rows of the tables since SRCNN, on luma without a border of 4 pixels, as in EDSR (CVPRW 2017) and RCAN (ECCV 2018).
@pytest.mark.parametrize(("name", "psnr", "ssim"), [("Set5_x4", 28.42, 0.8104), ("Set14_x4", 26.00, 0.7027)])
def test_bicubic_rows_are_the_published_ones(name, psnr, ssim):
    measured = inputs(ImageSet("paired", DATA / name, name, channel="y", crop=4))
    assert measured == (pytest.approx(psnr, abs=0.1), pytest.approx(ssim, abs=0.005))


def test_hazy_inputs_are_as_hazy_as_sots():
    assert inputs(ImageSet("paired", DATA / "SOTS_indoor_20", "SOTS"))[0] == pytest.approx(11.97, abs=1)  # of 500; these are 20


def test_psnr_and_ssim_are_scikit_images_on_every_paired_set():
    meter = Meter(("psnr", "ssim"))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    for image_set in load_suite("dev", DATA, limit=2).sets:
        for case in image_set.cases(0) if image_set.kind == "paired" else ():
            assert case.truth is not None
            for channel in ("rgb", "y"):
                ours = meter.measure(case.degraded, case.truth, channel=channel)
                image, truth = (case.degraded, case.truth) if channel == "rgb" else (to_luma(case.degraded), to_luma(case.truth))
                axis = 2 if channel == "rgb" else None
                assert ours["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255), abs=1e-4)
                assert ours["ssim"] == pytest.approx(structural_similarity(truth, image, channel_axis=axis, **options), abs=1e-4)
