"""FSDP in two processes: it learns, saves and goes on like one process that has the weights whole."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from test_loop import CONFIG, PIXELS_IN_PARTS, SHARED, in_two_processes, rows
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.multiprocessing import ProcessExitedException

from foundir_hf.adapters.attach import AdapterConfig
from foundir_hf.training import loop, objectives
from foundir_hf.training.build import build_modules, prepare_modules
from foundir_hf.training.checkpoints import find_checkpoint, read_progress
from foundir_hf.training.config import TrainConfig
from foundir_hf.training.equilibrium import DataEquilibriumScheduler
from foundir_hf.training.preemption import PreemptedError
from foundir_hf.training.sharding import AVERAGES, check_sharding

LAUNCHERS = Path(__file__).parents[2] / "training" / "accelerate"
RECIPE = replace(
    CONFIG,
    configuration="nano",
    # With transformer blocks, which are gathered by themselves.
    unet={"mid_block_type": "UNetMidBlock2DCrossAttn", "cross_attention_dim": 16, "attention_head_dim": 16},
    # Two micro-batches for each process, whose objectives need other components.
    stages=(PIXELS_IN_PARTS, replace(SHARED, micro_batch_size=1)),
    checkpoint_minutes=60,
    gradient_checkpointing=True,
)
PIXELS_ALONE = replace(RECIPE, stages=(replace(PIXELS_IN_PARTS, steps=3),), checkpoint_minutes=0)


def train(config: TrainConfig, data: Path, output: Path, seed: int = 3) -> None:
    modules, scheduler = build_modules(config.configuration, seed, **config.unet)
    loop.train(config, modules, scheduler, data, output)


def _shard(launcher: str) -> None:
    """accelerate has FSDP for accelerators only, so its state is told, with the launcher's options; everything else is as it will be."""
    options, *_ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(LAUNCHERS / launcher), "train.py"]))
    os.environ |= {name: value for name, value in prepare_multi_gpu_env(options).items() if name.startswith("FSDP_")}
    state = Accelerator(cpu=True).state
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP


def weights(output: Path) -> dict[str, torch.Tensor]:
    return {f"{path.parent.name}.{name}": value for path in output.glob("*/*.safetensors") for name, value in load_file(path).items()}


def _train(number: int, launcher: str, data: Path, output: Path) -> None:
    _shard(launcher)
    train(RECIPE, data, output)


@pytest.fixture(scope="module")
def sharded(data, tmp_path_factory) -> Path:
    """An uninterrupted run of both stages."""
    output = tmp_path_factory.mktemp("sharded")
    in_two_processes(_train, "fsdp.yaml", data, output)
    return output


def test_two_sharded_processes_learn_what_one_process_learns_from_the_same_recipe(data, tmp_path, sharded, monkeypatch):
    monkeypatch.setattr(torch, "channels_last", torch.contiguous_format)  # FSDP takes no other, and the last bits differ
    train(RECIPE, data, tmp_path)
    for stage in ("pixels", "one_step"):
        one, two = weights(tmp_path / stage), weights(sharded / stage)
        assert one.keys() == two.keys()
        assert [name for name in one if not torch.allclose(two[name], one[name], atol=2e-5)] == []
    one, two = (json.loads((path / "equilibrium-one_step.json").read_text())["rounds"] for path in (tmp_path, sharded))
    assert [row["step"] for row in two] == [0, 2]
    for a, b in zip(one, two, strict=True):
        assert b["scores"] == pytest.approx(a["scores"], abs=1e-3)
        assert b["proportions"] == pytest.approx(a["proportions"], abs=1e-3)
    assert two[0]["proportions"] != two[1]["proportions"]
    one, two = rows(tmp_path), rows(sharded)
    assert [row["samples"] for row in two] == [row["samples"] for row in one]
    for task, values in one[-1]["validation"].items():
        assert two[-1]["validation"][task] == pytest.approx(values, abs=1e-2)


