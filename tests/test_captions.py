"""Captions that somebody wrote down: beside photographs, in tables, for Python and for the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundir_hf.io.captions import read_captions


@pytest.fixture
def photos(tmp_path, monkeypatch) -> list[str]:
    """Two names, one of them relative to the current folder; nobody looks whether there are such files."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return ["photos/one.jpg", str(tmp_path / "photos" / "deep" / "two.tiff")]


def test_text_files_beside_photographs_are_their_captions(photos):
    Path("photos/one.txt").write_text("\ufeffa cat\n on a  mat\n", encoding="utf-8")
    Path("photos/deep/two.txt").write_text("", encoding="utf-8")
    assert read_captions(".txt", photos) == {photos[0]: "a cat on a mat", photos[1]: ""}


@pytest.mark.parametrize("place", ["photos/metadata.jsonl", "photos/metadata.csv", "elsewhere.jsonl"])
def test_a_table_names_photographs_from_its_own_folder_absolutely_or_by_url(photos, place):
    table = Path(place)
    names = ["one.jpg", "deep/../deep/two.tiff"] if table.parent.name else ["photos/one.jpg", photos[1]]
    rows = [*zip(names, ['a "cat", asleep', "Zürich"], strict=True), ("s3://bucket/three.png", "three"), ("more.jpg", "of no interest")]
    if table.suffix == ".csv":
        lines = ["text,file_name,year", *('"{}",{},1999'.format(text.replace('"', '""'), name) for name, text in rows)]
    else:
        lines = [json.dumps({"file_name": name, "text": text, "year": 1999}) for name, text in rows] + [""]
    table.write_text("\n".join(lines), encoding="utf-8")
    captions = read_captions(table, [*photos, "s3://bucket/three.png"])
    assert captions == {photos[0]: 'a "cat", asleep', photos[1]: "Zürich", "s3://bucket/three.png": "three"}


@pytest.mark.parametrize(
    ("source", "content", "says"),
    [
        ("a.json", b"{}", r"`captions` 'a.json' must be a suffix such as .txt, or end in .jsonl or .csv"),
        ("a.jsonl", None, r"`captions` a.jsonl: No such file or directory\."),
        ("a.jsonl", b'{"file_name": "photos/one.jpg", "text": "a"}\nnothing', r"`captions` a.jsonl: line 2 is no JSON"),
        ("a.jsonl", b'["photos/one.jpg", "a"]', r"`captions` a.jsonl: line 1 has no `file_name` and `text`"),
        ("a.jsonl", b'{"file_name": "photos/one.jpg", "text": 3}', r"line 1 has no `file_name` and `text`"),
        ("a.csv", b"file,caption\nphotos/one.jpg,a", r"`captions` a.csv: line 2 has no `file_name` and `text`"),
        ("a.csv", b"file_name,text\nphotos/one.jpg", r"`captions` a.csv: line 2 has no `file_name` and `text`"),
        ("a.csv", b"file_name,text\nphotos/one.jpg,a\n./photos/one.jpg,b", r"line 3 is the second one of ./photos/one.jpg"),
        ("a.csv", b"file_name,text\nphotos/one.jpg,\xff", r"`captions` a.csv: .*decode"),
        ("a.jsonl", b'{"file_name": "photos/one.jpg", "text": "a"}', r"`captions` a.jsonl: has none for .*two\.tiff\.$"),
        (".txt", None, r"`captions` .txt: photos/one.txt, for photos/one.jpg, cannot be read: No such file or directory\."),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_a_line(photos, source, content, says):
    if content is not None:
        Path(source).write_bytes(content)
    with pytest.raises(ValueError, match=says) as raised:
        read_captions(source, photos)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"are read from folders only, not for s3://bucket/a\.png"):
        read_captions(".txt", ["s3://bucket/a.png"])
