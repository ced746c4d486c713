"""Runs that end without a word, or are told to end: the same command goes on, and nobody can tell from what they leave."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import Command

from foundir_hf.training.checkpoints import find_checkpoint

ROOT = Path(__file__).parents[2]
STEPS = 14
RECIPE = f"""
configuration: nano
checkpoint_minutes: 0
ema_decay: 0.9
reference_samples: 1
reference_size: 32
stages:
  - name: restore
    objective: restoration
    steps: {STEPS}
    warmup_steps: 2
    batch_size: 2
    micro_batch_size: 1
    crop_size: 32
    context_size: 32
    diffusion_share: 0.3
    trainable: {{unet.: 1.0, lq_encoder.: 0.5, tone.: 1.0}}
    tasks: {{low_light: 1.0, gaussian_noise: 1.0}}
    equilibrium: {{strategy: des, interval: 3, max_change: 0.2}}
"""
DATA = {"memory": ("--data-in-memory", "yes"), "workers": ("--data-in-memory", "no", "--workers", "1")}


def start(data: Path, output: Path, *options: str) -> Command:
    """The command that a user gives, and gives again."""
    recipe = output.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    return Command(ROOT / "training" / "train.py", recipe, "--data", data, "--output", output, *options)


def finish(process: Command, code: int = 0) -> str:
    """What the process wrote to stderr until it ended by itself."""
    _, errors = process.communicate()
    assert process.returncode == code, errors
    return errors


def wait_for(process: Command, condition: Callable[[], bool]) -> None:
    while not condition():
        assert process.poll() is None, finish(process)
        time.sleep(0.005)


def steps_done(output: Path) -> int:
    newest = find_checkpoint(output)
    return 0 if newest is None else int(newest.name.rsplit("-", 1)[1])


def left(output: Path) -> dict[str, str]:
    """Hashes of what a run ends with: averaged weights, last training state (weights, moments, averages, random numbers, place in data,
    shares, settings), history of the shares."""
    checkpoint = output / f"checkpoint-00-{STEPS - 1:08d}"
    files = [*sorted((output / "restore").rglob("*.safetensors")), *sorted(checkpoint.iterdir()), output / "equilibrium-restore.json"]
    assert len(files) == 3 + 10 + 1
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", params=DATA)
def uninterrupted(request, data, tmp_path_factory) -> tuple[tuple[str, ...], dict[str, str]]:
    """How the data are read, and what a run leaves that nothing interrupts."""
    output = tmp_path_factory.mktemp(request.param) / "run"
    finish(start(data, output, *DATA[request.param]))
    return DATA[request.param], left(output)


@pytest.mark.parametrize("seed", [1])
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(data, tmp_path, uninterrupted, seed):
    options, expected = uninterrupted
    output, chance = tmp_path / "run", random.Random(seed)
    process, moment = start(data, output, *options), chance.randint(4, STEPS - 8)
    wait_for(process, lambda: steps_done(output) >= moment)
    time.sleep(chance.uniform(0, 0.05))  # anywhere in a step, or in the writing of a checkpoint
    os.killpg(process.pid, signal.SIGKILL)  # with its workers: of such an end nobody hears
    finish(process, -signal.SIGKILL)
    assert moment <= steps_done(output) < STEPS - 1
    finish(start(data, output, *options))
    assert left(output) == expected


@pytest.mark.parametrize("uninterrupted", ["workers"], indirect=True)
def test_a_run_told_to_end_writes_a_checkpoint_first_and_ends_with_143(data, tmp_path, uninterrupted):
    options, expected = uninterrupted
    output = tmp_path / "run"
    process = start(data, output, *options)
    wait_for(process, lambda: steps_done(output) >= 5)
    process.send_signal(signal.SIGTERM)
    message = finish(process, 128 + signal.SIGTERM).splitlines()[-1]
    step = steps_done(output)
    assert message == f"train: Told to end after step {step} of stage 'restore'; the checkpoint is written."
    assert json.loads((output / f"checkpoint-00-{step:08d}" / "progress.json").read_text())["step"] == step < STEPS
    finish(start(data, output, *options))
    assert left(output) == expected
