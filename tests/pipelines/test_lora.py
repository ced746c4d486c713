"""LoRA by diffusers' names, with this package and, as remote code, without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from test_remote_code import STRANGER
from weights import awaken

from foundir_hf.adapters.attach import AdapterConfig, adapted_components, adapter_parameters, add_adapter
from foundir_hf.adapters.files import Base, save_adapter
from foundir_hf.hub import load_pipeline
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules

PICTURE = torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    modules, scheduler = build_modules("nano", seed=0)
    folder = tmp_path_factory.mktemp("lora") / "nano"
    awaken(modules)
    FoundIRPipeline(**modules.components(), scheduler=scheduler).save_pretrained(folder)
    return folder


@pytest.fixture
def pipe(base) -> FoundIRPipeline:
    pipe = load_pipeline(base)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def lora(base, tmp_path_factory) -> Path:
    """A LoRA that does something, as `foundir adapt` writes it."""
    pipe = load_pipeline(base)
    add_adapter(pipe, AdapterConfig(rank=2))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for model in adapted_components(pipe).values():
            own = adapter_parameters(model)
            for key, parameter in model.named_parameters():
                if key in own:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    folder = tmp_path_factory.mktemp("adapter") / "scans"
    save_adapter(pipe, folder, Base.of_checkpoint(base))
    return folder


def restored(pipe) -> torch.Tensor:
    return pipe(PICTURE, generator=torch.Generator().manual_seed(0), output_type="pt").images


def test_a_lora_is_loaded_fused_and_unloaded(pipe, lora):
    plain = restored(pipe)
    pipe.load_lora_weights(lora, adapter_name="scans")
    adapted = restored(pipe)
    assert pipe.get_list_adapters() == {name: ["scans"] for name in ("lq_encoder", "unet", "tone")}
    assert pipe.get_active_adapters() == ["scans"]
    assert not torch.allclose(adapted, plain, atol=1e-3)
    pipe.fuse_lora()
    assert torch.allclose(restored(pipe), adapted, atol=1e-4)
    pipe.unfuse_lora()
    assert torch.allclose(restored(pipe), adapted, atol=1e-4)
    pipe.set_adapters("scans", 0.5)
    assert not torch.allclose(restored(pipe), adapted, atol=1e-3)
    pipe.disable_lora()
    assert torch.allclose(restored(pipe), plain, atol=1e-5)  # what fusing left of rounding
    pipe.unload_lora_weights()
    assert pipe.get_list_adapters() == {}


def test_a_fused_pipeline_is_saved_with_the_lora_in_its_weights(pipe, lora, tmp_path):
    pipe.load_lora_weights(lora)
    adapted = restored(pipe)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "fused")
    other = load_pipeline(tmp_path / "fused")
    other.set_progress_bar_config(disable=True)
    assert torch.allclose(restored(other), adapted, atol=1e-4)


def test_two_loras_are_merged_by_weight_into_a_pipeline_that_needs_neither(pipe, lora, tmp_path):
    plain = restored(pipe)
    for name in ("first", "second"):
        pipe.load_lora_weights(lora, adapter_name=name)
    with torch.no_grad():
        for key, parameter in pipe.lq_encoder.named_parameters():
            if "lora_B.second" in key:
                parameter.mul_(-2)  # another adapter
    alone = []
    for name in ("first", "second"):
        pipe.set_adapters(name)
        alone.append(restored(pipe))
    pipe.set_adapters(["first", "second"], [0.6, 0.3])
    both = restored(pipe)
    assert all(not torch.allclose(both, other, atol=1e-3) for other in (plain, *alone))
    pipe.fuse_lora(adapter_names=["first", "second"])
    pipe.unload_lora_weights()
    assert torch.allclose(restored(pipe), both, atol=1e-4)
    pipe.save_pretrained(tmp_path / "merged")
    other = load_pipeline(tmp_path / "merged")
    other.set_progress_bar_config(disable=True)
    assert torch.allclose(restored(other), both, atol=1e-4)


def test_what_was_not_fused_takes_nothing_with_it(pipe, lora):
    plain = restored(pipe)
    pipe.load_lora_weights(lora)
    pipe.unload_lora_weights()
    assert torch.equal(restored(pipe), plain)


def test_diffusers_own_file_is_written_and_read(pipe, lora, base, tmp_path):
    pipe.load_lora_weights(lora, adapter_name="scans")
    adapted = restored(pipe)
    layers = {f"{c}_lora_layers": get_peft_model_state_dict(getattr(pipe, c), adapter_name="scans") for c in ("unet", "lq_encoder", "tone")}
    metadata = {f"{c}_lora_adapter_metadata": getattr(pipe, c).peft_config["scans"].to_dict() for c in ("unet", "lq_encoder", "tone")}
    FoundIRPipeline.save_lora_weights(tmp_path / "with", **layers, **metadata)
    FoundIRPipeline.save_lora_weights(tmp_path / "without", **layers)
    assert [p.name for p in (tmp_path / "with").iterdir()] == ["pytorch_lora_weights.safetensors"]
    file = tmp_path / "with" / "pytorch_lora_weights.safetensors"
    (tmp_path / "named").mkdir()
    shutil.copy(file, tmp_path / "named" / "mine.safetensors")
    sources = [(path, None) for path in (tmp_path / "with", tmp_path / "without", file, load_file(file))]
    for source, name in [*sources, (tmp_path / "named", "mine.safetensors")]:
        other = load_pipeline(base)
        other.set_progress_bar_config(disable=True)
        other.load_lora_weights(source, weight_name=name)
        assert other.get_active_adapters() == ["default_0"]
        assert torch.allclose(restored(other), adapted, atol=1e-5)
    with pytest.raises(ValueError, match="needs the layers of at least one component"):
        FoundIRPipeline.save_lora_weights(tmp_path / "none")


def test_diffusers_loads_a_component_by_itself(pipe, lora, base):
    pipe.load_lora_weights(lora)
    alone = load_pipeline(base)
    alone.unet.load_lora_adapter(lora, subfolder="unet", weight_name="adapter_model.safetensors", prefix="base_model.model")
    expected = get_peft_model_state_dict(pipe.unet, adapter_name="default_0")
    loaded = get_peft_model_state_dict(alone.unet, adapter_name="default_0")
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "holds no weights"),
        ({"text_encoder.a.lora_A.weight": torch.zeros(1, 1)}, "must start with one of lq_encoder, unet, tone; got 'text_encoder.a"),
        ({"unet.nowhere.lora_A.weight": torch.zeros(2, 4), "unet.nowhere.lora_B.weight": torch.zeros(4, 2)}, "does not fit `unet`"),
        ({"unet.conv_out.lora_A.weight": torch.full((2, 32, 3, 3), float("nan"))}, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(pipe, weights, message):
    with pytest.raises(ValueError, match=message):
        pipe.load_lora_weights(weights)
    assert pipe.get_list_adapters() == {}


def test_pickles_other_methods_and_taken_names_are_refused(pipe, lora, base, tmp_path):
    torch.save({}, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(ValueError, match="is no adapter"):
        pipe.load_lora_weights(tmp_path)
    with pytest.raises(ValueError, match="is no safetensors file"):
        pipe.load_lora_weights(tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(ValueError, match="there is no such file"):
        pipe.load_lora_weights(lora, weight_name="other.safetensors")
    pipe.load_lora_weights(lora, "scans")
    with pytest.raises(ValueError, match="`adapter_name` 'scans' is taken"):
        pipe.load_lora_weights(lora, "scans")
    other = load_pipeline(base)
    add_adapter(other, AdapterConfig("adaptir"), "other")
    with pytest.raises(ValueError, match="Only LoRA can be added to the weights; there is ADAPTIR"):
        other.fuse_lora()
    save_adapter(other, tmp_path / "adaptir", Base.of_checkpoint(base), "other")
    with pytest.raises(ValueError, match=r"of the method 'adaptir': foundir_hf\.adapters\.load_adapter reads it"):
        pipe.load_lora_weights(tmp_path / "adaptir")


def test_a_stranger_s_pipeline_loads_it_too(pipe, lora, base, tmp_path):
    pipe.load_lora_weights(lora)
    save_file({"image": restored(pipe).contiguous(), "picture": PICTURE}, tmp_path / "expected.safetensors")
    hook, _ = STRANGER.split("import numpy")
    code = f"""{hook}
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
known = load_file("expected.safetensors")
pipe = DiffusionPipeline.from_pretrained({str(base)!r}, trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
run = lambda: pipe(known["picture"], generator=torch.Generator().manual_seed(0), output_type="pt").images
plain = run()
pipe.load_lora_weights({str(lora)!r}, adapter_name="scans")
assert torch.allclose(run(), known["image"], atol=1e-4)
pipe.set_adapters(["scans"], [0.0])
assert torch.equal(run(), plain)
pipe.set_adapters("scans")
pipe.fuse_lora()
assert torch.allclose(run(), known["image"], atol=1e-4)
assert "foundir_hf" not in sys.modules
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    env.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
