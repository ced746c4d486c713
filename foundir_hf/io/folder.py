"""Which photographs a folder holds."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from .files import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)


def list_photos(folder: str | Path, split: str | None = None) -> list[Path]:
    """The photographs of a folder, sorted by path.

    Args:
        folder: Searched recursively. If it holds a `manifest.csv` with a column `file`, its rows decide instead; any other `manifest.csv`
            is somebody else's and ignored.
        split: Keep only the rows whose column `split` says so. Ignored without such a manifest or without that column.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`folder` must be an existing directory of photographs, got {str(folder)!r}.")
    rows = _manifest_rows(folder / "manifest.csv")
    if rows is not None:
        # A row that ends early has None in its last columns.
        paths = sorted(folder / row["file"] for row in rows if row["file"] and (split is None or row.get("split", split) == split))
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"`folder` {str(folder)!r} holds no photographs" + (f" of split {split!r}." if split else "."))
    return paths


def _manifest_rows(path: Path) -> list[dict[str, str]] | None:
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "file" in (reader.fieldnames or ()):
                return list(reader)
    except (UnicodeDecodeError, csv.Error):
        pass
    logger.warning("Ignored %s: it has no column `file`.", path)
    return None
