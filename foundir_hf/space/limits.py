"""What the page takes, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace

from ..io.limits import Limits
from ..io.photograph import PhotoError

# Of a photograph, unless whoever runs the page says otherwise. Pixels of the result too: what two cores restore in two minutes, and what
# fits beside others into 16 GB. Seconds for reading it, while others wait.
PAGE_LIMITS = Limits(megapixels=24, megabytes=80, seconds=60)
BATCH_PHOTOS = 50
_BATCH_SHARE = 5  # the largest photographs that a batch may hold, unpacked
DECODED_MEGABYTES = 600  # of photographs that are kept in memory, decoded, for what their visitors do next
IDLE_SECONDS = 3600  # after which the files go of who has done nothing meanwhile
CALLS_KEPT = 64  # answered calls of programs whose results can still be fetched
WAITING = 16  # visitors in the line, the one whose turn it is included
AT_ONCE = 2 * WAITING  # events that gradio lets begin: waiting costs next to nothing, and who is really served is for the line to say


def limits_of(environment: Mapping[str, str]) -> Limits:
    """[`PAGE_LIMITS`], or what `FOUNDIR_MAX_MEGAPIXELS`, `FOUNDIR_MAX_MEGABYTES` and `FOUNDIR_MAX_SECONDS` say. Raises `ValueError`."""
    given: dict[str, float] = {}
    for name in (field.name for field in fields(Limits)):
        variable = f"FOUNDIR_MAX_{name.upper()}"
        if text := environment.get(variable):
            try:
                given[name] = float(text)
            except ValueError:
                given[name] = math.nan
            if not 0 <= given[name] <= 1e12:  # NaN fails too
                raise ValueError(f"`{variable}` must be a number in [0, 1e12], got {text!r}.")
    return replace(PAGE_LIMITS, **given)


def batch_megabytes(limits: Limits) -> float:
    """Of all photographs of a batch, unpacked."""
    return _BATCH_SHARE * limits.megabytes


def in_words(limits: Limits) -> str:
    """What visitors are told of one photograph."""
    return (
        f"JPEG, PNG, WebP, TIFF and more, up to {limits.megabytes:g} MB; results up to {limits.megapixels:g} megapixels. "
        "Your files are deleted when you leave this page, or after an hour."
    )


def check_result(size: tuple[int, int], upscale: float, limits: Limits) -> None:
    """Raises [`PhotoError`] if a photograph of this size, enlarged, is too large for the page."""
    width, height = (round(side * upscale) for side in size)
    if width * height > limits.megapixels * 1e6:
        raise PhotoError(f"The result would have {width * height / 1e6:.0f} megapixels; this page stops at {limits.megapixels:g}.")
