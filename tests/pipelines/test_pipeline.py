"""What a user of `FoundIRPipeline` may rely on."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler
from PIL import Image
from weights import awaken

from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline, enlarge
from foundir_hf.training.build import build_modules


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


# --- sizes, types, batches ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (15, 16), (17, 40), (72, 56)])
@pytest.mark.parametrize("upscale", [1, 1.5, 2])
def test_any_size_comes_back_exactly_as_large_as_asked(pipeline, photo, size, upscale):
    restored = pipeline(photo.resize(size), upscale=upscale, generator=seeded()).images[0]
    assert restored.size == (round(size[0] * upscale), round(size[1] * upscale))
    assert restored.mode == "RGB"


def test_images_arrays_and_tensors_give_the_same(pipeline, photo):
    array, tensor = np.array(photo), as_tensor(photo)
    expected = np.array(pipeline(photo, generator=seeded()).images[0]).astype(int)
    for image in (array, array.astype(np.float32) / 255, array[None], tensor, tensor[None]):
        restored = np.array(pipeline(image, generator=seeded()).images[0]).astype(int)
        assert np.abs(restored - expected).max() <= 1  # dividing by 255 rounds differently in numpy and in torch


def test_output_types_hold_the_same_picture(pipeline, photo):
    pil = pipeline(photo, generator=seeded()).images[0]
    numpy_images = pipeline(photo, generator=seeded(), output_type="np").images
    tensor = pipeline(photo, generator=seeded(), output_type="pt").images
    assert numpy_images.shape == (1, 56, 72, 3)
    assert tensor.shape == (1, 3, 56, 72)
    assert np.array_equal(numpy_images[0], tensor[0].permute(1, 2, 0).numpy())
    assert np.array_equal(np.array(pil), (tensor[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert tensor.min() >= 0
    assert tensor.max() <= 1
    assert isinstance(pipeline(photo, generator=seeded(), return_dict=False), tuple)


def test_a_list_of_different_sizes_gives_what_each_gives_alone(pipeline, photo):
    images = [photo, photo.rotate(90, expand=True), photo.resize((33, 21))]
    together = pipeline(images, generator=seeded(), output_type="pt").images
    for image, restored in zip(images, together, strict=True):
        alone = pipeline(image, generator=seeded(), output_type="pt").images[0]
        assert (alone - restored).abs().max() <= 1 / 255


def test_a_batch_gives_what_its_images_give_alone(pipeline, photo):
    batch = torch.stack([as_tensor(photo), 1 - as_tensor(photo)])
    together = pipeline(batch, generator=seeded(), output_type="pt").images
    assert together.shape == batch.shape
    for index in range(2):
        alone = pipeline(batch[index], generator=seeded(), output_type="pt").images[0]
        assert (alone - together[index]).abs().max() <= 1 / 255


# --- seeds and strength ---------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(pipeline, photo):
    first, second, other = (pipeline(photo, generator=seeded(s), num_inference_steps=2).images[0] for s in (3, 3, 4))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


def test_one_generator_per_image_is_taken_in_order(pipeline, photo):
    options = {"num_inference_steps": 2, "output_type": "pt"}
    together = pipeline([photo, photo], generator=[seeded(1), seeded(2)], **options).images
    assert torch.equal(together[1:], pipeline(photo, generator=seeded(2), **options).images)
    with pytest.raises(ValueError, match="generator"):
        pipeline([photo, photo], generator=[seeded(1)])


def test_strength_zero_returns_the_input_bit_for_bit(pipeline, photo):
    assert np.array_equal(np.array(pipeline(photo, strength=0).images[0]), np.array(photo))
    tensor = torch.rand(1, 3, 20, 30)
    assert torch.equal(pipeline(tensor, strength=0, output_type="pt").images, tensor)


def test_strength_blends_between_input_and_restoration(pipeline, photo):
    full = pipeline(photo, generator=seeded(), output_type="pt").images
    half = pipeline(photo, generator=seeded(), output_type="pt", strength=0.5).images
    torch.testing.assert_close(half, (full + as_tensor(photo)[None]) / 2)


def test_the_input_is_never_written_to(pipeline):
    tensor = torch.rand(1, 3, 20, 30)
    before = tensor.clone()
    pipeline(tensor, strength=0.5, generator=seeded())
    assert torch.equal(tensor, before)


def test_a_constant_image_is_enlarged_to_a_constant():
    assert torch.equal(enlarge(torch.full((1, 3, 5, 7), 0.5), 2.0), torch.full((1, 3, 10, 14), 0.5))


# --- estimate, fidelity, tone ---------------------------------------------------------------------------------------------------------


def test_a_denoiser_without_output_leaves_the_estimate_and_so_do_no_steps(pipeline, photo):
    """What the model computes is encoder, then denoiser, then curves: nothing else reaches the picture."""
    estimate = pipeline(photo, num_inference_steps=0, output_type="pt").images
    whole = pipeline(photo, generator=seeded(), output_type="pt").images
    assert (whole - estimate).abs().max() > 0.01
    silent = copy.deepcopy(pipeline.unet)
    torch.nn.init.zeros_(silent.conv_out.weight)
    torch.nn.init.zeros_(silent.conv_out.bias)
    pipe = FoundIRPipeline(**{**pipeline.components, "unet": silent})
    pipe.set_progress_bar_config(disable=True)
    for steps in (1, 3):
        same = pipe(photo, generator=seeded(), num_inference_steps=steps, output_type="pt").images
        torch.testing.assert_close(same, estimate, atol=1e-5, rtol=0)
    with torch.no_grad():
        pixels = as_tensor(photo)[None, :, :32, :64] * 2 - 1
        expected = pipeline.lq_encoder(pixels).estimate
        expected = pipeline.tone.apply_curves(expected, pipeline.tone(pipeline.tone.thumbnail(expected)))
    alone = pipeline((pixels + 1) / 2, num_inference_steps=0, output_type="pt").images
    torch.testing.assert_close(alone, (expected / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


def test_fidelity_gives_back_what_the_autoencoder_loses(pipeline, photo):
    none, half, whole, default = (
        pipeline(photo, generator=seeded(), tone="off", output_type="pt", fidelity=f).images for f in (0.0, 0.5, 1.0, None)
    )
    assert torch.equal(whole, default)
    assert (whole - none).abs().mean() > 0.01
    inside = (none > 0.02) & (none < 0.98) & (whole > 0.02) & (whole < 0.98)
    torch.testing.assert_close(half[inside], (none + whole)[inside] / 2, atol=1e-4, rtol=0)


def test_at_fidelity_zero_the_picture_is_the_plain_decoder_s_of_the_paper_s_model(sdxl, photo):
    seen = []
    image = photo.resize((64, 64))
    options = {"generator": seeded(), "output_type": "pt", "callback_on_step_end": lambda *args: seen.append(args[3]["latents"])}
    restored = sdxl(image, **options).images
    with torch.no_grad():
        plain = sdxl.vae.decode(seen[-1] / sdxl.vae.config.scaling_factor).sample
    torch.testing.assert_close(restored, (plain / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


def test_no_steps_need_an_estimate_and_always_needs_curves(sdxl, photo):
    with pytest.raises(ValueError, match=r"`num_inference_steps` must be a whole number in \[1, 1000\], got 0"):
        sdxl(photo, num_inference_steps=0)
    with pytest.raises(ValueError, match=r"`tone` must be one of .*, got 'always'"):
        sdxl(photo, tone="always")


def test_tone_is_off_or_as_sure_as_the_gate_or_always(pipeline, photo):
    tone = copy.deepcopy(pipeline.tone)
    with torch.no_grad():
        for layer in (tone.conv_out, tone.whole_out, tone.gate):
            torch.nn.init.zeros_(layer.weight)
        tone.conv_out.bias.zero_()
        tone.whole_out.bias.zero_()
        tone.whole_out.bias[3:6] = 0.1
    pipe = FoundIRPipeline(**{**pipeline.components, "tone": tone})
    pipe.set_progress_bar_config(disable=True)

    def restored(mode: str) -> torch.Tensor:
        return pipe(photo.point(lambda value: 40 + value // 2), generator=seeded(), output_type="pt", tone=mode).images

    off = restored("off")
    inside = (off > 0.02) & (off < 0.85)  # where nothing is cut off
    assert inside.float().mean() > 0.5
    for bias, share in ((-9.0, 0.0), (0.0, 0.5), (9.0, 1.0)):
        tone.gate.bias.data.fill_(bias)
        for mode, expected in (("auto", share * 0.1), ("always", 0.1)):
            assert (restored(mode) - off)[inside].tolist() == pytest.approx([expected] * int(inside.sum()), abs=2e-3)
    tone.gate.bias.data.fill_(-9.0)
    assert torch.equal(restored("auto"), off)  # a shut gate changes no bit


# --- tiles ----------------------------------------------------------------------------------------------------------------------------

# Tiles see less around them than the whole image: convolutions reach over their borders, channel attention averages over the tile, and the
# middle of the denoiser attends to all of it. With random weights on every path, which is harsher than trained ones, the worst and the mean
# pixel stay within these bounds (measured 0.0132 and 0.0011).
TILE_BOUND_WORST, TILE_BOUND_MEAN = 0.02, 0.0015


@pytest.mark.parametrize("kind", ["random", "constant"])
def test_tiles_give_the_full_frame_within_a_bound(pipeline, kind):
    image = torch.rand(1, 3, 200, 280) if kind == "random" else torch.full((1, 3, 200, 280), 0.4)
    full = pipeline(image, generator=seeded(), output_type="pt", tile_size=None, tile_overlap=0).images
    tiled = pipeline(image, generator=seeded(), output_type="pt", tile_size=192, tile_overlap=96).images
    assert (full - tiled).abs().max() < TILE_BOUND_WORST
    assert (full - tiled).abs().mean() < TILE_BOUND_MEAN
    assert not torch.equal(full, image)


def test_an_image_that_fits_one_tile_is_not_tiled(pipeline, photo):
    full = pipeline(photo, generator=seeded(), tile_size=None, tile_overlap=0).images[0]
    assert pipeline(photo, generator=seeded(), tile_size=128, tile_overlap=32).images[0].tobytes() == full.tobytes()


def test_several_steps_from_the_photograph_s_latents_work_in_tiles(pipeline):
    image = torch.rand(1, 3, 150, 130)
    options = {"num_inference_steps": 3, "start_from": "lq", "output_type": "pt"}
    full = pipeline(image, generator=seeded(), tile_size=None, tile_overlap=0, **options).images
    tiled = pipeline(image, generator=seeded(), tile_size=96, tile_overlap=32, **options).images
    # 0.0043 on average and 0.047 at worst; noise of another seed is 0.018 and 0.147 away, one step in place of three 0.0066.
    assert (full - tiled).abs().mean() < 0.006
    assert (full - tiled).abs().max() < 0.07


def test_starting_from_the_photograph_matters_unless_the_schedule_ends_in_pure_noise(pipeline, sdxl, embeds, photo):
    for pipe, conditions, matters in ((sdxl, embeds, True), (pipeline, {}, False)):
        options = {"num_inference_steps": 2, "output_type": "pt", **conditions}
        noise, lq = (pipe(photo, generator=seeded(), start_from=start, **options).images for start in ("noise", "lq"))
        assert torch.equal(noise, lq) != matters


# --- lifecycle ------------------------------------------------------------------------------------------------------------------------


def test_progress_counts_every_tile_of_every_stage(pipeline, photo, monkeypatch):
    totals, updates = [], []
    original = FoundIRPipeline.progress_bar

    def counting(self, iterable=None, total=None):
        bar = original(self, iterable, total)
        totals.append(total)
        update = bar.update
        bar.update = lambda n=1: (updates.append(n), update(n))
        return bar

    monkeypatch.setattr(FoundIRPipeline, "progress_bar", counting)
    pipeline(photo.resize((100, 60)), generator=seeded(), tile_size=64, tile_overlap=32, num_inference_steps=2)
    assert totals == [3 * (2 + 2)]  # three tiles; encode, two steps, decode
    assert sum(updates) == totals[0]
    updates.clear()
    pipeline(photo.resize((100, 60)), tile_size=64, tile_overlap=32, num_inference_steps=0)
    assert totals[1] == sum(updates) == 3


def test_the_callback_sees_every_step_and_may_change_the_latents(pipeline, photo):
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append((step, int(timestep), tuple(tensors["latents"].shape)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    options = {"generator": seeded(), "num_inference_steps": 3, "output_type": "pt"}
    changed = pipeline(photo, callback_on_step_end=look, **options).images
    assert [s for s, _, _ in seen] == [0, 1, 2]
    assert [t for _, t, _ in seen] == sorted((t for _, t, _ in seen), reverse=True)
    assert seen[0][1] == 999
    assert {shape for _, _, shape in seen} == {(1, 48, 8, 12)}
    estimate = pipeline(photo, num_inference_steps=0, output_type="pt").images  # no residual is left
    torch.testing.assert_close(changed, estimate, atol=1e-5, rtol=0)


def test_components_move_and_pipelines_share_them(pipeline, photo):
    expected = pipeline(photo, generator=seeded()).images[0].tobytes()
    assert FoundIRPipeline(**pipeline.components).to("cpu", torch.float32)(photo, generator=seeded()).images[0].tobytes() == expected
    assert pipeline.model_cpu_offload_seq.split("->")[-4:] == ["lq_encoder", "unet", "vae", "tone"]
    with pytest.raises(RuntimeError, match="accelerator"):
        pipeline.enable_model_cpu_offload()  # diffusers' own refusal where there is none


@pytest.mark.parametrize("scheduler_class", [DDIMScheduler, EulerDiscreteScheduler])
def test_other_schedulers_drop_in(pipeline, photo, scheduler_class):
    scheduler = scheduler_class.from_config(pipeline.scheduler.config)
    pipe = FoundIRPipeline(**{**pipeline.components, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    assert pipe(photo, generator=seeded(), num_inference_steps=4, output_type="pt").images.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upscale", 0.5),
        ("upscale", math.nan),
        ("upscale", 9),
        ("fidelity", -0.1),
        ("strength", 1.1),
        ("strength", "much"),
        ("guidance_scale", math.nan),
        ("guidance_scale", 2.0),
        ("num_inference_steps", -1),
        ("tone", "never"),
        ("num_inference_steps", 1.5),
        ("num_inference_steps", 1001),
        ("tile_size", 100),
        ("tile_size", 0),
        ("tile_overlap", 1024),
        ("tile_overlap", -32),
        ("tile_overlap", 10),
        ("start_from", "middle"),
        ("color_fix", "none"),
        ("output_type", "picture"),
        ("prompt", "a cat"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(pipeline, photo, name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        pipeline(photo, **{name: value})


@pytest.mark.parametrize(
    "image",
    [
        [],
        "photo.jpg",
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 8, 8),
        torch.full((3, 8, 8), math.nan),
        torch.full((3, 8, 8), 1.5),
        torch.zeros(3, 0, 8),
        np.zeros((8, 8), dtype=np.uint8),
        np.zeros((3, 8, 8), dtype=np.uint8),
        [torch.zeros(2, 3, 8, 8)],
    ],
)
def test_what_is_no_image_is_refused_by_name(pipeline, image):
    with pytest.raises(ValueError, match="`image"):
        pipeline(image)


# --- text and guidance, on a shrunken SDXL --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embeds() -> dict[str, torch.Tensor]:
    draw = seeded(5)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    return {n: torch.randn(*((1, 16) if "pooled" in n else (1, 7, 32)), generator=draw) for n in names}


def test_without_guidance_a_step_takes_one_forward_and_with_it_two(sdxl, embeds, photo):
    batches = []
    hook = sdxl.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    one = sdxl(photo, generator=seeded(), num_inference_steps=2, guidance_scale=1.0, **embeds)
    two = sdxl(photo, generator=seeded(), num_inference_steps=2, guidance_scale=5.0, **embeds)
    hook.remove()
    assert batches == [1, 1, 2, 2]
    assert one.images[0].tobytes() != two.images[0].tobytes()


def test_guidance_by_the_same_embeddings_changes_nothing(sdxl, embeds, photo):
    same = {
        **embeds,
        "negative_prompt_embeds": embeds["prompt_embeds"],
        "negative_pooled_prompt_embeds": embeds["pooled_prompt_embeds"],
    }
    options = {"num_inference_steps": 2, "output_type": "pt", **same}
    plain, guided = (sdxl(photo, generator=seeded(), guidance_scale=scale, **options).images for scale in (1.0, 7.5))
    torch.testing.assert_close(plain, guided, atol=1e-3, rtol=0)


def test_micro_conditioning_counts_pixels(sdxl, embeds):
    seen = []
    hook = sdxl.unet.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["added_cond_kwargs"]["time_ids"].tolist()), with_kwargs=True
    )
    sdxl(torch.rand(3, 64, 96), generator=seeded(), tile_size=64, tile_overlap=32, **embeds)
    hook.remove()
    assert seen == [[[64.0, 96.0, 0.0, 0.0, 64.0, 64.0]], [[64.0, 96.0, 0.0, 32.0, 64.0, 64.0]]]


def test_without_text_the_denoiser_is_told_of_an_empty_prompt_tile_by_tile(sdxl):
    seen = []
    hook = sdxl.unet.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    restored = sdxl(torch.rand(3, 64, 96), generator=seeded(), tile_size=64, tile_overlap=32, output_type="pt").images
    hook.remove()
    assert restored.isfinite().all()
    assert [kwargs["added_cond_kwargs"]["time_ids"].tolist() for kwargs in seen] == [[[64, 64, 0, 0, 64, 64]]] * 2
    assert not any(kwargs["encoder_hidden_states"].any() for kwargs in seen)


def test_an_image_without_text_is_restored_as_under_embeddings_of_zero(sdxl):
    image = torch.rand(3, 64, 96)
    zeros = {"prompt_embeds": torch.zeros(1, 77, 32), "pooled_prompt_embeds": torch.zeros(1, 16)}
    options = {"num_inference_steps": 2, "output_type": "pt", "fidelity": 0.5}
    without, with_zeros = (sdxl(image, generator=seeded(), **options, **text).images for text in ({}, zeros))
    assert torch.equal(without, with_zeros)


def test_guidance_without_any_text_is_refused(sdxl, photo):
    with pytest.raises(ValueError, match="`guidance_scale`"):
        sdxl(photo, guidance_scale=5.0)


def test_guidance_without_the_negative_embeddings_is_refused(sdxl, embeds, photo):
    half = {k: v for k, v in embeds.items() if "negative" not in k}
    with pytest.raises(ValueError, match="negative_prompt_embeds"):
        sdxl(photo, guidance_scale=5.0, **half)


def test_prompts_go_through_both_text_encoders(sdxl_with_text, photo):
    cat, dog, guided = (
        sdxl_with_text(photo, prompt=prompt, generator=seeded(), guidance_scale=scale, fidelity=0.0, output_type="np").images.tobytes()
        for prompt, scale in (("a cat", 1.0), ("a dog", 1.0), ("a cat", 5.0))
    )
    assert len({cat, dog, guided}) == 3


@pytest.mark.parametrize(
    ("scheduler_class", "options"),
    [
        (EulerDiscreteScheduler, {}),
        (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
        (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
        (LCMScheduler, {}),
    ],
)
def test_a_scheduler_of_another_kind_ends_after_one_step_where_ours_does_and_takes_several(scheduler_class, options):
    """The small sizes predict the clean latents from pure noise: whoever solves it, one step is that prediction."""
    modules, scheduler = build_modules("nano")
    ours = FoundIRPipeline(**awaken(modules.eval()).components(), scheduler=scheduler)
    theirs = FoundIRPipeline(**{**ours.components, "scheduler": scheduler_class.from_config({**scheduler.config, **options})})
    image = torch.rand(1, 3, 96, 96)

    def denoised(pipe: FoundIRPipeline, steps: int) -> torch.Tensor:
        pipe.set_progress_bar_config(disable=True)
        return pipe(image, num_inference_steps=steps, generator=torch.Generator().manual_seed(0), output_type="latent").images

    torch.testing.assert_close(denoised(theirs, 1), denoised(ours, 1), atol=1e-3, rtol=1e-3)
    several = denoised(theirs, 3)
    assert several.isfinite().all()
    assert (several - denoised(theirs, 1)).abs().max() > 1e-3
    assert torch.equal(several, denoised(theirs, 3))
