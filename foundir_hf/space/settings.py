"""What a visitor may ask for, in the words of the page and of the pipeline."""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cli.common import restoration_options
from ..io.files import IMAGE_SUFFIXES

SEED = 0
# Name -> denoising steps. None is called the best: which measures best is for the card to say, see `measured`.
PRESETS = {"fast": 0, "balanced": 1, "thorough": 4}
TONES = ("auto", "off", "always")
# As the visitor reads it -> suffix; the first keeps the photograph's own.
FORMATS = {"as it came": None, "PNG": ".png", "JPEG": ".jpg", "WebP": ".webp", "TIFF": ".tif"}
SIZES = ("keep", "enlarge by a factor", "enlarge to a width")
MAX_ENLARGEMENT = 8


class SettingError(ValueError):
    """A setting that cannot be taken; the message is one line for the visitor."""


@dataclass(frozen=True)
class Settings:
    """Checked settings of one restoration.

    Args:
        steps: See `PRESETS`.
        tone, strength: The pipeline's.
        size: One of `SIZES`.
        factor: For the second, in [1, 8].
        width: For the third, in pixels.
        suffix: Of the download, one of those of `FORMATS`.
        quality: Of JPEG and WebP; none leaves it to the writer.
        adapters: Names and weights.
    """

    steps: int = 1
    tone: str = "auto"
    strength: float = 1.0
    size: str = "keep"
    factor: float = 2.0
    width: int = 0
    suffix: str | None = None
    quality: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()

    def upscale(self, size: tuple[int, int]) -> float:
        """The factor for a photograph of this width and height. Raises [`SettingError`]."""
        if self.size == "keep":
            return 1.0
        if self.size == "enlarge by a factor":
            return self.factor
        if not size[0] <= self.width <= MAX_ENLARGEMENT * size[0]:
            raise SettingError(f"`width` must be {size[0]} to {MAX_ENLARGEMENT * size[0]} pixels for this photo, got {self.width}.")
        return self.width / size[0]

    def arguments(self, checkpoint: str, folder: Path | None, size: tuple[int, int]) -> argparse.Namespace:
        """As the command line would have read them, for a photograph of that size, with the adapters in `folder`."""
        arguments = restoration_options().parse_args([])
        arguments.steps, arguments.tone, arguments.strength = self.steps, self.tone, self.strength
        arguments.upscale, arguments.checkpoint, arguments.seed = self.upscale(size), checkpoint, SEED
        arguments.adapter = [f"{Path(folder or '') / name}:{weight:g}" for name, weight in self.adapters]
        return arguments

    def name_of(self, photo_name: str) -> str:
        """What a restored photograph is called. Where nothing else is asked for, it stays in its format if that can be written."""
        path = Path(photo_name)
        suffix = self.suffix or (path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else ".png")
        return f"{path.stem}-restored{suffix}"


def check_settings(
    preset: Any = "balanced",
    tone: Any = "auto",
    strength: Any = 1.0,
    size: Any = "keep",
    factor: Any = 2.0,
    width: Any = None,
    format: Any = "as it came",
    quality: Any = None,
    adapters: Any = "",
    known_adapters: tuple[str, ...] = (),
) -> Settings:
    """Settings from what the page or a program sent. Raises [`SettingError`] naming what arrived and what is accepted."""
    for name, value, accepted in (("preset", preset, PRESETS), ("tone", tone, TONES), ("size", size, SIZES), ("format", format, FORMATS)):
        if not isinstance(value, str) or value not in accepted:
            raise SettingError(f"`{name}` must be one of {', '.join(accepted)}; got {value!r}.")
    return Settings(
        steps=PRESETS[preset],
        tone=tone,
        strength=_number("strength", strength, 0, 1),
        size=size,
        factor=_number("factor", factor, 1, MAX_ENLARGEMENT) if size == SIZES[1] else 2.0,
        width=_whole("width", width, 1, 100_000) if size == SIZES[2] else 0,
        suffix=FORMATS[format],
        quality=None if quality in (None, "", 0) else _whole("quality", quality, 1, 100),
        adapters=_adapters(adapters, known_adapters),
    )


def _number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise SettingError(f"`{name}` must be a number in [{low}, {high}], got {value!r}.")
    return number


def _whole(name: str, value: Any, low: int, high: int) -> int:
    number = _number(name, value, low, high)
    if number != int(number):
        raise SettingError(f"`{name}` must be a whole number in [{low}, {high}], got {value!r}.")
    return int(number)


def _adapters(text: Any, known: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """`name:weight, name` -> both; weights in [0, 2], 1 if left out."""
    if not isinstance(text, str):
        raise SettingError(f"`adapters` must be text such as 'scans:0.5', got {text!r}.")
    found = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = entry.partition(":")
        if name not in known:
            raise SettingError(f"`adapters` must be of this server's: {', '.join(known) or 'it has none'}; got {name!r}.")
        found[name] = _number(f"adapters: weight of {name}", weight or 1, 0, 2)
    return tuple(found.items())


def measured(card: str) -> dict[int, float]:
    """What the model card measured of denoising steps, PSNR in decibels at the default fidelity; empty if it does not say."""
    table = re.search(r"<!-- steps -->(.*?)<!-- end -->", card, re.S)
    rows = re.findall(r"^\| *(?:-|1) *\| *(\d+) *\| *([\d.]+) *\|", table[1], re.M) if table else []
    return {int(steps): float(psnr) for steps, psnr in rows}
