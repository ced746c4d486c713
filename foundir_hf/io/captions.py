"""Captions that somebody wrote down: what each photograph shows, beside it or in a table."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from .files import is_url

_TABLES = (".jsonl", ".csv")


def read_captions(source: str | Path, photos: Iterable[str | Path]) -> dict[str, str]:
    """The caption of each of these photographs.

    Args:
        source: A suffix such as `.txt`: that of a text file beside each photograph, `a.txt` for `a.jpg`. Or a table as `datasets` has
            them of folders of pictures: a `.jsonl` file of objects, or a `.csv` file with a head, that have `file_name` (a path below the
            table's folder, an absolute one, or a URL) and `text`.
        photos: Their paths, or URLs.

    Returns:
        The captions by `str(photo)`, each as one line. An empty one is a caption too.

    Raises:
        ValueError: By the names of what is missing or cannot be read.
    """
    names = [str(photo) for photo in photos]
    if re.fullmatch(r"\.\w+", str(source)):
        return {name: _beside(name, str(source)) for name in names}
    if Path(source).suffix.lower() not in _TABLES:
        raise ValueError(f"`captions` {str(source)!r} must be a suffix such as .txt, or end in {' or '.join(_TABLES)}.")
    table = _read_table(Path(source))
    captions = {name: table[place] for name in names if (place := _place(name)) in table}
    if missing := [name for name in names if name not in captions]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(f"`captions` {source}: has none for {', '.join(missing[:5])}{more}.")
    return captions


def _beside(photo: str, suffix: str) -> str:
    if is_url(photo):
        raise ValueError(f"`captions` {suffix}: text files beside photographs are read from folders only, not for {photo}.")
    path = Path(photo).with_suffix(suffix)
    try:
        return _one_line(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"`captions` {suffix}: {path}, for {photo}, cannot be read: {_reason(error)}.") from error


def _read_table(path: Path) -> dict[str, str]:
    """Captions by absolute paths and URLs."""
    captions: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, row in _rows(path, file):
                name, text = (row.get(column) if isinstance(row, dict) else None for column in ("file_name", "text"))
                if not isinstance(name, str) or not isinstance(text, str) or not name:
                    raise ValueError(f"line {number} has no `file_name` and `text`")
                place = _place(name if is_url(name) else os.path.join(path.parent, name))
                if place in captions:
                    raise ValueError(f"line {number} is the second one of {name}")
                captions[place] = _one_line(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"`captions` {path}: {_reason(error)}.") from error
    return captions


def _rows(path: Path, file: Iterable[str]) -> Iterator[tuple[int, object]]:
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, row
        return
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error


def _place(name: str) -> str:
    return name if is_url(name) else os.path.abspath(name)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or _one_line(str(error)) or type(error).__name__
