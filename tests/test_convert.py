"""Released weights compute in our pipeline what their own equations say; what is not theirs is refused by name."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import released_graph
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from small_sdxl import SMALL_SDXL, SMALL_VAE

from foundir_hf.cli import main
from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.convert import convert_official, read_weights
from foundir_hf.hub import load_pipeline


@pytest.fixture(scope="module")
def released(sdxl_with_text, tmp_path_factory) -> dict:
    """An SDXL in small with text encoders, another autoencoder, and random weights as the authors would release them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("released")
    unet = UNet2DConditionModel(**{name: value for name, value in SMALL_SDXL.items() if not name.startswith(("lq_", "moe_"))}).eval()
    vae, other_vae = (AutoencoderKL(**SMALL_VAE).eval() for _ in range(2))
    texts = {name: getattr(sdxl_with_text, name) for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")}
    scheduler = EulerDiscreteScheduler.from_config(CONFIGURATIONS["sdxl"]["scheduler"])
    base = StableDiffusionXLPipeline(vae=vae, unet=unet, scheduler=scheduler, **texts)
    base.save_pretrained(folder / "base")
    other_vae.save_pretrained(folder / "vae")
    weights = released_graph.released_weights(unet, vae)
    torch.save(weights, folder / "official.bin")
    return {"folder": folder, "weights": weights, "base": base, "vae": other_vae}


@pytest.fixture(scope="module")
def converted(released) -> Path:
    folder = released["folder"]
    command = ["convert", folder / "official.bin", "--base", folder / "base", "--vae", folder / "vae", "-o", folder / "ours"]
    assert main([str(word) for word in command]) == 0
    return folder / "ours"


@pytest.mark.parametrize("batch", [1, 2])
def test_encoder_and_denoiser_compute_the_released_equations(released, converted, batch):
    pipe, weights = load_pipeline(converted), released["weights"]
    random = torch.Generator().manual_seed(5)
    images, latents, text = (torch.randn(batch, *shape, generator=random) for shape in ((3, 64, 96), (4, 8, 12), (7, 32)))
    added = {"text_embeds": torch.randn(batch, 16, generator=random), "time_ids": torch.full((batch, 6), 64.0)}
    with torch.no_grad():
        lq = released_graph.lq_features(weights, released["base"].vae, images)
        torch.testing.assert_close(pipe.lq_encoder(images).lq_hidden_states, lq, atol=1e-4, rtol=1e-4)
        expected = released_graph.denoise(weights, released["base"].unet, latents, 500, text, lq, added)
        ours = pipe.unet(latents, 500, text, lq_hidden_states=lq, added_cond_kwargs=added).sample
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.05
    if batch == 2:  # a pair, as under guidance, is not two images
        with torch.no_grad():
            alone = pipe.unet(
                latents[:1], 500, text[:1], lq_hidden_states=lq[:1], added_cond_kwargs={k: v[:1] for k, v in added.items()}
            ).sample
        assert (alone - ours[:1]).abs().max() > 1e-3


def test_the_whole_way_is_the_authors_twenty_steps_in_small(released, converted):
    """Euler, guidance with both halves in one batch, the degraded image beside both, micro-conditioning of a whole image."""
    pipe, weights, base = load_pipeline(converted), released["weights"], released["base"]
    pipe.set_progress_bar_config(disable=True)
    photo, noise = torch.rand(1, 3, 64, 96), torch.randn(1, 4, 8, 12)
    restored = pipe(photo, prompt="a cat", num_inference_steps=3, guidance_scale=5.0, latents=noise, output_type="pt").images
    with torch.no_grad():
        positive, negative, pooled, negative_pooled = base.encode_prompt("a cat", device="cpu", do_classifier_free_guidance=True)
        added = {
            "text_embeds": torch.cat([negative_pooled, pooled]),
            "time_ids": torch.tensor([[64.0, 96, 0, 0, 64, 96]] * 2),
        }
        lq = released_graph.lq_features(weights, base.vae, photo * 2 - 1).repeat(2, 1, 1, 1)
        scheduler = EulerDiscreteScheduler.from_config(base.scheduler.config)
        scheduler.set_timesteps(3)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            pair = scheduler.scale_model_input(latents, timestep).repeat(2, 1, 1, 1)
            text = torch.cat([negative, positive])
            without, with_text = released_graph.denoise(weights, base.unet, pair, timestep, text, lq, added).chunk(2)
            latents = scheduler.step(without + 5.0 * (with_text - without), timestep, latents).prev_sample
        expected = released["vae"].decode(latents / released["vae"].config.scaling_factor).sample / 2 + 0.5
    inside = (expected > 0) & (expected < 1)
    assert inside.float().mean() > 0.2
    torch.testing.assert_close(restored[inside], expected[inside], atol=2e-3, rtol=0)


def test_what_is_written_is_a_checkpoint_with_the_terms_of_its_weights(released, converted, tmp_path):
    assert type(load_pipeline(converted).scheduler) is EulerDiscreteScheduler
    assert load_pipeline(converted).unet.config.moe_attend_over == "batch"
    again = tmp_path / "again"
    assert main(["export", "--checkpoint", str(converted), "-o", str(again)]) == 0
    for folder in (converted, again):
        assert "BY-NC-SA 4.0" in (folder / "NOTICE").read_text()
        assert "license: other" in (folder / "README.md").read_text()
    remote = DiffusionPipeline.from_pretrained(converted, trust_remote_code=True)
    assert "BY-NC-SA 4.0" in type(remote).from_pipe(remote).config.license_note
    assert str(released["folder"]) not in (converted / "model_index.json").read_text() + (converted / "unet" / "config.json").read_text()


def test_half_precision_stays_and_mixed_precision_takes_the_wider(released, tmp_path):
    halves = {name: tensor.half() for name, tensor in released["weights"].items()}
    for change, expected in (({}, torch.float16), ({"MoE.gate.bias": released["weights"]["MoE.gate.bias"]}, torch.float32)):
        torch.save(halves | change, tmp_path / "official.bin")
        pipe = convert_official(tmp_path / "official.bin", str(released["folder"] / "base"))
        assert {p.dtype for part in (pipe.unet, pipe.lq_encoder, pipe.vae, pipe.text_encoder) for p in part.parameters()} == {expected}


def lacking(weights: dict) -> None:
    del weights["MoE.experts.2.ExpertC_transformer_layes.1.attn.attn3"], weights["mid_block.resnets.0.conv1.bias"]


def with_more(weights: dict) -> None:
    weights["MoE.experts.3.ExpertD.weight"] = torch.zeros(1)


def misshapen(weights: dict) -> None:
    weights["spatial_ch_projs.weight"] = weights["spatial_ch_projs.weight"].T.contiguous()


def one_layer_deeper(weights: dict) -> None:
    for name in [name for name in weights if "ExpertB_transformer_layes.1." in name]:
        weights[name.replace("layes.1.", "layes.2.")] = weights[name]


def not_finite(weights: dict) -> None:
    weights["denoise_encoder.conv_in.bias"] = torch.full((8,), float("nan"))


def in_a_list(weights: dict) -> None:
    weights["MoE.gate.weight"] = weights["MoE.gate.weight"].tolist()


def whole_numbers(weights: dict) -> None:
    weights["MoE.gate.weight"] = weights["MoE.gate.weight"].int()


def of_eight_bits(weights: dict) -> None:
    weights["MoE.gate.weight"] = weights["MoE.gate.weight"].to(torch.float8_e4m3fn)


def without_contents(weights: dict) -> None:
    weights["MoE.gate.weight"] = weights["MoE.gate.weight"].to("meta")


def by_number(weights: dict) -> None:
    weights[7] = weights.pop("MoE.gate.weight")


def attention_of_another_width(weights: dict) -> None:
    name = "MoE.experts.0.ExpertA_transformer_layes.0.attn.in_proj_weight"
    weights[name] = weights[name][:-1]


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (lacking, "lacks MoE.experts.2.ExpertC_transformer_layes.1.attn.attn3, mid_block.resnets.0.conv1.bias."),
        (with_more, "has nothing to do with MoE.experts.3.ExpertD.weight."),
        (one_layer_deeper, "has nothing to do with MoE.experts.1.ExpertB_transformer_layes.2."),
        (misshapen, "spatial_ch_projs.weight is 64x32"),
        (attention_of_another_width, "ExpertA_transformer_layes.0.attn.in_proj_weight is 191x64"),
        (not_finite, "denoise_encoder.conv_in.bias has numbers that are not finite."),
        (in_a_list, "not one is MoE.gate.weight."),
        (whole_numbers, "not one is MoE.gate.weight."),
        (of_eight_bits, "not one is MoE.gate.weight."),
        (without_contents, "not one is MoE.gate.weight."),
        (by_number, "not one is 7."),
    ],
)
def test_tampered_weights_are_refused_by_name_and_nothing_is_written(released, tmp_path, capsys, tamper, named):
    weights = dict(released["weights"])
    tamper(weights)
    torch.save(weights, tmp_path / "official.bin")
    command = ["convert", str(tmp_path / "official.bin"), "--base", str(released["folder"] / "base"), "-o", str(tmp_path / "ours")]
    capsys.readouterr()
    assert main(command) == 2
    message = capsys.readouterr().err
    assert named in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["official.bin"]


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_a_text_and_a_wrong_base_are_refused(released, converted, tmp_path, capsys):
    torch.save({"conv_in.weight": Bomb(tmp_path / "exploded")}, tmp_path / "bomb.bin")
    (tmp_path / "old.bin").write_bytes(pickle.dumps({"conv_in.weight": [1.0]}))
    (tmp_path / "text.bin").write_text("not a checkpoint")
    torch.save([torch.zeros(1)], tmp_path / "list.bin")
    base = str(released["folder"] / "base")
    for name in ("bomb", "old", "text", "list", "nowhere"):
        with pytest.raises(ValueError, match=rf"`checkpoint` .*{name}\.bin"):
            convert_official(tmp_path / f"{name}.bin", base)
        capsys.readouterr()
        assert main(["convert", str(tmp_path / f"{name}.bin"), "--base", base, "-o", str(tmp_path / "ours")]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"foundir: `checkpoint` '{tmp_path}/{name}.bin' ")
        assert said.count("\n") == 1
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "ours").exists()
    with pytest.raises(ValueError, match=r"`base` .* must be a StableDiffusionXLPipeline"):
        convert_official(released["folder"] / "official.bin", str(converted))
    with pytest.raises(ValueError, match=r"`vae` .* has no safetensors"):
        convert_official(released["folder"] / "official.bin", base, str(tmp_path))


