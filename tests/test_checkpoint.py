"""The checkpoint that ships: inside its budget, safe to load, and better than doing nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from foundir_hf import load_pipeline
from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.data.photos import list_photos
from foundir_hf.data.tasks import TASKS
from foundir_hf.demo import SAMPLES
from foundir_hf.evaluation.damage import degrade_image
from foundir_hf.evaluation.files import read_rgb
from foundir_hf.evaluation.metrics import psnr
from foundir_hf.hub import resolve_checkpoint


@pytest.fixture(scope="module")
def tiny():
    pipe = load_pipeline("tiny")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_keeps_to_its_budget_of_parameters_and_bytes(tiny):
    assert sum(p.numel() for c in (tiny.vae, tiny.lq_encoder, tiny.unet) for p in c.parameters()) <= 20_000_000
    files = list(resolve_checkpoint("tiny").rglob("*.safetensors"))
    assert len(files) == 3
    assert sum(f.stat().st_size for f in files) <= 40_000_000
    for file in files:
        with safe_open(file, "pt") as weights:
            assert {weights.get_slice(k).get_dtype() for k in weights.keys()} == {"F16"}  # noqa: SIM118 (not a dict)


def test_it_keeps_to_its_budget_of_flops(tiny):
    image = torch.rand(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        tiny(image, generator=torch.Generator().manual_seed(0))
    assert counter.get_total_flops() / 256**2 <= 0.5e6


def test_it_is_built_from_the_configuration_of_its_name(tiny):
    for name, sizes in CONFIGURATIONS["tiny"].items():
        config = getattr(tiny, name).config
        for key, value in sizes.items():
            if key != "scaling_factor":  # measured in training
                assert (list(config[key]) if isinstance(value, tuple) else config[key]) == (
                    list(value) if isinstance(value, tuple) else value
                ), f"{name}.{key}"


def test_its_weights_are_finite_and_every_skip_was_trained(tiny):
    for component in (tiny.vae, tiny.lq_encoder, tiny.unet):
        for name, parameter in component.named_parameters():
            assert parameter.isfinite().all(), name
    assert tiny.vae.pixel_skip.conv.weight.abs().max() > 0
    assert tiny.unet.conv_in.projection.weight.abs().max() > 0
    assert all(skip.value.weight.abs().max() > 0 for skip in tiny.vae.skips)


def test_no_code_and_no_pickle_ship_with_it():
    suffixes = {p.suffix for p in resolve_checkpoint("tiny").rglob("*") if p.is_file()} - {".py"}  # .py is ignored by git
    assert suffixes == {".json", ".safetensors"}


def gain(pipe, task: str, sample: str) -> float:
    truth = read_rgb(SAMPLES / sample)
    degraded = degrade_image(truth, TASKS[task], sample, seed=11)
    restored = np.asarray(pipe(Image.fromarray(degraded), generator=torch.Generator().manual_seed(0)).images[0])
    return psnr(restored, truth) - psnr(degraded, truth)


@pytest.mark.parametrize("task", ["gaussian_noise", "rain", "haze", "low_light"])
def test_it_gains_a_decibel_on_photographs_it_has_not_seen(tiny, task):
    assert np.mean([gain(tiny, task, sample.name) for sample in list_photos(SAMPLES)]) > 1


def test_a_clean_photograph_stays_close_to_itself(tiny):
    truth = read_rgb(SAMPLES / "coffee.jpg")
    restored = np.asarray(tiny(Image.fromarray(truth), generator=torch.Generator().manual_seed(0)).images[0])
    assert psnr(restored, truth) > 30


def test_tiles_do_not_show(tiny):
    """Trained weights, a photograph: tiles change a pixel by a few of 255 levels at worst, and by less than one on average."""
    photograph = Image.open(SAMPLES / "coffee.jpg")
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    full = tiny(photograph, tile_size=None, tile_overlap=0, **options).images
    tiled = tiny(photograph, tile_size=256, tile_overlap=128, **options).images
    difference = (full - tiled).abs() * 255
    assert difference.mean() < 1
    assert difference.max() < 24
