"""docs/adapters.md: its commands and snippets, run as a reader would run them, with fewer and smaller steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import build_parser, main

PAGE = (Path(__file__).parent.parent / "docs" / "adapters.md").read_text(encoding="utf-8")
SMOKE = ["--steps", "2", "--batch-size", "1", "--crop-size", "16"]


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """A folder that holds what the page names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    for folder in ("scans/train/HQ", "scans/train/LQ", "scans/val/HQ", "scans/val/LQ", "photos"):
        (tmp_path / folder).mkdir(parents=True)
        picture = np.random.default_rng(len(folder)).integers(0, 255, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / folder / "01.png")
    Image.fromarray(picture).save("scan.png")
    return tmp_path


def test_every_command_and_every_snippet_of_the_page_runs(workplace, capsys):
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line.removeprefix(".venv/bin/foundir ")) for line in lines]
    assert [command[0] for command in commands] == ["adapt", "restore", "restore", "evaluate", "adapt"]
    for command in commands:
        build_parser().parse_args(command)
        more = {"adapt": SMOKE, "evaluate": ["--without", "figures", "--without", "baselines", "--metrics", "psnr"]}.get(command[0], [])
        assert main([*command, *more]) == 0, capsys.readouterr().err
    assert main(["export", "-o", "exported"]) == 0
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 4
    capsys.readouterr()
    for snippet in snippets:
        exec(compile(snippet, "docs/adapters.md", "exec"), {})
    assert re.search(r"[\d,]+ parameters, \d\.\d% of [\d,]+$", capsys.readouterr().out.strip())


def test_every_option_that_the_page_names_exists():
    parser = build_parser()._subparsers._group_actions[0].choices
    known = parser["adapt"].format_help() + parser["restore"].format_help() + parser["evaluate"].format_help()
    assert [option for option in set(re.findall(r"--[a-z][a-z-]+", PAGE)) if option not in known] == []