def test_every_process_keeps_a_shard_of_weights_moments_and_averages(sharded):
    checkpoint = find_checkpoint(sharded)
    for part in ("pytorch_model_fsdp_0", "optimizer_0", AVERAGES):
        sizes = [path.stat().st_size for path in sorted((checkpoint / part).glob("*.distcp"))]
        assert len(sizes) == 2
        assert min(sizes) > max(sizes) / 2


def _interrupt(number: int, launcher: str, data: Path, output: Path) -> None:
    _shard(launcher)
    forward, calls = objectives.FoundIRModules.forward, count()

    def signalled(*arguments):
        if number == 1 and next(calls) == 4 + 5:  # in the third step of the second stage; one of them is told, both must end
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(*arguments)

    objectives.FoundIRModules.forward = signalled
    with pytest.raises(PreemptedError, match="after step 3 of stage 'one_step'"):
        train(RECIPE, data, output)
    objectives.FoundIRModules.forward = forward
    # Fresh weights of another seed: all that the end result owes to the first part must come from the checkpoint.
    train(RECIPE, data, output, seed=77)


def test_an_interrupted_sharded_run_ends_with_the_weights_of_an_uninterrupted_one(data, tmp_path, sharded):
    in_two_processes(_interrupt, "zero2.yaml", data, tmp_path)
    one, two = weights(sharded / "one_step"), weights(tmp_path / "one_step")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(two[name], one[name])] == []
    assert rows(tmp_path)[-1]["validation"] == rows(sharded)[-1]["validation"]


def _clip_and_skip(number: int, data: Path, output: Path) -> None:
    _shard("fsdp.yaml")
    train(replace(PIXELS_ALONE, max_grad_norm=1e-4), data, output / "clipped")
    objective, calls = objectives.OBJECTIVES["restoration"], count()
    broken = lambda *arguments: objective(*arguments) * (float("nan") if number == 1 and next(calls) == 1 else 1)  # noqa: E731
    objectives.OBJECTIVES["restoration"] = broken
    train(PIXELS_ALONE, data, output / "broken")


def test_sharded_gradients_are_really_clipped_and_an_update_broken_in_one_process_is_skipped_in_all(data, tmp_path):
    in_two_processes(_clip_and_skip, data, tmp_path)
    sizes, steps = {}, {"clipped": 2.0, "broken": 1.0}
    for name in steps:
        dcp_to_torch_save(find_checkpoint(tmp_path / name) / "optimizer_0", tmp_path / name / "optimizer.bin")
        state = torch.load(tmp_path / name / "optimizer.bin", weights_only=True)["optimizer"]["state"]
        assert {float(moments["step"]) for moments in state.values()} == {steps[name]}
        sizes[name] = math.sqrt(sum(float(moments["exp_avg"].square().sum()) for moments in state.values()))
    assert 0 < sizes["clipped"] <= 1e-4 < sizes["broken"]
    (row,) = (row for row in rows(tmp_path / "broken") if "skipped" in row)
    assert (row["skipped"], row["step"]) == (1, 3)
    assert all(value.isfinite().all() for value in weights(tmp_path / "broken" / "pixels").values())


# --- What is refused ---


def launched(distributed_type: DistributedType, version: int = 2):
    plugin = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=version))
    return SimpleNamespace(distributed_type=distributed_type, is_fsdp2=version == 2, state=plugin)


