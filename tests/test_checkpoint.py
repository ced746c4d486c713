"""The checkpoint that ships: inside its budget, safe to load, and every part of it restores what no other part does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from foundir_hf import FoundIRPipeline, load_pipeline
from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.data.tasks import TASKS
from foundir_hf.evaluation.degradation import degrade_image
from foundir_hf.evaluation.demo import SAMPLES
from foundir_hf.evaluation.metrics import psnr
from foundir_hf.hub import resolve_checkpoint
from foundir_hf.interpret import EXPERTS, without_expert
from foundir_hf.io.decoder import read_rgb
from foundir_hf.io.folder import list_photos

COMPONENTS = ("lq_encoder", "unet", "vae", "tone")
# What a patch cannot know: drifting haze, cloud, shadow, flare, stains, creases, drops, uneven light, moire, colour blotches, veils, age.
REGIONAL = (
    "nonhomogeneous_haze", "thin_cloud", "shadow", "lens_flare", "stains", "fold_creases", "raindrops", "vignetting", "moire",
    "color_noise", "rain_mist", "old_photo",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    pipe = load_pipeline("tiny")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_keeps_to_its_budget_of_parameters_and_bytes(tiny):
    assert sum(p.numel() for name in COMPONENTS for p in getattr(tiny, name).parameters()) <= 20_000_000
    files = list(resolve_checkpoint("tiny").rglob("*.safetensors"))
    assert len(files) == len(COMPONENTS)
    assert sum(f.stat().st_size for f in files) <= 40_000_000
    for file in files:
        with safe_open(file, "pt") as weights:
            assert {weights.get_slice(k).get_dtype() for k in weights.keys()} == {"F16"}  # noqa: SIM118 (not a dict)


def test_it_keeps_to_its_budget_of_flops(tiny):
    image = torch.rand(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        tiny(image, generator=torch.Generator().manual_seed(0))
    assert counter.get_total_flops() / 256**2 <= 0.35e6


def test_it_is_built_from_the_configuration_of_its_name(tiny):
    for name, sizes in CONFIGURATIONS["tiny"].items():
        config = getattr(tiny, name).config
        for key, value in sizes.items():
            assert (list(config[key]) if isinstance(value, tuple) else config[key]) == (
                list(value) if isinstance(value, tuple) else value
            ), f"{name}.{key}"


def test_its_weights_are_finite(tiny):
    for component in COMPONENTS:
        for name, tensor in getattr(tiny, component).state_dict().items():
            assert tensor.isfinite().all(), name


def test_no_code_and_no_pickle_ship_with_it():
    suffixes = {p.suffix for p in resolve_checkpoint("tiny").rglob("*") if p.is_file()} - {".py"}  # .py is ignored by git
    assert suffixes == {".json", ".safetensors"}


# --- What it gains --------------------------------------------------------------------------------------------------------------------


@cache
def damaged(task: str, sample: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A view of a whole photograph, 256 pixels wide, and the same damaged. Training has seen neither."""
    with Image.open(SAMPLES / sample) as image:
        truth = np.asarray(image.convert("RGB").resize((256, round(256 * image.height / image.width)), Image.Resampling.LANCZOS))
    return truth, degrade_image(truth, TASKS[task], sample, seed)


@cache  # most checks compare with the whole pipeline
def decibels(pipe: FoundIRPipeline | None, task: str, sample: str, seed: int, expert_off: str | None, **options) -> float:
    """PSNR of a photograph, damaged and restored, or as it came without `pipe`."""
    truth, image = damaged(task, sample, seed)
    if pipe is not None:
        with without_expert(pipe.unet, expert_off) if expert_off else nullcontext():
            image = np.asarray(pipe(Image.fromarray(image), generator=torch.Generator().manual_seed(0), **options).images[0])
    return psnr(image, truth)


def quality(
    pipe: FoundIRPipeline | None,
    *tasks: str,
    photos: int = 4,
    seeds: Sequence[int] = (11,),
    expert_off: str | None = None,
    **options,
) -> list[float]:
    """Of each task, the mean PSNR over so many sample photographs, damaged by each seed."""
    samples = [sample.name for sample in list_photos(SAMPLES)[:photos]]
    return [fmean(decibels(pipe, task, name, seed, expert_off, **options) for name in samples for seed in seeds) for task in tasks]


