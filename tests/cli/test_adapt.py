"""`foundir adapt`, and what other verbs do with its adapters."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from processes import Command
from safetensors.torch import load_file

from foundir_hf.adapters.adapt import adapt, adaptation_recipe, tone_difference, usual_components
from foundir_hf.adapters.attach import AdapterConfig
from foundir_hf.adapters.files import load_adapter
from foundir_hf.cli import main
from foundir_hf.cli.common import UsageError, split_weight
from foundir_hf.hub import load_pipeline
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules, prepare_modules
from foundir_hf.training.config import TrainConfig
from foundir_hf.training.loop import parameter_groups, train
from foundir_hf.training.objectives import FoundIRModules

SMALL = ["--batch-size", "2", "--crop-size", "16"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """`nano`, fresh: it returns the photograph as it is."""
    modules, scheduler = build_modules("nano", seed=0)
    folder = tmp_path_factory.mktemp("base") / "nano"
    FoundIRPipeline(**modules.components(), scheduler=scheduler).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Photographs that a scanner makes dark and soft."""
    root = tmp_path_factory.mktemp("scans")
    y, x = np.mgrid[0:40, 0:48]
    for number in range(4):
        picture = np.stack([60 + x * 3, 220 - y * (number + 1), 128 + 90 * np.sin(x / (3 + number)) * np.cos(y / 5)], axis=-1)
        clean = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        folder = root / ("val" if number == 3 else "train")
        for kind, image in (("HQ", clean), ("LQ", clean.filter(ImageFilter.GaussianBlur(1)).point(lambda v: v // 2))):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            image.save(folder / kind / f"{number}.png")
    return root


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capsys, *arguments) -> str:
    try:
        code = main(list(map(str, arguments)))
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("foundir: ")]
    assert code == 2, error
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def adapter(base, pairs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("adapters") / "scans"
    command = ["adapt", pairs, "-o", folder, "--checkpoint", base, "--steps", "12", "--learning-rate", "0.02", "--rank", "2", *SMALL]
    assert main(list(map(str, command))) == 0
    return folder


def test_an_adapter_is_trained_measured_and_used(adapter, base, pairs, tmp_path, capsys):
    index = json.loads((adapter / "foundir_adapter.json").read_text())
    assert (index["method"], index["base"]["checkpoint"]) == ("lora", "nano")
    card = (adapter / "README.md").read_text()
    assert card.startswith("---\nbase_model: nano\nlibrary_name: peft\n")
    assert "pairs that training did not see" in card
    row = next(line for line in card.splitlines() if line.startswith("| val |"))
    assert float(row.split("|")[6]) > 0.2  # dB that a few steps gain on the held-out pair
    assert (adapter.parent / "scans.run" / "log.jsonl").is_file()

    photo = pairs / "val" / "LQ" / "3.png"
    command = ["restore", str(photo), "--checkpoint", str(base)]
    for name, options in {"base": [], "off": [f"{adapter}:0"], "half": [f"{adapter}:0.5"], "full": [str(adapter)]}.items():
        assert main([*command, "-o", str(tmp_path / f"{name}.png"), *(f"--adapter={option}" for option in options)]) == 0
    restored = {name: np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("base", "off", "half", "full")}
    assert np.array_equal(restored["off"], restored["base"])
    assert not np.array_equal(restored["half"], restored["base"])
    assert not np.array_equal(restored["half"], restored["full"])
    capsys.readouterr()
    report = ["evaluate", "--paired", str(pairs / "val"), "--checkpoint", str(base), "--adapter", f"{adapter}:0.5", "--metrics", "psnr"]
    assert main([*report, "--without", "figures", "--without", "baselines", "-o", str(tmp_path / "report")]) == 0
    hashes = json.loads((tmp_path / "report" / "report.json").read_text())["hashes"]
    assert "scans:0.5/lq_encoder/adapter_model.safetensors" in hashes


def test_an_adapter_that_does_harm_is_told(base, pairs, tmp_path, capsys):
    command = ["adapt", pairs, "-o", tmp_path / "out", "--checkpoint", base, "--steps", "4", "--learning-rate", "0.1", *SMALL]
    assert main(list(map(str, command))) == 0
    assert "Worse than without it: val. A --learning-rate below 0.1 or" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["adaptir", "full"])
def test_other_methods_write_what_can_be_used_too(method, base, pairs, tmp_path):
    output = tmp_path / "out"
    command = ["adapt", pairs, "-o", output, "--checkpoint", base, "--steps", "3", "--method", method, *SMALL]
    assert main(list(map(str, command))) == 0
    use = ["--checkpoint", str(output)] if method == "full" else ["--checkpoint", str(base), "--adapter", str(output)]
    assert main(["restore", str(pairs / "val" / "LQ" / "3.png"), "-o", str(tmp_path / "restored.png"), *use]) == 0
    assert f"- {method}\n" in (output / "README.md").read_text()


def soften(pairs: Path, copy: Path) -> Path:
    """The same pairs with the right tones."""
    shutil.copytree(pairs, copy)
    for path in copy.glob("*/LQ/*.png"):
        Image.open(path.parents[1] / "HQ" / path.name).filter(ImageFilter.GaussianBlur(1)).save(path)
    return copy


@pytest.mark.parametrize(
    ("damage", "components", "tone"), [("dark", ["lq_encoder", "tone"], "auto"), ("soft", ["lq_encoder"], "off")], ids=["dark", "soft"]
)
def test_tones_are_learnt_from_views_where_the_pairs_differ_in_them(damage, components, tone, pairs, base, tmp_path, capsys):
    if damage == "soft":
        pairs = soften(pairs, tmp_path / "soft")
    command = ["adapt", pairs, "-o", tmp_path / "out", "--checkpoint", base, "--steps", "2", *SMALL]
    assert main(list(map(str, command))) == 0
    (stage,) = json.loads((tmp_path / "out.run" / "settings.json").read_text())["stages"]
    assert (stage["objective"], stage["num_inference_steps"], stage["tone"]) == ("restoration", 1, tone)
    assert (stage["context_size"] == stage["crop_size"]) == (tone == "auto")
    assert f"components: {' '.join(components)}\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "foundir_adapter.json").read_text())["components"] == components


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        (["--components", "unet"], {"unet"}),
        (["--components", "tone", "lq_encoder"], {"lq_encoder", "tone"}),
        (["--method", "full"], {"lq_encoder", "tone", "unet"}),
        (["--method", "full", "--components", "tone"], {"tone"}),
    ],
)
def test_the_components_that_are_named_are_trained_and_no_others(options, trained, pairs, base, tmp_path):
    out = tmp_path / "out"
    command = ["adapt", pairs, "-o", out, "--checkpoint", base, "--steps", "3", "--learning-rate", "0.02", *options, *SMALL]
    assert main(list(map(str, command))) == 0
    if "full" not in options:
        assert {path.parent.name for path in out.glob("*/adapter_model.safetensors")} == trained
        return
    changed = set()
    for component in ("lq_encoder", "tone", "unet"):
        before, after = (load_file(folder / component / "diffusion_pytorch_model.safetensors") for folder in (base, out))
        changed |= {component} if any((before[key] - after[key]).abs().max() > 1e-3 for key in before) else set()
    assert changed == trained


