"""The diagnosis of photographs and the degradation-removed score, with the classifier that ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from foundir_hf.data.tasks import TASKS
from foundir_hf.diagnosis import BUNDLED, diagnose, load_classifier, removed_score, removed_share
from foundir_hf.evaluation.demo import SAMPLES

PHOTOS = ("astronaut.jpg", "chelsea.jpg", "coffee.jpg", "rocket.jpg")


def sample(name: str, side: int = 320) -> np.ndarray:
    image = Image.open(SAMPLES / name).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def damage(truth: np.ndarray, task: str, seed: int = 0) -> np.ndarray:
    pixels = torch.from_numpy(truth.copy()).permute(2, 0, 1)[None].float() / 255
    degraded = TASKS[task].degrade(pixels, torch.Generator().manual_seed(seed))
    return (degraded[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


# --- The weights that ship ---


def test_the_classifier_that_ships_knows_every_defect_of_the_task_table():
    assert sorted(load_classifier().config.defects) == sorted({defect for task in TASKS.values() for defect in task.removes})


def test_the_classifier_that_ships_keeps_to_its_budget_and_is_safe_to_load():
    assert sum(p.numel() for p in load_classifier().parameters()) <= 500_000
    files = [p for p in BUNDLED.iterdir() if p.suffix != ".py"]
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    assert sum(p.stat().st_size for p in files) < 2_000_000
    with safe_open(next(BUNDLED.glob("*.safetensors")), "pt") as weights:
        kinds = {weights.get_slice(k).get_dtype() for k in weights.keys() if "num_batches" not in k}  # noqa: SIM118 (not a dict)
    assert kinds == {"F16"}
    assert all(p.isfinite().all() for p in load_classifier().parameters())


@pytest.mark.parametrize("name", PHOTOS)
def test_damage_raises_the_probability_of_its_defect(name):
    truth = sample(name)
    clean = diagnose(truth)
    for task in ("gaussian_noise", "motion_blur", "rain", "dense_haze", "low_light", "interlacing", "moire"):
        (defect,) = TASKS[task].removes
        assert diagnose(damage(truth, task))[defect] > clean[defect], task


@pytest.mark.parametrize("task", ["gaussian_noise", "defocus_blur", "downsample_x4", "dense_haze", "interlacing"])
def test_plain_damage_is_found(task):
    (defect,) = TASKS[task].removes
    found = [diagnose(damage(sample(name), task, seed))[defect] > 0.5 for seed, name in enumerate(PHOTOS)]
    assert sum(found) >= 3


# --- `diagnose` ---


def test_the_likeliest_defect_comes_first_and_every_defect_comes():
    diagnosis = diagnose(sample("coffee.jpg", 128))
    assert list(diagnosis.values()) == sorted(diagnosis.values(), reverse=True)
    assert sorted(diagnosis) == sorted(load_classifier().config.defects)
    assert all(0 <= p <= 1 for p in diagnosis.values())


def test_a_picture_and_its_array_are_judged_alike_and_twice_alike():
    pixels = sample("chelsea.jpg", 150)
    assert diagnose(pixels) == diagnose(Image.fromarray(pixels)) == diagnose(pixels.copy())


def test_the_judgement_leaves_the_classifier_and_the_picture_as_they_were():
    pixels = sample("chelsea.jpg", 150)
    before, state = pixels.copy(), {k: v.clone() for k, v in load_classifier().state_dict().items()}
    diagnose(pixels)
    assert (pixels == before).all()
    assert all(torch.equal(state[k], v) for k, v in load_classifier().state_dict().items())


@pytest.mark.filterwarnings("error")
def test_an_array_that_must_not_be_written_to_or_lies_strangely_in_memory_is_no_trouble():
    pixels = sample("chelsea.jpg", 150).copy()
    pixels.flags.writeable = False
    assert diagnose(pixels) == diagnose(np.asfortranarray(pixels))
    assert diagnose(pixels[::2, ::-2]) == diagnose(pixels[::2, ::-2].copy())


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_pictures_of_other_modes_are_judged(mode):
    assert len(diagnose(Image.fromarray(sample("coffee.jpg", 100)).convert(mode))) == len(load_classifier().config.defects)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match=r"`image` must be a Pillow image or a `uint8` array \(height, width, 3\), got"):
        diagnose(image)


def test_a_folder_without_a_classifier_is_named(tmp_path):
    with pytest.raises(ValueError, match="must hold a classifier") as error:
        load_classifier(tmp_path)
    assert str(tmp_path) in str(error.value)


# --- `removed_score` ---


BEFORE = {"darkness": 1.0, "noise": 0.5}


@pytest.mark.parametrize(
    ("after", "defects", "expected"),
    [
        ({"darkness": 1.0, "noise": 0.5}, ["darkness"], 0.0),
        ({"darkness": 0.8, "noise": 0.5}, ["darkness"], 0.2),
        ({"darkness": 0.0, "noise": 0.5}, ["darkness"], 1.0),
        ({"darkness": 0.0, "noise": 0.5}, ["darkness", "noise"], 1 / 1.5),
        ({"darkness": 0.0, "noise": 0.5}, ["noise"], 0.0),
        ({"darkness": 0.0, "noise": 0.5}, ["darkness", "darkness", "noise"], 1 / 1.5),
        ({"darkness": 0.4, "noise": 0.9}, ["darkness", "noise"], 0.6 / 1.5),  # more noise is not set off
    ],
)
def test_the_score_is_the_share_of_the_probability_that_is_gone(after, defects, expected):
    assert removed_share(BEFORE, after, defects) == pytest.approx(expected)


def test_the_score_of_two_pictures_is_the_share_of_their_verdicts():
    truth = sample("coffee.jpg", 160)
    degraded = damage(truth, "gaussian_noise")
    assert removed_score(degraded, truth, ["noise"]) == removed_share(diagnose(degraded), diagnose(truth), ["noise"])


def test_leaving_the_damage_in_scores_nothing_whatever_the_damage():
    degraded = damage(sample("coffee.jpg", 160), "heavy_rain")
    assert removed_score(degraded, degraded, ["rain"]) == 0


@pytest.mark.parametrize("task", ["heavy_rain", "snow", "gaussian_noise", "dense_haze", "low_light"])
def test_the_truth_scores_more_than_half_of_the_way_and_that_more_than_nothing(task):
    scores = []
    for seed, name in enumerate(PHOTOS):
        truth = sample(name)
        degraded = damage(truth, task, seed)
        half = ((truth.astype(np.uint16) + degraded) // 2).astype(np.uint8)
        scores.append([removed_score(degraded, restored, TASKS[task].removes) for restored in (degraded, half, truth)])
    none, half, all_gone = np.mean(scores, axis=0)
    assert none == 0
    assert 0 < half < all_gone
    assert all_gone > 0.5


@pytest.mark.parametrize("defects", [[], ["fog"], ["noise", "fog"]])
def test_unknown_defects_are_refused(defects):
    with pytest.raises(ValueError, match="`defects` must be one or more of"):
        removed_share(BEFORE, BEFORE, defects)
