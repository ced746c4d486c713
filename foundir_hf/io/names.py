"""Formats by the names of files: which are read, which are written, and what is written in place of those that are not."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import PurePath

# Suffix -> the format that is written.
WRITERS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"}
)
READ_SUFFIXES = frozenset({*WRITERS, ".avif", *HEIC_SUFFIXES, *RAW_SUFFIXES})
# What holds all of a photograph that came in a format that is not written.
_IN_PLACE_OF = {".avif": ".png"} | dict.fromkeys(HEIC_SUFFIXES, ".png") | dict.fromkeys(RAW_SUFFIXES, ".tiff")
# Suffix -> the module that reads it, and the extra that brings this.
_EXTRAS = dict.fromkeys(HEIC_SUFFIXES, ("pillow_heif", "heic")) | dict.fromkeys(RAW_SUFFIXES, ("rawpy", "raw"))


def missing_extra(suffix: str) -> str | None:
    """The extra of this package that must be installed to read files of this suffix; none if they can be read."""
    module, extra = _EXTRAS.get(suffix, ("", ""))
    return extra if module and not _is_installed(module) else None


@cache
def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def how_to_install(extra: str) -> str:
    """What a message says about an extra that is missing."""
    return f"pip install 'foundir_hf[{extra}]' adds what reads it"


def written_name(name: PurePath, suffix: str | None = None) -> PurePath:
    """What a photograph's file is called when it is written.

    Args:
        name: Of the file that is read. It is kept whole before a new suffix, so that `a.jpg` and `a.heic` stay apart.
        suffix: Of the format wanted; left out, that of `name`, or PNG in place of HEIC and AVIF and TIFF in place of camera raws.
    """
    own = name.suffix.lower()
    wanted = suffix or _IN_PLACE_OF.get(own, own)
    same = wanted == own or (own in WRITERS and WRITERS.get(wanted) == WRITERS[own])
    return name if same else name.with_name(name.name + wanted)
