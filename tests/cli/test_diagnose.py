from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.cli.diagnose import to_table
from foundir_hf.data.tasks import TASKS
from foundir_hf.diagnosis import load_classifier
from foundir_hf.evaluation.demo import SAMPLES


@pytest.fixture
def folder(tmp_path):
    """`photos/`: noisy.png, deep/two.jpg, and a text that is none of the command's business."""
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    image = Image.open(SAMPLES / "coffee.jpg").convert("RGB").resize((240, 160), Image.Resampling.LANCZOS)
    image.save(photos / "deep" / "two.jpg", quality=95)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    noisy = TASKS["gaussian_noise"].degradation(pixels, torch.Generator().manual_seed(0), sigma=(40, 40))[0]
    Image.fromarray((noisy.permute(1, 2, 0) * 255).byte().numpy()).save(photos / "noisy.png")
    (photos / "notes.txt").write_text("not a photograph")
    return photos


def test_a_photograph_s_defects_are_listed_with_bars(folder, capsys):
    assert main(["diagnose", str(folder / "noisy.png")]) == 0
    name, first, *_ = capsys.readouterr().out.splitlines()
    assert name == str(folder / "noisy.png")
    assert first.split()[0] == "noise"
    assert "##########" in first
    assert first.endswith("%")


def test_json_holds_every_probability_of_every_photograph(folder, capsys):
    assert main(["diagnose", "--json", str(folder)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [str(folder / "deep" / "two.jpg"), str(folder / "noisy.png")]
    for probabilities in report.values():
        assert sorted(probabilities) == sorted(load_classifier().config.defects)
        assert all(0 <= p <= 1 for p in probabilities.values())
    noisy, clean = report[str(folder / "noisy.png")], report[str(folder / "deep" / "two.jpg")]
    assert noisy["noise"] > clean["noise"]


def test_a_photograph_named_twice_is_diagnosed_once(folder, capsys):
    assert main(["diagnose", "--json", str(folder / "noisy.png"), str(folder)]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [str(folder / "noisy.png"), str(folder / "deep" / "two.jpg")]


def test_nothing_is_written(folder):
    before = sorted(folder.rglob("*"))
    main(["diagnose", str(folder)])
    assert sorted(folder.rglob("*")) == before


def test_a_bad_photograph_does_not_stop_the_others(folder, capsys):
    (folder / "broken.png").write_bytes(b"no picture")
    assert main(["diagnose", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert str(folder / "noisy.png") in out
    assert str(folder / "deep" / "two.jpg") in out
    first, second, third = err.splitlines()
    assert first.startswith(f"foundir: {folder / 'broken.png'}: cannot be read")
    assert second == f"foundir: passed over 1 x .txt: {folder / 'notes.txt'}"
    assert third == "foundir: 1 of 3 photographs could not be read."


@pytest.mark.parametrize(
    ("name", "said"),
    [("no.png", "no such file or folder"), ("notes.txt", "not a photograph by its name"), ("empty", "holds no photographs")],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_cannot_be_diagnosed_is_told_in_one_line(folder, capsys, name, said, options):
    (folder / "empty").mkdir()
    assert main(["diagnose", str(folder / name), *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("foundir: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_table_has_defects_over_a_half_then_suspicions_and_leaves_the_rest_out():
    table = to_table("a.png", {"low_resolution": 0.98, "rain": 0.5, "noise": 0.2, "haze": 0.1}).splitlines()
    assert table == [
        "a.png",
        "  low resolution  " + "#" * 20 + "  98%",
        "  rain            " + "#" * 10 + " " * 10 + "  50%",
        "  noise           " + "#" * 4 + " " * 16 + "  20%  perhaps",
    ]


def test_a_photograph_without_a_likely_defect_looks_clean():
    assert to_table("a.png", {"low_resolution": 0.49, "rain": 0.3}) == "a.png\n  looks clean (most suspected: low resolution, 49%)"
