"""Measuring: every method on every image of a suite, the same in every run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml
from pictures import pixels, save
from PIL import Image

from foundir_hf.evaluation.benchmark import check, measure
from foundir_hf.evaluation.metrics import psnr
from foundir_hf.evaluation.outputs import Outputs
from foundir_hf.evaluation.suites import Suite, folder_suite, load_suite


@pytest.fixture
def suite(tmp_path) -> Suite:
    """Two photographs, damaged in three ways; a pair for super-resolution; a photograph without a truth."""
    for name, seed in (("a.png", 0), ("b.png", 1)):
        save(tmp_path / "clean" / name, pixels(seed=seed))
    save(tmp_path / "small" / "GT" / "x.png", pixels(40, 48))
    save(tmp_path / "small" / "LQ" / "x.png", pixels(20, 24))
    save(tmp_path / "real" / "r.png", pixels(24, 24))
    entries = [
        {"clean": "clean", "tasks": ["gaussian_noise", "clean", {"protocol": "noise", "sigma": 50}]},
        {"paired": "small", "channel": "y", "crop": 4, "baselines": ["low_resolution"]},
        {"unpaired": "real", "crop": 4},
    ]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"sets": entries}))
    return load_suite(tmp_path / "suite.yaml", tmp_path)


METRICS = ("psnr", "ssim")


def test_every_method_is_scored_on_every_image(pipeline, suite):
    found = list(measure(suite, pipeline, seed=5, metrics=METRICS))
    expected = [(task, image) for task in ("gaussian_noise", "clean", "noise_sigma_50") for image in ("a.png", "b.png")]
    assert [(m.score.task, m.score.image) for m in found] == [*expected, ("small", "x.png"), ("real", "r.png")]
    noisy, clean, rough, small, real = (found[i] for i in (0, 2, 4, 6, 7))
    assert list(noisy.score.methods) == ["input", "restored", "nlm", "total_variation"]
    assert noisy.score.baselines == ("nlm", "total_variation")
    for name, image in noisy.images.items():
        assert noisy.score.methods[name]["psnr"] == psnr(image, pixels(seed=0))
    assert clean.score.methods["input"] == {"psnr": math.inf, "ssim": pytest.approx(1)}
    assert math.isfinite(clean.score.methods["restored"]["psnr"] or 0)
    assert rough.images["input"].dtype == np.float64
    assert rough.score.methods["input"]["psnr"] == pytest.approx(20 * math.log10(255 / 50), abs=0.3)
    assert list(small.score.methods) == ["input", "restored", "lanczos", "unsharp_fine", "unsharp"]
    assert all(image.shape == (40, 48, 3) for image in small.images.values())
    assert real.score.methods == {"input": {"psnr": None, "ssim": None}, "restored": {"psnr": None, "ssim": None}}
    assert set(small.seconds) == set(small.images) - {"input"}
    assert all(value > 0 for value in small.seconds.values())


def test_the_restoration_is_the_pipeline_s_with_the_seed_and_options_given(pipeline, suite):
    first = next(measure(suite, pipeline, seed=5, metrics=METRICS, fidelity=0.5))
    assert first.case.degraded.dtype == np.uint8
    alone = pipeline(Image.fromarray(first.case.degraded), generator=torch.Generator().manual_seed(5), fidelity=0.5).images[0]
    assert np.array_equal(first.images["restored"], np.asarray(alone))


def test_two_runs_are_equal_and_another_seed_is_not(pipeline, suite, tmp_path):
    suite = load_suite(tmp_path / "suite.yaml", tmp_path, limit=1)
    first, second = ([m.score for m in measure(suite, pipeline, seed=1, metrics=METRICS)] for _ in range(2))
    assert first == second
    assert next(measure(suite, pipeline, seed=2, metrics=METRICS)).score != first[0]


def test_what_is_not_asked_for_is_not_run(pipeline, suite):
    bare = list(measure(suite, pipeline, metrics=("psnr",), with_baselines=False))
    assert {tuple(m.score.methods) for m in bare} == {("input", "restored")}
    assert all(m.score.baselines == () for m in bare)
    without_model = list(measure(suite, metrics=("psnr",)))
    assert list(without_model[0].score.methods) == ["input", "nlm", "total_variation"]
    assert list(without_model[-1].score.methods) == ["input"]


def test_other_methods_are_scored_where_they_have_outputs(suite, tmp_path):
    save(tmp_path / "DnCNN" / "small" / "x.png", pixels(40, 48, seed=9))
    other = Outputs("DnCNN", tmp_path / "DnCNN", suite)
    found = list(measure(suite, metrics=("psnr",), outputs=[other], with_baselines=False))
    assert [("DnCNN" in m.score.methods) for m in found] == [False] * 6 + [True, False]
    assert "DnCNN" not in found[6].score.baselines
    with pytest.raises(ValueError, match="must not be called 'input'"):
        list(measure(suite, outputs=[Outputs("input", tmp_path / "DnCNN", suite)], metrics=("psnr",)))


@pytest.mark.parametrize("names", [["input"], ["restored"], ["lanczos"], ["nlm"], ["DnCNN", "DnCNN"]])
def test_names_of_our_own_methods_are_refused_before_anything_is_measured(suite, tmp_path, names):
    save(tmp_path / "DnCNN" / "small" / "x.png", pixels(40, 48, seed=9))
    outputs = [Outputs(name, tmp_path / "DnCNN", suite) for name in names]
    with pytest.raises(ValueError, match=f"must not be called '{names[-1]}'"):
        check(suite, outputs)
    with pytest.raises(ValueError, match=f"must not be called '{names[-1]}'"):
        next(measure(suite, outputs=outputs, metrics=("psnr",)))


def test_missing_photographs_are_told_before_anything_is_measured(tmp_path):
    save(tmp_path / "clean" / "a.png", pixels())
    with pytest.raises(ValueError, match="nowhere"):
        next(measure(folder_suite([tmp_path / "clean"], [tmp_path / "nowhere"]), metrics=("psnr",)))
