"""`training/train.py`: whatever is wrong, it says so in a line."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = str(Path(__file__).parents[2] / "training" / "train.py")
RECIPE = """
configuration: nano
reference_samples: 1
reference_size: 32
stages:
  - name: restore
    objective: restoration
    steps: 1
    warmup_steps: 0
    batch_size: 1
    crop_size: 32
    context_size: 32
    trainable: {tone.gate.: 1.0}
    tasks: {low_light: 1.0, gaussian_noise: 1.0}
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Runs the script in an own folder and returns the line that it ends with."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [SCRIPT, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(SCRIPT, run_name="__main__")
        assert ended.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: ")]
        return line.removeprefix("train: ")

    return run


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("steps: 1", "step: 1", (), "recipe.yaml: `stages[0].step` is unknown; accepted are"),
        ("objective: restoration", "objective: [", (), "recipe.yaml: is not YAML: while parsing a flow"),
        ("tone.gate.", "tone.gates.", (), "Stage 'restore': `trainable` prefixes ['tone.gates.'] match no parameter."),
        ("low_light", "lowlight", (), "'lowlight'"),
        ("nano", "nano\ninitial_checkpoint: nobody/nothing", (), "nobody/nothing"),
        ("nano", "nano\ntrackers: [aim]", (), "`trackers`: aim cannot be used: not installed."),
        ("", "", ("--equilibrium", "replay"), "`history` is what `replay` repeats"),
        ("", "", ("--equilibrium", "replay", "x.json"), "No such file or directory: 'x.json'"),
        ("", "", ("--equilibrium", "des", "a", "b"), "--equilibrium takes a strategy and, for replay, a history; got b as well."),
        ("", "", ("--equilibrium", "des"), "data equilibrium scheduling needs reference pairs that training does not see."),
        ("", "", ("--resume", "elsewhere"), "`resume` must be 'latest', 'never' or a checkpoint's folder, got 'elsewhere'."),
        ("", "", ("--manifest", "none.csv"), "none.csv"),
        ("", "", ("--for", "12"), "a duration is a number above 0 and s, m or h, such as 12m; got '12'"),
        ("", "", ("--pool", "2", "--data-in-memory", "no"), "`pool_workers` needs data in memory"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(run, tmp_path, old, new, options, message):
    Path("recipe.yaml").write_text(RECIPE.replace(old, new) if old else RECIPE)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "photos" / "a.png")
    assert message in run("recipe.yaml", "--data", "photos", "--output", "run", *options)


def test_missing_files_are_named(run):
    assert "missing.yaml" in run("missing.yaml", "--data", "photos", "--output", "run")
    assert "photos" in run("recipe.yaml", "--data", "photos", "--output", "run")


def test_never_refuses_a_folder_that_a_run_has_begun_in(run, data):
    Path("run/checkpoint-00-00000007").mkdir(parents=True)
    line = run("recipe.yaml", "--data", str(data), "--output", "run", "--resume", "never")
    assert line == "`resume` 'never' wants a run folder without checkpoints; 'run' holds checkpoint-00-00000007."
    assert list(Path("run").iterdir()) == [Path("run/checkpoint-00-00000007")]
