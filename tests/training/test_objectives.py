from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from weights import awaken

from foundir_hf.data.pairs import PairBatch, PairSource, reference_pairs
from foundir_hf.data.photos import PhotoBank
from foundir_hf.hub import load_pipeline
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules
from foundir_hf.training.config import StageConfig
from foundir_hf.training.export import save_pipeline
from foundir_hf.training.loop import scale_latents
from foundir_hf.training.objectives import FoundIRModules, restoration_loss, restore_in_one_step
from foundir_hf.training.validation import build_metrics, decibels_per_unit, validate

STAGE = StageConfig("stage", "end_to_end", 10, {"vae.": 1.0}, tasks={"low_light": 1.0, "clean": 1.0})


@pytest.fixture
def bank(tmp_path, photo) -> PhotoBank:
    photo.save(tmp_path / "a.png")
    photo.rotate(180).save(tmp_path / "b.png")
    return PhotoBank([tmp_path / "a.png", tmp_path / "b.png"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(size: int = 32) -> PairBatch:
    hq = torch.rand(2, 3, size, size, generator=seeded(1)) * 2 - 1
    return PairBatch(hq, hq * 0.5 - 0.2, torch.rand(2, 3, 64, 64, generator=seeded(2)) * 2 - 1, ["haze", "haze"])


def trained_by(modules: FoundIRModules, stage: StageConfig, seed: int = 0) -> tuple[float, set[str]]:
    """The loss, and the two-level names of the parts that get a gradient other than zero."""
    modules.zero_grad(set_to_none=True)
    loss = modules(stage, make_batch(), build_modules("tiny")[1], seeded(seed))
    assert loss.shape == ()
    loss.backward()
    gradients = {n: p.grad for n, p in modules.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    return loss.item(), {".".join(n.split(".")[:2]) for n, gradient in gradients.items() if gradient.any()}


PLAIN = {"vae.decoder", "vae.post_quant_conv", "vae.shortcut"}
SKIPS = {"vae.skips", "vae.pixel_skip"}
REFINER = {"lq_encoder.refiner"}
TONE_CURVES = {"lq_encoder.tone_curves"}
LQ_ENCODER = {"lq_encoder.encoder", "lq_encoder.whole_image"} | REFINER | TONE_CURVES


@pytest.mark.parametrize(
    ("objective", "vae_parts", "lq_encoder", "unet"),
    [
        ("autoencoder", PLAIN | {"vae.encoder", "vae.quant_conv"}, set(), False),
        ("diffusion", set(), LQ_ENCODER, True),
        ("end_to_end", (PLAIN | SKIPS) - {"vae.shortcut"}, LQ_ENCODER, True),
        ("refinement", set(), REFINER, False),
        ("lq_pixels", set(), REFINER | TONE_CURVES, False),
        ("toning", set(), TONE_CURVES, False),
    ],
)
def test_an_objective_is_finite_and_trains_the_parts_it_should(objective, vae_parts, lq_encoder, unet):
    modules = awaken(build_modules("tiny")[0])
    loss, parts = trained_by(modules, replace(STAGE, objective=objective, crop_size=96, context_size=96))
    assert math.isfinite(loss)
    assert {part for part in parts if part.startswith("vae.")} == vae_parts
    assert {part for part in parts if part.startswith("lq_encoder.")} == lq_encoder
    every_unet_part = {".".join(n.split(".")[:2]) for n, _ in modules.named_parameters() if n.startswith("unet.")}
    assert {part for part in parts if part.startswith("unet.")} == (every_unet_part if unet else set())


def test_shares_of_end_to_end_turn_to_diffusion_and_to_the_plain_decoder():
    modules = awaken(build_modules("tiny")[0])
    _, diffusion = trained_by(modules, replace(STAGE, diffusion_share=1.0))
    assert diffusion
    assert not any(part.startswith("vae.") for part in diffusion)
    _, plain = trained_by(modules, replace(STAGE, plain_share=1.0))
    assert plain >= PLAIN
    assert not plain & SKIPS


def test_the_restoration_loss_of_a_known_error_is_its_amplitude_or_its_decibels_or_both():
    target = torch.zeros(3, 3, 8, 8)
    assert restoration_loss(target, target, "rmse").item() == pytest.approx(0.01)  # the floor, 40 dB
    assert restoration_loss(target, target, "psnr").item() == pytest.approx(-40 / 20)
    errors = (0.02, 0.2, 2.0)  # twice as large in [-1, 1] as in [0, 1]
    prediction = target - torch.tensor(errors).view(3, 1, 1, 1)
    amplitudes = [math.sqrt((e / 2) ** 2 + 1e-4) for e in errors]  # image by image
    assert restoration_loss(prediction, target, "rmse").item() == pytest.approx(sum(amplitudes) / 3, rel=1e-5)
    assert restoration_loss(prediction, target, "psnr").item() == pytest.approx(sum(map(math.log10, amplitudes)) / 3, rel=1e-5)
    both = [restoration_loss(prediction, target, kind).item() for kind in ("psnr", "rmse")]
    assert restoration_loss(prediction, target, "balanced").item() == pytest.approx(both[0] + 10 * both[1], rel=1e-5)


def test_a_fresh_model_returns_the_degraded_image():
    modules, scheduler = build_modules("tiny")
    batch = make_batch()
    restored = restore_in_one_step(modules, batch, scheduler, seeded(), fidelity=1.0)
    assert torch.allclose(restored, batch.lq, atol=1e-6)
    assert not torch.allclose(restore_in_one_step(modules, batch, scheduler, seeded(), fidelity=0.0), batch.lq, atol=0.1)


def test_one_step_restoration_is_what_the_pipeline_does(pipeline):
    modules = FoundIRModules(pipeline.vae, pipeline.lq_encoder, pipeline.unet)
    lq = torch.rand(1, 3, 32, 32, generator=seeded(1)) * 2 - 1
    batch = PairBatch(lq, lq, modules.lq_encoder.thumbnail(lq), ["haze"])
    with torch.no_grad():
        ours = restore_in_one_step(modules, batch, pipeline.scheduler, seeded()).clamp(-1, 1)
    theirs = pipeline((lq + 1) / 2, generator=seeded(), output_type="pt").images[0]
    assert (ours - lq).abs().max() > 0.05
    assert torch.allclose((ours[0] + 1) / 2, theirs.squeeze(0), atol=1e-4)


def test_the_noise_offset_shifts_whole_channels_of_the_noise(monkeypatch):
    modules, scheduler = build_modules("tiny")
    noises = {}
    for offset in (0.0, 0.02):
        original = type(scheduler).add_noise

        def add_noise(self, latents, noise, timesteps, offset=offset, original=original):
            noises[offset] = noise
            return original(self, latents, noise, timesteps)

        with monkeypatch.context() as patch:
            patch.setattr(type(scheduler), "add_noise", add_noise)
            modules(replace(STAGE, objective="diffusion", noise_offset=offset), make_batch(), scheduler, seeded())
    shift = noises[0.02] - noises[0.0]
    assert shift.std(dim=(2, 3)).max() < 1e-6  # the same all over a channel
    assert shift.mean(dim=(2, 3)).std().item() == pytest.approx(0.02, rel=0.4)  # 32 draws


@pytest.fixture
def sdxl_modules(sdxl) -> FoundIRModules:
    """SDXL in small, to train: it asks for text, and there is none."""
    return FoundIRModules(*(copy.deepcopy(part) for part in (sdxl.vae, sdxl.lq_encoder, sdxl.unet))).train()


@pytest.mark.parametrize("objective", ["diffusion", "end_to_end"])
def test_sdxl_is_trained_without_captions(sdxl_modules, sdxl, objective):
    told = []
    sdxl_modules.unet.register_forward_pre_hook(lambda _, args, kwargs: told.append(kwargs["added_cond_kwargs"]), with_kwargs=True)
    loss = sdxl_modules(replace(STAGE, objective=objective), make_batch(64), sdxl.scheduler, seeded())
    loss.backward()
    assert loss.isfinite()
    (conditions,) = told
    assert conditions["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]] * 2  # the size of the crop
    assert not conditions["text_embeds"].any()
    untouched = {n for n, p in sdxl_modules.unet.named_parameters() if p.grad is None or not p.grad.any()}
    # Attention to tokens of zero gives zero, so of cross-attention only the last bias learns; nor does a key's bias matter anywhere.
    blind = re.compile(r"transformer_blocks\.\d\.(norm2\.|attn2\..*weight$)|to_k\.bias$")
    assert [name for name in untouched if not blind.search(name)] == []
    assert all(p.grad.isfinite().all() for p in sdxl_modules.parameters() if p.grad is not None)


def test_one_step_of_sdxl_without_captions_is_what_the_pipeline_does(sdxl, sdxl_modules):
    # One step from the very last timestep to clean latents.
    scheduler = DDIMScheduler.from_config(sdxl.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True)
    pipe = FoundIRPipeline(**{**sdxl.components, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    lq = torch.rand(1, 3, 64, 96, generator=seeded(1)) * 2 - 1
    batch = PairBatch(lq, lq, torch.zeros(1, 3, 64, 64), ["haze"])
    with torch.no_grad():
        ours = restore_in_one_step(sdxl_modules.eval(), batch, scheduler, seeded(), fidelity=0.5).clamp(-1, 1)
    theirs = pipe((lq + 1) / 2, generator=seeded(), output_type="pt", fidelity=0.5).images
    torch.testing.assert_close((ours + 1) / 2, theirs, atol=1e-4, rtol=0)


def test_scaled_latents_have_unit_variance(bank):
    modules, _ = build_modules("tiny")
    source = PairSource(bank, {"clean": 1.0}, batch_size=4, crop_size=32, context_size=32)
    with torch.no_grad():
        modules.vae.shortcut.encode.weight.mul_(3.7)

    def deviation(step: int) -> float:
        generator = source.generator(step)
        return float(modules.encode_latents(source.batch(generator).hq, generator).std())

    before = modules.vae.config.scaling_factor
    scale_latents(modules, source)
    assert modules.vae.config.scaling_factor != before
    assert sum(deviation(step) for step in range(16)) / 16 == pytest.approx(1, abs=1e-4)  # what it measured
    assert sum(deviation(step) for step in range(100, 116)) / 16 == pytest.approx(1, abs=0.08)  # and what it did not


def test_validation_scores_every_task_and_a_fresh_model_gains_nothing(bank):
    modules, scheduler = build_modules("tiny")
    reference = reference_pairs(bank, STAGE.tasks, 10, 32)
    scores = validate(modules, STAGE, scheduler, reference)
    assert set(scores) == {"low_light", "clean"}
    assert all(score.after == pytest.approx(score.before, abs=0.01) for score in scores.values())
    assert all(score.values == score.after for score in scores.values())
    assert min(scores["clean"].before) > 45 > 25 > max(scores["low_light"].before)
    assert all(score.picture.shape == (3, 32, 96) for score in scores.values())
    again = validate(modules, STAGE, scheduler, reference)
    assert {task: score.row() for task, score in again.items()} == {task: score.row() for task, score in scores.items()}
    assert modules.training
    reconstructed = validate(modules, replace(STAGE, objective="autoencoder"), scheduler, reference)["clean"]
    assert all(10 < value < 60 for value in reconstructed.after)
    sampled = validate(modules, replace(STAGE, objective="diffusion"), scheduler, reference)
    assert all(score.loss > 0 and all(0 < value < 60 for value in score.after) for score in sampled.values())
    assert all(parameter.grad is None for parameter in modules.parameters())


def test_other_metrics_are_told_in_decibels_by_their_spread(bank):
    modules, scheduler = build_modules("tiny")
    names = {"low_light": "ssim"}
    reference = reference_pairs(bank, STAGE.tasks, 10, 32)
    scores = validate(modules, STAGE, scheduler, reference, build_metrics(names, torch.device("cpu")))
    assert scores["clean"].values == scores["clean"].after
    assert all(0 < value < 1 for value in scores["low_light"].values)
    scales = decibels_per_unit(scores, names)
    assert scales["clean"] == 1
    spread = [abs(a - b) for a, b in (scores["low_light"].after, scores["low_light"].values)]
    assert scales["low_light"] == pytest.approx(spread[0] / spread[1])
    assert decibels_per_unit(scores, {"low_light": "lpips"})["low_light"] == pytest.approx(-spread[0] / spread[1])
    with pytest.raises(ValueError, match="must not hold 'removed'"):
        build_metrics({"low_light": "removed"}, torch.device("cpu"))
    with pytest.raises(ValueError, match="`reference_size` is too small for the metric 'ms_ssim', got pairs of 32x32"):
        validate(modules, STAGE, scheduler, reference, build_metrics({"clean": "ms_ssim"}, torch.device("cpu")))


def test_reference_pairs_are_the_same_for_a_task_whatever_the_others_and_none_is_taken_twice(bank):
    alone, among = reference_pairs(bank, ["haze"], 10, 32), reference_pairs(bank, ["clean", "haze"], 10, 32)
    assert torch.equal(alone["haze"].lq, among["haze"].lq)
    assert len(alone["haze"].hq) == 2  # as many as there are photographs
    assert len(reference_pairs(bank, ["haze"], 1, 32)["haze"].hq) == 1


def test_an_exported_pipeline_holds_the_weights_rounded_to_half_precision(tmp_path):
    modules, scheduler = build_modules("tiny", seed=3)
    awaken(modules)
    modules.vae.register_to_config(scaling_factor=0.7)
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    save_pipeline(modules, scheduler, tmp_path / "pipeline")
    loaded = load_pipeline(tmp_path / "pipeline")
    for part in ("vae", "lq_encoder", "unet"):
        expected = {name: value.half().float() for name, value in getattr(modules, part).state_dict().items()}
        found = getattr(loaded, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert loaded.vae.config.scaling_factor == 0.7
    assert loaded.scheduler.config.prediction_type == scheduler.config.prediction_type
    assert all(torch.equal(value, before[name]) for name, value in modules.state_dict().items())
    assert modules.training


@pytest.mark.parametrize(
    ("objective", "parts", "said"),
    [
        ("refinement", ["refiner"], "with a refiner"),
        ("toning", ["tone_curves"], "with tone curves"),
        ("lq_pixels", ["refiner", "tone_curves"], "with a refiner or tone curves"),
    ],
)
def test_an_objective_of_a_part_needs_the_part(objective, parts, said):
    modules = build_modules("tiny")[0]
    for part in parts:
        setattr(modules.lq_encoder, part, None)
    with pytest.raises(ValueError, match=f"needs an LQ encoder {said}"):
        trained_by(modules, replace(STAGE, objective=objective, crop_size=96, context_size=96))


def test_toning_needs_crops_of_whole_views():
    with pytest.raises(ValueError, match="`crop_size` 96 must be `context_size` 192"):
        replace(STAGE, objective="toning")


def test_toning_compares_thumbnails_and_a_lower_floor_tells_smaller_errors_apart():
    modules, scheduler = build_modules("tiny")
    batch = make_batch(size=64)
    batch = replace(batch, thumbnail=batch.hq + 0.02)
    stage = replace(STAGE, objective="toning", crop_size=64, context_size=64, loss="psnr")
    losses = [modules(replace(stage, loss_floor=floor), batch, scheduler, seeded()).item() for floor in (1e-4, 1e-8)]
    assert losses == pytest.approx([math.log10(2e-4) / 2, math.log10(1e-4) / 2], abs=1e-3)


def test_the_pixels_of_the_lq_encoder_are_what_it_hands_on_to_the_rest():
    modules, scheduler = build_modules("tiny")
    awaken(modules)
    batch = replace(make_batch(), region=(0.1, 0.2, 0.6, 0.7))
    stage = replace(STAGE, objective="lq_pixels")
    with torch.no_grad():
        handed_on = modules.lq_encoder(batch.lq, batch.thumbnail, batch.region).lq_pixel_values
        expected = restoration_loss(handed_on, batch.hq, stage.loss, stage.loss_floor)
        assert torch.equal(modules(stage, batch, scheduler, seeded()), expected)
    assert not torch.equal(handed_on, batch.lq)


def test_a_crop_is_toned_by_the_curves_of_its_place():
    modules, scheduler = build_modules("tiny")
    with torch.no_grad():
        modules.lq_encoder.tone_curves.conv_out.weight.normal_(0, 0.5)
    batch = make_batch()
    corner, centre = (
        restore_in_one_step(modules, replace(batch, region=region), scheduler, seeded())
        for region in ((0.0, 0.0, 0.2, 0.2), (0.4, 0.4, 0.6, 0.6))
    )
    assert (corner - centre).abs().max() > 0.01
