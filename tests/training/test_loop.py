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
from processes import START_METHOD
from safetensors.torch import load_file

from foundir_hf.data.loading import TrainingData
from foundir_hf.hub import load_pipeline
from foundir_hf.training import objectives
from foundir_hf.training.build import build_modules
from foundir_hf.training.checkpoints import find_checkpoint
from foundir_hf.training.config import StageConfig, TrainConfig
from foundir_hf.training.equilibrium import EquilibriumConfig
from foundir_hf.training.loop import all_reduce_any, learning_rate_factor, parameter_groups, train
from foundir_hf.training.validation import validate

PIXELS = StageConfig(
    "pixels",
    "restoration",
    steps=4,
    trainable={"lq_encoder.": 1.0, "lq_encoder.lq_proj.": 0.0, "lq_encoder.estimate_proj.": 0.0, "lq_encoder.conv_in.": 0.5},
    learning_rate=2e-3,
    warmup_steps=2,
    batch_size=2,
    crop_size=16,
    context_size=24,
    tasks={"gaussian_noise": 1.0},
    num_inference_steps=0,
    tone="off",
)
ONE_STEP = StageConfig(
    "one_step",
    "restoration",
    steps=5,
    trainable={"unet.": 1.0, "lq_encoder.": 0.5, "tone.": 1.0},
    learning_rate=2e-3,
    warmup_steps=1,
    batch_size=2,
    crop_size=32,
    context_size=32,
    tasks={"low_light": 1.0, "gaussian_noise": 1.0},
    diffusion_share=0.3,
)
CONFIG = TrainConfig("nano", (PIXELS, ONE_STEP), seed=3, checkpoint_minutes=0, ema_decay=0.9, reference_samples=2, reference_size=32)


def run(config: TrainConfig, data: Path, output: Path, seed: int = 3) -> objectives.FoundIRModules:
    modules, scheduler = build_modules("nano", seed)
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
    modules, _ = build_modules("nano")
    trainable = {"unet.": 1.0, "unet.conv_in.": 0.0, "unet.conv_in.conv_in.": 0.5, "tone.gate.": 0.1}
    groups = parameter_groups(modules, replace(ONE_STEP, trainable=trainable, learning_rate=0.2))
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert sorted(group["lr"] for group in groups) == pytest.approx([0.02, 0.1, 0.2])
    for name, parameter in modules.named_parameters():
        expected = None
        if name.startswith("unet.conv_in."):
            expected = 0.1 if name.startswith("unet.conv_in.conv_in.") else None
        elif name.startswith("unet."):
            expected = 0.2
        elif name.startswith("tone.gate."):
            expected = 0.02
        assert parameter.requires_grad == (expected is not None), name
        assert rates.get(id(parameter)) == (None if expected is None else pytest.approx(expected)), name


def test_a_prefix_that_matches_nothing_is_refused():
    modules, _ = build_modules("nano")
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
    assert [row["stage"] for row in log] == ["pixels"] * 3 + ["one_step"] * 3
    assert [row["step"] for row in log] == [0, 4, 4, 0, 5, 5]
    assert [row["samples"] for row in log] == [0, 8, 8, 8, 18, 18]
    assert log[3]["proportions"] == {"low_light": 0.5, "gaussian_noise": 0.5}
    for row in log[1::3]:
        assert math.isfinite(row["loss"])
        assert row["samples_per_second"] > 0 < row["mfu"]
        assert 0 < row["data_share"] < 1
    assert set(log[2]["validation"]) == {"gaussian_noise"}
    assert {task: len(row) for task, row in log[5]["validation"].items()} == {"low_light": 2, "gaussian_noise": 2}


def test_a_run_writes_the_components_of_every_stage_and_a_pipeline(finished):
    output, modules = finished
    for part in ("lq_encoder", "unet", "tone"):
        (first,) = (output / "pixels" / part).glob("*.safetensors")
        (last,) = (output / "one_step" / part).glob("*.safetensors")
        first, last, state = load_file(first), load_file(last), getattr(modules, part).state_dict()
        assert all(torch.equal(last[name], value) for name, value in state.items())
        assert any(not torch.equal(first[name], value) for name, value in state.items())
    loaded = load_pipeline(output / "pipeline")
    assert all(torch.equal(value, modules.unet.state_dict()[name].half().float()) for name, value in loaded.unet.state_dict().items())


