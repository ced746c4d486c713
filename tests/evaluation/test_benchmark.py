from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from foundir_hf.data.tasks import TASKS, get_task
from foundir_hf.evaluation.benchmark import Score, degrade_image, evaluate, folder_pairs, psnr, summarise, to_report, to_table


def pixels(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    return (np.stack([x * 4, y * 4, (x + y) * 2], axis=-1) + noise).clip(0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def test_psnr_equals_scikit_images():
    for seed in range(5):
        a, b = pixels(17, 23, seed), pixels(17, 23, seed + 10)
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-6)
    assert psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)) == 0  # no wrap-around of bytes
    assert psnr(pixels(), pixels()) == math.inf


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


def test_folder_pairs_share_stems_and_small_inputs_are_enlarged(tmp_path):
    truth, small = pixels(32, 48), pixels(16, 24, seed=1)
    save(tmp_path / "GT" / "b.png", truth)
    save(tmp_path / "GT" / "a.png", truth[::-1])
    save(tmp_path / "LQ" / "a.bmp", truth)
    save(tmp_path / "LQ" / "b.png", small)
    save(tmp_path / "LQ" / "unused.png", small)
    first, second = folder_pairs("real", tmp_path, None)
    assert first[:3] == ("real", "real", "a.png")
    assert np.array_equal(first[3], truth)
    assert np.array_equal(first[4], truth[::-1])
    assert second[2] == "b.png"
    assert second[3].shape == truth.shape
    assert np.abs(second[3][1::2, 1::2].astype(int) - small).mean() < 25  # the same picture, larger
    assert len(list(folder_pairs("real", tmp_path, 1))) == 1


def test_a_truth_without_a_partner_is_refused_by_name(tmp_path):
    save(tmp_path / "GT" / "a.png", pixels())
    save(tmp_path / "LQ" / "b.png", pixels())
    with pytest.raises(ValueError, match=r"GT/a.png has no partner in LQ/"):
        list(folder_pairs("real", tmp_path, None))


SCORES = [
    Score("noise", "gaussian_noise", "a.png", 20.0, 26.0),
    Score("clean", "clean", "a.png", math.inf, 40.0),
    Score("noise", "camera_noise", "a.png", 30.0, 31.0),
    Score("noise", "gaussian_noise", "b.png", 22.0, math.inf),
    Score("clean", "clean", "b.png", math.inf, math.inf),
    Score("same", "same", "b.png", math.inf, math.inf),
]


def test_summaries_average_finite_scores_by_group_in_order_of_appearance():
    rows = summarise(SCORES)
    assert [row["family"] for row in rows] == ["noise", "clean", "same"]
    assert rows[0] == {"family": "noise", "images": 3, "psnr_input": 25.0, "psnr_output": 28.5, "gain": 3.5}
    assert rows[1] == {"family": "clean", "images": 2, "psnr_input": None, "psnr_output": 40.0, "gain": None}
    assert rows[2] == {"family": "same", "images": 1, "psnr_input": None, "psnr_output": None, "gain": None}
    assert [(row["task"], row["images"]) for row in summarise(SCORES, "task")[:3]] == [
        ("gaussian_noise", 2),
        ("clean", 2),
        ("camera_noise", 1),
    ]


def test_tables_are_markdown_with_a_dash_for_what_is_infinite():
    assert to_table(summarise(SCORES)).splitlines() == [
        "| family | images | input dB | output dB | gain |",
        "|---|---|---|---|---|",
        "| noise | 3 | 25.00 | 28.50 | +3.50 |",
        "| clean | 2 | - | 40.00 | - |",
        "| same | 1 | - | - | - |",
    ]


def test_reports_are_strict_json(tmp_path):
    report = to_report(SCORES, checkpoint="tiny", seed=0)
    parsed = json.loads(json.dumps(report, allow_nan=False))
    assert parsed == report
    assert (parsed["checkpoint"], parsed["seed"]) == ("tiny", 0)
    assert parsed["images"][1] == {"family": "clean", "task": "clean", "image": "a.png", "psnr_input": None, "psnr_output": 40.0}
    assert len(parsed["families"]) == 3
    assert len(parsed["tasks"]) == 4


def test_evaluation_scores_every_task_on_every_photograph_and_every_pair(pipeline, tmp_path):
    for name, seed in (("a.png", 0), ("b.png", 1), ("c.png", 2)):
        save(tmp_path / "clean" / name, pixels(seed=seed))
    save(tmp_path / "set" / "GT" / "x.png", pixels(seed=3))
    save(tmp_path / "set" / "LQ" / "x.png", pixels(seed=4))
    options = {"clean": tmp_path / "clean", "paired": {"set": tmp_path / "set"}, "seed": 5, "limit": 2}
    scores = evaluate(pipeline, **options)
    expected = [(task, image) for image in ("a.png", "b.png") for task in TASKS] + [("set", "x.png")]
    assert [(score.task, score.image) for score in scores] == expected
    for score in scores[: len(TASKS)]:
        assert score.family == TASKS[score.task].family
        assert score.psnr_input == psnr(degrade_image(pixels(seed=0), TASKS[score.task], "a.png", 5), pixels(seed=0))
        assert math.isfinite(score.psnr_output)
    assert scores[-1].psnr_input == psnr(pixels(seed=4), pixels(seed=3))
    assert evaluate(pipeline, **{**options, "clean": None}) == scores[-1:]
    assert json.dumps(to_report(scores), allow_nan=False)
