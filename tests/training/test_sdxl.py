"""The start from plain SDXL: same outputs, safe files, clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.hub import load_pipeline
from foundir_hf.training.build import build_modules, load_modules
from foundir_hf.training.export import save_pipeline


def test_the_start_computes_what_sdxl_does(plain_sdxl, folder):
    modules, _ = load_modules(str(folder))
    assert modules.training
    modules.eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    added = {"text_embeds": torch.randn(2, 16), "time_ids": torch.full((2, 6), 64.0)}
    with torch.no_grad():
        lq = modules.lq_encoder(images)
        ours = modules.unet(latents, 500, text, lq_hidden_states=lq.lq_hidden_states, added_cond_kwargs=added).sample
        assert torch.equal(ours, plain_sdxl.unet(latents, 500, text, added_cond_kwargs=added).sample)
        encoded = plain_sdxl.vae.encode(images).latent_dist.mode()
        assert torch.equal(modules.vae.encode(images).latent_dist.mode(), encoded)
        assert torch.equal(modules.vae.decode(encoded).sample, plain_sdxl.vae.decode(encoded).sample)
    assert modules.tone is None
    assert not modules.unet.config.latent_residual


def test_the_schedule_is_sdxl_s_and_clips_no_latents(plain_sdxl, folder):
    _, scheduler = load_modules(str(folder))
    torch.testing.assert_close(scheduler.alphas_cumprod, plain_sdxl.scheduler.alphas_cumprod)
    assert {name: scheduler.config[name] for name in CONFIGURATIONS["sdxl"]["scheduler"]} == CONFIGURATIONS["sdxl"]["scheduler"]


def test_what_is_fresh_follows_from_the_seed(folder):
    first, again, other = (load_modules(str(folder), seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    changed = {name.split(".")[1] for name, value in first.items() if not torch.equal(value, other[name])}
    assert changed == {"conv_in"}


def test_another_routing_starts_from_the_same_weights(folder):
    soft, hard = (load_modules(str(folder), **config)[0] for config in ({}, {"moe_routing": "hard"}))
    assert (soft.unet.config.moe_routing, hard.unet.config.moe_routing) == ("soft", "hard")
    hard_weights = hard.state_dict()
    assert all(torch.equal(value, hard_weights[name]) for name, value in soft.state_dict().items())
    assert build_modules("tiny", moe_routing="none")[0].unet.config.moe_routing == "none"


def test_a_checkpoint_of_ours_keeps_its_own_configuration(checkpoint):
    with pytest.raises(ValueError, match="`unet_config`"):
        load_modules(str(checkpoint), moe_routing="hard")


def test_the_fp16_variant_serves_in_single_precision_where_it_is_alone(plain_sdxl, folder, tmp_path):
    for name in ("vae", "unet"):
        shutil.rmtree(folder / name)
        part = getattr(plain_sdxl, name)
        type(part).from_pretrained(_saved(part, tmp_path / name), torch_dtype=torch.float16).save_pretrained(folder / name, variant="fp16")
    modules, _ = load_modules(str(folder))
    assert {parameter.dtype for parameter in modules.parameters()} == {torch.float32}
    weight = plain_sdxl.unet.conv_out.weight
    assert torch.equal(modules.unet.conv_out.weight, weight.half().float())


def _saved(part: torch.nn.Module, folder: Path) -> Path:
    part.save_pretrained(folder)
    return folder


def test_a_start_is_exported_as_a_pipeline_of_ours(folder, photo, tmp_path):
    save_pipeline(*load_modules(str(folder)), tmp_path / "ours", torch.float32)
    pipe = load_pipeline(tmp_path / "ours")
    pipe.set_progress_bar_config(disable=True)
    assert pipe(photo, output_type="pt", num_inference_steps=2).images.isfinite().all()
    modules, _ = load_modules(str(tmp_path / "ours"))  # and trained on as one
    assert modules.unet.config.lq_channels == 16


def test_pickled_weights_are_refused(plain_sdxl, folder):
    shutil.rmtree(folder / "unet")
    plain_sdxl.unet.save_pretrained(folder / "unet", safe_serialization=False)
    with pytest.raises(ValueError, match=r"`checkpoint` .* no safetensors of unet"):
        load_modules(str(folder))


def test_a_model_of_other_inputs_is_refused(plain_sdxl, folder):
    inpainting = UNet2DConditionModel.from_config(plain_sdxl.unet.config, in_channels=9)
    inpainting.save_pretrained(folder / "unet")
    with pytest.raises(ValueError, match="`in_channels` 9"):
        load_modules(str(folder))


def test_weights_that_do_not_fit_are_refused_by_name(folder):
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps({**config, "use_quant_conv": False}))
    with pytest.raises(ValueError, match="quant_conv"):
        load_modules(str(folder))


def test_another_pipeline_of_diffusers_is_refused_by_the_loader_of_ours(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(ValueError, match=r"FoundIRPipeline, got StableDiffusionPipeline\."):
        load_modules(str(folder))
