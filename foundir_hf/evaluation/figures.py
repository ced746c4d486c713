"""Pictures of a report: what was restored, at the median and at worst, and how much was gained."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..io.files import write_whole
from ..io.pictures import contact_sheet, write_picture
from .benchmark import INPUT, RESTORED, Measurement
from .metrics import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 320  # pixels a side: pictures are cropped and not shrunk, because shrinking hides noise and blocks
_BLUE, _RED, _GREY, _INK = "#2f6db3", "#c0392b", "#9a9a9a", "#202020"


class Grids:
    """Draws a sheet a task, as measurements arrive: truth, input, restored, best baseline, other methods; at the median and at worst.

    Args:
        folder: Gets `SET-TASK.jpg`.

    Raises:
        MissingExtraError: If what draws the chart that goes with them is not installed, before anything was measured.
    """

    def __init__(self, folder: Path):
        _figure_class()
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


def gain_chart(rows: Sequence[dict[str, Any]]) -> Figure | None:
    """Bars of gain by row of [`~foundir_hf.evaluation.statistics.summarise`], with intervals and best baselines; `None` without gains."""
    key = next(iter(rows[0]))
    rows = [row for row in rows if row["gain"] is not None]
    if not rows:
        return None
    gains, places = [row["gain"] for row in rows], range(len(rows))
    figure = _figure_class()(figsize=(8, 0.8 + 0.26 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(places, gains, height=0.5, color=[_BLUE if gain >= 0 else _RED for gain in gains])
    for place, gain in zip(places, gains, strict=True):
        axes.text(1.01, place, f"{gain:+.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    known = [(place, row) for place, row in zip(places, rows, strict=True) if row["interval"]]
    middles = [sum(row["interval"]) / 2 for _, row in known]
    halves = [abs(row["interval"][1] - row["interval"][0]) / 2 for _, row in known]
    axes.errorbar(middles, [place for place, _ in known], xerr=halves, fmt="none", ecolor=_INK, elinewidth=1, capsize=3)
    best = [(row["best_baseline"]["gain"], place) for place, row in zip(places, rows, strict=True) if row["best_baseline"]]
    best = [(gain, place) for gain, place in best if gain is not None]
    axes.scatter([gain for gain, _ in best], [place for _, place in best], marker="D", s=24, color=_GREY, edgecolors=_INK, zorder=3)
    axes.set_yticks(places, [str(row[key]) for row in rows])
    axes.invert_yaxis()
    axes.axvline(0, color=_INK, linewidth=1)
    axes.grid(axis="x", color="#e3e3e3")
    axes.set_axisbelow(True)
    axes.margins(x=0.1, y=0.5 / len(rows))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("gain over the input in dB (line: 95 %; diamond: best baseline)", fontsize=9, loc="left")
    return figure


def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("Figures need matplotlib: pip install 'foundir_hf[eval]', or go --without figures.") from error
    return Figure


def write_chart(rows: Sequence[dict[str, Any]], path: Path) -> bool:
    """Writes [`gain_chart`] as PNG; returns whether there was one."""
    chart = gain_chart(rows)
    if chart is not None:
        buffer = io.BytesIO()
        chart.savefig(buffer, format="png", dpi=110)
        write_whole(path, buffer.getvalue())
    return chart is not None


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