def test_the_gate_of_the_tone_curves_opens_to_a_change_of_tone_that_is_small(base, pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "pale")
    for path in (tmp_path / "pale").glob("*/LQ/*.png"):
        Image.open(path.parents[1] / "HQ" / path.name).point(lambda v: v * 0.88 + 4).save(path)
    adapter = AdapterConfig(rank=4, components=("tone",))
    config = adaptation_recipe(str(base), adapter, steps=60, batch_size=2, crop_size=32, learning_rate=0.02)
    (gain,) = adapt(config, tmp_path / "pale", tmp_path / "out").gains.values()
    assert gain.base == gain.before
    assert gain.after > gain.base + 3


def test_crops_of_the_usual_sizes():
    views = adaptation_recipe("tiny", AdapterConfig(components=("lq_encoder", "tone"))).stages[0]
    crops = adaptation_recipe("tiny", AdapterConfig(components=("lq_encoder", "unet"))).stages[0]
    assert (views.crop_size, views.context_size, views.tone) == (192, 192, "auto")
    assert (crops.crop_size, crops.context_size, crops.tone) == (64, 256, "off")
    assert views.learning_rate > crops.learning_rate  # the UNet's


def test_tones_differ_where_light_does_and_not_where_detail_does():
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert tone_difference(images, images * 0.5 + 0.1) > 0.03
    assert tone_difference(images, images + 0.2) == pytest.approx(0.1, abs=1e-4)  # of [0, 1]
    noisy = images + 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    assert tone_difference(images, noisy) < 0.01


