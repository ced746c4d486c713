"""Which photographs are meant and what they become: decided before any work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foundir_hf.io.files import IMAGE_SUFFIXES
from foundir_hf.io.names import WRITERS
from foundir_hf.restoration.manifest import MANIFEST
from foundir_hf.restoration.plan import find_photos, plan_photos


@pytest.fixture
def photos(tmp_path) -> Path:
    """`photos/` with one.png and deep/er/two.jpg; planning opens no photograph."""
    folder = tmp_path / "photos"
    for name in ("one.png", "deep/er/two.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def pairs(plan) -> list[tuple[Path, Path]]:
    return [(job.source, job.target) for job in plan.jobs]


def test_what_is_a_photograph_by_its_name_can_be_written():
    assert set(WRITERS) == IMAGE_SUFFIXES


def test_folders_are_mirrored_and_single_photographs_take_names(photos, tmp_path):
    out = tmp_path / "out"
    assert pairs(plan_photos([photos], out)) == [
        (photos / "deep" / "er" / "two.jpg", out / "deep" / "er" / "two.jpg"),
        (photos / "one.png", out / "one.png"),
    ]
    assert pairs(plan_photos([photos / "one.png"], tmp_path / "x.WEBP")) == [(photos / "one.png", tmp_path / "x.WEBP")]
    (tmp_path / "album.png").mkdir()  # a folder, whatever its name says
    assert pairs(plan_photos([photos / "one.png"], tmp_path / "album.png"))[0][1] == tmp_path / "album.png" / "one.png"
    assert not out.exists()


def test_a_photograph_that_is_given_twice_is_planned_once(photos, tmp_path):
    assert len(plan_photos([photos, photos / "one.png"], tmp_path / "out").jobs) == 2


def test_patterns_keep_what_follows_their_fixed_part(photos, tmp_path):
    assert pairs(plan_photos([photos / "**" / "*.jpg"], tmp_path / "out")) == [
        (photos / "deep" / "er" / "two.jpg", tmp_path / "out" / "deep" / "er" / "two.jpg")
    ]
    assert len(plan_photos([photos / "*"], tmp_path / "out").jobs) == 2  # one.png, and deep/ with all that is in it
    with pytest.raises(ValueError, match="no such file or folder"):
        plan_photos([photos / "*.tiff"], tmp_path / "out")


def test_a_name_with_brackets_that_exists_is_no_pattern(photos, tmp_path):
    (photos / "a[1].png").write_text("")
    assert pairs(plan_photos([photos / "a[1].png"], tmp_path / "out")) == [(photos / "a[1].png", tmp_path / "out" / "a[1].png")]


def test_listed_photographs_keep_their_relative_paths(photos, monkeypatch):
    monkeypatch.chdir(photos)
    listed = [Path("deep/er/two.jpg"), photos / "one.png"]
    assert [job.target for job in plan_photos([], Path("../out"), listed=listed).jobs] == [
        Path("../out/deep/er/two.jpg"),
        Path("../out/one.png"),
    ]


def test_an_output_inside_the_input_is_not_input(photos):
    (photos / "out" / "deep").mkdir(parents=True)
    (photos / "out" / "deep" / "old.png").write_text("restored before")
    for given in (photos, photos / "*", photos / "**" / "*"):
        assert [job.source.name for job in plan_photos([given], photos / "out").jobs] == ["two.jpg", "one.png"], given
    # The other way round the output contains the input, which is meant.
    assert [job.source.name for job in plan_photos([photos / "deep"], photos).jobs] == ["two.jpg"]


def test_what_is_passed_over_is_told_by_kind(photos):
    for name in ("a.JXL", "b.jxl", "c.gif", "._one.png", "d.xmp", "README"):
        (photos / name).write_text("")
    (photos / "loop.png").symlink_to("loop.png")
    (photos / "folder").symlink_to(".")
    os.mkfifo(photos / "pipe.png")
    found = find_photos([photos])
    assert {kind: [file.name for file in files] for kind, files in found.passed_over.items()} == {
        ".jxl": ["a.JXL", "b.jxl"],
        ".gif": ["c.gif"],
        "._*": ["._one.png"],
        ".xmp": ["d.xmp"],
        "no suffix": ["README"],
        "broken link": ["loop.png"],
        "linked folder": ["folder"],
        "FIFO, socket or device": ["pipe.png"],
    }
    assert len(found.photos) == 2


def test_what_would_be_lost_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match="is an input"):
        plan_photos([photos], photos, overwrite=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one.png").write_text("old")
    with pytest.raises(ValueError, match="exists"):
        plan_photos([photos], tmp_path / "out")
    assert len(plan_photos([photos], tmp_path / "out", overwrite=True).jobs) == 2


@pytest.mark.parametrize("suffix", ["gif", "HEIC", "heif", "jxl", "dng", "avif", "svg", "pdf", "psd", "raw", "cr2", "nef", "ico", "jp2"])
def test_a_file_name_that_cannot_be_written_is_not_taken_for_a_folder(photos, tmp_path, suffix):
    with pytest.raises(ValueError, match=rf"cannot write \.{suffix}"):
        plan_photos([photos / "one.png"], tmp_path / f"out.{suffix}", overwrite=True)
    assert plan_photos([photos / "one.png"], tmp_path / "2024.summer").jobs[0].target == tmp_path / "2024.summer" / "one.png"


@pytest.mark.parametrize("where", ["input", "output"])
def test_a_name_longer_than_the_file_system_takes_is_told(photos, tmp_path, where):
    long = tmp_path / ("n" * 300 + ".png")
    paths, output = ([long], tmp_path / "out") if where == "input" else ([photos / "one.png"], long)
    with pytest.raises(ValueError, match=r"n{300}\.png: File name too long"):
        plan_photos(paths, output)


def test_what_is_not_written_in_its_own_format_keeps_its_whole_name(photos, tmp_path):
    for name in ("one.heic", "one.DNG", "one.avif"):
        (photos / name).write_text("")
    out = tmp_path / "out"
    below = {job.source.name: job.target.relative_to(out).as_posix() for job in plan_photos([photos], out).jobs}
    assert below == {
        "one.DNG": "one.DNG.tiff",
        "one.avif": "one.avif.png",
        "one.heic": "one.heic.png",
        "one.png": "one.png",
        "two.jpg": "deep/er/two.jpg",
    }
    below = {job.source.name: job.target.name for job in plan_photos([photos], out, suffix=".jpeg").jobs}
    assert below == {
        "one.DNG": "one.DNG.jpeg",
        "one.avif": "one.avif.jpeg",
        "one.heic": "one.heic.jpeg",
        "one.png": "one.png.jpeg",
        "two.jpg": "two.jpg",
    }


def test_without_an_extra_a_line_says_which_to_install(photos, tmp_path, monkeypatch):
    (photos / "one.heic").write_text("")
    monkeypatch.setattr("foundir_hf.io.names._is_installed", lambda module: False)
    found = find_photos([photos])
    assert found.passed_over == {".heic (pip install 'foundir_hf[heic]' adds what reads it)": [photos / "one.heic"]}
    with pytest.raises(ValueError, match=re.escape(f"{photos / 'one.heic'}: pip install 'foundir_hf[heic]'")):
        plan_photos([photos / "one.heic"], tmp_path / "out")


def test_an_input_that_is_named_as_the_output_is_refused_as_such(photos):
    file = next(iter(sorted(photos.rglob("*.png"))))
    with pytest.raises(ValueError, match="is an input; originals are never overwritten"):
        plan_photos([file], file)


def test_a_folder_that_may_not_be_read_does_not_cost_the_others(photos):
    """Root may read everything, unless it gives that up."""
    (photos / "deep").chmod(0)
    plan = "import sys; from pathlib import Path; from foundir_hf.restoration.plan import plan_photos\n"
    plan += (
        "plan = plan_photos([Path(sys.argv[1])], Path(sys.argv[2])); print([job.source.name for job in plan.jobs], list(plan.passed_over))"
    )
    give_up = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    done = subprocess.run([*give_up, sys.executable, "-c", plan, str(photos), "out"], capture_output=True, text=True, check=False)
    (photos / "deep").chmod(0o755)
    assert done.stdout == "['one.png'] ['folder that cannot be read']\n", done.stderr


def test_what_was_made_in_the_same_folder_is_no_input(photos):
    """`restore F -o F --format tif`, twice."""
    first = plan_photos([photos], photos, suffix=".tif")
    for job in first.jobs:
        job.target.write_bytes(b"")
    lines = [json.dumps({"output": first.output(job), "status": "restored"}) for job in first.jobs]
    (photos / MANIFEST).write_text("\n".join(lines))
    assert plan_photos([photos], photos, suffix=".tif").jobs == first.jobs
