"""The paper's model from end to end, at shrunken size: text encoders of random weights, saved and loaded; schedulers, guidance, prompts."""

from __future__ import annotations

from pathlib import Path

import captioners
import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from PIL import Image

from foundir_hf.captioning import Captioner
from foundir_hf.cli import main
from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.hub import load_pipeline
from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.restoration.manifest import read_records
from foundir_hf.training.objectives import FoundIRModules

SCHEDULERS = {
    "Euler": (EulerDiscreteScheduler, {}),
    "ancestral Euler": (EulerAncestralDiscreteScheduler, {}),
    "DPM++": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "stochastic DPM++": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "LCM": (LCMScheduler, {}),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quiet(pipe: FoundIRPipeline) -> FoundIRPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def saved(sdxl_with_text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl") / "checkpoint"
    sdxl_with_text.save_pretrained(folder)
    return folder


def test_saved_and_loaded_it_restores_the_same_with_prompt_guidance_enlargement_and_colours(sdxl_with_text, saved, photo):
    """Two text encoders, both halves of the guidance, tiles, enlargement, colour fix."""
    options = {"prompt": "a cat", "negative_prompt": "noise", "guidance_scale": 5.0, "num_inference_steps": 2, "start_from": "lq"}
    options |= {"upscale": 1.5, "color_fix": "wavelet", "tile_size": 96, "tile_overlap": 32, "output_type": "pt"}
    loaded = quiet(load_pipeline(saved))
    assert [type(part).__name__ for part in (loaded.text_encoder, loaded.text_encoder_2)] == [
        "CLIPTextModel",
        "CLIPTextModelWithProjection",
    ]
    first, second = (pipe(photo, generator=seeded(), **options).images for pipe in (sdxl_with_text, loaded))
    assert first.shape == (1, 3, 84, 108)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    for changed in ({"prompt": "a dog"}, {"negative_prompt": "blur"}, {"guidance_scale": 3.0}, {"color_fix": "adain"}):
        assert (loaded(photo, generator=seeded(), **{**options, **changed}).images - first).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "start_from"),
    [("Euler", "noise"), ("Euler", "lq"), ("ancestral Euler", "lq"), ("DPM++", "lq"), ("stochastic DPM++", "noise"), ("LCM", "lq")],
)
def test_each_scheduler_takes_the_steps_that_its_own_loop_takes(sdxl, name, start_from):
    """As in diffusers' loops: scaled noise or noised latents, scaled input, one generator for all noise."""
    scheduler_class, options = SCHEDULERS[name]
    pipe, scheduler = (scheduler_class.from_config({**CONFIGURATIONS["sdxl"]["scheduler"], **options}) for _ in range(2))
    pipe = quiet(FoundIRPipeline(**{**sdxl.components, "scheduler": pipe}))
    photo = torch.rand(1, 3, 64, 64)
    restored = pipe(photo, num_inference_steps=3, start_from=start_from, generator=seeded(3), output_type="latent").images
    assert torch.equal(
        restored, pipe(photo, num_inference_steps=3, start_from=start_from, generator=seeded(3), output_type="latent").images
    )

    generator = seeded(3)
    noise = torch.randn(1, 4, 8, 8, generator=generator)
    scheduler.set_timesteps(3)
    with torch.no_grad():
        lq = sdxl.lq_encoder(photo * 2 - 1).lq_hidden_states
        latents = sdxl.vae.encode(photo * 2 - 1).latent_dist.mode() * sdxl.vae.config.scaling_factor
        latents = (
            noise * scheduler.init_noise_sigma if start_from == "noise" else scheduler.add_noise(latents, noise, scheduler.timesteps[:1])
        )
        for timestep in scheduler.timesteps:
            model_input = scheduler.scale_model_input(latents, timestep)
            prediction = sdxl.unet(model_input, timestep, lq_hidden_states=lq, **sdxl.unet.empty_prompt(1, 64, 64)).sample
            drawing = {} if name in ("Euler",) else {"generator": generator}
            latents = scheduler.step(prediction, timestep, latents, **drawing).prev_sample
    torch.testing.assert_close(restored, latents, atol=1e-3, rtol=1e-3)


