"""How the page reads what it was sent."""

from __future__ import annotations

import numpy as np
import pytest

from foundir_hf.photo import PhotoError, read_photo
from foundir_hf.space.desk import Desk
from foundir_hf.space.errors import explain
from foundir_hf.space.visitors import Visitors


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


def test_a_photograph_that_takes_too_long_is_told_without_an_option_of_the_command_line():
    error = TimeoutError("reading it took longer than 60 seconds (--max-seconds)")
    assert explain(error) == ("PhotoError", "This photo cannot be read here: reading it took longer than 60 seconds.")
