"""Seeded damage: the same in every run, and the published protocols as they were published."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.data.degradations.blur import defocus_blur
from foundir_hf.data.tasks import TASKS, get_task
from foundir_hf.evaluation.degradation import degrade_image, select_degradations
from foundir_hf.evaluation.metrics import psnr


def pixels(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return (np.stack([x * 4, y * 4, (x + y) * 2], axis=-1) + noise).clip(0, 255).astype(np.uint8)


def test_damage_depends_on_seed_task_and_name_alone():
    truth = pixels(33, 47)
    before = truth.copy()
    first = degrade_image(truth, get_task("rain"), "a.png", 0)
    assert first.shape == truth.shape
    assert first.dtype == np.uint8
    degrade_image(truth, get_task("rain"), "other.png", 0)
    assert np.array_equal(first, degrade_image(truth, get_task("rain"), "a.png", 0))
    assert not np.array_equal(first, degrade_image(truth, get_task("rain"), "b.png", 0))
    assert not np.array_equal(first, degrade_image(truth, get_task("rain"), "a.png", 1))
    noises = [degrade_image(np.full((32, 32, 3), 128, np.uint8), get_task(t), "a.png", 0) for t in ("gaussian_noise", "camera_noise")]
    signs = [np.sign(noise.astype(int) - 128).ravel() for noise in noises]
    assert abs(np.corrcoef(*signs)[0, 1]) < 0.1  # tasks do not share their random numbers
    assert np.array_equal(truth, before)
    assert np.array_equal(degrade_image(truth, get_task("clean"), "a.png", 0), truth)


def test_tasks_are_named_by_name_pattern_family_or_all():
    assert [d.name for d in select_degradations(["all"])] == list(TASKS)
    assert select_degradations(["haze", "downsample_*"])[0].name == "haze"
    assert {"downsample_x2", "downsample_x4"} <= {d.name for d in select_degradations(["downsample_*"])}
    family = [t.name for t in TASKS.values() if t.family == "noise"]
    assert [d.name for d in select_degradations(["noise"])] == family
    damage = select_degradations(["gaussian_noise"])[0]
    truth = pixels()
    assert (damage.family, damage.defects, damage.multiple) == ("noise", ("noise",), 1)
    assert np.array_equal(damage.apply(truth, "a.png", 3), degrade_image(truth, TASKS["gaussian_noise"], "a.png", 3))


def test_noise_is_neither_clipped_nor_rounded_and_has_the_published_psnr():
    damage = select_degradations([{"protocol": "noise", "sigma": 25}])[0]
    truth = np.tile(np.array([0, 128, 255], np.uint8), (128, 128, 1))
    noisy = damage.apply(truth, "a.png", 0)
    assert damage.name == "noise_sigma_25"
    assert noisy.min() < -20
    assert noisy.max() > 275
    assert not np.array_equal(noisy, noisy.round())
    assert psnr(noisy, truth) == pytest.approx(20 * math.log10(255 / 25), abs=0.1)  # 20.17 dB, whatever the photograph
    assert (noisy - truth).mean(axis=(0, 1)) == pytest.approx([0, 0, 0], abs=1)
    assert np.array_equal(noisy, damage.apply(truth, "a.png", 0))
    assert not np.array_equal(noisy, damage.apply(truth, "b.png", 0))


def test_jpeg_is_libjpeg_s_at_the_quality_asked_for():
    truth = pixels(64, 64)
    damages = select_degradations([{"protocol": "jpeg", "quality": [10, 40]}])
    assert [d.name for d in damages] == ["jpeg_quality_10", "jpeg_quality_40"]
    rough, fine = (d.apply(truth, "a.png", 0) for d in damages)
    buffer = io.BytesIO()
    Image.fromarray(truth).save(buffer, "JPEG", quality=10)
    assert np.array_equal(rough, np.asarray(Image.open(buffer)))
    assert psnr(rough, truth) < psnr(fine, truth)


def test_bicubic_inputs_are_small_and_hold_the_picture():
    damage = select_degradations([{"protocol": "bicubic", "factor": 4}])[0]
    ramp = np.tile(np.arange(0, 128, 2, dtype=np.uint8)[None, :, None], (32, 1, 3))
    small = damage.apply(ramp, "a.png", 0)
    assert (damage.multiple, damage.defects, small.shape) == (4, ("low_resolution",), (8, 16, 3))
    assert small[4, 4, 0] == pytest.approx(ramp[16, 16:20, 0].mean(), abs=1)  # aligned by areas: no shift


def test_a_task_of_one_severity_is_the_task_with_its_ranges_narrowed():
    truth = pixels(48, 64)
    fixed, between = select_degradations([{"task": "defocus_blur", "radius": 4}, {"task": "defocus_blur", "radius": [1, 2]}])
    assert (fixed.name, between.name) == ("defocus_blur_radius_4", "defocus_blur_radius_1-2")
    assert fixed.family == "blur"
    assert fixed.defects == TASKS["defocus_blur"].removes
    # Nothing is left to chance: seed and name do not matter.
    assert np.array_equal(fixed.apply(truth, "a", 0), fixed.apply(truth, "b", 1))
    images = torch.from_numpy(truth.copy()).permute(2, 0, 1)[None].float() / 255
    blurred = defocus_blur(images, torch.Generator(), radius=(4, 4))[0].clamp(0, 1)
    expected = blurred.mul(255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(fixed.apply(truth, "a", 0), expected)
    assert psnr(between.apply(truth, "a", 0), truth) > psnr(expected, truth)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"task": "hail", "size": 3}], r"`task` must be one of .* got 'hail'"),
        ([{"task": "defocus_blur"}], r"task 'defocus_blur' takes radius, at least one of them; got "),
        ([{"task": "motion_blur", "bend": 1}], r"task 'motion_blur' takes length, at least one of them; got bend"),
        ([{"task": "defocus_blur", "radius": "4"}], r"`radius` of task 'defocus_blur' must be a number or a range of two, got '4'"),
        ([{"task": "defocus_blur", "radius": [1, 2, 3]}], r"must be a number or a range of two, got \[1, 2, 3\]"),
        (["hail"], r"`tasks` must name sub-tasks .* got 'hail'"),
        (["haze", "haze"], r"names 'haze' twice"),
        ([{"protocol": "blur"}], r"`protocol` must be one of noise, jpeg, bicubic; got 'blur'"),
        ([{"protocol": "noise"}], r"takes `sigma` and nothing else"),
        ([{"protocol": "noise", "sigma": 25, "clip": True}], r"takes `sigma` and nothing else, got clip, sigma"),
        ([{"protocol": "jpeg", "quality": 0}], r"`quality` .* in \[1, 95\], got 0"),
        ([{"protocol": "jpeg", "quality": 10.5}], r"got 10.5"),
        ([{"protocol": "bicubic", "factor": True}], r"got True"),
        ([{"protocol": ["noise"]}], r"`protocol` must be one of noise, jpeg, bicubic; got \['noise'\]"),
        ([{"protocol": "jpeg", 5: 6, "a": 1}], r"takes `quality` and nothing else, got 5, a"),
        ([{"protocol": "noise", "sigma": []}], r"`sigma` of protocol 'noise' must be a number or a list of some, got \[\]"),
        ([], r"`tasks` must name at least one, got \[\]"),
    ],
)
def test_what_names_no_damage_is_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        select_degradations(rows)
