from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.cli.clean import summary, write_sheet
from foundir_hf.curation.cleaning import Rule, Verdict, read_manifest
from foundir_hf.data.degradations.haze import haze
from foundir_hf.evaluation.demo import SAMPLES


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
    assert "`[0]`: `verdict` must be one of" in refusal(capsys, photos, "-o", manifest, "--rules", tmp_path / "wrong.yaml")
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


def test_a_strip_one_pixel_high_has_its_place_on_the_sheet(tmp_path):
    Image.new("RGB", (400, 1), "black").save(tmp_path / "strip.png")
    write_sheet(tmp_path / "sheet.png", tmp_path, {"strip.png": Verdict(True, scores={"short_side": 1})}, columns=1, width=40)
    with Image.open(tmp_path / "sheet.png") as sheet:
        column = [sheet.getpixel((20, y)) for y in range(20, 50)]
    assert column.count((0, 0, 0)) == 1
    assert column.count((255, 255, 255)) == 29


def test_no_photograph_is_ever_written_over(tmp_path, photos, capsys):
    shutil.copytree(photos, tmp_path / "pairs" / "LQ")
    shutil.copytree(photos, tmp_path / "pairs" / "HQ")
    before = contents(tmp_path)
    free = tmp_path / "m.json"
    for force in ([], ["--overwrite"]):
        assert "chelsea.jpg: is an input" in refusal(capsys, photos, "-o", photos / "chelsea.jpg", *force)
        assert "fog.png: is an input" in refusal(capsys, photos, "-o", free, "--sheet", photos / "sub" / ".." / "sub" / "fog.png", *force)
        assert "coffee.jpg: is an input" in refusal(capsys, tmp_path / "pairs", "-o", tmp_path / "pairs" / "LQ" / "coffee.jpg", *force)
        assert "named twice" in refusal(capsys, photos, "-o", tmp_path / "x.png", "--sheet", tmp_path / "x.png", *force)
    assert contents(tmp_path) == before


def test_a_file_that_exists_is_replaced_if_it_is_a_cleaning_manifest_or_on_request(tmp_path, photos, capsys):
    output, sheet, rules = tmp_path / "m.json", tmp_path / "sheet.png", tmp_path / "rules.yaml"
    rules.write_text("- {score: short_side, below: 310, verdict: drop, reason: small}\n")
    arguments = ["clean", str(photos), "--rules", str(rules), "-o", str(output)]
    for text in ("mine", "{}", "[" * 100_000):
        output.write_text(text)
        assert "exists and is no cleaning manifest; pass --overwrite" in refusal(capsys, *arguments[1:])
        assert output.read_text() == text
    assert main([*arguments, "--overwrite"]) == 0
    assert main(arguments) == 0
    capsys.readouterr()
    sheet.write_bytes(b"mine")
    assert "sheet.png: exists; pass --overwrite" in refusal(capsys, *arguments[1:], "--sheet", sheet)
    assert main([*arguments, "--sheet", str(sheet), "--overwrite"]) == 0
    capsys.readouterr()
    assert Image.open(sheet).width == 10 * 160
    assert "rules.yaml: is an input" in refusal(capsys, photos, "--rules", rules, "-o", rules, "--overwrite")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder into which not even root may write")
def test_what_cannot_be_written_or_lies_elsewhere_is_told_in_one_line(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    assert "/proc" in refusal(capsys, folder, "-o", "/proc/m.json")
    assert "/proc" in refusal(capsys, folder, "-o", tmp_path / "m.json", "--sheet", "/proc/s.jpg")
    (folder / "manifest.csv").write_text(f"file\n{tmp_path / 'elsewhere.png'}\n")
    assert "elsewhere.png'; a manifest.csv names files below it" in refusal(capsys, folder, "-o", tmp_path / "n.json")


def test_of_pairs_the_clean_files_are_judged_and_repeats_between_tasks_stay(tmp_path, capsys):
    for task in ("rain", "snow"):
        for part in ("HQ_folder", "LQ_folder"):
            (tmp_path / "pairs" / task / part).mkdir(parents=True)
            shutil.copy(SAMPLES / "coffee.jpg", tmp_path / "pairs" / task / part / "a.jpg")
    assert main(["clean", str(tmp_path / "pairs"), "-o", str(tmp_path / "m.json")]) == 0
    verdicts = read_manifest(tmp_path / "m.json")
    assert list(verdicts) == ["rain/HQ_folder/a.jpg", "snow/HQ_folder/a.jpg"]
    assert not any(verdict.dropped for verdict in verdicts.values())
    assert "nearest" not in capsys.readouterr().out
    (tmp_path / "rules.yaml").write_text("- {score: nearest, below: 12, verdict: drop, reason: twin}\n")  # no rule is left
    assert main(["clean", str(tmp_path / "pairs"), "-o", str(tmp_path / "m.json"), "--rules", str(tmp_path / "rules.yaml")]) == 0
    assert "2 fit for every task" in capsys.readouterr().out