def test_what_is_usually_adapted_depends_on_checkpoint_and_data(base, pairs, sdxl, tmp_path):
    soft = soften(pairs, tmp_path / "soft")
    sdxl.save_pretrained(tmp_path / "sdxl")
    modules, scheduler = build_modules("nano")
    modules.tone = None
    FoundIRPipeline(**modules.components(), scheduler=scheduler).save_pretrained(tmp_path / "toneless")
    found = {folder.name: [usual_components(str(folder), data) for data in (pairs, soft)] for folder in (base, *tmp_path.glob("[!s]*"))}
    assert found == {"nano": [("lq_encoder", "tone"), ("lq_encoder",)], "toneless": [("lq_encoder",)] * 2}
    assert usual_components(str(tmp_path / "sdxl"), pairs) == ("lq_encoder", "unet")


def test_a_checkpoint_like_the_paper_s_is_adapted(sdxl, pairs, tmp_path):
    sdxl.save_pretrained(tmp_path / "sdxl")
    command = ["adapt", pairs, "-o", tmp_path / "out", "--checkpoint", tmp_path / "sdxl", "--steps", "2", *SMALL]
    assert main(list(map(str, command))) == 0
    assert json.loads((tmp_path / "out" / "foundir_adapter.json").read_text())["components"] == ["lq_encoder", "unet"]
    load_adapter(load_pipeline(tmp_path / "sdxl"), tmp_path / "out")


def test_photographs_learn_a_sub_task(base, pairs, tmp_path, capsys):
    command = ["adapt", pairs / "train" / "HQ", "--task", "sepia", "-o", tmp_path / "sepia", "--checkpoint", base, "--steps", "2", *SMALL]
    assert main(list(map(str, command))) == 0
    out = capsys.readouterr().out
    assert "sepia: input" in out
    assert "Training saw these pairs" in out
    assert "training saw too" in (tmp_path / "sepia" / "README.md").read_text()


