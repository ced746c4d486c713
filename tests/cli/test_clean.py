from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.cli.clean import summary, write_sheet
from foundir_hf.data.cleaning import Rule, Verdict, read_manifest
from foundir_hf.data.degradations.haze import haze
from foundir_hf.demo import SAMPLES


@pytest.fixture
def photos(tmp_path):
    """`photos/`: two samples, one of them again under haze in a sub-folder, and a file that is no picture."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name in ("chelsea.jpg", "coffee.jpg"):
        shutil.copy(SAMPLES / name, folder / name)
    with Image.open(SAMPLES / "astronaut.jpg") as image:
        clear = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    foggy = haze(clear, torch.Generator().manual_seed(0), density=(2, 2))[0].mul(255).round().to(torch.uint8)
    Image.fromarray(foggy.permute(1, 2, 0).numpy()).save(folder / "sub" / "fog.png")
    (folder / "broken.jpg").write_text("no picture")
    return folder


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refusal(capsys, *arguments) -> str:
    assert main(["clean", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]  # after the progress bar, if it got so far


def test_clean_writes_a_manifest_prints_what_rules_caught_and_leaves_the_folder_alone(tmp_path, photos, capsys):
    before = contents(photos)
    assert main(["clean", str(photos), "-o", str(tmp_path / "out" / "manifest.json"), "--sheet", str(tmp_path / "sheet.jpg")]) == 0
    verdicts = read_manifest(tmp_path / "out" / "manifest.json")
    assert list(verdicts) == ["broken.jpg", "chelsea.jpg", "coffee.jpg", "sub/fog.png"]
    assert verdicts["broken.jpg"].dropped
    assert "haze" in verdicts["sub/fog.png"].defects
    assert not verdicts["coffee.jpg"].dropped
    assert "haze" not in verdicts["coffee.jpg"].defects
    assert contents(photos) == before
    said = capsys.readouterr().out
    assert "haze > 0.375" in said
    assert "4 photographs:" in said
    assert "1 dropped (1 unreadable)" in said
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.width == 10 * 160


def test_rules_of_ones_own_replace_the_built_in_ones(tmp_path, photos, capsys):
    (tmp_path / "rules.yaml").write_text("- {score: short_side, below: 310, verdict: drop, reason: small}\n")
    assert main(["clean", str(photos), "-o", str(tmp_path / "m.json"), "--rules", str(tmp_path / "rules.yaml"), "--workers", "1"]) == 0
    verdicts = read_manifest(tmp_path / "m.json")
    assert {name: verdict.dropped for name, verdict in verdicts.items()} == {
        "broken.jpg": True,
        "chelsea.jpg": True,
        "coffee.jpg": False,
        "sub/fog.png": False,
    }
    assert verdicts["chelsea.jpg"].reasons == ("small: short_side 300 is below 310",)
    assert "short_side < 310  drop" in capsys.readouterr().out


def test_mistakes_are_one_line_and_write_nothing(tmp_path, photos, capsys):
    manifest = tmp_path / "m.json"
    (tmp_path / "wrong.yaml").write_text("- {score: noise, verdict: fog, reason: r, above: 1}\n")
    (tmp_path / "unknown.yaml").write_text("- {score: beauty, verdict: drop, reason: r, above: 1}\n")
    assert "nowhere" in refusal(capsys, tmp_path / "nowhere", "-o", manifest)
    assert "is a folder" in refusal(capsys, photos, "-o", tmp_path)
    assert "must end in one of .jpg" in refusal(capsys, photos, "-o", manifest, "--sheet", tmp_path / "sheet.pdf")
    assert "rule 1: `verdict` must be one of" in refusal(capsys, photos, "-o", manifest, "--rules", tmp_path / "wrong.yaml")
    assert "'beauty', which is not computed" in refusal(capsys, photos, "-o", manifest, "--rules", tmp_path / "unknown.yaml")
    assert "absent.yaml" in refusal(capsys, photos, "-o", manifest, "--rules", tmp_path / "absent.yaml")
    assert not manifest.exists()


def test_a_model_that_is_unknown_or_not_installed_is_told_before_anything_is_scored(tmp_path, photos, capsys, monkeypatch):
    manifest = tmp_path / "m.json"
    assert "`--iqa` must be of musiq, clipiqa; got 'lpips'" in refusal(capsys, photos, "-o", manifest, "--iqa", "lpips")
    monkeypatch.setitem(sys.modules, "pyiqa", None)  # as if it were not installed, wherever this runs
    assert "pip install 'foundir_hf[iqa]'" in refusal(capsys, photos, "-o", manifest, "--iqa", "musiq")
    assert not manifest.exists()


def test_the_summary_counts_a_photograph_under_every_rule_but_once_in_the_totals():
    rules = [Rule("a", "haze", "r", above=1), Rule("b", "noise", "r", below=1), Rule("c", "drop", "r", above=1)]
    verdicts = {
        "both": Verdict(False, ("noise", "haze"), ("x", "y"), {"a": 2, "b": 0, "c": 0}),
        "gone": Verdict(True, ("haze",), ("x", "y"), {"a": 2, "b": 2, "c": 2}),
        "good": Verdict(False, (), (), {"a": 0, "b": 2, "c": 0}),
        "unreadable": Verdict(True, reasons=("no",)),
    }
    lines = summary(verdicts, rules).splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["2", "1", "1"]
    assert lines[-1] == "4 photographs: 1 fit for every task, 1 not for some (noise 1, haze 1), 2 dropped (1 unreadable)"


def test_a_sheet_shows_every_group_in_rows_of_its_own_and_at_most_so_many(tmp_path):
    for i in range(7):
        Image.new("RGB", (40, 30 + i), (30 * i, 0, 0)).save(tmp_path / f"{i}.png")
    verdicts = {f"{i}.png": Verdict(False, ("haze",) if i < 5 else (), (), {"haze": 0}) for i in range(7)}
    write_sheet(tmp_path / "sheet.png", tmp_path, verdicts, most=3, columns=2, width=40)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (80, 3 * (20 + 30))  # three hazy ones need two rows, two kept ones one
        reds = {sheet.getpixel((x, y)) for x, y in ((20, 35), (60, 35), (20, 85), (60, 85), (20, 135), (60, 135))}
    assert reds == {(0, 0, 0), (30, 0, 0), (90, 0, 0), (255, 255, 255), (150, 0, 0), (180, 0, 0)}


def test_a_sheet_of_nothing_readable_is_not_written(tmp_path):
    write_sheet(tmp_path / "sheet.png", tmp_path, {"broken.jpg": Verdict(True, reasons=("no",))})
    assert not (tmp_path / "sheet.png").exists()
