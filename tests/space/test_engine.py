"""The model behind the page."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.io.reading import read_photo
from foundir_hf.io.writing import write_photo
from foundir_hf.space.engine import Engine
from foundir_hf.space.job import Job
from foundir_hf.space.line import LineFullError
from foundir_hf.space.settings import Settings
from foundir_hf.space.work import StoppedError


def large(path, width=2100, height=1100):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.mark.parametrize(
    ("settings", "options", "suffix"),
    [
        (Settings(), [], ".png"),
        (Settings(steps=0, tone="off", strength=0.5), ["--steps", "0", "--tone", "off", "--strength", "0.5"], ".png"),
        (Settings(size="enlarge by a factor", factor=1.5), ["--upscale", "1.5"], ".webp"),
        (Settings(strength=0.0), ["--strength", "0"], ".png"),
    ],
)
def test_bytes_are_those_of_the_command_line(engine, checkpoint, photo, tmp_path, settings, options, suffix):
    photo.save(tmp_path / "photo.png", dpi=(300, 300))
    restored = engine.restore(read_photo(tmp_path / "photo.png"), settings, lambda done, total: None)
    write_photo(restored.photo, tmp_path / f"page{suffix}")
    command = ["restore", tmp_path / "photo.png", "-o", tmp_path / f"line{suffix}", "--checkpoint", checkpoint, *options]
    assert main([str(part) for part in command]) == 0
    assert (tmp_path / f"page{suffix}").read_bytes() == (tmp_path / f"line{suffix}").read_bytes()


def test_a_job_tells_how_far_it_is_and_its_result(engine, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    steps = []

    def work(job):
        def step(done, total):
            job.step(done, total)
            steps.append((done, total))

        return engine.restore(read_photo(tmp_path / "photo.png"), Settings(), step)

    job = Job(engine, 1.0, work)
    assert job.wait(60)
    assert job.error is None
    assert job.result.photo.size == photo.size
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert engine.line.is_empty
    assert engine.expected_seconds((1000, 1000), Settings()) > 0


def test_cancelling_stops_before_the_next_tile_and_the_next_photo_is_restored_as_ever(engine, photo, tmp_path):
    big = read_photo(large(tmp_path / "large.png"))
    reached, told = threading.Event(), []

    def work(job):
        def step(done, total):
            told.append((done, total))
            if done == 1:
                reached.set()
                job._stop.wait(60)  # as long as it takes to press Cancel
            job.step(done, total)

        return engine.restore(big, Settings(), step)

    job = Job(engine, 1.0, work)
    assert reached.wait(60)
    job.cancel()
    assert job.wait(60)
    assert isinstance(job.error, StoppedError)
    assert told[-1] == (1, 18)  # six tiles, three passes
    photo.save(tmp_path / "photo.png")
    again = engine.restore(read_photo(tmp_path / "photo.png"), Settings(), lambda done, total: None)
    fresh = engine.restore(read_photo(tmp_path / "photo.png"), Settings(), lambda done, total: None)
    assert np.array_equal(again.photo.pixels, fresh.photo.pixels)


def test_who_cancels_in_the_line_is_never_begun(engine):
    running, begun, go_on = threading.Event(), [], threading.Event()
    first = Job(engine, 1.0, lambda job: (running.set(), go_on.wait(60)))
    assert running.wait(60)
    second = Job(engine, 1.0, lambda job: begun.append(job))
    second.cancel()
    assert second.wait(60)
    assert isinstance(second.error, StoppedError)
    go_on.set()
    assert first.wait(60)
    assert begun == []


def test_closing_stops_whatever_is_done_and_waits_for_its_end(checkpoint):
    engine = Engine(str(checkpoint), "cpu")
    engine.load()
    engine.start()
    begun = threading.Event()

    def work(job):
        begun.set()
        while True:
            job.step()

    running, waiting = Job(engine, 1.0, work), Job(engine, 1.0, work)
    assert begun.wait(60)
    engine.close()
    assert engine.line.is_empty
    for job in (running, waiting):
        assert job.wait(60)
        assert isinstance(job.error, StoppedError)


def test_a_line_that_is_full_takes_no_job(checkpoint):
    engine = Engine(str(checkpoint), "cpu")  # not loaded: jobs wait
    jobs = [Job(engine, 1.0, lambda job: None) for _ in range(engine.line.limit)]
    with pytest.raises(LineFullError):
        Job(engine, 1.0, lambda job: None)
    for job in jobs:
        job.cancel()
    assert all(job.wait(60) for job in jobs)


def test_a_checkpoint_that_cannot_be_loaded_is_told_to_those_who_wait(tmp_path):
    engine, told = Engine(str(tmp_path), "cpu"), threading.Event()
    engine.start(then=lambda: None, otherwise=told.set)
    with pytest.raises(ValueError, match=r"folder without model_index\.json"):
        engine.wait_until_ready()
    assert told.wait(60)
    assert not engine.is_ready
