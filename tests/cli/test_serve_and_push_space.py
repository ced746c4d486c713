"""`foundir serve` and `foundir push-space`."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundir_hf.cli import main
from foundir_hf.space.push import build_space

ROOT = Path(__file__).parents[2]


def test_the_folder_of_a_space_is_whole_and_imports_by_itself(tmp_path, capsys):
    assert main(["push-space", "-o", str(tmp_path / "space")]) == 0
    assert "files," in capsys.readouterr().out
    found = {path.name for path in (tmp_path / "space").iterdir()}
    assert found == {"app.py", "README.md", "requirements.txt", "LICENSE", "model_card.md", "docs", "foundir_hf"}
    assert not list((tmp_path / "space").rglob("__pycache__"))
    # What the app imports is what lies beside it, weights and all, wherever it is started from.
    code = (
        "import runpy, sys; sys.path.insert(0, 'space'); runpy.run_path('space/app.py', run_name='app')\n"
        "import foundir_hf.hub, foundir_hf.space.examples as e, foundir_hf.space.about as a\n"
        "print(foundir_hf.__file__); assert foundir_hf.hub.resolve_checkpoint('tiny').is_dir()\n"
        "assert all(x.path.is_file() for x in e.EXAMPLES); assert a.pictures_of(a.model_card())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "space")


def test_a_space_installs_what_the_package_and_its_page_need_and_no_package_that_is_not_published(tmp_path):
    build_space(tmp_path / "space")
    listed = (tmp_path / "space" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not any(line.startswith("foundir") for line in listed)
    for needed in ("torch", "diffusers", "gradio[mcp]"):
        assert any(line.startswith(f"{needed}>=") for line in listed)
    version = importlib.metadata.version("gradio")
    assert f"sdk_version: {version}" in (tmp_path / "space" / "README.md").read_text(encoding="utf-8")


def test_a_folder_that_holds_something_is_left_alone(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["push-space", "-o", str(tmp_path)]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_dry_run_lists_the_files_and_keeps_none(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["push-space", "owner/name", "--dry-run"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert {"app.py", "requirements.txt", "foundir_hf/space/page.css", "docs/overview.jpg"} <= set(listed)
    assert sorted(listed[:-1]) == sorted(map(str, build_space(tmp_path / "again")))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["push-space"], "needs OWNER/NAME, --output DIR, or --dry-run"),
        (["push-space", "name"], "`repository` must be OWNER/NAME, got 'name'"),
        (["serve", "--adapters", "nowhere"], "`--adapters` nowhere: no such folder"),
    ],
)
def test_what_is_asked_for_wrongly_is_told_in_a_line(command, told, capsys):
    assert main(command) == 2
    assert told in capsys.readouterr().err


def test_a_checkpoint_that_is_none_ends_the_server_with_a_line(tmp_path):
    command = [sys.executable, "-m", "foundir_hf.cli", "serve", "--checkpoint", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is a folder without model_index.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