@pytest.mark.parametrize(
    ("accelerator", "changes", "message"),
    [
        (launched(DistributedType.DEEPSPEED), {}, "`distributed_type` DEEPSPEED is not supported: training/accelerate/zero2.yaml"),
        (launched(DistributedType.FSDP, 1), {}, "`fsdp_version` must be 2, got 1"),
        (launched(DistributedType.FSDP), {"mixed_precision": "fp16"}, "`mixed_precision` must be 'no' or 'bf16'.*got 'fp16', False"),
        (
            launched(DistributedType.FSDP),
            {"initial_checkpoint": "tiny", "adapter": AdapterConfig()},
            "`adapter` is trained with whole weights",
        ),
        (launched(DistributedType.FSDP), {"compile": True}, "`compile` false; got 'no', True"),
    ],
)
def test_what_does_not_go_with_sharded_weights_is_refused(accelerator, changes, message):
    with pytest.raises(ValueError, match=message):
        check_sharding(accelerator, replace(RECIPE, **changes), None)


def test_a_checkpoint_of_the_other_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="was written with whole weights, this run has sharded ones"):
        check_sharding(launched(DistributedType.FSDP), RECIPE, tmp_path)
    (tmp_path / AVERAGES).mkdir()
    check_sharding(launched(DistributedType.FSDP), RECIPE, tmp_path)
    with pytest.raises(ValueError, match="was written with sharded weights, this run has whole ones"):
        check_sharding(launched(DistributedType.MULTI_GPU), RECIPE, tmp_path)


# --- The paper's recipe ---


def _sdxl_recipe(base: Path) -> TrainConfig:
    config = TrainConfig.from_yaml(Path(__file__).parents[2] / "training" / "configs" / "sdxl.yaml")
    small = {"steps": 3, "warmup_steps": 1, "crop_size": 32, "context_size": 32, "batch_size": 4, "micro_batch_size": 1}
    stages = tuple(
        replace(
            stage,
            **small,
            tasks={name: stage.tasks[name] for name in ("camera_noise", "haze")},
            equilibrium=replace(stage.equilibrium, interval=1),
        )
        for stage in config.stages
    )
    changes = {"mixed_precision": "no", "reference_samples": 1, "reference_size": 32, "checkpoint_minutes": 0}
    return replace(config, stages=stages, initial_checkpoint=str(base), **changes)


def _train_sdxl(number: int, base: Path, data: Path, output: Path, killed_at: int | None) -> None:
    _shard("fsdp.yaml")
    forward, calls = objectives.FoundIRModules.forward, count()
    update, shares = DataEquilibriumScheduler.update, []

    def killed(*arguments):
        if next(calls) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(*arguments)

    def told(scheduler, step, scores=None):
        shares.append(update(scheduler, step, scores))
        (output.parent / f"shares-{number}.json").write_text(json.dumps(shares))
        return shares[-1]

    objectives.FoundIRModules.forward, DataEquilibriumScheduler.update = killed, told
    config = _sdxl_recipe(base)
    loop.train(config, *prepare_modules(config), data, output)


@pytest.mark.skipif("FOUNDIR_KILLS" not in os.environ, reason="half a minute; FOUNDIR_KILLS=1 runs it")
def test_the_paper_s_recipe_sharded_and_killed_goes_on_to_the_weights_of_an_undisturbed_run(folder, data, tmp_path):
    with pytest.raises(ProcessExitedException):
        in_two_processes(_train_sdxl, folder, data, tmp_path / "run", 9)  # in the second of three updates of the second stage
    assert read_progress(find_checkpoint(tmp_path / "run")).stage == 1
    in_two_processes(_train_sdxl, folder, data, tmp_path / "run", None)
    resumed = [json.loads((tmp_path / f"shares-{number}.json").read_text()) for number in (0, 1)]
    assert resumed[0] == resumed[1]  # what one process decides, all do
    in_two_processes(_train_sdxl, folder, data, tmp_path / "whole", None)
    one, two = weights(tmp_path / "whole" / "joint"), weights(tmp_path / "run" / "joint")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(two[name], one[name])] == []
    one, two = ((tmp_path / name / "equilibrium-joint.json").read_text() for name in ("whole", "run"))
    assert one == two
    assert len({json.dumps(row["proportions"]) for row in json.loads(one)["rounds"]}) > 1