def test_guidance_in_two_passes_is_guidance_in_one(sdxl_with_text, photo):
    batches = []
    hook = sdxl_with_text.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    options = {"prompt": "a cat", "guidance_scale": 5.0, "num_inference_steps": 2, "tile_size": 64, "tile_overlap": 32, "output_type": "pt"}
    together, apart = (
        sdxl_with_text(photo, generator=seeded(), sequential_guidance=sequential, **options).images for sequential in (False, True)
    )
    hook.remove()
    assert batches == [2] * 4 + [1] * 8  # two tiles, two steps
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_experts_that_attend_over_the_batch_need_both_halves_at_once(sdxl_with_text, photo):
    unet = FoundIRUNet2DConditionModel.from_config({**sdxl_with_text.unet.config, "moe_attend_over": "batch"})
    pipe = FoundIRPipeline(**{**sdxl_with_text.components, "unet": unet})
    with pytest.raises(ValueError, match="`sequential_guidance` must be False with this checkpoint"):
        pipe(photo, prompt="a cat", guidance_scale=5.0, sequential_guidance=True)


def test_training_and_restoring_tell_the_denoiser_the_same_of_a_picture(sdxl):
    """No caption on either side: the same text, the same sizes, of the same type."""
    seen = []
    hook = sdxl.unet.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
    picture = torch.rand(1, 3, 64, 96)
    sdxl(picture, num_inference_steps=1, generator=seeded())
    modules = FoundIRModules(sdxl.vae, sdxl.lq_encoder, sdxl.unet)
    with torch.no_grad():
        modules.predict(torch.randn(1, 4, 8, 12), torch.tensor([500]), modules.lq_encoder(picture * 2 - 1).lq_hidden_states)
    hook.remove()
    restoring, training = seen
    for read in (lambda k: k["encoder_hidden_states"], *((lambda k, n=n: k["added_cond_kwargs"][n]) for n in ("text_embeds", "time_ids"))):
        assert torch.equal(read(restoring), read(training))
        assert read(restoring).dtype == read(training).dtype


def test_with_text_sizes_are_counted_exactly_in_half_precision(sdxl, photo):
    unet = FoundIRUNet2DConditionModel.from_config(sdxl.unet.config).to(torch.bfloat16)
    pipe = quiet(FoundIRPipeline(**{**sdxl.components, "unet": unet}))
    seen = []
    hook = unet.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["added_cond_kwargs"]["time_ids"]), with_kwargs=True)
    embeds = {"prompt_embeds": torch.zeros(1, 77, 32), "pooled_prompt_embeds": torch.zeros(1, 16)}
    pipe(torch.rand(1, 3, 64, 1037), tile_size=None, tile_overlap=0, **embeds)  # bfloat16 would say 1040
    hook.remove()
    assert seen[0].tolist() == [[64, 1037, 0, 0, 64, 1056]]


def test_the_command_line_takes_prompts_and_guidance_where_there_are_text_encoders(saved, photo, tmp_path, capsys):
    photo.save(tmp_path / "photo.png")
    (tmp_path / "photo.txt").write_text("a cat")
    command = ["restore", str(tmp_path / "photo.png"), "--checkpoint", str(saved), "--steps", "2"]
    pictures = []
    for number, more in enumerate(([], ["--prompt", "a cat"], ["--prompt", "a cat", "--guidance", "4", "--negative-prompt", "b"])):
        assert main([*command, *more, "-o", str(tmp_path / f"{number}.png")]) == 0, capsys.readouterr().err
        pictures.append((np.array(Image.open(tmp_path / f"{number}.png"))).tobytes())
    assert len(set(pictures)) == 3
    for more in (
        ["--prompt", "a cat"],
        ["--guidance", "2"],
        ["--negative-prompt", "b"],
        ["--caption-model", "nowhere"],
        ["--captions", ".txt"],
    ):
        capsys.readouterr()
        assert main(["restore", str(tmp_path / "photo.png"), *more, "-o", str(tmp_path / "no.png")]) == 2
        assert capsys.readouterr().err == f"foundir: `{more[0]}` needs a checkpoint with text encoders.\n"
    assert not (tmp_path / "no.png").exists()


