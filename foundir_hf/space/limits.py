"""What the page takes, in numbers and in words."""

from __future__ import annotations

import os
from pathlib import Path

import PIL.Image

from ..formats.photograph import PhotoError

UPLOAD_MEGABYTES = 80
# Of the result: what two cores restore in two minutes, and what fits beside others into 16 GB.
MEGAPIXELS = 24
BATCH_PHOTOS = 50
BATCH_MEGABYTES = 400  # of all photographs of a batch, unpacked
WAITING = 16  # visitors in the line, the one whose turn it is included
AT_ONCE = 2 * WAITING  # events that gradio lets begin: waiting costs next to nothing, and who is really served is for the line to say

IN_WORDS = (
    f"Photos up to {UPLOAD_MEGABYTES} MB, results up to {MEGAPIXELS} megapixels. Nothing is kept: "
    "your files are deleted when you leave this page."
)


def check_result(size: tuple[int, int], upscale: float) -> None:
    """Raises [`PhotoError`] if a photograph of this size, enlarged, is too large for the page."""
    width, height = (round(side * upscale) for side in size)
    if width * height > MEGAPIXELS * 1e6:
        raise PhotoError(f"The result would have {width * height / 1e6:.0f} megapixels; this page stops at {MEGAPIXELS}.")


def check_upload(path: str | Path) -> None:
    """Raises [`PhotoError`] if a file is too large, by what can be told without decoding its pixels."""
    megabytes = os.path.getsize(path) / 1e6
    if megabytes > UPLOAD_MEGABYTES:
        raise PhotoError(f"The file has {megabytes:.0f} MB; this page stops at {UPLOAD_MEGABYTES}.")
    try:
        with PIL.Image.open(path) as image:
            size = image.size
    except Exception:  # the reader knows more formats and tells what is wrong
        from ..photo import read_photo  # with torch, for which the page does not wait

        size = read_photo(path).size
    check_result(size, 1)
