from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from weights import awaken

from foundir_hf.data.memory import InMemoryPhotographs
from foundir_hf.data.pairs import PairBatch, reference_pairs
from foundir_hf.hub import load_pipeline
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules
from foundir_hf.training.config import StageConfig
from foundir_hf.training.export import save_pipeline
from foundir_hf.training.objectives import FoundIRModules, restoration_loss, restore
from foundir_hf.training.validation import build_metrics, metric_scales, validate

STAGE = StageConfig("stage", "restoration", 10, {"unet.": 1.0}, tasks={"low_light": 1.0, "clean": 1.0})


@pytest.fixture
def bank(tmp_path, photo) -> InMemoryPhotographs:
    photo.save(tmp_path / "a.png")
    photo.rotate(180).save(tmp_path / "b.png")
    return InMemoryPhotographs([tmp_path / "a.png", tmp_path / "b.png"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(size: int = 32) -> PairBatch:
    hq = torch.rand(2, 3, size, size, generator=seeded(1)) * 2 - 1
    return PairBatch(hq, hq * 0.5 - 0.2, ["haze", "haze"])


def trained_by(modules: FoundIRModules, stage: StageConfig, seed: int = 0) -> tuple[float, set[str]]:
    """The loss, and the names of the components of which every parameter gets a gradient other than zero."""
    modules.zero_grad(set_to_none=True)
    loss = modules(stage, make_batch(), build_modules("nano")[1], seeded(seed))
    assert loss.shape == ()
    loss.backward()
    parts: dict[str, set[bool]] = {}
    for name, parameter in modules.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
        if not re.search(r"to_k\.bias$", name):  # matters nowhere
            parts.setdefault(name.split(".")[0], set()).add(parameter.grad is not None and bool(parameter.grad.any()))
    return loss.item(), {part for part, moved in parts.items() if moved == {True}}


@pytest.fixture
def nano() -> FoundIRModules:
    modules = awaken(build_modules("nano")[0], std=0.1)
    with torch.no_grad():
        modules.tone.gate.weight.fill_(0.01)  # half open
        modules.tone.gate.bias.fill_(0.0)
    return modules


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, {"lq_encoder", "unet", "tone"}),
        ({"tone": "off"}, {"lq_encoder", "unet"}),
        ({"num_inference_steps": 0, "tone": "off"}, set()),  # all of the encoder but its projections
        ({"num_inference_steps": 0}, {"tone"}),
        ({"objective": "diffusion"}, {"lq_encoder", "unet"}),
    ],
)
def test_a_stage_is_finite_and_trains_the_parts_it_should(nano, changes, parts):
    loss, trained = trained_by(nano, replace(STAGE, **changes))
    assert math.isfinite(loss)
    assert trained == parts
    idle = {name for name, parameter in nano.lq_encoder.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    if replace(STAGE, **changes).num_inference_steps == 0:
        assert {name.split(".")[0] for name in idle} == {"lq_proj", "estimate_proj"}


@pytest.mark.parametrize("learning", [True, False])
def test_what_has_a_gate_learns_without_it_and_the_gate_by_psnr(nano, learning):
    nano.requires_grad_(False)
    nano.tone.requires_grad_(learning)
    stage, batch, scheduler = replace(STAGE, loss="rmse"), make_batch(), build_modules("nano")[1]
    loss = nano(stage, batch, scheduler, seeded())
    with torch.no_grad():
        restored = restore(nano, stage, batch.lq, scheduler, seeded())
        ungated = nano.tone.toned(restored.ungated, "always") if learning else restored.ungated
        gated = nano.tone.toned(restored.picture, "auto")
    assert not torch.equal(ungated, gated)
    expected = restoration_loss(ungated, batch.hq, "rmse", stage.loss_floor) + restoration_loss(gated, batch.hq, "psnr", stage.gate_floor)
    torch.testing.assert_close(loss, expected)


def test_curves_learn_where_tones_are_wrong_and_only_their_gate_elsewhere(nano):
    nano.requires_grad_(False)
    nano.tone.requires_grad_(True)
    batch, scheduler = make_batch(), build_modules("nano")[1]
    fine = replace(batch, lq=batch.hq)
    nano(replace(STAGE, num_inference_steps=0), fine, scheduler, seeded()).backward()
    assert nano.tone.conv_out.weight.grad is None
    assert nano.tone.gate.bias.grad.any()
    nano.zero_grad()
    nano(replace(STAGE, num_inference_steps=0), replace(batch, lq=batch.hq * 0.5 - 0.5), scheduler, seeded()).backward()
    assert nano.tone.conv_out.weight.grad.any()


def test_of_the_picture_the_gate_alone_learns(nano):
    batch, scheduler = make_batch(), build_modules("nano")[1]
    with torch.no_grad():
        nano.unet.conv_out.bias[-1] = 0.5  # half open
    restore(nano, replace(STAGE, tone="off"), batch.lq, scheduler, seeded()).picture.square().mean().backward()
    gradient = nano.unet.conv_out.weight.grad.abs().sum(dim=(1, 2, 3))
    assert not gradient[:-1].any()
    assert gradient[-1] > 0


def test_the_restoration_loss_of_a_known_error_is_its_amplitude_or_its_decibels_or_both():
    target = torch.zeros(3, 3, 8, 8)
    assert restoration_loss(target, target, "rmse").item() == pytest.approx(0.1)  # ten times the floor, 40 dB
    assert restoration_loss(target, target, "psnr").item() == pytest.approx(-40 / 20)
    errors = (0.02, 0.2, 2.0)  # twice as large in [-1, 1] as in [0, 1]
    prediction = target - torch.tensor(errors).view(3, 1, 1, 1)
    amplitudes = [math.sqrt((e / 2) ** 2 + 1e-4) for e in errors]  # image by image
    assert restoration_loss(prediction, target, "rmse").item() == pytest.approx(10 * sum(amplitudes) / 3, rel=1e-5)
    assert restoration_loss(prediction, target, "psnr").item() == pytest.approx(sum(map(math.log10, amplitudes)) / 3, rel=1e-5)
    both = [restoration_loss(prediction, target, kind).item() for kind in ("psnr", "rmse")]
    assert restoration_loss(prediction, target, "balanced").item() == pytest.approx(both[0] + both[1], rel=1e-5)


def test_a_fresh_model_returns_the_degraded_image():
    modules, scheduler = build_modules("tiny")
    batch = make_batch()
    picture, estimate, _ = restore(modules, STAGE, batch.lq, scheduler, seeded())
    assert torch.equal(estimate, batch.lq)
    assert torch.allclose(picture, batch.lq, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 1])
