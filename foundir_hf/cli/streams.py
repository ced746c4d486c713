"""stdin and stdout as files: a photograph that is piped in, one that is piped out, a list of paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..io.files import IMAGE_SUFFIXES, is_url
from ..io.limits import DEFAULT_LIMITS, Limits

# What stands for stdin or stdout on the command line.
STREAM = Path("-")


def receive_photo(folder: Path, limits: Limits) -> Path:
    """Writes the photograph on stdin to a file in `folder`, named by what its content says. Raises [`PhotoError`] if it is too large."""
    received = folder / "stdin"
    content = sys.stdin.buffer.read(int(min(limits.megabytes * 1e6, sys.maxsize - 1)) + 1)
    limits.check_bytes(len(content))
    received.write_bytes(content)
    return received.rename(received.with_suffix(suffix_by_content(received) or ".png"))  # what cannot be written becomes a PNG


def send_file(path: Path) -> None:
    """Writes a file's bytes to stdout."""
    sys.stdout.buffer.write(path.read_bytes())
    sys.stdout.buffer.flush()


def read_paths(path: Path) -> list[Path | str]:
    """The paths and URLs that a file lists, or stdin, one a line or divided by zero bytes. Raises `OSError`."""
    content = sys.stdin.buffer.read() if path == STREAM else path.read_bytes()
    names = content.split(b"\0") if b"\0" in content else content.splitlines()
    places = [os.fsdecode(name) for name in names if name.strip()]
    return [place if is_url(place) else Path(place) for place in places]


def suffix_by_content(path: Path) -> str | None:
    """The suffix of a photograph's format; none if it is not one that can be written, or no photograph."""
    from ..io.formats.raster import open_picture
    from ..io.formats.raw import is_raw
    from ..io.formats.tiff import is_tiff

    try:
        with path.open("rb") as file:
            head = file.read(2**16)
        if is_raw(head) or is_tiff(head):  # Pillow knows only some
            return ".tiff"
        with open_picture(path, DEFAULT_LIMITS) as image:
            suffix = ".jpeg" if image.format == "MPO" else f".{image.format}".lower()
    except Exception:  # told when it is read as a photograph
        return None
    return suffix if suffix in IMAGE_SUFFIXES else None
