"""Pictures of a report: what was restored, at the median and at worst, and how much was gained."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..pictures import contact_sheet, write_picture
from .benchmark import INPUT, RESTORED, Measurement

_CELL = 320  # pixels a side: pictures are cropped and not shrunk, because shrinking hides noise and blocks
_BLUE, _RED, _GREY, _INK = "#2f6db3", "#c0392b", "#9a9a9a", "#202020"


class Grids:
    """Draws a sheet a task, as measurements arrive: truth, input, restored, best baseline, other methods; at the median and at worst.

    Args:
        folder: Gets `SET-TASK.jpg`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.written: list[Path] = []
        self._group: tuple[str, str] | None = None
        self._rows: list[tuple[float, str, list[tuple[str, bytes]]]] = []

    def add(self, measurement: Measurement) -> None:
        """Takes the next image of a suite; a new task writes the sheet of the last."""
        group = (measurement.case.set, measurement.case.task)
        if group != self._group:
            self.finish()
            self._group = group
        self._rows.append((_rank(measurement), measurement.case.image, _cells(measurement)))

    def finish(self) -> None:
        """Writes the sheet of the current task, if there is one."""
        if not self._rows or self._group is None:
            return
        order = sorted(self._rows, key=lambda row: row[0])
        picked = [("", order[0])] if len(order) == 1 else [("median", order[len(order) // 2]), ("worst", order[0])]
        if math.isnan(order[0][0]):  # nothing to rank by: the first ones
            picked = [("", row) for row in self._rows[:4]]
        columns = max(len(row[2]) for _, row in picked)
        cells: list[tuple[str, Image.Image]] = []
        for which, (_, name, row) in picked:
            for caption, encoded in row:
                cells.append((caption, Image.open(io.BytesIO(encoded))))
            cells[-len(row)] = (", ".join(filter(None, (cells[-len(row)][0], which, name))), cells[-len(row)][1])
        sheet = contact_sheet(cells, columns=columns, width=max(image.width for _, image in cells))
        path = self.folder / f"{_file_name('-'.join(dict.fromkeys(self._group)))}.jpg"
        write_picture(sheet, path, quality=90)
        self.written.append(path)
        self._rows, self._group = [], None


def _rank(measurement: Measurement) -> float:
    """Gain in decibels; without a gain the output's PSNR; NaN without a truth."""
    methods = measurement.score.methods
    before = methods[INPUT].get("psnr")
    after = methods.get(RESTORED, methods[INPUT]).get("psnr")
    if before is None or after is None:
        return math.nan
    return after - before if math.isfinite(before) else after


def _cells(measurement: Measurement) -> list[tuple[str, bytes]]:
    """Caption and picture of every column, cropped to the same middle."""
    case, score = measurement.case, measurement.score

    def quality(name: str) -> float:
        value = score.methods[name].get("psnr")
        return -math.inf if value is None else value

    best = max(score.baselines, key=quality, default=None)
    others = [name for name in measurement.images if name not in (INPUT, RESTORED, *score.baselines)]
    names = [name for name in (INPUT, RESTORED, best, *others) if name in measurement.images]
    pictures = [("truth", case.truth)] if case.truth is not None else []
    pictures += [(name + ("" if case.truth is None else f" {quality(name):.2f} dB"), measurement.images[name]) for name in names]
    return [(caption, _encode(Image.fromarray(_middle(pixels)), 95)) for caption, pixels in pictures]


def _middle(pixels: np.ndarray) -> np.ndarray:
    """At most a cell's pixels from the middle, `uint8`."""
    top, left = (max(0, (side - _CELL) // 2) for side in pixels.shape[:2])
    return pixels[top : top + _CELL, left : left + _CELL].clip(0, 255).round().astype(np.uint8)


def gain_chart(rows: Sequence[dict[str, Any]]) -> Image.Image | None:
    """Bars of gain by row of [`~foundir_hf.evaluation.statistics.summarise`], with intervals and best baselines; `None` without gains."""
    key = next(iter(rows[0]))
    rows = [row for row in rows if row["gain"] is not None]
    if not rows:
        return None
    line, bar, margin, width = 24, 12, 12, 640
    font, small = ImageFont.load_default(size=13), ImageFont.load_default(size=11)
    labels = [str(row[key]) for row in rows]
    left = margin + round(max(font.getlength(label) for label in labels)) + margin
    values = [0.0, *(row["gain"] for row in rows)]
    values += [end for row in rows if row["interval"] for end in row["interval"]]
    values += [row["best_baseline"]["gain"] for row in rows if row["best_baseline"] and row["best_baseline"]["gain"] is not None]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 1000) if (max(values) - min(values)) / s <= 10)
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    high = high if high > low else low + step
    right = 64  # room for the numbers

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * width

    top = margin + line
    chart = Image.new("RGB", (left + width + right, top + line * len(rows) + line + margin), "white")
    draw = ImageDraw.Draw(chart)
    draw.text((left, margin - 4), "gain over the input in dB (line: 95 %; diamond: best baseline)", fill=_INK, font=font)
    ticks = [low + step * i for i in range(round((high - low) / step) + 1)]
    for tick in ticks:
        draw.line([(x(tick), top), (x(tick), top + line * len(rows))], fill=_INK if abs(tick) < 1e-9 else "#e3e3e3")
        draw.text((x(tick), top + line * len(rows) + 4), f"{tick:g}", fill=_INK, font=small, anchor="ma")
    for index, (label, row) in enumerate(zip(labels, rows, strict=True)):
        middle = top + line * index + line // 2
        draw.text((left - margin, middle), label, fill=_INK, font=font, anchor="rm")
        ends = sorted((x(0), x(row["gain"])))
        draw.rectangle([ends[0], middle - bar // 2, ends[1], middle + bar // 2], fill=_BLUE if row["gain"] >= 0 else _RED)
        if row["interval"]:
            start, stop = (x(end) for end in row["interval"])
            draw.line([(start, middle), (stop, middle)], fill=_INK)
            for end in (start, stop):
                draw.line([(end, middle - 3), (end, middle + 3)], fill=_INK)
        best = row["best_baseline"]
        if best and best["gain"] is not None:
            at = x(best["gain"])
            draw.polygon([(at - 5, middle), (at, middle - 5), (at + 5, middle), (at, middle + 5)], fill=_GREY, outline=_INK)
        draw.text((left + width + right - margin, middle), f"{row['gain']:+.2f}", fill=_INK, font=small, anchor="rm")
    return chart


def write_chart(rows: Sequence[dict[str, Any]], path: Path) -> bool:
    """Writes [`gain_chart`] as PNG; returns whether there was one."""
    chart = gain_chart(rows)
    if chart is not None:
        write_picture(chart, path)
    return chart is not None


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