# --- captions -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [captioners.save_blip, captioners.save_llava])
def test_a_caption_is_words_and_the_same_again(save, tmp_path, photo):
    describe = Captioner(str(save(tmp_path / "captioner")))
    caption = describe(photo)
    assert caption == describe(photo)
    assert set(caption.split()) <= set(captioners.LETTERS)  # neither special tokens nor the question
    assert 1 < len(caption.split()) <= 60


def test_a_caption_is_of_the_photograph(tmp_path, photo):
    describe = Captioner(str(captioners.save_llava(tmp_path / "captioner")))
    assert describe(photo) != describe(Image.new("RGB", photo.size))


def test_captions_become_prompts(saved, photo, tmp_path, capsys):
    captioner = captioners.save_llava(tmp_path / "captioner")
    photo.save(tmp_path / "photo.png")
    command = ["restore", str(tmp_path / "photo.png"), "--checkpoint", str(saved), "--steps", "2"]
    assert main([*command, "--caption-model", str(captioner), "-o", str(tmp_path / "captioned.png")]) == 0, capsys.readouterr().err
    caption = Captioner(str(captioner))(photo)
    assert main([*command, "--prompt", caption, "-o", str(tmp_path / "told.png")]) == 0
    captioned, told = (np.array(Image.open(tmp_path / name)) for name in ("captioned.png", "told.png"))
    assert np.array_equal(captioned, told)
    capsys.readouterr()
    for more, says in ((["--prompt", "a"], "--captions and --caption-model each write the prompt"), ([], "is no image-to-text model")):
        assert main([*command, *more, "--caption-model", str(saved), "-o", str(tmp_path / "no.png")]) == 2
        assert says in capsys.readouterr().err


def test_captions_that_are_written_down_are_each_photograph_s_prompt_and_setting(saved, photo, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        photo.save(tmp_path / "photos" / f"{name}.png")
    table = tmp_path / "photos" / "metadata.jsonl"
    table.write_text('{"file_name": "a.png", "text": "a cat"}\n{"file_name": "b.png", "text": "a dog"}\n')
    command = ["restore", "--checkpoint", str(saved), "--steps", "2"]
    batch = [*command, str(tmp_path / "photos"), "-o", str(tmp_path / "out"), "--captions"]
    assert main([*batch, str(table)]) == 0, capsys.readouterr().err
    records = read_records(tmp_path / "out")
    assert {name: record["settings"]["prompt"] for name, record in records.items()} == {"a.png": "a cat", "b.png": "a dog"}
    written = {name: (tmp_path / "out" / f"{name}.png").read_bytes() for name in ("a", "b")}
    for name, caption in (("a", "a cat"), ("b", "a dog")):
        told = tmp_path / f"{name}.png"
        assert main([*command, str(tmp_path / "photos" / f"{name}.png"), "--prompt", caption, "-o", str(told)]) == 0
        assert told.read_bytes() == written[name]  # what was done, in XMP, too
    # The same captions in other files are the same settings; another caption is another setting of its photograph.
    for name, caption in (("a", "a cat"), ("b", "a dog")):
        (tmp_path / "photos" / f"{name}.txt").write_text(caption)
    capsys.readouterr()
    assert main([*batch, ".txt"]) == 0
    assert "0 of 2 restored, 2 before" in capsys.readouterr().err
    (tmp_path / "photos" / "b.txt").write_text("a bird")
    assert main([*batch, ".txt"]) == 2
    assert capsys.readouterr().err == f"foundir: {tmp_path}/out/b.png: exists, made with other settings; pass --overwrite to replace it.\n"
    assert main([*batch, ".txt", "--overwrite"]) == 0
    assert "1 of 2 restored, 1 before" in capsys.readouterr().err
    assert (tmp_path / "out" / "b.png").read_bytes() != written["b"]
    (tmp_path / "photos" / "b.txt").unlink()
    assert main([*batch, ".txt"]) == 2
    assert f"{tmp_path}/photos/b.txt, for {tmp_path}/photos/b.png, cannot be read" in capsys.readouterr().err
