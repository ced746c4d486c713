from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.data.tasks import TASKS


@pytest.fixture
def original(tmp_path, photo):
    path = tmp_path / "photo.png"
    photo.save(path)
    return path


def degrade(original, *options: str) -> int:
    return main(["degrade", str(original), *options])


def test_degrade_writes_the_damage_and_keeps_the_size_and_the_original(tmp_path, original, photo):
    before = original.read_bytes()
    assert degrade(original, "--task", "jpeg", "-o", str(tmp_path / "out.png")) == 0
    result = Image.open(tmp_path / "out.png")
    assert result.size == photo.size
    assert (np.asarray(result) != np.asarray(photo)).any()
    assert original.read_bytes() == before


def test_degrade_is_decided_by_its_seed(tmp_path, original):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert degrade(original, "--task", "gaussian_noise", "--seed", seed, "-o", str(tmp_path / f"{name}.png")) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_degrade_keeps_transparency(tmp_path, photo):
    alpha = Image.fromarray(np.arange(photo.width * photo.height).reshape(photo.height, photo.width).astype(np.uint8))
    photo.putalpha(alpha)
    photo.save(tmp_path / "alpha.png")
    assert degrade(tmp_path / "alpha.png", "--task", "haze", "-o", str(tmp_path / "out.png")) == 0
    assert (np.asarray(Image.open(tmp_path / "out.png"))[..., 3] == np.asarray(alpha)).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "fog", "-o", "out.png"], "`--task` must be one of"),
        (["--task", "jpeg", "-o", "photo.png"], "never overwritten"),
        (["--task", "jpeg", "-o", "taken.png"], "pass --overwrite"),
        (["--task", "jpeg", "-o", "."], "is a folder"),
        (["--task", "jpeg", "-o", "out.gif"], "cannot write .gif"),
        (["--task", "jpeg", "-o", "taken.png/out.png"], "taken.png is a file"),
    ],
)
def test_degrade_tells_what_is_wrong_in_one_line(tmp_path, original, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.png").write_bytes(b"mine")
    assert main(["degrade", "photo.png", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert (tmp_path / "taken.png").read_bytes() == b"mine"
    assert not (tmp_path / "out.png").exists()


def test_a_missing_photograph_is_named(tmp_path, capsys):
    assert main(["degrade", str(tmp_path / "no.png"), "--task", "jpeg", "-o", str(tmp_path / "out.png")]) == 2
    assert "no.png: no such file" in capsys.readouterr().err


def test_the_table_lists_every_task_once(capsys):
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:] if line.startswith("|")] == list(TASKS)
    assert lines[-1].startswith(f"{len(TASKS)} sub-tasks")


def test_a_family_can_be_picked_and_a_wrong_one_is_named(capsys):
    assert main(["tasks", "--family", "noise"]) == 0
    out = capsys.readouterr().out
    assert "| gaussian_noise | noise |" in out
    assert "jpeg" not in out
    assert main(["tasks", "--family", "noize"]) == 2
    assert "'noize'" in capsys.readouterr().err


def test_the_sheet_shows_the_tasks_of_a_family(tmp_path, original, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["tasks", "--family", "noise", "--sheet", str(sheet), "--image", str(original)]) == 0
    count = sum(task.family == "noise" for task in TASKS.values())
    assert f"{count} sub-tasks" in capsys.readouterr().out
    assert Image.open(sheet).width == 5 * 216


def test_the_page_of_sub_tasks_shows_the_table_as_it_is(capsys):
    assert main(["tasks"]) == 0
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert page.endswith(capsys.readouterr().out), "run `make docs`"


def test_a_grey_photograph_with_a_grey_profile_stays_grey(tmp_path, photo):
    # The 128 bytes of an ICC header; bytes 16 to 20 name the colour space that the profile describes.
    profile = (132).to_bytes(4, "big") + bytes(8) + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(92)
    photo.convert("L").save(tmp_path / "grey.png", icc_profile=profile)
    assert degrade(tmp_path / "grey.png", "--task", "color_noise", "-o", str(tmp_path / "out.png")) == 0
    with Image.open(tmp_path / "out.png") as out:
        assert out.mode == "L"
        assert out.info["icc_profile"] == profile


def test_the_help_says_that_the_name_decides_the_damage_too_and_it_does(tmp_path, original, capsys):
    with pytest.raises(SystemExit):
        main(["degrade", "--help"])
    assert "together with the file's name" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "renamed.png").write_bytes(original.read_bytes())
    for source in (original, tmp_path / "renamed.png"):
        assert degrade(source, "--task", "gaussian_noise", "-o", str(tmp_path / f"out_{source.name}")) == 0
    assert (tmp_path / "out_photo.png").read_bytes() != (tmp_path / "out_renamed.png").read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["photo.png"], "is an input; originals are never overwritten"),
        (["photo.png", "--overwrite"], "is an input; originals are never overwritten"),
        (["taken.png"], "pass --overwrite"),
        (["sheet.gif"], "`--sheet` must end in one of .jpg"),
        (["folder.png"], "is a folder"),
        (["taken.png/sheet.png"], "taken.png is a file"),
    ],
)
def test_a_sheet_that_must_not_be_written_is_refused_before_anything_is_drawn(tmp_path, original, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.png").write_bytes(b"mine")
    (tmp_path / "folder.png").mkdir()
    before = original.read_bytes()
    assert main(["tasks", "--family", "noise", "--image", "photo.png", "--sheet", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1  # no progress bar either
    assert original.read_bytes() == before
    assert (tmp_path / "taken.png").read_bytes() == b"mine"
    assert not (tmp_path / "sheet.gif").exists()


def test_a_sheet_that_exists_is_replaced_on_request(tmp_path, original):
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"old")
    assert main(["tasks", "--family", "noise", "--sheet", str(sheet), "--image", str(original), "--overwrite"]) == 0
    assert Image.open(sheet).width == 5 * 216