def test_only_the_last_two_checkpoints_are_kept(finished):
    output, _ = finished
    assert sorted(path.name for path in output.glob("checkpoint*")) == ["checkpoint-01-00000003", "checkpoint-01-00000004"]
    assert find_checkpoint(output) == output / "checkpoint-01-00000004"
    progress = json.loads((output / "checkpoint-01-00000004" / "progress.json").read_text())
    assert math.isfinite(progress.pop("loss"))
    assert progress == {"stage": 1, "step": 4, "samples": 16, "skipped": 0, "skipped_in_a_row": 0, "seconds": 0.0}


def test_a_run_by_the_clock_ends_with_its_rate_and_learns_from_a_pool(data, tmp_path):
    modules, scheduler = build_modules("nano", 3)
    fresh = {name: value.clone() for name, value in modules.state_dict().items()}
    stages = (replace(PIXELS, steps=10**6, time_share=2.0), replace(ONE_STEP, steps=10**6))
    train(replace(CONFIG, stages=stages, checkpoint_minutes=60), modules, scheduler, data, tmp_path, pool_workers=1, seconds=6)
    (checkpoint,) = tmp_path.glob("checkpoint-01-*")
    assert json.loads((checkpoint / "progress.json").read_text())["seconds"] == 0.0  # of a stage that begins
    ends = [row for row in rows(tmp_path) if "learning_rate" in row]
    assert {row["stage"] for row in ends} == {"pixels", "one_step"}
    for stage in stages:
        end = [row for row in ends if row["stage"] == stage.name][-1]
        assert 1 <= end["step"] < 10**6
        assert end["learning_rate"] < 0.02 * stage.learning_rate
        assert any(not torch.equal(fresh[name], value) for name, value in modules.state_dict().items() if name.startswith("unet."))


def test_the_latest_checkpoint_is_the_furthest_whole_one(tmp_path):
    assert find_checkpoint(tmp_path) is None
    for name in ("checkpoint-00-00000900", "checkpoint-01-00000020", "checkpoint-01-00000003", "checkpoint.unfinished", "pixels"):
        (tmp_path / name).mkdir()
    assert find_checkpoint(tmp_path).name == "checkpoint-01-00000020"


def test_frozen_parts_stay_as_they_were_and_trained_ones_move(finished):
    _, modules = finished
    fresh = build_modules("nano", seed=3)[0].state_dict()
    trained = (*PIXELS.trainable, *ONE_STEP.trainable)
    state = modules.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in state.items() if not name.startswith(trained))
    assert all(any(n.startswith(prefix) and not torch.equal(v, fresh[n]) for n, v in state.items()) for prefix in trained)


# Steps before the interruption (stage 0 has four, stage 1 five), and how many of the newest checkpoints did not survive it.
@pytest.mark.parametrize(("calls", "lost"), [(2, 0), (4, 0), (4, 1), (8, 1)])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(finished, data, tmp_path, interrupted_after, calls, lost):
    with interrupted_after(calls):
        run(CONFIG, data, tmp_path)
    for _ in range(lost):
        newest = find_checkpoint(tmp_path)
        newest.rename(tmp_path / "checkpoint.unfinished")
    # Fresh weights of another seed: all that the end result owes to the first part must come from the checkpoint.
    modules = run(CONFIG, data, tmp_path, seed=77)
    output, expected = finished
    assert_equal_weights(modules, expected)
    assert rows(tmp_path)[-1]["validation"] == rows(output)[-1]["validation"]
    assert rows(tmp_path)[-1]["samples"] == rows(output)[-1]["samples"]


def test_a_finished_run_ends_the_same_way_when_it_is_started_again(finished, data, tmp_path):
    output, expected = finished
    newest = find_checkpoint(output)
    (tmp_path / newest.name).symlink_to(newest)
    assert_equal_weights(run(replace(CONFIG, checkpoint_minutes=60), data, tmp_path, seed=77), expected)


def test_a_stage_does_not_go_on_with_other_settings(finished, data, tmp_path):
    output, _ = finished
    newest = find_checkpoint(output)
    (tmp_path / newest.name).symlink_to(newest)
    other = replace(ONE_STEP, steps=9, equilibrium=EquilibriumConfig(floor=0.02))
    with pytest.raises(
        ValueError, match=r"was begun with other settings: steps \d+ -> 9, equilibrium .*'floor': 0.01.* -> .*'floor': 0.02"
    ):
        run(replace(CONFIG, stages=(PIXELS, other)), data, tmp_path)


def test_training_on_one_task_gains_on_the_validation_photograph(data, tmp_path):
    stage = replace(ONE_STEP, steps=16, tasks={"low_light": 1.0}, diffusion_share=0.0, learning_rate=4e-3)
    run(TrainConfig("nano", (stage,), checkpoint_minutes=60, ema_decay=0.5), data, tmp_path)
    before, after = rows(tmp_path)[-1]["validation"]["low_light"]
    assert after > before + 1  # an untrained model returns its input


