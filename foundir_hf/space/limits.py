"""What the page takes, in numbers and in words."""

from __future__ import annotations

from dataclasses import replace

from ..io.limits import Limits
from ..io.photograph import PhotoError

UPLOAD_MEGABYTES = 80
# Of the result: what two cores restore in two minutes, and what fits beside others into 16 GB.
MEGAPIXELS = 24
PER_PHOTO = Limits(megapixels=MEGAPIXELS, megabytes=UPLOAD_MEGABYTES)
READING = replace(PER_PHOTO, seconds=60)  # others wait meanwhile
BATCH_PHOTOS = 50
BATCH_MEGABYTES = 400  # of all photographs of a batch, unpacked
DECODED_MEGABYTES = 600  # of photographs that are kept in memory, decoded, for what their visitors do next
IDLE_SECONDS = 3600  # after which the files go of who has done nothing meanwhile
CALLS_KEPT = 64  # answered calls of programs whose results can still be fetched
WAITING = 16  # visitors in the line, the one whose turn it is included
AT_ONCE = 2 * WAITING  # events that gradio lets begin: waiting costs next to nothing, and who is really served is for the line to say

IN_WORDS = (
    f"JPEG, PNG, WebP, TIFF and more, up to {UPLOAD_MEGABYTES} MB; results up to {MEGAPIXELS} megapixels. "
    "Your files are deleted when you leave this page, or after an hour."
)


def check_result(size: tuple[int, int], upscale: float) -> None:
    """Raises [`PhotoError`] if a photograph of this size, enlarged, is too large for the page."""
    width, height = (round(side * upscale) for side in size)
    if width * height > MEGAPIXELS * 1e6:
        raise PhotoError(f"The result would have {width * height / 1e6:.0f} megapixels; this page stops at {MEGAPIXELS}.")
