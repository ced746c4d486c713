"""Visitors and their files."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from foundir_hf.io.photograph import Photo
from foundir_hf.space import visitors as module
from foundir_hf.space.limits import CALLS_KEPT, IDLE_SECONDS
from foundir_hf.space.visitors import Visitors
from foundir_hf.space.work import StoppedError, Work


def upload(root, name):
    path = root / "hash" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"photo")
    return str(path)


def test_who_leaves_takes_their_files_along_and_nobody_else_s(tmp_path):
    visitors = Visitors(tmp_path)
    ann, bob = visitors.of("ann"), visitors.of("bob")
    assert visitors.of("ann") is ann
    assert ann.folder != bob.folder
    for visitor, result in ((ann, "a.png"), (bob, "b.png")):
        (visitor.room() / result).write_bytes(b"result")
    own, shared = upload(tmp_path, "own.png"), upload(tmp_path, "shared.png")
    ann.uploads |= {own, shared}
    bob.uploads.add(shared)
    visitors.leave("ann")
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"b.png", "shared.png"}
    visitors.leave("bob")
    visitors.leave("bob")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(visitors) == 0


def test_results_of_a_visitor_are_bounded(tmp_path):
    visitor = Visitors(tmp_path).of("ann")
    rooms = [visitor.room() for _ in range(20)]
    assert [room.exists() for room in rooms] == [False] * 12 + [True] * 8


def test_what_is_no_result_stays_as_long_as_the_visitor(tmp_path):
    visitor = Visitors(tmp_path).of("ann")
    example = visitor.room(is_result=False)
    assert [visitor.room() for _ in range(20)]
    assert example.exists()


class Writing(Work):
    """Writes when it is let, as a file that is being written when its visitor leaves."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.let = folder, threading.Event()

    def do(self):
        assert self.let.wait(10)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "photo.png").write_bytes(b"result")


def test_what_is_written_while_its_visitor_leaves_is_deleted_too(tmp_path):
    visitors = Visitors(tmp_path)
    ann = visitors.of("ann")
    work = Writing(ann.room())
    with ann.follows(work):
        work.start()
    visitors.leave("ann")
    assert work.is_cancelled
    work.let.set()
    assert work.wait(10)
    deadline = time.monotonic() + 10
    while ann.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not ann.folder.exists()
    with pytest.raises(StoppedError):
        ann.room()
    late = Writing(tmp_path)
    with ann.follows(late):
        assert late.is_cancelled


def test_a_path_outside_is_never_deleted(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"theirs")
    visitors = Visitors(tmp_path / "root")
    visitors.of("ann").uploads |= {str(outside), str(tmp_path / "root" / ".." / "outside.png")}
    visitors.leave("ann")
    assert outside.exists()


def test_closing_deletes_everything(tmp_path):
    visitors = Visitors(tmp_path)
    for name in ("ann", "bob"):
        (visitors.of(name).room() / "photo.png").write_bytes(b"result")
    visitors.close()
    assert list(tmp_path.iterdir()) == []


def test_calls_of_one_session_share_nothing_and_the_latest_stay_to_be_fetched(tmp_path):
    """Language models all have one session, which never ends."""
    visitors, results = Visitors(tmp_path), []
    for number in range(CALLS_KEPT + 5):
        with visitors.call("one for all") as visitor:
            visitor.uploads.add(upload(tmp_path, f"{number}.png"))
            results.append(visitor.room() / "result.png")
            results[-1].write_bytes(b"result")
    assert len({result.parent.parent for result in results}) == len(results)
    assert [result.exists() for result in results] == [False] * 5 + [True] * CALLS_KEPT
    assert len(list((tmp_path / "hash").iterdir())) == len(visitors) == CALLS_KEPT
    with visitors.call("another") as other:
        visitors.leave("one for all")
        assert not other.is_gone
    assert [result for result in results if result.exists()] == []
    assert len(visitors) == 1


def an_hour_ago(*visitors):
    for visitor in visitors:
        visitor.seen -= IDLE_SECONDS + 10


def test_who_does_nothing_for_an_hour_has_left_and_who_is_served_has_not(tmp_path):
    visitors = Visitors(tmp_path)
    idle, busy, recent = (visitors.of(name) for name in ("idle", "busy", "recent"))
    work = Writing(busy.room())
    rooms = [visitor.room() for visitor in (idle, recent)]
    with visitors.call("calling") as calling, busy.follows(work):
        work.start()
        an_hour_ago(idle, busy, calling)
        visitors.sweep()
        assert [visitor.is_gone for visitor in (idle, busy, calling, recent)] == [True, False, False, False]
        assert [room.exists() for room in rooms] == [False, True]
        work.let.set()
        assert work.wait(10)
    visitors.sweep()
    assert not busy.is_gone  # an hour from the end of what was done for them
    an_hour_ago(busy)
    visitors.sweep()
    assert busy.is_gone


def test_files_that_nobody_uses_go_after_a_while_and_the_page_s_own_pictures_never(tmp_path):
    visitors = Visitors(tmp_path)
    own = tmp_path / "example" / "rain.jpg"
    own.parent.mkdir()
    own.write_bytes(b"example")
    visitors.settle()
    for folder in ("old", "new", "used"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "photo.png").write_bytes(b"photo")
    (tmp_path / "broken off").write_bytes(b"half a photo")
    visitors.of("ann").uploads |= {str(tmp_path / "used" / "photo.png"), str(own)}
    for name in ("old", "used", "example", "broken off"):
        os.utime(tmp_path / name, (1, 1))
    visitors.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example", "new", "used"]
    visitors.leave("ann")  # who had uploaded one of the examples
    assert own.read_bytes() == b"example"
    assert not (tmp_path / "used" / "photo.png").exists()


def test_room_for_uploads_is_made_of_what_nobody_uses_the_oldest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DISK_MEGABYTES", 3)
    visitors = Visitors(tmp_path)
    for age, name in enumerate(["newest", "newer", "old", "used"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.png").write_bytes(bytes(1_000_000))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    visitors.of("ann").uploads.add(str(tmp_path / "used" / "photo.png"))
    assert visitors.make_room()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newer", "newest", "used"]
    (visitors.of("ann").room() / "result.png").write_bytes(bytes(3_000_000))
    assert not visitors.make_room()  # what is used stays
    assert (tmp_path / "used" / "photo.png").exists()
    visitors.leave("ann")
    assert visitors.make_room()


def test_finished_work_is_not_kept_for_its_visitor(tmp_path):
    visitor = Visitors(tmp_path).of("ann")
    work = Writing(visitor.room())
    work.let.set()
    with visitor.follows(work):
        work.start()
        assert work.wait(10)
    assert visitor.begun == []
    assert visitor.job is None


def test_decoded_photographs_take_bounded_memory_and_the_latest_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DECODED_MEGABYTES", 3)
    visitors, photo = Visitors(tmp_path), Photo(np.zeros((1000, 1000), np.uint8))
    people = [visitors.of(name) for name in "abcde"]
    for person in people:
        visitors.remember(person, "photo.png", photo)
    assert [person.decoded is not None for person in people] == [False, False, True, True, True]
    visitors.remember(people[0], "large.png", Photo(np.zeros((4000, 1000), np.uint8)))
    assert people[0].decoded is not None  # who has just come is served, whatever it takes