def spoil(modules: objectives.FoundIRModules, broken: str) -> None:
    bias = modules.lq_encoder.conv_out.bias
    if broken == "loss":
        bias.data[0] = float("nan")
    else:
        bias.register_hook(lambda gradient: gradient / 0)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_updates_that_are_not_finite_are_skipped_and_too_many_in_a_row_stop_the_run(data, tmp_path, broken):
    modules, scheduler = build_modules("nano")
    spoil(modules, broken)
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    with pytest.raises(FloatingPointError, match="Stage 'pixels', step 2: loss or gradient not finite 3 times in a row"):
        train(replace(CONFIG, max_skipped_steps=3), modules, scheduler, data, tmp_path)
    assert find_checkpoint(tmp_path).name == "checkpoint-00-00000002"
    assert all(torch.equal(value.nan_to_num(), before[name].nan_to_num()) for name, value in modules.state_dict().items())


def test_a_single_update_that_is_not_finite_is_counted_and_the_run_goes_on(data, tmp_path, monkeypatch):
    objective, calls = objectives.OBJECTIVES["restoration"], iter(range(100))
    # The first call counts operations, the second is the first update's.
    spoiled = lambda *arguments: objective(*arguments) * (float("nan") if next(calls) == 2 else 1)  # noqa: E731
    monkeypatch.setitem(objectives.OBJECTIVES, "restoration", spoiled)
    modules = run(replace(CONFIG, stages=(PIXELS,)), data, tmp_path)
    (row,) = (row for row in rows(tmp_path) if "skipped" in row)
    assert (row["skipped"], row["step"]) == (1, 4)
    assert all(value.isfinite().all() for value in modules.state_dict().values())


def test_compiling_on_a_cpu_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="`compile` is for GPUs"):
        run(replace(CONFIG, compile=True), data, tmp_path)


# --- Data that are not in memory ---


@pytest.fixture(scope="module")
def streamed(data, tmp_path_factory) -> tuple[Path, TrainConfig, objectives.FoundIRModules]:
    """An uninterrupted run on data read by a worker, and a broken file among them."""
    config = replace(CONFIG, stages=(PIXELS, replace(ONE_STEP, steps=2)))
    folder = tmp_path_factory.mktemp("streamed")
    shutil.copytree(data, folder / "photos")
    (folder / "photos" / "b.png").write_text("no picture")
    (folder / "photos" / "d.png").write_bytes((data / "c.png").read_bytes())
    (folder / "photos" / "manifest.csv").write_text("file,split\na.png,train\nb.png,train\nd.png,train\nc.png,val\n")
    modules, scheduler = build_modules("nano", 3)
    train(config, modules, scheduler, folder / "photos", folder / "run", in_memory="no", workers=1)
    return folder, config, modules


@pytest.mark.parametrize("calls", [3, 5])  # steps before the interruption; the first stage has four
def test_an_interrupted_run_on_streamed_data_ends_with_the_same_weights(streamed, tmp_path, interrupted_after, calls):
    folder, config, expected = streamed
    modules, scheduler = build_modules("nano", 3)
    with interrupted_after(calls):
        train(config, modules, scheduler, folder / "photos", tmp_path, in_memory="no", workers=1)
    positions = json.loads((find_checkpoint(tmp_path) / "data.json").read_text())
    assert len(positions) == 1  # one process
    assert positions[0][""]["samples"] == 3
    modules, scheduler = build_modules("nano", 77)
    train(config, modules, scheduler, folder / "photos", tmp_path, in_memory="no", workers=0)
    assert_equal_weights(modules, expected)
    assert rows(tmp_path)[-1]["validation"] == rows(folder / "run")[-1]["validation"]


def test_the_checkpoint_says_where_the_data_stand_skipped_files_included(streamed):
    folder, _, _ = streamed
    ((state,),) = (position.values() for position in json.loads((find_checkpoint(folder / "run") / "data.json").read_text()))
    # One step of two samples was done in the stage, one of the three files is broken: two or three were read.
    assert state["position"] in (2, 3)


# --- Several processes, and pairs ---


def _in_process(number: int, port: int, function, *arguments) -> None:
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    function(number, *arguments)
    torch.distributed.destroy_process_group()


def in_two_processes(function, *arguments) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (port, function, *arguments)
    torch.multiprocessing.start_processes(_in_process, arguments, nprocs=2, daemon=True, start_method=START_METHOD)


