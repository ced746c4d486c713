"""How the page reads what it was sent."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from foundir_hf.io.limits import Limits
from foundir_hf.io.photograph import PhotoError
from foundir_hf.io.reading import read_photo
from foundir_hf.space.desk import Desk
from foundir_hf.space.engine import Engine
from foundir_hf.space.errors import explain
from foundir_hf.space.limits import PAGE_LIMITS, limits_of
from foundir_hf.space.server import launch_options
from foundir_hf.space.settings import Settings
from foundir_hf.space.visitors import Visitor, Visitors


@pytest.fixture
def desk(engine, tmp_path):
    desk = Desk(engine, Visitors(tmp_path / "visitors"))
    yield desk
    desk.close()


def test_a_photograph_is_decoded_in_a_process_whose_crash_is_one_photograph_s_failure(desk, photo, tmp_path):
    path = tmp_path / "photo.png"
    photo.save(path)
    assert np.array_equal(desk.read(str(path)).pixels, read_photo(path).pixels)
    process = desk._decoder.start()
    process.kill()
    process.wait()
    with pytest.raises(PhotoError, match="its decoder crashed"):
        desk.read(str(path))
    assert np.array_equal(desk.read(str(path)).pixels, read_photo(path).pixels)
    desk.close()
    assert desk._decoder._process is None


def test_limits_of_the_page_are_its_owner_s(engine, photo, tmp_path):
    limits = limits_of({"FOUNDIR_MAX_MEGAPIXELS": "0.003", "FOUNDIR_MAX_MEGABYTES": "0.02", "OTHER": "1"})
    assert limits == Limits(megapixels=0.003, megabytes=0.02, seconds=60)
    assert limits_of({}) == PAGE_LIMITS
    with pytest.raises(ValueError, match=r"`FOUNDIR_MAX_SECONDS` must be a number in \[0, 1e12\], got 'soon'"):
        limits_of({"FOUNDIR_MAX_SECONDS": "soon"})
    assert launch_options(limits)["max_file_size"] == 20_000
    desk, visitor = Desk(engine, Visitors(tmp_path / "visitors"), limits), Visitor(tmp_path / "ann")
    for name, picture in (("large.png", photo), ("small.png", photo.resize((48, 32)))):
        picture.save(tmp_path / name)
    with pytest.raises(PhotoError, match=r"it has 72 x 56 pixels, the limit is 0\.003 megapixels"):
        desk.read(str(tmp_path / "large.png"))
    small = desk.read(str(tmp_path / "small.png"))
    assert "this page stops at 0.003" in desk.expectation(small.size, Settings(size="enlarge by a factor", factor=2))
    (tmp_path / "noise.png").write_bytes(bytes(21_000))
    with pytest.raises(PhotoError, match=r"Photos may have 0\.02 MB each and 0\.1 MB together"):
        desk.begin_batch([str(tmp_path / "noise.png")], Settings(), visitor)
    desk.close()


def test_a_photograph_that_takes_too_long_is_told_without_an_option_of_the_command_line():
    error = TimeoutError("reading it took longer than 60 seconds (--max-seconds)")
    assert explain(error) == ("PhotoError", "This photo cannot be read here: reading it took longer than 60 seconds.")


def test_a_photograph_of_the_page_is_decoded_once_and_before_the_model_is_there(checkpoint, photo, tmp_path, monkeypatch):
    engine = Engine(str(checkpoint), "cpu")
    desk, decoded = Desk(engine, Visitors(tmp_path / "visitors")), []
    read = desk.read
    monkeypatch.setattr(desk, "read", lambda path: decoded.append(path) or read(path))
    visitor, path = desk.visitors.of("ann"), str(tmp_path / "photo.png")
    photo.save(path)
    desk.accept(path, visitor)
    job = desk.begin(path, Settings(), visitor)
    assert "once the model is loaded" in desk.how_far(job)[1]
    engine.load()
    assert job.wait(60)
    finished = job.outcome()
    assert desk.diagnose(path, visitor)[1] == photo.size
    assert desk.account(finished)["changes"] == desk.changes(finished)
    assert decoded == [path]
    desk.close()


def test_a_photograph_that_is_no_longer_there_is_told_as_such(desk):
    with pytest.raises(PhotoError, match="files are deleted after an hour"):
        desk.read("/tmp/hash/photo.png")


def test_a_program_s_photograph_leaves_memory_once_it_has_been_answered(desk, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    with desk.visitors.call("session") as visitor:
        job = desk.begin(str(tmp_path / "photo.png"), Settings(), visitor)
        with visitor.follows(job):
            assert job.wait(60)
        finished = job.outcome()
        pixels = [weakref.ref(of.pixels) for of in (finished.photo, finished.restored.photo)]
    file = finished.file
    del job, finished
    gc.collect()
    assert all(reference() is None for reference in pixels)
    assert file.exists()  # for the program to fetch