def test_restoring_is_what_the_pipeline_does(pipeline, steps):
    modules = FoundIRModules(pipeline.vae, pipeline.lq_encoder, pipeline.unet, pipeline.tone)
    lq = torch.rand(1, 3, 32, 64, generator=seeded(1)) * 2 - 1
    with torch.no_grad():
        restored = restore(modules, replace(STAGE, num_inference_steps=steps), lq, pipeline.scheduler, seeded())
        ours = modules.tone.toned(restored.picture).clamp(-1, 1)
    theirs = pipeline((lq + 1) / 2, generator=seeded(), num_inference_steps=steps, output_type="pt").images
    assert (ours - lq).abs().max() > 0.05
    torch.testing.assert_close((ours + 1) / 2, theirs, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("tone", ["off", "auto"])
def test_a_share_of_the_images_is_denoised_from_the_noisy_latents_of_the_truth(tone):
    """A denoiser that returned what it is given would, under next to no noise, restore the truth as far as the codec holds it."""
    modules, scheduler = build_modules("nano")
    modules.tone.whole_out.bias[3:6] = 0.15  # brighter, before which the denoiser has to give a darker picture
    scheduler = DDIMScheduler.from_config({**scheduler.config, "beta_start": 1e-8, "beta_end": 2e-8, "rescale_betas_zero_snr": False})
    seen = []

    def echo(unet, args, output):
        seen.append(args[1])
        output.sample = output.ungated = args[0] * 1.0
        output.gate = torch.ones_like(output.sample[:, :1])
        return output

    modules.unet.register_forward_hook(echo)
    batch = make_batch(64)
    hq, stage = batch.hq * 0.3 + 0.3, replace(STAGE, tone=tone, diffusion_share=1.0)
    picture, estimate, _ = restore(modules, stage, batch.lq, scheduler, seeded(), truth=hq)
    assert seen[0].max() < 999
    if tone == "auto":
        picture = modules.tone.apply_curves(picture, modules.tone(modules.tone.thumbnail(estimate)))
    held, expected = (modules.vae.encode(images).latent_dist.mode() for images in (picture, hq))
    assert (held - expected).abs().max() < 0.1
    restore(modules, replace(stage, diffusion_share=0.0), batch.lq, scheduler, seeded(), truth=hq)
    assert seen[1].tolist() == [999, 999]


def test_the_noise_offset_shifts_whole_channels_of_the_noise(monkeypatch):
    modules, scheduler = build_modules("nano")
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


@pytest.mark.parametrize("objective", ["diffusion", "restoration"])
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
    with torch.no_grad():
        ours, *_ = restore(sdxl_modules.eval(), STAGE, lq, scheduler, seeded())
    theirs = pipe((lq + 1) / 2, generator=seeded(), output_type="pt").images
    torch.testing.assert_close((ours.clamp(-1, 1) + 1) / 2, theirs, atol=1e-4, rtol=0)


def test_validation_scores_every_task_and_a_fresh_model_gains_nothing(bank):
    modules, scheduler = build_modules("nano")
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
    sampled = validate(modules, replace(STAGE, objective="diffusion"), scheduler, reference)
    assert all(score.loss >= 0 and all(0 < value < 81 for value in score.after) for score in sampled.values())
    assert all(parameter.grad is None for parameter in modules.parameters())


def test_other_metrics_are_told_in_decibels_by_their_spread(bank):
    modules, scheduler = build_modules("nano")
    names = {"low_light": "ssim"}
    reference = reference_pairs(bank, STAGE.tasks, 10, 32)
    scores = validate(modules, STAGE, scheduler, reference, build_metrics(names, torch.device("cpu")))
    assert scores["clean"].values == scores["clean"].after
    assert all(0 < value < 1 for value in scores["low_light"].values)
    scales = metric_scales(scores, names)
    assert scales["clean"] == 1
    spread = [abs(a - b) for a, b in (scores["low_light"].after, scores["low_light"].values)]
    assert scales["low_light"] == pytest.approx(spread[0] / spread[1])
    assert metric_scales(scores, {"low_light": "lpips"})["low_light"] == pytest.approx(-spread[0] / spread[1])
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
    modules, scheduler = build_modules("nano", seed=3)
    awaken(modules)
    before = {name: value.clone() for name, value in modules.state_dict().items()}
    save_pipeline(modules, scheduler, tmp_path / "pipeline")
    loaded = load_pipeline(tmp_path / "pipeline")
    for part, module in modules.components().items():
        expected = {name: value.half().float() for name, value in module.state_dict().items()}
        found = getattr(loaded, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert loaded.scheduler.config.prediction_type == scheduler.config.prediction_type
    assert all(torch.equal(value, before[name]) for name, value in modules.state_dict().items())
    assert modules.training


@pytest.mark.parametrize(("name", "value"), [("num_inference_steps", 2), ("tone", "always")])
def test_a_stage_takes_no_other_way_through_the_pipeline(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be one of"):
        replace(STAGE, **{name: value})
