from __future__ import annotations

import json
import math
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from foundir_hf.data.loading import TrainingData
from foundir_hf.hub import load_pipeline
from foundir_hf.training import objectives
from foundir_hf.training.build import build_modules
from foundir_hf.training.config import StageConfig, TrainConfig
from foundir_hf.training.loop import agree, latest_checkpoint, learning_rate_factor, parameter_groups, scale_latents, train
from foundir_hf.training.validation import validate

AUTOENCODER = StageConfig(
    "codec",
    "autoencoder",
    steps=4,
    trainable={"vae.encoder.": 1.0, "vae.decoder.": 1.0, "vae.quant_conv.": 0.5},
    learning_rate=2e-3,
    warmup_steps=2,
    batch_size=2,
    crop_size=16,
    context_size=16,
)
ONE_STEP = StageConfig(
    "one_step",
    "end_to_end",
    steps=5,
    trainable={"unet.": 1.0, "lq_encoder.": 0.5, "vae.pixel_skip.": 1.0, "vae.skips.": 1.0},
    learning_rate=2e-3,
    warmup_steps=1,
    batch_size=2,
    crop_size=16,
    context_size=24,
    tasks={"low_light": 1.0, "gaussian_noise": 1.0},
    diffusion_share=0.3,
    plain_share=0.2,
)
CONFIG = TrainConfig("tiny", (AUTOENCODER, ONE_STEP), seed=3, checkpoint_minutes=0, ema_decay=0.9, validation_photos=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two photographs to train on and one to validate with."""
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:48, 0:56]
    for i, name in enumerate("abc"):
        picture = np.stack([40 + x * 3, 200 - y * (i + 1), 128 + 90 * np.sin(x / (3 + i)) * np.cos(y / 5)], axis=-1)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "manifest.csv").write_text("file,split\na.png,train\nb.png,train\nc.png,val\n")
    return folder


def run(config: TrainConfig, data: Path, output: Path, seed: int = 3) -> objectives.FoundIRModules:
    modules, scheduler = build_modules("tiny", seed)
    return train(config, modules, scheduler, data, output)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, objectives.FoundIRModules]:
    """An uninterrupted run of both stages."""
    output = tmp_path_factory.mktemp("finished")
    return output, run(CONFIG, data, output)


def rows(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def assert_equal_weights(a: torch.nn.Module, b: torch.nn.Module) -> None:
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


# --- What a stage trains, and how fast ---


def test_the_longest_prefix_decides_and_what_no_prefix_matches_is_frozen():
    modules, _ = build_modules("tiny")
    trainable = {"unet.": 1.0, "unet.conv_in.": 0.0, "unet.conv_in.conv_in.": 0.5, "vae.skips.": 0.1}
    groups = parameter_groups(modules, replace(ONE_STEP, trainable=trainable, learning_rate=0.2))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert sorted(group["lr"] for group in groups) == pytest.approx([0.02, 0.1, 0.2])
    for name, parameter in modules.named_parameters():
        expected = None
        if name.startswith("unet.conv_in."):
            expected = 0.1 if name.startswith("unet.conv_in.conv_in.") else None
        elif name.startswith("unet."):
            expected = 0.2
        elif name.startswith("vae.skips."):
            expected = 0.02
        assert parameter.requires_grad == (expected is not None), name
        assert rates.get(id(parameter)) == (None if expected is None else pytest.approx(expected)), name


def test_a_prefix_that_matches_nothing_is_refused():
    modules, _ = build_modules("tiny")
    with pytest.raises(ValueError, match=r"'one_step'.*\['unet.conv_inn.'\] match no parameter"):
        parameter_groups(modules, replace(ONE_STEP, trainable={"unet.": 1.0, "unet.conv_inn.": 0.5}))


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth():
    factors = [learning_rate_factor(step, steps=110, warmup_steps=10) for step in range(111)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == max(factors) == 1
    assert factors[60] == pytest.approx(0.01 + 0.99 / 2)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[110] == pytest.approx(0.01)
    assert learning_rate_factor(500, steps=110, warmup_steps=10) == pytest.approx(0.01)
    assert learning_rate_factor(0, steps=110, warmup_steps=0) == 1


# --- A whole run ---


def test_a_run_logs_losses_and_validation_of_every_stage(finished):
    output, _ = finished
    log = rows(output)
    assert [row["stage"] for row in log] == ["codec", "codec", "one_step", "one_step"]
    assert [row["step"] for row in log] == [4, 4, 5, 5]
    assert [row["samples"] for row in log] == [8, 8, 18, 18]
    assert all(math.isfinite(row["loss"]) for row in log[::2])
    assert set(log[1]["validation"]) == {"reconstruction"}
    assert set(log[3]["validation"]) == set(ONE_STEP.tasks)


def test_a_run_writes_the_components_of_every_stage_and_a_pipeline(finished):
    output, modules = finished
    for part in ("vae", "lq_encoder", "unet"):
        (first,) = (output / "codec" / part).glob("*.safetensors")
        (last,) = (output / "one_step" / part).glob("*.safetensors")
        first, last, state = load_file(first), load_file(last), getattr(modules, part).state_dict()
        assert all(torch.equal(last[name], value) for name, value in state.items())
        assert any(not torch.equal(first[name], value) for name, value in state.items())
    loaded = load_pipeline(output / "pipeline")
    assert all(torch.equal(value, modules.unet.state_dict()[name].half().float()) for name, value in loaded.unet.state_dict().items())
    assert loaded.vae.config.scaling_factor == modules.vae.config.scaling_factor != 1.0  # measured after the autoencoder's stage


def test_only_the_last_two_checkpoints_are_kept(finished):
    output, _ = finished
    assert sorted(path.name for path in output.glob("checkpoint*")) == ["checkpoint-01-00000003", "checkpoint-01-00000004"]
    assert latest_checkpoint(output) == output / "checkpoint-01-00000004"
    assert json.loads((output / "checkpoint-01-00000004" / "progress.json").read_text()) == {"stage": 1, "step": 4, "samples": 16}


def test_the_latest_checkpoint_is_the_furthest_whole_one(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("checkpoint-00-00000900", "checkpoint-01-00000020", "checkpoint-01-00000003", "checkpoint.unfinished", "codec"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path).name == "checkpoint-01-00000020"


def test_frozen_parts_stay_as_they_were_and_trained_ones_move(finished):
    _, modules = finished
    fresh = build_modules("tiny", seed=3)[0].state_dict()
    trained = (*AUTOENCODER.trainable, *ONE_STEP.trainable)
    state = modules.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in state.items() if not name.startswith(trained))
    assert all(any(n.startswith(prefix) and not torch.equal(v, fresh[n]) for n, v in state.items()) for prefix in trained)


# Steps before the interruption (stage 0 has four, stage 1 five), and how many of the newest checkpoints did not survive it.
@pytest.mark.parametrize(("calls", "lost"), [(2, 0), (4, 0), (4, 1), (8, 1)])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(finished, data, tmp_path, monkeypatch, calls, lost):
    forward, count = objectives.FoundIRModules.forward, 0

    def interrupted(*args, **kwargs):
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(objectives.FoundIRModules, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(CONFIG, data, tmp_path)
    for _ in range(lost):
        newest = latest_checkpoint(tmp_path)
        newest.rename(tmp_path / "checkpoint.unfinished")
    # Fresh weights of another seed: all that the end result owes to the first part must come from the checkpoint.
    modules = run(CONFIG, data, tmp_path, seed=77)
    output, expected = finished
    assert_equal_weights(modules, expected)
    assert modules.vae.config.scaling_factor == expected.vae.config.scaling_factor
    assert rows(tmp_path)[-1]["validation"] == rows(output)[-1]["validation"]
    assert rows(tmp_path)[-1]["samples"] == rows(output)[-1]["samples"]


def test_a_finished_run_ends_the_same_way_when_it_is_started_again(finished, data, tmp_path):
    output, expected = finished
    newest = latest_checkpoint(output)
    (tmp_path / newest.name).symlink_to(newest)
    assert_equal_weights(run(replace(CONFIG, checkpoint_minutes=60), data, tmp_path, seed=77), expected)


def test_training_on_one_task_gains_on_the_validation_photograph(data, tmp_path):
    stage = replace(ONE_STEP, steps=16, tasks={"low_light": 1.0}, diffusion_share=0.0, plain_share=0.0, learning_rate=4e-3)
    run(TrainConfig("tiny", (stage,), checkpoint_minutes=60, ema_decay=0.5), data, tmp_path)
    before, after = rows(tmp_path)[-1]["validation"]["low_light"]
    assert after > before + 1  # an untrained model returns its input


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_before_the_step(data, tmp_path, broken):
    modules, scheduler = build_modules("tiny")
    bias = modules.vae.decoder.conv_out.bias
    if broken == "loss":  # L1 has no gradient where it is not a number
        bias.data[0] = float("nan")
    else:
        bias.register_hook(lambda gradient: gradient / 0)
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    with pytest.raises(FloatingPointError, match="Stage 'codec', step 0"):
        train(CONFIG, modules, scheduler, data, tmp_path)
    assert latest_checkpoint(tmp_path).name == "checkpoint-00-00000000"
    assert all(torch.equal(value.nan_to_num(), before[name].nan_to_num()) for name, value in modules.state_dict().items())


# --- Data that are not in memory ---


@pytest.fixture(scope="module")
def streamed(data, tmp_path_factory) -> tuple[Path, TrainConfig, objectives.FoundIRModules]:
    """An uninterrupted run on data read by a worker, and a broken file among them."""
    config = replace(CONFIG, stages=(replace(AUTOENCODER, tasks={"low_light": 1.0}), replace(ONE_STEP, steps=2)))
    folder = tmp_path_factory.mktemp("streamed")
    shutil.copytree(data, folder / "photos")
    (folder / "photos" / "b.png").write_text("no picture")
    (folder / "photos" / "d.png").write_bytes((data / "c.png").read_bytes())
    (folder / "photos" / "manifest.csv").write_text("file,split\na.png,train\nb.png,train\nd.png,train\nc.png,val\n")
    modules, scheduler = build_modules("tiny", 3)
    train(config, modules, scheduler, folder / "photos", folder / "run", in_memory="no", workers=1)
    return folder, config, modules


@pytest.mark.parametrize("calls", [3, 5])  # steps before the interruption; the first stage has four
def test_an_interrupted_run_on_streamed_data_ends_with_the_same_weights(streamed, tmp_path, monkeypatch, calls):
    folder, config, expected = streamed
    forward, count = objectives.FoundIRModules.forward, 0

    def interrupted(*args, **kwargs):
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(objectives.FoundIRModules, "forward", interrupted)
        modules, scheduler = build_modules("tiny", 3)
        with pytest.raises(KeyboardInterrupt):
            train(config, modules, scheduler, folder / "photos", tmp_path, in_memory="no", workers=1)
    positions = json.loads((latest_checkpoint(tmp_path) / "data.json").read_text())
    assert len(positions) == 1  # one process
    assert positions[0]["samples"] == 3
    modules, scheduler = build_modules("tiny", 77)
    train(config, modules, scheduler, folder / "photos", tmp_path, in_memory="no", workers=0)
    assert_equal_weights(modules, expected)
    assert rows(tmp_path)[-1]["validation"] == rows(folder / "run")[-1]["validation"]


def test_the_checkpoint_says_where_the_data_stand_skipped_files_included(streamed):
    folder, _, _ = streamed
    (state,) = json.loads((latest_checkpoint(folder / "run") / "data.json").read_text())
    # One step of two samples was done in the stage, one of the three files is broken: two or three were read.
    assert state["position"] in (2, 3)


def test_a_checkpoint_without_a_position_is_still_loaded_where_data_are_in_memory(finished, data, tmp_path):
    output, expected = finished
    newest = latest_checkpoint(output)
    shutil.copytree(newest, tmp_path / newest.name, ignore=shutil.ignore_patterns("data.json"))
    assert_equal_weights(run(replace(CONFIG, checkpoint_minutes=60), data, tmp_path, seed=77), expected)


# --- Several processes, and pairs ---


def _process(number: int, port: int, data: Path, output: Path) -> None:
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    modules, _ = build_modules("tiny", 3)
    source = TrainingData(data, process=number, processes=2).batches({"clean": 1.0}, 2, 16, 16, seed=0)
    scale_latents(modules, source, batches=2)
    decisions = [agree(accelerator, number == decider) for decider in (0, 1)]
    (output / f"{number}.json").write_text(json.dumps([modules.vae.config.scaling_factor, decisions]))


def test_processes_agree_on_the_scale_of_latents_and_on_when_to_save(data, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_process, (port, data, tmp_path), nprocs=2)
    scales, decisions = zip(*(json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1)), strict=True)
    assert decisions == ([True, False], [True, False])  # those of process 0
    assert scales[0] == scales[1]
    alone = []
    for number in (0, 1):
        modules, _ = build_modules("tiny", 3)
        source = TrainingData(data, process=number, processes=2).batches({"clean": 1.0}, 2, 16, 16, seed=0)
        scale_latents(modules, source, batches=2)
        alone.append(modules.vae.config.scaling_factor)
    assert alone[0] != alone[1]
    assert 1 / scales[0] == pytest.approx((1 / alone[0] + 1 / alone[1]) / 2, rel=1e-4)


def test_pairs_are_validated_under_their_own_task_only(data, tmp_path):
    for task, noise in (("Task1", 10), ("low_light", 60)):
        for part in ("HQ", "LQ"):
            (tmp_path / task / part).mkdir(parents=True)
        picture = np.asarray(Image.open(data / "a.png")).clip(60, 190)
        Image.fromarray(picture).save(tmp_path / task / "HQ" / "a.png")
        Image.fromarray(picture - np.uint8(noise)).save(tmp_path / task / "LQ" / "a.png")
    modules, scheduler = build_modules("tiny", 3)
    scores = validate(modules, ONE_STEP, scheduler, TrainingData(tmp_path).validation, size=16)
    assert {task: before for task, (before, _) in scores.items()} == {
        "low_light": pytest.approx(20 * math.log10(255 / 60), abs=0.01),
        "Task1": pytest.approx(20 * math.log10(255 / 10), abs=0.01),
    }
    assert set(validate(modules, AUTOENCODER, scheduler, TrainingData(tmp_path).validation, size=16)) == {"reconstruction"}
