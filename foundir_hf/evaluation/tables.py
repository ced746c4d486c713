"""Summaries as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .benchmark import RESTORED


def card_tables(report: dict[str, Any]) -> tuple[str, str]:
    """The model card's tables, by family and by sub-task, as Markdown."""
    return to_table(report["families"]), to_table(report["tasks"])


def to_table(rows: Sequence[dict[str, Any]], others: Sequence[str] = ()) -> str:
    """A Markdown table of [`summarise`]'s rows; columns that no row has anything for are left out.

    Args:
        rows: Of [`summarise`], or of a report.
        others: Methods that get a column of their own.
    """
    if not rows:
        raise ValueError("`rows` must hold at least one row, got none.")
    key = next(iter(rows[0]))
    header = [key, "images", "input dB", "output dB", "gain"]
    # An input that equals its truth has nothing to gain and stays a dash.
    lines = [
        [str(r[key]), str(r["images"]), _cell(r["psnr_input"]), _psnr(r, RESTORED, r["psnr_output"]), _cell(r["gain"], "+.2f")]
        for r in rows
    ]

    def column(title: str, cells: list[str]) -> None:
        if any(cell != "-" for cell in cells):
            header.append(title)
            for line, cell in zip(lines, cells, strict=True):
                line.append(cell)

    column("95 % of gain", [_interval(r.get("interval")) for r in rows])
    best = [r.get("best_baseline") for r in rows]
    column("best baseline dB", [f"{b['psnr']:.2f} {b['name']}" if b else "-" for b in best])
    for other in others:
        column(f"{other} dB", [_psnr(r, other, r["methods"].get(other, {}).get("psnr")) for r in rows])
        column(f"{other} gain", [_cell(r["methods"].get(other, {}).get("gain"), "+.2f") for r in rows])
    return markdown_table(header, lines)


def to_metric_table(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """A Markdown table of one metric: a row a task, a column a method, best baseline instead of all; empty if nothing was measured."""
    key = next(iter(rows[0]))
    shown = list(dict.fromkeys(name for row in rows for name in row["methods"] if name not in row["baselines"]))
    lines = []
    for row in rows:
        best = row["best_baseline"]["name"] if row["best_baseline"] else None
        cells = [_cell(row["methods"].get(name, {}).get(metric), ".4f") for name in shown]
        value = row["methods"][best].get(metric) if best else None
        lines.append([str(row[key]), *cells, "-" if value is None else f"{value:.4f} {best}"])
    if all(cell == "-" for line in lines for cell in line[1:]):
        return ""
    return markdown_table([key, *shown, "best baseline by PSNR"], lines)


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A header and rows of cells, as Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" if cells is not None else "|" + "---|" * len(header) for cells in (header, None, *lines))


def _cell(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _psnr(row: dict[str, Any], method: str, value: float | None) -> str:
    """The mean over finite values; `inf` where a method has none because its images equal their truths."""
    return "inf" if value is None and row.get("identical", {}).get(method) else _cell(value)


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.2f} to {interval[1]:+.2f}"
