"""The report: strict JSON, the same in every run; a page; pictures; seconds beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.evaluation.benchmark import Measurement, Score
from foundir_hf.evaluation.figures import Grids, gain_chart, write_chart
from foundir_hf.evaluation.report import describe_data, pictures_of, to_markdown, to_report
from foundir_hf.evaluation.statistics import summarise
from foundir_hf.evaluation.suites import Case, ImageSet, Suite
from foundir_hf.evaluation.timing import describe_machine, to_timing, to_timing_page
from foundir_hf.io.files import write_whole


def score(task: str, image: str, before: float | None, after: float | None, **others: float) -> Score:
    methods = {"input": {"psnr": before, "ssim": 0.5}, "restored": {"psnr": after, "ssim": 0.75}}
    return Score("CBSD68", "noise", task, image, methods | {n: {"psnr": v, "ssim": 0.6} for n, v in others.items()}, tuple(others))


SCORES = [
    score("gaussian_noise", "a.png", 20.0, 26.0, nlm=25.0),
    score("gaussian_noise", "b.png", 20.0, 23.0, nlm=24.0),
    score("camera_noise", "a.png", 30.0, 28.0, nlm=31.0),
    score("clean", "a.png", math.inf, 40.0),
]


def report(**context) -> dict:
    defaults = {
        "version": "1.2.3",
        "suite": "dev",
        "checkpoint": "tiny",
        "hashes": {"unet": "abc"},
        "options": {"fidelity": 1.0, "color_fix": None},
    }
    data = {"set": "CBSD68", "images": 2, "channel": "y", "crop": 4, "sha256": "f00"}
    return to_report(SCORES, 7, **(defaults | {"metrics": ["psnr", "ssim"], "outputs": [], "data": [data, data]} | context))


def test_reports_are_strict_json_and_equal():
    first = json.dumps(report(), allow_nan=False)
    assert first == json.dumps(report(), allow_nan=False)
    parsed = json.loads(first)
    assert parsed == report()
    assert (parsed["checkpoint"], parsed["seed"], parsed["resamples"]) == ("tiny", 7, 2000)
    assert parsed["images"][3]["methods"]["input"] == {"psnr": "inf", "ssim": 0.5}
    assert parsed["images"][0]["methods"]["nlm"] == {"psnr": 25.0, "ssim": 0.6}
    assert [row["task"] for row in parsed["tasks"]] == ["gaussian_noise", "camera_noise", "clean"]
    assert parsed["tasks"][0]["interval"] == [3.0, 6.0]
    assert parsed["libraries"]["numpy"] == np.__version__


def test_the_page_has_tables_pictures_and_where_it_all_comes_from():
    page = to_markdown(report(), ["figures/gains.png"])
    assert "# tiny on suite `dev`" in page
    assert "| gaussian_noise | 2 | 20.00 | 24.50 | +4.50 | +3.00 to +6.00 | 24.50 nlm |" in page
    assert "## SSIM" in page
    assert "| gaussian_noise | 0.5000 | 0.7500 | 0.6000 nlm |" in page
    assert "![gains](figures/gains.png)" in page
    assert "foundir_hf 1.2.3, seed 7, fidelity 1.0." in page
    assert page.count("| CBSD68 | 2 | Y, 4 pixels of border left out | `f00` |") == 1
    assert "- `unet`: `abc`" in page
    assert "\n\n\n" not in page
    bare = to_markdown(report(checkpoint=None, hashes={}, metrics=["psnr"]))
    assert "# Baselines on suite" in bare
    assert not any(words in bare for words in ("## SSIM", "## Pictures", "Weights"))


def test_data_is_described_with_its_hash(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (entry,) = describe_data(Suite("s", (ImageSet("unpaired", tmp_path, "real", crop=2),)))
    assert (entry["set"], entry["kind"], entry["images"], entry["crop"]) == ("real", "unpaired", 1, 2)
    assert len(entry["sha256"]) == 64


def test_seconds_are_summed_by_task_and_method():
    rows = to_timing([(SCORES[0], {"restored": 2.0}, 0.5), (SCORES[1], {"restored": 1.0}, 0.5)], peak_mib=9)
    assert rows["peak_mib"] == 9
    assert rows["tasks"] == [
        {"set": "CBSD68", "task": "gaussian_noise", "method": "restored", "images": 2, "seconds": 3.0, "seconds_per_megapixel": 3.0}
    ]
    machine = describe_machine()
    assert machine["peak_mib"] is None or machine["peak_mib"] > 50
    assert machine["machine"]["threads"] >= 1
    assert json.dumps(machine)


def test_seconds_have_a_page():
    timing = to_timing([(SCORES[0], {"restored": 2.0}, 0.5), (SCORES[1], {"restored": 1.0}, 0.5)], **describe_machine())
    page = to_timing_page(timing | {"peak_mib": 812.4, "peak_cuda_mib": None})
    assert "| set | task | method | images | seconds per image | seconds per megapixel |" in page
    assert "| CBSD68 | gaussian_noise | restored | 2 | 1.500 | 3.00 |" in page
    assert "- Peak memory: 812 MiB" in page
    assert f"- Python: {timing['machine']['python']}" in page
    assert "GPU" not in page
    assert "Peak memory of the GPU: 7 MiB" in to_timing_page(timing | {"peak_cuda_mib": 7.0})
    assert "Nothing was run." in to_timing_page(timing | {"tasks": []})


def test_a_page_s_pictures_are_found_again_and_nobody_else_s():
    names = ["figures/gains.png", "figures/CBSD68-haze.jpg", "figures/été.jpg"]
    assert pictures_of(to_markdown(report(), names)) == names
    assert pictures_of("![x](../x.jpg)\n![x](figures/../x.jpg)\n![x](figures/x.png)\nsee [x](figures/x.jpg)\n") == []


def test_files_appear_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "new" / "file", b"first")
    write_whole(tmp_path / "new" / "file", b"second")
    assert (tmp_path / "new" / "file").read_bytes() == b"second"
    with pytest.raises(TypeError):
        write_whole(tmp_path / "new" / "file", "no bytes")  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "new" / "file").read_bytes() == b"second"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file"]
    assert (tmp_path / "new" / "file").stat().st_mode & 0o444 == 0o444


# Pictures


def measurement(task: str, image: str, gain: float | None, color: tuple[int, int, int], size: int = 24) -> Measurement:
    plain = np.full((size, size, 3), color, np.uint8)
    truth = None if gain is None else plain
    case = Case("set", "family", task, image, plain + 0.0, truth, baselines=("nlm",))
    methods: dict[str, dict[str, float | None]] = {
        "input": {"psnr": None if gain is None else 20.0},
        "restored": {"psnr": None if gain is None else 20.0 + gain},
    }
    baselines = () if gain is None else ("median", "nlm")
    methods |= {name: {"psnr": {"median": 21.0, "nlm": 22.0}[name]} for name in baselines}
    images = dict.fromkeys(methods, plain) | ({"nlm": np.full_like(plain, 255)} if baselines else {})
    return Measurement(case, images, Score("set", "family", task, image, methods, baselines), {})


def pixel(path: Path, x: int, y: int) -> tuple[int, ...]:
    with Image.open(path) as image:
        return tuple(np.asarray(image)[y, x].tolist())


def test_a_sheet_shows_the_median_and_the_worst_image_of_a_task(tmp_path):
    grids = Grids(tmp_path)
    for image, gain, color in (("a", 3.0, (200, 0, 0)), ("b", -2.0, (0, 200, 0)), ("c", 1.0, (0, 0, 200))):
        grids.add(measurement("haze", image, gain, color))
    grids.add(measurement("rain/x", "a", 1.0, (9, 9, 9)))
    assert [path.name for path in grids.written] == ["set-haze.jpg"]
    grids.finish()
    grids.finish()
    assert [path.name for path in grids.written] == ["set-haze.jpg", "set-rain_x.jpg"]
    with Image.open(tmp_path / "set-haze.jpg") as sheet:
        assert sheet.size == (4 * 24, 2 * (20 + 24))  # truth, input, restored, best baseline; median and worst
    for row, color in ((0, (0, 0, 200)), (1, (0, 200, 0))):
        assert pixel(tmp_path / "set-haze.jpg", 12, row * 44 + 32) == pytest.approx(color, abs=6)
        assert min(pixel(tmp_path / "set-haze.jpg", 3 * 24 + 12, row * 44 + 32)) > 245  # nlm, not the median filter


def test_pictures_are_cropped_and_not_shrunk(tmp_path):
    grids = Grids(tmp_path)
    grids.add(measurement("haze", "a", 1.0, (90, 90, 90), size=700))
    grids.finish()
    with Image.open(tmp_path / "set-haze.jpg") as sheet:
        assert sheet.size == (4 * 320, 20 + 320)


def test_pictures_without_a_truth_are_shown_as_they_come(tmp_path):
    grids = Grids(tmp_path)
    for image in "abcdef":
        grids.add(measurement("real", image, None, (90, 90, 90)))
    grids.finish()
    with Image.open(tmp_path / "set-real.jpg") as sheet:
        assert sheet.size == (2 * 24, 4 * 44)


def test_the_chart_s_bars_are_as_long_as_the_gains():
    rows = [
        {"task": task, "gain": gain, "interval": None, "best_baseline": None}
        for task, gain in (("noise", 4.0), ("haze", 2.0), ("rain", -1.0), ("clean", None))
    ]
    chart = gain_chart(rows)
    assert chart is not None
    (axes,) = chart.axes
    assert [bar.get_width() for bar in axes.patches] == [4, 2, -1]
    blue, _, red = [bar.get_facecolor() for bar in axes.patches]
    assert blue != red
    assert [label.get_text() for label in axes.get_yticklabels()] == ["noise", "haze", "rain"]
    assert gain_chart(rows[3:]) is None


def test_the_chart_draws_what_a_report_has(tmp_path):
    assert write_chart(summarise(SCORES, "task"), tmp_path / "gains.png")
    with Image.open(tmp_path / "gains.png") as chart:
        assert chart.width > 600
    assert not write_chart(summarise(SCORES[3:], "task"), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
