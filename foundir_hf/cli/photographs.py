"""Photographs that a verb looks at one after the other: each decoded in a process of its own, what cannot be read told."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..io.limits import Limits
from .common import UsageError, WorkError, one_line

if TYPE_CHECKING:
    from ..io.photograph import Photo


def photographs(paths: Sequence[Path], limits: Limits) -> Iterator[tuple[Path, Photo]]:
    """Photographs in order; one that cannot be read is told, and the others follow.

    At the end raises [`UsageError`] if none could be read, [`WorkError`] if some could not.
    """
    from ..io.decoder import Decoder
    from ..io.photograph import PhotoError

    failed = 0
    with Decoder() as decoder:
        for path in paths:
            try:
                photo = decoder.read(path, limits)
            except (PhotoError, TimeoutError, MemoryError) as error:
                failed += 1
                text = str(error) if isinstance(error, PhotoError) else f"{path}: {error or 'out of memory'}."
                if len(paths) == 1:
                    raise UsageError(text) from error
                print(f"foundir: {one_line(text)}", file=sys.stderr)
                continue
            yield path, photo
    if failed:
        summary = f"{failed} of {len(paths)} photographs could not be read."
        raise UsageError(summary) if failed == len(paths) else WorkError(summary)
