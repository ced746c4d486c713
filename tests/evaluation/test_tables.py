"""Markdown tables."""

from __future__ import annotations

import math

import pytest

from foundir_hf.evaluation.benchmark import Score
from foundir_hf.evaluation.statistics import summarise
from foundir_hf.evaluation.tables import card_tables, to_metric_table, to_table


def row(**values) -> dict:
    return {"family": "noise", "images": 3, "psnr_input": 25.0, "psnr_output": 28.5, "gain": 3.5} | values


def test_tables_are_markdown_with_a_dash_for_what_is_not_there():
    clean = row(family="clean", psnr_input=None, gain=None)
    assert to_table([row(), clean]).splitlines() == [
        "| family | images | input dB | output dB | gain |",
        "|---|---|---|---|---|",
        "| noise | 3 | 25.00 | 28.50 | +3.50 |",
        "| clean | 3 | - | 28.50 | - |",
    ]
    with pytest.raises(ValueError, match="at least one row"):
        to_table([])


def test_columns_appear_when_a_row_has_something_for_them():
    best = {"name": "nlm", "psnr": 27.0, "gain": 2.0, "interval": None}
    full = row(interval=[-0.5, 7.25], best_baseline=best, methods={"DnCNN": {"psnr": 29.0, "gain": 4.0}})
    lines = to_table([full, row(methods={})], ["DnCNN"]).splitlines()
    assert lines[0] == "| family | images | input dB | output dB | gain | 95 % of gain | best baseline dB | DnCNN dB | DnCNN gain |"
    assert lines[2].endswith("| +3.50 | -0.50 to +7.25 | 27.00 nlm | 29.00 | +4.00 |")
    assert lines[3].endswith("| +3.50 | - | - | - | - |")


def test_a_method_whose_every_image_equals_its_truth_shows_inf():
    methods = {"input": {"psnr": 20.0}, "restored": {"psnr": math.inf}, "oracle": {"psnr": math.inf}}
    perfect = Score("set", "noise", "noise", "a", methods)
    clean = Score("set", "clean", "clean", "a", {"input": {"psnr": math.inf}, "restored": {"psnr": 30.0}})
    assert to_table(summarise([perfect, clean]), ["oracle"]).splitlines() == [
        "| family | images | input dB | output dB | gain | oracle dB |",
        "|---|---|---|---|---|---|",
        "| noise | 1 | 20.00 | inf | - | inf |",
        "| clean | 1 | - | 30.00 | - | - |",
    ]


def scores() -> list[Score]:
    methods = {
        "input": {"psnr": 20.0, "ssim": 0.5, "lpips": None},
        "restored": {"psnr": 26.0, "ssim": 0.8, "lpips": None},
        "nlm": {"psnr": 25.0, "ssim": 0.75, "lpips": None},
        "median": {"psnr": 24.0, "ssim": 0.7, "lpips": None},
    }
    return [Score("set", "noise", "gaussian_noise", "a", methods, ("nlm", "median")), Score("set", "x", "x", "a", {"input": {}}, ())]


def test_another_metric_gets_a_column_a_method_and_the_best_baseline():
    assert to_metric_table(summarise(scores(), "task"), "ssim").splitlines() == [
        "| task | input | restored | nlm | best baseline by PSNR |".replace(" nlm |", ""),
        "|---|---|---|---|",
        "| gaussian_noise | 0.5000 | 0.8000 | 0.7500 nlm |",
        "| x | - | - | - |",
    ]
    assert to_metric_table(summarise(scores(), "task"), "lpips") == ""


def test_the_model_card_s_tables_are_the_report_s():
    report = {"families": summarise(scores()), "tasks": summarise(scores(), "task")}
    families, tasks = card_tables(report)
    assert families == to_table(report["families"])
    assert "| gaussian_noise | 1 | 20.00 | 26.00 | +6.00 | 25.00 nlm |" in tasks