def _agree(number: int, output: Path) -> None:
    (output / f"{number}.json").write_text(json.dumps(all_reduce_any(Accelerator(cpu=True), number == 0, number == 1, False)))


def test_processes_agree_on_decisions_whoever_took_them(tmp_path):
    in_two_processes(_agree, tmp_path)
    assert [json.loads((tmp_path / f"{number}.json").read_text()) for number in (0, 1)] == [[True, True, False]] * 2


EQUILIBRIUM = EquilibriumConfig("des", interval=2, max_change=0.2)
PIXELS_IN_PARTS = replace(PIXELS, micro_batch_size=1)
SHARED = replace(ONE_STEP, steps=4, batch_size=4, micro_batch_size=2, equilibrium=EQUILIBRIUM)


def _train(number: int, data: Path, output: Path) -> None:
    run(replace(CONFIG, stages=(PIXELS_IN_PARTS, SHARED)), data, output)


def test_two_processes_learn_what_one_process_learns_from_the_same_recipe(data, tmp_path):
    expected = run(replace(CONFIG, stages=(PIXELS_IN_PARTS, SHARED)), data, tmp_path / "one").state_dict()
    in_two_processes(_train, data, tmp_path / "two")
    for part in ("lq_encoder", "unet", "tone"):
        (weights,) = (tmp_path / "two" / "one_step" / part).glob("*.safetensors")
        for name, value in load_file(weights).items():
            assert torch.allclose(value, expected[f"{part}.{name}"], atol=2e-5), name
    one, two = (json.loads((tmp_path / name / "equilibrium-one_step.json").read_text())["rounds"] for name in ("one", "two"))
    assert [row["step"] for row in two] == [0, 2]
    for a, b in zip(one, two, strict=True):
        assert b["scores"] == pytest.approx(a["scores"], abs=1e-3)
        assert b["proportions"] == pytest.approx(a["proportions"], abs=1e-3)
    assert two[0]["proportions"] != two[1]["proportions"]
    log = rows(tmp_path / "two")
    assert [row["samples"] for row in log] == [row["samples"] for row in rows(tmp_path / "one")]


def _train_limited(number: int, data: Path, output: Path, limit: float) -> None:
    run(replace(CONFIG, stages=(PIXELS,), max_grad_norm=limit), data, output)


@pytest.mark.parametrize("processes", [1, 2])
def test_gradients_are_really_clipped(data, tmp_path, processes):
    """AdamW's moments tell the gradients' size: with a tiny limit they stay below it."""
    sizes = {}
    for limit, name in ((1e-4, "clipped"), (1e4, "free")):
        if processes == 1:
            run(replace(CONFIG, stages=(PIXELS,), max_grad_norm=limit), data, tmp_path / name)
        else:
            in_two_processes(_train_limited, data, tmp_path / name, limit)
        state = torch.load(find_checkpoint(tmp_path / name) / "optimizer.bin", weights_only=True)["state"]
        sizes[name] = math.sqrt(sum(float(moments["exp_avg"].square().sum()) for moments in state.values()))
    assert sizes["clipped"] <= 1e-4 < sizes["free"]


def test_a_batch_that_processes_cannot_share_equally_is_refused():
    assert replace(SHARED, micro_batch_size=None).micro_batches(2) == 2
    assert SHARED.micro_batches(1) == SHARED.micro_batches(2) == 2
    with pytest.raises(ValueError, match="'one_step': `batch_size` 4 in micro-batches of 2 cannot be shared out equally among 3 processes"):
        SHARED.micro_batches(3)


def test_pairs_are_validated_under_their_own_task_only(data, tmp_path):
    for task, noise in (("Task1", 10), ("low_light", 60)):
        for part in ("HQ", "LQ"):
            (tmp_path / task / part).mkdir(parents=True)
        picture = np.asarray(Image.open(data / "a.png")).clip(60, 190)
        Image.fromarray(picture).save(tmp_path / task / "HQ" / "a.png")
        Image.fromarray(picture - np.uint8(noise)).save(tmp_path / task / "LQ" / "a.png")
    modules, scheduler = build_modules("nano", 3)
    scores = validate(modules, ONE_STEP, scheduler, TrainingData(tmp_path).reference(ONE_STEP.tasks, 16))
    assert {task: score.before[0] for task, score in scores.items()} == {
        "low_light": pytest.approx(20 * math.log10(255 / 60), abs=0.01),
        "Task1": pytest.approx(20 * math.log10(255 / 10), abs=0.01),
    }