def gains(pipe: FoundIRPipeline, *tasks: str, photos: int = 4, seeds: Sequence[int] = (11,), **options) -> list[float]:
    """By how much that is better than the input, in decibels."""
    after, before = (quality(p, *tasks, photos=photos, seeds=seeds, **(options if p else {})) for p in (pipe, None))
    return [a - b for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize("task", ["gaussian_noise", "rain", "haze", "low_light"])
def test_it_gains_a_decibel_on_photographs_it_has_not_seen(tiny, task):
    assert gains(tiny, task)[0] > 1


def test_a_clean_photograph_stays_close_to_itself(tiny):
    truth = read_rgb(SAMPLES / "coffee.jpg")
    restored = np.asarray(tiny(Image.fromarray(truth), generator=torch.Generator().manual_seed(0)).images[0])
    assert psnr(restored, truth) > 40


# --- What each part does. Every check is shown to fail on a copy in which the part does nothing, on one photograph: it then does nothing
# on any. ------------------------------------------------------------------------------------------------------------------------------


def with_part(pipe: FoundIRPipeline, name: str, change: Callable[[torch.nn.Module], None]) -> FoundIRPipeline:
    """A pipeline in which one component is a changed copy."""
    part = copy.deepcopy(getattr(pipe, name))
    with torch.no_grad():
        change(part)
    changed = FoundIRPipeline(**{**pipe.components, name: part})
    changed.set_progress_bar_config(disable=True)
    return changed


def without_unet(pipe: FoundIRPipeline) -> FoundIRPipeline:
    return with_part(pipe, "unet", lambda unet: [parameter.zero_() for parameter in unet.conv_out.parameters()])


def without_curves(pipe: FoundIRPipeline) -> FoundIRPipeline:
    return with_part(pipe, "tone", lambda tone: [p.zero_() for layer in (tone.conv_out, tone.whole_out) for p in layer.parameters()])


def without_encoder(pipe: FoundIRPipeline) -> FoundIRPipeline:
    return with_part(pipe, "lq_encoder", lambda encoder: [parameter.zero_() for parameter in encoder.conv_out.parameters()])


def never_routed(pipe: FoundIRPipeline, expert: str) -> FoundIRPipeline:
    return with_part(pipe, "unet", lambda unet: unet.conv_in.moe.router.gate.bias[EXPERTS.index(expert)].fill_(-1e4))


def check_unet(pipe: FoundIRPipeline, photos: int = 4) -> None:
    whole, rest = (fmean(gains(p, *REGIONAL, photos=photos)) for p in (pipe, without_unet(pipe)))
    assert whole - rest >= 0.5


def check_expert(pipe: FoundIRPipeline, expert: str, photos: int = 4) -> None:
    families = (*REGIONAL, "clean")  # what it does to a fine photograph counts as well
    whole, rest = (quality(pipe, *families, photos=photos, expert_off=off) for off in (None, expert))
    assert max(a - b for a, b in zip(whole, rest, strict=True)) >= 0.1


def check_steps(pipe: FoundIRPipeline, photos: int = 4) -> None:
    one = gains(pipe, *REGIONAL, photos=photos)
    for steps in (2, 4):
        several = gains(pipe, *REGIONAL, photos=photos, num_inference_steps=steps)
        assert abs(fmean(several) - fmean(one)) < 1
        assert max(abs(a - b) for a, b in zip(several, one, strict=True)) > 0.001  # it samples, and not the same picture


def check_curves(pipe: FoundIRPipeline, photos: int = 4) -> None:
    # All or nothing for a photograph, so the mean wants several.
    whole, off = (gains(pipe, "haze", "low_light", photos=photos, seeds=range(11, 15), tone=tone) for tone in ("auto", "off"))
    assert min(a - b for a, b in zip(whole, off, strict=True)) >= 5


def check_estimate(pipe: FoundIRPipeline, photos: int = 4) -> None:
    tasks = ("gaussian_noise", "jpeg", "defocus_blur")
    whole_and_estimate = (gains(pipe, *tasks, photos=photos, **options) for options in ({}, {"num_inference_steps": 0}))
    for whole, estimate in zip(*whole_and_estimate, strict=True):
        assert whole > 0
        assert estimate >= 0.9 * whole


def test_regional_damage_is_the_denoiser_s_business(tiny):
    check_unet(tiny)


@pytest.mark.parametrize("expert", EXPERTS)
def test_every_expert_is_missed(tiny, expert):
    check_expert(tiny, expert)


def test_a_denoiser_or_an_expert_that_does_nothing_would_be_noticed(tiny):
    with pytest.raises(AssertionError):
        check_unet(without_unet(tiny), photos=1)
    for expert in EXPERTS:
        with pytest.raises(AssertionError):
            check_expert(never_routed(tiny, expert), expert, photos=1)


def test_more_steps_sample_and_restore_as_well(tiny):
    check_steps(tiny)
    with pytest.raises(AssertionError):
        check_steps(without_unet(tiny), photos=1)


def test_haze_and_darkness_are_the_curves_business(tiny):
    check_curves(tiny)
    with pytest.raises(AssertionError):
        check_curves(without_curves(tiny), photos=1)


def test_noise_blocks_and_blur_are_the_encoder_s_business(tiny):
    check_estimate(tiny)
    with pytest.raises(AssertionError):
        check_estimate(without_encoder(tiny), photos=1)


@pytest.mark.parametrize("level", [0, 30, 60, 92, 128, 200, 255])
def test_a_grey_card_stays_as_it_is(tiny, level):
    restored = tiny(Image.new("RGB", (96, 96), (level,) * 3), generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert (restored * 255 - level).abs().max() <= 3.5


def test_tiles_do_not_show(tiny):
    """Trained weights, a photograph: tiles change a pixel by a few of 255 levels at worst, and by less than one on average."""
    photograph = Image.open(SAMPLES / "coffee.jpg")
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    full = tiny(photograph, tile_size=None, tile_overlap=0, **options).images
    tiled = tiny(photograph, tile_size=256, tile_overlap=128, **options).images
    difference = (full - tiled).abs() * 255
    assert difference.mean() < 1
    assert difference.max() < 24
