"""Visitors and their files."""

from __future__ import annotations

from foundir_hf.space.visitors import Visitors


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
