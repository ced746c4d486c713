"""The model card states what was measured, on the weights that ship."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.evaluation.suites import Case

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def card(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import card

    return card


def test_the_card_is_what_the_figures_say(card, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["card.py", "--check"])
    card.main()  # or else SystemExit


def test_a_number_that_was_changed_by_hand_is_noticed(card):
    text = (ROOT / "model_card.md").read_text(encoding="utf-8")
    number = json.loads((card.FIGURES / "families.json").read_text(encoding="utf-8"))["families"][0]["psnr_output"]
    assert f"| {number:.2f} |" in text
    changed = text.replace(f"| {number:.2f} |", f"| {number + 1:.2f} |")
    assert changed != text == card.fill(changed)


def test_every_block_has_its_place(card):
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in card.PAGES)
    for name in card.blocks():
        assert f"<!-- {name} -->" in text or f"# {name}: made by benchmarks/card.py" in text, name


def test_figures_of_other_weights_are_refused(card, monkeypatch, tmp_path):
    for path in card.FIGURES.glob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if "hashes" in content:
            content["hashes"] = dict.fromkeys(content["hashes"], "0")
        (tmp_path / path.name).write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(card, "FIGURES", tmp_path)
    for name in ("families", "targets", "classics", "steps", "experts"):
        with pytest.raises(ValueError, match="was measured on other weights"):
            card.blocks()[name]()


@pytest.mark.parametrize(
    ("target", "gain", "output", "expected"),
    [
        ("31.5", 0.0, 31.5, True),
        ("31.5", 9.0, 31.49, False),
        ("+0.8", 0.8, 20.0, True),
        ("+0.8", 0.79, 99.0, False),
        ("+0", -0.01, 36, False),
    ],
)
def test_targets_are_decibels_or_decibels_above_the_input(card, target, gain, output, expected):
    assert card.reached(target, {"gain": gain, "psnr_output": output}) == expected


def test_photographs_are_counted_by_collection_and_licence(card, tmp_path):
    rows = ["file,source,licence_class,split", "a,x,CC0,train", "b,x,CC0,val", "c,x,CC-BY,train", "d,w,CC0,train", "e,w,CC0,train"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    assert card.photograph_table(tmp_path / "manifest.csv")["rows"] == [["w", "CC0", 2, 0], ["x", "CC-BY", 1, 0], ["x", "CC0", 1, 1]]


def test_ours_stands_beside_the_classical_method_that_does_best(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import classics

    rows = [
        {
            "family": "a",
            "psnr": {"input": 20.0, "restored": 30.0, "nlm": 28.0, "median": 25.0},
            "time": {"restored": 1.0, "nlm": 0.25, "median": 0.1},
        },
        {
            "family": "b",
            "psnr": {"input": 20.0, "restored": 30.0, "lanczos": 1.0, classics.REAL_ESRGAN: 40.0},
            "time": {"lanczos": 0.001, classics.REAL_ESRGAN: 9.0},
        },
    ]
    first, second = classics.to_table(rows).splitlines()[2:]
    assert first == "| a | 20.00 | 30.00 | 28.00 (nlm) | 0.25 | - | - |"
    assert second == "| b | 20.00 | 30.00 | 1.00 (lanczos) | 0.00 | 40.00 | 9.0 |"


def test_the_estimate_knows_no_fidelity(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import steps

    row = {"fidelity": None, "steps": 0, "psnr": 30.0, "ssim": 0.9, "sharpness": 1.0, "time": 1.0}
    lines = steps.to_table([row, row | {"fidelity": 0.0, "steps": 2, "time": 3.0}]).splitlines()
    assert lines[2:] == ["| - | 0 | 30.00 | 0.9000 | 1.00 | 1.0 |", "| 0 | 2 | 30.00 | 0.9000 | 1.00 | 3.0 |"]


@pytest.mark.skipif(importlib.util.find_spec("ncnn") is None, reason="the extra `classics` is not installed")
def test_real_esrgan_enlarges_what_it_is_given(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import classics

    ramp = np.broadcast_to(np.linspace(40, 200, 32, dtype=np.uint8)[:, None, None], (32, 32, 3))
    large = np.asarray(Image.fromarray(ramp).resize((64, 64), Image.Resampling.BICUBIC))
    run = classics.load_real_esrgan(threads=1)
    assert run is not None
    restored = run(Case("s", "f", "t", "x.png", large, large, ramp))
    assert restored.shape == large.shape
    assert np.abs(restored.astype(int) - large).mean() < 8
