"""How much one file may take, so that no file takes the machine."""

from __future__ import annotations

from dataclasses import dataclass

from .photograph import PhotoError


@dataclass(frozen=True)
class Limits:
    """What is allowed to a file; what goes beyond is refused in one line.

    Args:
        megapixels: Millions of pixels, as its header claims them: before anything is decoded. By default Pillow's own limit.
        megabytes: Millions of bytes of the file, before it is read.
        seconds: For reading it, and again for restoring it.
    """

    megapixels: float = 178.0
    megabytes: float = 1000.0
    seconds: float = 3600.0

    def check_pixels(self, width: int, height: int) -> None:
        """Raises [`PhotoError`] for a picture that is too large."""
        if width * height > self.megapixels * 1e6:
            raise PhotoError(f"it has {width} x {height} pixels, the limit is {self.megapixels:g} megapixels (--max-megapixels)")

    def check_bytes(self, count: int) -> None:
        """Raises [`PhotoError`] for a file that is too large."""
        if count > self.megabytes * 1e6:
            raise PhotoError(f"it has {count / 1e6:.1f} megabytes, the limit is {self.megabytes:g} (--max-megabytes)")


DEFAULT_LIMITS = Limits()
