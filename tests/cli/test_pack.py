from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.data.sources import open_source


@pytest.fixture
def photos(tmp_path, photo) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo.save(folder / "one.png")
    photo.rotate(90, expand=True).save(folder / "two.jpg", quality=95)
    (folder / "broken.png").write_text("no picture")
    return folder


def refused(capsys, *arguments) -> str:
    """Runs a command that must fail in one line, with exit code 2; returns the line."""
    try:
        code = main(["pack", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    out, error = capsys.readouterr()
    assert (code, out) == (2, "")
    assert error.count("\n") == 1
    return error


def test_pack_writes_shards_and_names_what_it_skipped(photos, tmp_path, capsys):
    output = tmp_path / "new" / "shards"
    assert main(["pack", str(photos), "-o", str(output)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "skipped broken.png: cannot be read: not an image of a known format",
        f"{output}: 2 samples in 1 shards; 1 encoded anew, 1 skipped",
    ]
    source = open_source(output)
    assert {source.name(i) for i in range(len(source))} == {"one.png", "two.jpg"}


def test_pack_obeys_format_quality_and_size(photos, tmp_path):
    output = tmp_path / "shards"
    assert main(["pack", str(photos), "-o", str(output), "--format", "jpg", "--quality", "30", "--max-side", "48"]) == 0
    source = open_source(output)
    for index in range(2):
        data, _ = source.encoded(index)
        assert data[:2] == b"\xff\xd8"  # JPEG
        assert max(source[index].hq.shape) == 48
    assert main(["pack", str(output), "-o", str(tmp_path / "again"), "--shard-megabytes", "1"]) == 0  # shards are a source too
    assert len(open_source(tmp_path / "again")) == 2


def test_what_a_person_gets_wrong_is_one_line_and_nothing_is_written(photos, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    assert "exists already" in refused(capsys, photos, "-o", tmp_path / "there")
    assert "nowhere" in refused(capsys, tmp_path / "nowhere", "-o", tmp_path / "out")
    assert "holds no photographs" in refused(capsys, tmp_path / "there", "-o", tmp_path / "out")
    assert "is a file" in refused(capsys, photos, "-o", photos / "one.png" / "shards")
    assert "whole number in [1, 100]" in refused(capsys, photos, "-o", tmp_path / "out", "--quality", "0")
    assert "Cannot load the data set" in refused(capsys, "hf://no/such", "-o", tmp_path / "out")
    for nameless in ("hf://", "hf+stream://", "hf://:train"):
        assert "must name a data set" in refused(capsys, nameless, "-o", tmp_path / "out")
    for folder in ("HQ", "LQ"):
        (tmp_path / "pairs" / folder).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "pairs" / folder / "a.png")
    assert "damage of pairs" in refused(capsys, tmp_path / "pairs", "-o", tmp_path / "out", "--max-side", "32")
    assert not (tmp_path / "out").exists()
