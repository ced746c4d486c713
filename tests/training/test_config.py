from __future__ import annotations

from pathlib import Path

import pytest
import torch

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.data.tasks import TASKS
from foundir_hf.training.build import build_modules
from foundir_hf.training.config import StageConfig, TrainConfig
from foundir_hf.training.loop import parameter_groups
from foundir_hf.training.objectives import OBJECTIVES

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
CLASSIFIER = CONFIGS / "classifier.yaml"  # not of the pipeline; test_classifier.py has it
RECIPES = sorted({CONFIGS / "tiny.yaml", *CONFIGS.rglob("*.yaml")} - {CLASSIFIER})

GOOD = """
configuration: tiny
seed: 4
stages:
  - {name: first, objective: restoration, steps: 3, trainable: {lq_encoder.: 1.0}, num_inference_steps: 0}
  - {name: second, objective: diffusion, steps: 5, trainable: {unet.: 0.5}, tasks: {haze: 2.0}, learning_rate: 0.01}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_recipe_becomes_stages_in_order_with_defaults(tmp_path):
    config = TrainConfig.from_yaml(write(tmp_path, GOOD))
    assert (config.configuration, config.seed, config.mixed_precision) == ("tiny", 4, "no")
    assert [stage.name for stage in config.stages] == ["first", "second"]
    assert config.stages[0] == StageConfig("first", "restoration", 3, {"lq_encoder.": 1.0}, num_inference_steps=0)
    assert config.stages[0].tasks == {"clean": 1.0}
    assert (config.stages[1].tasks, config.stages[1].learning_rate) == ({"haze": 2.0}, 0.01)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 4", "sede: 4", r"recipe.yaml: `sede` is unknown; accepted are configuration, stages, seed, "),
        ("steps: 5", "step: 5", r"recipe.yaml: `stages\[1\]\.step` is unknown; accepted are name, objective, steps, "),
        ("configuration: tiny", "", "recipe.yaml: `configuration` is missing"),
        ("steps: 3, ", "", r"recipe.yaml: `stages\[0\]\.steps` is missing"),
        ("name: second", "name: first", r"recipe.yaml: `stages` must be at least one, with names that differ, got \['first', 'first'\]"),
        (GOOD, "configuration: tiny", "recipe.yaml: `stages` is missing"),
        (GOOD, "configuration: tiny\nstages: []", "recipe.yaml: `stages` must be at least one"),
        (GOOD, "configuration: tiny\nstages:", "recipe.yaml: `stages` should be a valid tuple, got None"),
        (GOOD, "- tiny", r"recipe.yaml: it should be a dictionary .* got \['tiny'\]"),
        (GOOD, "stages: [", r"recipe.yaml: is not YAML: while parsing"),
        ("seed: 4", "trackers: tensorboard", r"recipe.yaml: `trackers` should be a valid tuple, got 'tensorboard'"),
        ("seed: 4", "betas: 0.9", r"recipe.yaml: `betas` should be a valid tuple, got 0.9"),
        ("0.01}", "fast}", r"recipe.yaml: `stages\[1\]\.learning_rate` should be a valid number, .* got 'fast'"),
        ("steps: 3, ", "steps: 3, equilibrium: des, ", r"recipe.yaml: `stages\[0\]\.equilibrium` should be a dictionary .* got 'des'"),
    ],
)
def test_a_wrong_recipe_is_refused_naming_the_file_and_the_key(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_yaml(write(tmp_path, GOOD.replace(old, new)))


def test_numbers_that_yaml_takes_for_words_are_numbers_and_lists_are_tuples(tmp_path):
    text = GOOD.replace("0.01}", "1e-2}").replace("seed: 4", "seed: 4\nbetas: [0.9, 0.98]\ntrackers: [tensorboard]")
    config = TrainConfig.from_yaml(write(tmp_path, text))
    assert config.stages[1].learning_rate == 0.01
    assert (config.betas, config.trackers) == ((0.9, 0.98), ("tensorboard",))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_names_existing_objectives_tasks_and_parameters(path):
    config = TrainConfig.from_yaml(path)
    assert config.configuration in CONFIGURATIONS
    with torch.device("meta"):  # names, without memory
        modules, _ = build_modules(config.configuration)
    for stage in config.stages:
        assert stage.objective in OBJECTIVES
        assert set(stage.tasks) <= set(TASKS)
        assert stage.steps > stage.warmup_steps >= 0
        assert stage.context_size >= stage.crop_size
        assert stage.crop_size % 32 == 0  # pyramid and denoiser halve it
        assert stage.tone == "off" or stage.objective != "restoration" or stage.crop_size == stage.context_size  # curves need whole views
        assert 0 <= stage.diffusion_share <= 1
        assert isinstance(stage.learning_rate, float)
        assert parameter_groups(modules, stage)  # raises for a prefix without parameters


def test_an_unknown_configuration_is_refused_and_the_accepted_ones_are_named():
    with pytest.raises(ValueError, match="one of nano, tiny, sdxl; got 'large'"):
        build_modules("large")
