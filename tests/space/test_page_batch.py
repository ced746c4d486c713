"""Many photographs at once, and zips that mean no good."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.io.limits import Limits
from foundir_hf.io.photograph import PhotoError
from foundir_hf.space import gather as gathering
from foundir_hf.space.batch import BatchWork
from foundir_hf.space.gather import gather
from foundir_hf.space.settings import Settings
from foundir_hf.space.work import StoppedError


def pack(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return str(path)


def test_names_in_a_zip_never_lead_out_of_the_folder(tmp_path):
    names = ("../../up.png", "/etc/root.png", "C:\\windows\\disk.png", "a/b/c.png", "__MACOSX/a.png", "._d.png", "notes.txt")
    archive = pack(tmp_path / "photos.zip", [(name, b"x") for name in names])
    left_out = gather([archive], tmp_path / "room" / "in")
    found = {path.relative_to(tmp_path / "room" / "in").as_posix() for path in (tmp_path / "room").rglob("*") if path.is_file()}
    assert found == {"up.png", "etc/root.png", "windows/disk.png", "a/b/c.png"}
    assert left_out == ["._d.png", "notes.txt"]
    assert {path.name for path in tmp_path.iterdir()} == {"photos.zip", "room"}


def test_two_photos_of_one_name_are_both_kept(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "photo.png").write_text(folder)
    gather([str(tmp_path / folder / "photo.png") for folder in ("a", "b")], tmp_path / "in")
    assert {path.name: path.read_text() for path in (tmp_path / "in").iterdir()} == {"photo.png": "a", "photo-2.png": "b"}


def test_what_is_too_much_is_refused(tmp_path):
    many = pack(tmp_path / "many.zip", [(f"{number}.png", b"x") for number in range(gathering.BATCH_PHOTOS + 1)])
    with pytest.raises(PhotoError, match="more than 50 photos"):
        gather([many], tmp_path / "many")
    limits, told = Limits(megabytes=1), "1 MB each and 5 MB together, unpacked"
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(2_000_000))
    assert bomb.stat().st_size < 10_000
    with pytest.raises(PhotoError, match=told):
        gather([str(bomb)], tmp_path / "bomb", limits)
    assert not list((tmp_path / "bomb").iterdir())
    six = pack(tmp_path / "six.zip", [(f"{number}.png", bytes(900_000)) for number in range(6)])
    with pytest.raises(PhotoError, match=told):
        gather([six], tmp_path / "six", limits)


def test_a_zip_that_lies_about_sizes_or_is_damaged_is_refused(tmp_path):
    liar = tmp_path / "liar.zip"
    with zipfile.ZipFile(liar, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(1_000_000))
    content = liar.read_bytes().replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    liar.write_bytes(content)
    with pytest.raises(PhotoError):
        gather([str(liar)], tmp_path / "liar")
    assert all(path.stat().st_size <= 10 for path in (tmp_path / "liar").iterdir())
    cut = tmp_path / "cut.zip"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(PhotoError, match="There are no photos in it"):
        gather([str(cut)], tmp_path / "cut")


def test_one_bad_photo_does_not_stop_the_rest_and_bytes_are_the_command_line_s(engine, checkpoint, photo, tmp_path):
    (tmp_path / "given").mkdir()
    photo.save(tmp_path / "given" / "good.png")
    photo.rotate(90, expand=True).save(tmp_path / "given" / "other.jpg")
    (tmp_path / "given" / "bad.png").write_text("not a photograph")
    room = tmp_path / "room"
    room.mkdir()
    assert gather([str(path) for path in sorted((tmp_path / "given").iterdir())], room / "in") == []
    work = BatchWork(engine, room, Settings())
    assert work.wait(120)
    assert work.error is None
    assert {state.name: state.status for state in work.states} == {
        "bad.png": "failed",
        "good.png": "restored",
        "other.jpg": "restored",
    }
    assert work.states[0].note == "cannot be read: not an image of a known format"
    main(["restore", str(tmp_path / "given"), "-o", str(tmp_path / "line"), "--checkpoint", str(checkpoint)])
    with zipfile.ZipFile(work.result) as archive:
        assert set(archive.namelist()) == {"good.png", "other.jpg", "foundir.jsonl"}
        for name in ("good.png", "other.jpg"):
            assert archive.read(name) == (tmp_path / "line" / name).read_bytes()
        manifest = archive.read("foundir.jsonl").decode()
    assert str(tmp_path) not in manifest  # where the server keeps files is nobody's business
    last = {record["output"]: record["status"] for record in map(json.loads, manifest.splitlines())}
    assert last == {"bad.png": "failed", "good.png": "restored", "other.jpg": "restored"}
    assert [path.name for path in room.iterdir()] == ["restored.zip"]  # which has all that was made
    assert (tmp_path / "given" / "good.png").exists()


def test_a_batch_is_written_in_the_format_that_was_asked_for(engine, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    (tmp_path / "room").mkdir()
    gather([str(tmp_path / "photo.png")], tmp_path / "room" / "in")
    work = BatchWork(engine, tmp_path / "room", Settings(suffix=".jpg", quality=60))
    assert work.wait(120)
    with zipfile.ZipFile(work.result) as archive, archive.open("photo.jpg") as file, Image.open(file) as restored:
        assert restored.format == "JPEG"
        assert restored.size == photo.size


def test_two_that_would_become_one_file_are_refused(engine, photo, tmp_path):
    (tmp_path / "room").mkdir()
    for suffix in (".png", ".jpg"):
        photo.save(tmp_path / f"photo{suffix}")
    gather([str(tmp_path / f"photo{suffix}") for suffix in (".png", ".jpg")], tmp_path / "room" / "in")
    with pytest.raises(PhotoError, match="same name in that format"):
        BatchWork(engine, tmp_path / "room", Settings(suffix=".tif"))


def test_a_cancelled_batch_stops(engine, tmp_path):
    (tmp_path / "room").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (1100, 2100, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    gather([str(tmp_path / f"{number}.png") for number in range(3)], tmp_path / "room" / "in")
    work = BatchWork(engine, tmp_path / "room", Settings())
    while work.current is None or not work.current.total:
        assert not work.wait(0.05)
    work.cancel()
    assert work.wait(120)
    assert isinstance(work.error, StoppedError)
    assert work.result is None
    assert list((tmp_path / "room").iterdir()) == []
    assert engine.line.is_empty
