"""Visitors and their files."""

from __future__ import annotations

import threading
import time

import pytest

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