def test_an_interrupted_adaptation_ends_bit_for_bit_like_an_uninterrupted_one(base, pairs, tmp_path, monkeypatch):
    config = adaptation_recipe(str(base), AdapterConfig("adaptir"), steps=6, batch_size=2, crop_size=16)
    config = replace(config, checkpoint_minutes=0)
    adapt(config, pairs, tmp_path / "whole")
    forward, calls = FoundIRModules.forward, []

    def limited(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FoundIRModules, "forward", limited)
        with pytest.raises(KeyboardInterrupt):
            adapt(config, pairs, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    with pytest.raises(ValueError, match=r"was begun with other settings \(seed\)"):
        adapt(replace(config, seed=1), pairs, tmp_path / "cut")
    adapt(config, pairs, tmp_path / "cut")
    whole, cut = files(tmp_path / "whole"), files(tmp_path / "cut")
    assert {n: h for n, h in cut.items() if n != "README.md"} == {
        n: h for n, h in whole.items() if n != "README.md"
    }  # the card has its name


def test_a_command_told_to_end_writes_a_checkpoint_and_goes_on_when_it_is_given_again(base, pairs, tmp_path):
    command = ["adapt", str(pairs), "-o", str(tmp_path / "out"), "--checkpoint", str(base), "--steps", "40", *SMALL]
    process = Command("foundir_hf.cli", *command)
    run = tmp_path / "out.run"
    while not (run / "equilibrium-adapt.json").is_file():  # written in the first step
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "Told to end after step" in errors
    step = json.loads((max(run.glob("checkpoint-*")) / "progress.json").read_text())["step"]
    assert 0 < step < 40
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    assert (tmp_path / "out" / "foundir_adapter.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["{pairs}/train/HQ"], "holds clean photographs, no pairs; name the sub-tasks"),
        (["{pairs}/train/HQ", "--task", "sepja"], "'sepja'"),
        (["nowhere"], "there is no such folder"),
        (["{pairs}", "--validation", "nowhere"], "there is no such folder"),
        (["{pairs}", "--method", "magic"], "invalid choice: 'magic'"),
        (["{pairs}", "--components", "vae"], "invalid choice: 'vae'"),
        (["{pairs}", "--method", "adaptir", "--dora"], "are of LoRA, got the method 'adaptir'"),
        (["{pairs}", "--targets", "attention", "--rank", "0"], "must be a whole number in [1, 1024], got '0'"),
        (["{pairs}", "--crop-size", "20"], "`--crop-size` must be a multiple of 16, got 20"),
        (["{pairs}", "--checkpoint", "nobody/nothing"], "got 'nobody/nothing'"),
        (["{pairs}", "--tracker", "aim"], "`trackers`: aim cannot be used: not installed"),
        (["{pairs}", "-o", "{adapter}"], "exists; an adaptation never replaces anything"),
        (["{pairs}", "-o", "{pairs}/train/HQ/0.png/x"], "cannot be a folder"),
    ],
)
def test_what_cannot_be_adapted_is_told_in_one_line_and_leaves_nothing(options, message, pairs, adapter, base, tmp_path, capsys):
    arguments = [option.format(pairs=pairs, adapter=adapter) for option in options]
    usual = [] if "-o" in arguments else ["-o", str(tmp_path / "out")]
    usual += [] if "--checkpoint" in arguments else ["--checkpoint", str(base)]
    assert message in refused(capsys, "adapt", *usual, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_does_not_belong_is_refused_by_other_verbs(adapter, base, pairs, tmp_path, capsys):
    photo, other = pairs / "val" / "LQ" / "3.png", tmp_path / "other"
    modules, scheduler = build_modules("nano", seed=1)
    FoundIRPipeline(**modules.components(), scheduler=scheduler).save_pretrained(other)
    line = refused(capsys, "restore", photo, "-o", tmp_path / "out.png", "--adapter", adapter, "--checkpoint", other)
    assert "The adapter was trained on 'nano', and this is" in line
    assert "is no adapter" in refused(capsys, "restore", photo, "-o", tmp_path / "out.png", "--adapter", pairs, "--checkpoint", base)
    assert "`--adapter` needs a checkpoint" in refused(
        capsys, "evaluate", "--paired", pairs / "val", "--checkpoint", "none", "--adapter", adapter
    )
    assert list(tmp_path.iterdir()) == [other]


def test_a_weight_follows_the_last_colon_unless_the_path_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_weight("scans") == ("scans", 1.0)
    assert split_weight("scans:0.5") == ("scans", 0.5)
    assert split_weight("me/scans:-1") == ("me/scans", -1.0)
    assert split_weight(r"C:\scans") == (r"C:\scans", 1.0)
    assert split_weight(r"C:\scans:0.7") == (r"C:\scans", 0.7)
    (tmp_path / "a:2").mkdir()
    assert split_weight("a:2") == ("a:2", 1.0)
    assert split_weight("a:2:0.5") == ("a:2", 0.5)
    for text in ("scans:nan", "scans:inf", ":0.5"):
        with pytest.raises(UsageError, match="`--adapter` must be DIR or DIR:WEIGHT"):
            split_weight(text)


def test_a_recipe_trains_an_adapter_in_the_script_s_loop_too(base, pairs, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    text = f"""
configuration: nano
initial_checkpoint: {base}
adapter: {{method: lora, rank: 2, components: [lq_encoder, tone]}}
reference_samples: 1
reference_size: 32
stages:
  - {{name: a, objective: restoration, steps: 2, batch_size: 1, crop_size: 16, context_size: 32, trainable: {{lq_encoder.: 1.0}}}}
  - {{name: b, objective: restoration, steps: 2, batch_size: 1, crop_size: 32, context_size: 32, trainable: {{tone.: 1.0}}}}
"""
    recipe.write_text(text)
    config = TrainConfig.from_yaml(recipe)
    train(config, *prepare_modules(config), pairs, tmp_path / "run")
    pipe = load_pipeline(base)
    for name in ("adapter", "a", "b"):
        load_adapter(pipe, tmp_path / "run" / name)
    assert not (tmp_path / "run" / "pipeline").exists()
    for old, new, message in (
        (f"initial_checkpoint: {base}", "", "`adapter` needs the `initial_checkpoint` that it adapts"),
        ("method: lora", "methods: lora", r"`adapter.methods` is unknown"),
        ("method: lora", "method: prefix", "`adapter.method` should be 'lora' or 'adaptir', got 'prefix'"),
    ):
        recipe.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            TrainConfig.from_yaml(recipe)


def test_only_the_adapter_learns(base):
    config = adaptation_recipe(str(base), AdapterConfig("lora", components=("tone",)))
    modules, _ = prepare_modules(config)
    groups = parameter_groups(modules, config.stages[0])
    trained = {name for name, parameter in modules.named_parameters() if parameter.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(trained)
    assert all(".lora_" in name and name.startswith("tone.") for name in trained)
