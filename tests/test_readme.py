"""The README's commands and snippets, run as a reader would run them, with the checkpoint that ships."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from foundir_hf.cli import build_parser, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, document: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


@pytest.fixture
def workplace(tmp_path, monkeypatch, photo) -> Path:
    """A folder that holds what the README's examples name."""
    monkeypatch.chdir(tmp_path)
    photo.save("photo.jpg")
    photo.save("small.png")
    (tmp_path / "holiday" / "beach").mkdir(parents=True)
    photo.save("holiday/beach/a.png")
    return tmp_path


def test_every_python_snippet_runs(workplace):
    assert main(["export", "-o", "exported"]) == 0
    guide = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    snippets = [*blocks("python"), *blocks("python", guide)]
    assert len(snippets) == 2 + 3
    env = {**os.environ, "HF_MODULES_CACHE": str(workplace / "modules")}
    each = "import sys\nfor snippet in sys.argv[1:]:\n exec(snippet, {'__name__': '__main__'})"  # imports take five seconds, once
    done = subprocess.run([sys.executable, "-c", each, *snippets], cwd=workplace, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Image.open("restored.png").size == Image.open("photo.jpg").size


def test_every_foundir_command_runs(workplace, capsys):
    lines = [line.split("#")[0] for block in blocks("sh") for line in block.splitlines()]
    commands = [shlex.split(line.split("foundir", 1)[1]) for line in lines if line.startswith(".venv/bin/foundir")]
    verbs = ["restore", "restore", "restore", "info", "diagnose", "tasks", "degrade", "adapt", "restore", "serve", "evaluate", "evaluate"]
    assert [command[0] for command in commands] == verbs
    for command in commands:
        build_parser().parse_args(command)
        if command[0] in ("evaluate", "adapt", "serve") or "--adapter" in command:  # minutes; tests/cli has them
            continue
        assert main([*command, *(["--overwrite"] if command[0] == "restore" else [])]) == 0, capsys.readouterr().err
    assert Path("restored/beach/a.png").is_file()
    assert Image.open("large.png").size == tuple(2 * side for side in Image.open("small.png").size)


def test_the_first_restoration_runs(workplace, capsys):
    guide = (ROOT / "docs" / "first-restoration.md").read_text(encoding="utf-8")
    lines = [shlex.split(line, comments=True) for block in blocks("sh", guide) for line in block.splitlines()]
    assert [line[1] for line in lines] == ["degrade", "diagnose", "restore", "info", "restore", "restore"]
    for _, *command in lines:
        assert main(command) == 0, capsys.readouterr().err
    assert Image.open("map.png").width >= Image.open("photo.jpg").width
    assert Path("restored/beach/a.png").is_file()


def test_every_make_target_and_file_that_the_documents_name_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "training/README.md",
        "model_card.md",
        *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
    ):
        document = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"`?make ([a-z]+)", document):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name}: make {target}"
        for link in re.findall(r"\]\(([^)#:]+)\)", document):
            assert (ROOT / name).parent.joinpath(link).exists(), f"{name}: {link}"
        for path in re.findall(r"`((?:foundir_hf|training|tests|space|benchmarks)/[\w./]+)`", document):
            assert (ROOT / path).exists() or "NAME" in path or "STAGE" in path, f"{name}: {path}"


def test_every_option_that_the_readme_names_exists():
    help_text = ""
    for action in build_parser()._subparsers._group_actions[0].choices.values():
        help_text += action.format_help()
    for option in set(re.findall(r"--(?!help|editable)[a-z-]+", README)) - {"--data", "--output"}:
        assert option in help_text, option
