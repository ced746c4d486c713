"""The recipes that ship, run in small."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from foundir_hf.cli import main as foundir
from foundir_hf.data.tasks import TASKS
from foundir_hf.hub import load_pipeline
from foundir_hf.training.build import prepare_modules
from foundir_hf.training.config import TrainConfig
from foundir_hf.training.loop import train

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
SAMPLES = sorted((ROOT / "foundir_hf" / "samples").glob("*.jpg"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    """The sample photographs, the last held out."""
    folder = tmp_path_factory.mktemp("samples")
    for number, path in enumerate(SAMPLES):
        split = folder / ("val" if number == len(SAMPLES) - 1 else "train")
        split.mkdir(exist_ok=True)
        shutil.copy(path, split)
    return folder


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_the_smoke_recipe_runs_as_a_user_runs_it_and_its_model_restores(samples, tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, str(ROOT / "training" / "train.py"), str(CONFIGS / "smoke.yaml")]
    done = subprocess.run(
        [*command, "--data", str(samples), "--output", str(output)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr

    stages = TrainConfig.from_yaml(CONFIGS / "smoke.yaml").stages
    log = rows(output)
    assert list(dict.fromkeys(row["stage"] for row in log)) == [stage.name for stage in stages]
    assert log[-1]["samples"] == sum(stage.steps * stage.batch_size for stage in stages)
    assert all(math.isfinite(row["loss"]) for row in log if "loss" in row)
    last = stages[-1]
    assert set(log[-1]["validation"]) == set(last.tasks)
    rounds = json.loads((output / f"equilibrium-{last.name}.json").read_text())["rounds"]
    assert [row["step"] for row in rounds] == list(range(0, last.steps, last.equilibrium.interval))
    assert all(sum(row["proportions"].values()) == pytest.approx(1) and row["scores"].keys() == row["proportions"].keys() for row in rounds)
    assert rounds[-1]["proportions"] != rounds[0]["proportions"]

    for stage in stages:
        load_pipeline(output / stage.name)
    restored = tmp_path / "restored.png"
    assert foundir(["restore", str(SAMPLES[0]), "--checkpoint", str(output / "pipeline"), "-o", str(restored)]) == 0
    assert Image.open(restored).size == Image.open(SAMPLES[0]).size


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablation").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_ablation_trains_what_it_says(path, samples, tmp_path):
    config = TrainConfig.from_yaml(path)
    (stage,) = config.stages
    tasks = dict.fromkeys(list(stage.tasks)[:2], 1.0)
    stage = replace(stage, steps=2, warmup_steps=1, batch_size=2, crop_size=64, context_size=64, tasks=tasks)
    config = replace(config, stages=(stage,), reference_samples=1, reference_size=64)
    modules, noise_scheduler = prepare_modules(config)
    before = {name: value.clone() for name, value in modules.named_parameters()}
    train(config, modules, noise_scheduler, samples, tmp_path / "run")
    moved = {name for name, value in modules.named_parameters() if not value.equal(before[name])}
    for prefix in stage.trainable:
        assert any(name.startswith(prefix) for name in moved) == (stage.trainable[prefix] > 0), prefix


def test_the_sdxl_recipe_has_the_paper_s_numbers():
    config = TrainConfig.from_yaml(CONFIGS / "sdxl.yaml")
    assert (config.betas, config.weight_decay, config.max_grad_norm, config.ema_decay) == ((0.9, 0.999), 1e-2, 1.0, 0.9999)
    first, second = config.stages
    assert (first.steps, second.steps) == (6_000, 150_000)
    assert second.learning_rate == pytest.approx(5e-5)
    assert second.learning_rate * second.trainable["lq_encoder."] == pytest.approx(5e-6)
    for stage in (first, second):
        assert (stage.objective, stage.warmup_steps, stage.crop_size) == ("diffusion", 300, 512)
        assert (stage.batch_size, stage.micro_batches(1), stage.noise_offset) == (64, 4, 0.02)
        assert set(stage.tasks.values()) == {1.0}
        assert {TASKS[name].family for name in stage.tasks} == {task.family for task in TASKS.values()}
    plan = second.equilibrium
    assert (plan.strategy, plan.interval, plan.min_change, plan.max_change, config.reference_samples) == ("des", 30_000, 0.05, 0.1, 10)


def test_the_sdxl_recipe_trains_sdxl_in_small(folder, samples, tmp_path):
    config = TrainConfig.from_yaml(CONFIGS / "sdxl.yaml")
    assert config.initial_checkpoint is not None
    few = ("camera_noise", "haze")
    stages = tuple(
        replace(
            stage,
            steps=2,
            warmup_steps=1,
            crop_size=64,
            context_size=64,
            batch_size=4,
            micro_batch_size=2,
            tasks={name: stage.tasks[name] for name in few},
            equilibrium=replace(stage.equilibrium, interval=1),
        )
        for stage in config.stages
    )
    config = replace(config, stages=stages, initial_checkpoint=str(folder), mixed_precision="no", reference_samples=1, reference_size=64)
    modules, noise_scheduler = prepare_modules(config)
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    train(config, modules, noise_scheduler, samples, tmp_path / "run")
    assert all(value.isfinite().all() for value in modules.state_dict().values())
    moved = {".".join(name.split(".")[:2]) for name, value in modules.state_dict().items() if not value.equal(before[name])}
    assert moved >= {"unet.conv_in", "unet.mid_block", "lq_encoder.encoder"}
    assert not any(name.startswith("vae.") for name in moved)  # the frame of the diffusion
    log = rows(tmp_path / "run")
    assert [row["stage"] for row in log if "loss" in row] == ["scheduler", "joint"]
    assert all(math.isfinite(row["loss"]) and row["skipped"] == 0 for row in log if "loss" in row)
    assert load_pipeline(tmp_path / "run" / "joint").unet.config.cross_attention_dim == modules.unet.config.cross_attention_dim