def test_a_damaged_pickle_is_refused_in_a_line_whatever_the_unpickler_makes_of_it(tmp_path):
    torch.save({"conv_in.weight": torch.zeros(2), "conv_in.bias": torch.ones(3)}, tmp_path / "whole.bin")
    with zipfile.ZipFile(tmp_path / "whole.bin") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (program,) = (name for name in parts if name.endswith("data.pkl"))
    random, refused = np.random.default_rng(0), []
    for number in range(150):
        damaged = bytearray(parts[program])
        for place in random.integers(0, len(damaged), 1 + number % 3):
            damaged[place] = random.integers(0, 256)
        with zipfile.ZipFile(tmp_path / "damaged.bin", "w") as archive:
            for name, content in {**parts, program: bytes(damaged[: len(damaged) - 10 * (number % 7 == 0)])}.items():
                archive.writestr(name, content)
        try:
            read_weights(tmp_path / "damaged.bin")
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(message.startswith("`checkpoint` ") and "\n" not in message for message in refused)


def test_a_folder_that_holds_something_is_not_written_to(released, tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    command = ["convert", str(released["folder"] / "official.bin"), "--base", str(released["folder"] / "base"), "-o", str(tmp_path)]
    assert main(command) == 2
    assert "exists; give a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_every_layer_of_the_paper_s_size_has_a_released_name():
    """At full size on no memory: the names of our UNet are the released ones, each once but for query, key and value."""
    from foundir_hf.convert import official_name
    from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel

    with torch.device("meta"):
        ours = FoundIRUNet2DConditionModel(**CONFIGURATIONS["sdxl"]["unet"], moe_attend_over="batch").state_dict()
        plain = UNet2DConditionModel(
            **{name: value for name, value in CONFIGURATIONS["sdxl"]["unet"].items() if not name.startswith(("lq_", "moe_"))}
        ).state_dict()
    names = [official_name(name) for name in ours]
    assert set(plain) <= set(names)
    assert len(names) - len(set(names)) == 2 * 2 * 2  # two layers, weight and bias, two of three
    experts = {name.split(".")[2] for name in set(names) - set(plain) if name.startswith("MoE.experts")}
    assert experts == {"0", "1", "2"}
    assert {name.split(".")[0] for name in set(names) - set(plain)} == {"MoE", "condition_embedding", "spatial_ch_projs"}
