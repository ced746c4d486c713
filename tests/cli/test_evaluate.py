"""`foundir evaluate`: what it prints and writes; every mistake is one line, exit code 2 and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from foundir_hf import __version__
from foundir_hf.cli import main
from foundir_hf.evaluation.metrics import DEFAULT_METRICS, METRICS, psnr


@pytest.fixture
def data(tmp_path, photo) -> Path:
    """`clean/` with a photograph, `real/` with a pair whose input is small, and a suite over both."""
    folder = tmp_path / "data"
    for path in ("clean", "real/GT", "real/LQ"):
        (folder / path).mkdir(parents=True)
    photo.crop((0, 0, 32, 32)).save(folder / "clean" / "a.png")
    photo.crop((8, 8, 40, 40)).save(folder / "real" / "GT" / "b.png")
    photo.crop((8, 8, 40, 40)).resize((16, 16)).save(folder / "real" / "LQ" / "b.png")
    sets = [{"clean": "clean", "tasks": ["gaussian_noise", "clean"]}, {"paired": "real", "channel": "y", "crop": 2}]
    (folder / "suite.yaml").write_text(yaml.safe_dump({"sets": sets}))
    return folder


@pytest.fixture
def run(capsys):
    """Runs the command in this process -> exit code, stdout, stderr."""

    def run_command(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(["evaluate", *(str(a) for a in arguments)])
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())  # pyright: ignore[reportReturnType]

    return run_command


@pytest.fixture
def refused(run, tmp_path):
    """Runs a command that must fail as usage does; returns the line."""

    def run_refused(*arguments) -> str:
        before = sorted(tmp_path.rglob("*"))
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("foundir: ")
        assert err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return err.strip()

    return run_refused


def cells(out: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]


def test_a_suite_gives_a_table_a_report_a_page_and_pictures(run, data, checkpoint, tmp_path):
    out = tmp_path / "new" / "out"
    code, text, _ = run("--suite", data / "suite.yaml", "--data", data, "-o", out, "--seed", 7, "--checkpoint", checkpoint)
    assert code == 0
    assert [row[0] for row in cells(text)] == ["family", "---", "noise", "clean", "real"]
    written = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    pictures = {"figures/clean-gaussian_noise.jpg", "figures/clean.jpg", "figures/clean-clean.jpg", "figures/real.jpg", "figures/gains.png"}
    pages = {"report.json", "timing.json", "timing.md", "report.md"}
    assert pages <= written
    assert written - pages <= pictures
    report = json.loads((out / "report.json").read_text())
    assert (report["version"], report["seed"], report["options"]["tone"], report["suite"]) == (__version__, 7, "auto", "suite")
    assert set(report["hashes"]) == {str(f.relative_to(checkpoint)) for f in checkpoint.rglob("*.safetensors")}
    assert [(s["set"], s["task"], s["image"]) for s in report["images"]] == [
        ("clean", "gaussian_noise", "a.png"),
        ("clean", "clean", "a.png"),
        ("real", "real", "b.png"),
    ]
    assert set(report["images"][2]["methods"]) == {"input", "restored", "lanczos"}
    assert [entry["channel"] for entry in report["data"]] == ["rgb", "y"]
    timing = json.loads((out / "timing.json").read_text())
    assert {row["method"] for row in timing["tasks"]} == {"restored", "lanczos", "nlm", "total_variation"}
    assert "| clean | gaussian_noise | restored | 1 |" in (out / "timing.md").read_text()
    for name in written - pages:
        assert name in (out / "report.md").read_text()
    assert report["metrics"] == list(DEFAULT_METRICS)
    assert "## Damage removed" in (out / "report.md").read_text()


def test_two_runs_are_equal_byte_for_byte(run, data, checkpoint, tmp_path):
    for name in ("one", "two"):
        assert run("--suite", data / "suite.yaml", "--data", data, "-o", tmp_path / name, "--checkpoint", checkpoint)[0] == 0
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) >= 6
    for file in files:
        if file.stem != "timing":
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_a_used_folder_loses_the_pictures_of_its_earlier_report_and_nothing_else(run, data, tmp_path):
    out, bare = tmp_path / "out", ("--checkpoint", "none", "--without", "baselines", "--metrics", "psnr")
    assert run("--suite", data / "suite.yaml", "--data", data, *bare, "-o", out)[0] == 0
    earlier = sorted(path.name for path in (out / "figures").iterdir())
    assert len(earlier) == 3
    for name in ("figures/mine.jpg", "figures/mine.png", "mine.txt"):
        (out / name).write_text("mine")
    assert run("--paired", data / "real", *bare, "-o", out)[0] == 0
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["mine.jpg", "mine.png", "real.jpg"]
    assert run("--paired", data / "real", *bare, "--without", "figures", "-o", out)[0] == 0
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["mine.jpg", "mine.png"]
    assert (out / "mine.txt").read_text() == "mine"


def test_help_names_every_metric_and_does_not_wait_for_torch():
    code = "import sys; from foundir_hf.cli import main\ntry:\n main(['evaluate', '--help'])\nexcept SystemExit:\n"
    code += " sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert f"(default: {','.join(DEFAULT_METRICS)})" in text
    assert all(name in text for name in METRICS)


def test_folders_of_one_s_own_are_measured_without_writing_anything(run, data, checkpoint, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    without = ("--without", "baselines", "--metrics", "psnr")
    code, out, _ = run("--paired", data / "real", "--unpaired", data / "clean", *without, "--checkpoint", checkpoint)
    assert code == 0
    assert cells(out)[0] == ["family", "images", "input dB", "output dB", "gain"]
    assert [row[0] for row in cells(out)[2:]] == ["real", "clean"]
    assert cells(out)[3][1:] == ["1", "-", "-", "-"]  # no truth, nothing to compare with
    assert "of 1 families gain" in out
    assert sorted(tmp_path.rglob("*")) == before


def test_anybody_s_method_is_scored_on_inputs_that_we_wrote(run, data, tmp_path):
    common = ("--suite", data / "suite.yaml", "--data", data)
    code, out, _ = run(*common, "--write-inputs", tmp_path / "in")
    assert (code, out) == (0, f"3 inputs -> {tmp_path / 'in'}\n")
    target = tmp_path / "method" / "clean" / "gaussian_noise"
    target.mkdir(parents=True)
    noisy = np.asarray(Image.open(tmp_path / "in" / "clean" / "gaussian_noise" / "a.png"))
    Image.fromarray(255 - noisy).save(target / "a.png")
    code, out, _ = run(*common, "--checkpoint", "none", "--outputs", f"negative={tmp_path / 'method'}", "-o", tmp_path / "out")
    assert code == 0
    assert cells(out)[0][-2:] == ["negative dB", "negative gain"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    truth = np.asarray(Image.open(data / "clean" / "a.png"))
    assert report["images"][0]["methods"]["negative"]["psnr"] == psnr(255 - noisy, truth)
    assert (report["checkpoint"], report["hashes"], report["outputs"]) == (None, {}, ["negative"])
    assert "restored" not in report["images"][0]["methods"]


def test_what_cannot_be_measured_is_refused(refused, data, checkpoint, tmp_path):
    clean, rest = data / "clean", ("--checkpoint", checkpoint)
    assert "needs --suite" in refused(*rest)
    assert "separate runs" in refused("--suite", "quick", "--clean", clean, *rest)
    assert "nowhere" in refused("--clean", tmp_path / "nowhere", *rest)
    assert "LQ" in refused("--paired", clean, *rest)
    assert "must be one of dev" in refused("--suite", "slow", *rest)
    assert "not found: " in refused("--suite", "dev", "--data", data, *rest)
    assert "`--outputs` must be NAME=DIR" in refused("--clean", clean, "--outputs", "x", *rest)
    assert "must be a folder" in refused("--clean", clean, "--outputs", "x=nowhere", *rest)
    assert "got 'mse'" in refused("--clean", clean, "--metrics", "psnr,mse", *rest)
    assert "is a file" in refused("--clean", clean, "-o", clean / "a.png", *rest)
    assert "`--tile-overlap` must be a multiple of 32" in refused("--clean", clean, "--tile-overlap", 16, *rest)
    for inside in (clean, clean / "new" / "out"):
        assert "among the photographs" in refused("--clean", clean, "-o", inside, *rest)


def test_mistakes_are_told_before_a_model_is_loaded(refused, data, tmp_path):
    rest = ("--checkpoint", tmp_path / "nowhere")
    (tmp_path / "inputs" / "real").mkdir(parents=True)
    (tmp_path / "inputs" / "real" / "b.png").write_bytes((data / "real" / "GT" / "b.png").read_bytes())
    assert "must not be called 'input'" in refused("--paired", data / "real", "--outputs", f"input={tmp_path / 'inputs'}", *rest)
    (data / "crop.yaml").write_text(yaml.safe_dump({"sets": [{"paired": "real", "crop": 16}]}))
    assert "`crop` must leave something" in refused("--suite", data / "crop.yaml", "--data", data, *rest)


def test_inputs_are_not_written_over_photographs(refused, data):
    before = (data / "clean" / "a.png").read_bytes()
    assert "photographs" in refused("--unpaired", data / "clean", "--write-inputs", data)
    assert (data / "clean" / "a.png").read_bytes() == before


def test_files_that_are_no_photographs_are_named(run, data):
    (data / "clean" / "a_text.png").write_text("words")
    code, _, err = run("--clean", data / "clean", "--checkpoint", "none", "--metrics", "psnr", "--without", "baselines")
    assert code == 2
    assert "a_text.png" in err.splitlines()[-1]


def test_missing_extras_are_named(refused, data, checkpoint, monkeypatch):
    rest = ("--clean", data / "clean", "--checkpoint", checkpoint)
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    assert "`lpips` needs pyiqa: pip install 'foundir_hf[iqa]'" in refused(*rest, "--metrics", "lpips")
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    assert "MS-SSIM needs torchmetrics: pip install 'foundir_hf[eval]'" in refused(*rest)


def test_figures_without_matplotlib_are_refused_before_anything_is_measured(run, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    options = ("--paired", data / "real", "--checkpoint", "none", "--without", "baselines", "--metrics", "psnr", "-o", tmp_path / "out")
    code, _, err = run(*options)
    assert code == 2
    assert "Figures need matplotlib: pip install 'foundir_hf[eval]', or go --without figures." in err
    assert not list((tmp_path / "out").rglob("*.*"))
    assert run(*options, "--without", "figures")[0] == 0
