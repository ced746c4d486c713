"""Adapters on the components of our own pipeline: which modules, how many parameters, several at once."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from small import BASE, all_components, awaken_adapter, fresh_pipeline, restored

from foundir_hf.adapters.attach import AdapterConfig, adapted_components, add_adapter, without_adapters
from foundir_hf.adapters.files import save_adapter

METHODS = [AdapterConfig("lora", rank=2), AdapterConfig("lora", rank=2, dora=True), AdapterConfig("adaptir")]


@pytest.mark.parametrize("config", METHODS, ids=["lora", "dora", "adaptir"])
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_can_be_switched_off_to_the_bit(config):
    pipe = fresh_pipeline()
    base = restored(pipe)
    count = add_adapter(pipe, config)
    assert all_components(pipe) == ["lq_encoder", "unet", "tone"]
    assert torch.equal(restored(pipe), base)
    trained = {name for part in adapted_components(pipe).values() for name, p in part.named_parameters() if p.requires_grad}
    assert all(".default." in f"{name}." for name in trained)
    awaken_adapter(pipe)
    changed = restored(pipe)
    assert not torch.allclose(changed, base, atol=1e-3)
    with without_adapters(pipe):
        assert torch.equal(restored(pipe), base)
    pipe.set_adapters("default", 0.0)
    assert torch.equal(restored(pipe), base)
    pipe.set_adapters("default")
    assert torch.equal(restored(pipe), changed)
    pipe.delete_adapters("default")
    assert all_components(pipe) == []
    assert torch.equal(restored(pipe), base)
    total = sum(p.numel() for part in (pipe.lq_encoder, pipe.unet, pipe.tone) for p in part.parameters())
    assert count.base == total
    assert 0 < count.share < 0.2
    assert str(count) == f"{count.adapter:,} parameters, {count.adapter / total:.1%} of {total:,}"


def test_every_component_counts_by_itself():
    base = restored(fresh_pipeline())
    for component in ("lq_encoder", "unet", "tone"):
        pipe = fresh_pipeline()
        add_adapter(pipe, AdapterConfig(components=(component,)))
        awaken_adapter(pipe, std=0.3)
        assert all_components(pipe) == [component]
        assert not torch.equal(restored(pipe), base)


def test_two_adapters_of_different_methods_are_combined_by_weight_and_taken_away_one_by_one():
    pipe = fresh_pipeline()
    base = restored(pipe)
    add_adapter(pipe, AdapterConfig("lora", rank=2), "a")
    awaken_adapter(pipe)
    a = restored(pipe)
    add_adapter(pipe, AdapterConfig("adaptir"), "b")  # around the other, on the same modules
    awaken_adapter(pipe, name="b")
    b = restored(pipe)
    pipe.set_adapters(["a", "b"])
    both = restored(pipe)
    pipe.set_adapters(["a", "b"], [1.0, 0.0])
    assert torch.equal(restored(pipe), a)
    assert not torch.allclose(a, base, atol=1e-3)
    assert not torch.allclose(b, a, atol=1e-3)
    assert not torch.allclose(both, a, atol=1e-3)
    pipe.set_adapters(["a", "b"], [0.5, 0.5])
    assert not torch.allclose(restored(pipe), both, atol=1e-4)
    pipe.delete_adapters("b")
    pipe.set_adapters("a")
    assert torch.equal(restored(pipe), a)


def test_one_of_two_nested_adapters_is_saved_under_its_own_names(tmp_path):
    from safetensors import safe_open

    pipe = fresh_pipeline()
    add_adapter(pipe, AdapterConfig("lora", rank=2), "a")
    save_adapter(pipe, tmp_path / "alone", BASE, "a")
    add_adapter(pipe, AdapterConfig("adaptir"), "b")
    save_adapter(pipe, tmp_path / "nested", BASE, "a")
    keys = [set(safe_open(tmp_path / n / "tone" / "adapter_model.safetensors", "pt").keys()) for n in ("alone", "nested")]
    assert keys[0] == keys[1]


def test_attention_is_adapted_where_there_is_any(sdxl):
    pipe = copy.deepcopy(sdxl)
    add_adapter(pipe, AdapterConfig(targets="attention"))
    assert all_components(pipe) == ["lq_encoder", "unet"]
    names = {name.rsplit(".", 1)[-1] for name, module in pipe.unet.named_modules() if hasattr(module, "lora_A")}
    assert names == {"to_q", "to_k", "to_v", "0"}


@pytest.mark.parametrize("method", ["lora", "adaptir"])
def test_the_encoder_and_the_tone_curves_are_adapted_in_their_residual_blocks(method):
    pipe = fresh_pipeline()
    add_adapter(pipe, AdapterConfig(method, components=("lq_encoder", "tone")))
    assert all_components(pipe) == ["lq_encoder", "tone"]
    adapted, plain = adapted_layers(pipe.lq_encoder)
    assert {name.split(".")[0] for name in adapted} == {"conv_in", "down_blocks", "up_blocks"}
    assert plain == {"downsamplers.0", "downsamplers.1", "upsamplers.0", "upsamplers.1", "conv_out", "lq_proj", "estimate_proj"}
    _, plain = adapted_layers(pipe.tone)
    assert plain == {"down", "summary.0", "summary.2", "modulation", "judge.0", "judge.2"}


@pytest.mark.parametrize("method", ["lora", "adaptir"])
def test_a_pipeline_without_tone_curves_is_adapted_in_what_it_has(method, sdxl):
    pipe = copy.deepcopy(sdxl)
    count = add_adapter(pipe, AdapterConfig(method, rank=2))
    assert all_components(pipe) == ["lq_encoder", "unet"]
    assert count.base == sum(p.numel() for part in (sdxl.lq_encoder, sdxl.unet) for p in part.parameters())
    adapted, _ = adapted_layers(pipe.lq_encoder)
    assert {"encoder.conv_in", "encoder.down_blocks.0.resnets.0.conv1", "encoder.mid_block.resnets.1.conv2"} <= adapted
    base = restored(sdxl)
    assert torch.equal(restored(pipe), base)
    awaken_adapter(pipe)
    assert not torch.equal(restored(pipe), base)
    pipe.unload_lora_weights()
    assert torch.equal(restored(pipe), base)
    with pytest.raises(ValueError, match="`targets` 'convolutions': no such modules in tone"):
        add_adapter(pipe, AdapterConfig(method, components=("tone",)))


def adapted_layers(model: torch.nn.Module) -> tuple[set[str], set[str]]:
    """The names of the convolutions and linear layers of a component that carry an adapter, and of those that do not."""
    adapted = {name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    layers = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)}
    return adapted, {name for name in layers if not any(name.startswith(f"{other}.") for other in adapted)}


def test_an_adapter_learns():
    pipe = fresh_pipeline()
    add_adapter(pipe, AdapterConfig("lora", rank=4, components=("lq_encoder",)))
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    target = pipe.lq_encoder(image).lq_hidden_states.detach() * 0.5
    optimizer = torch.optim.Adam((p for p in pipe.lq_encoder.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (pipe.lq_encoder(image).lq_hidden_states - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "prefix"}, "`method` must be one of lora, adaptir; got 'prefix'"),
        ({"targets": "all"}, "`targets` must be one of convolutions, attention; got 'all'"),
        ({"components": ("vae",)}, r"`components` must be of lq_encoder, unet, tone; got \['vae'\]"),
        ({"components": ()}, "`components` must be of"),
        ({"rank": 0}, "`rank` and `reduction` must be at least 1, got 0 and 8"),
        ({"method": "adaptir", "dora": True}, "are of LoRA, got the method 'adaptir'"),
        ({"method": "adaptir", "targets": "attention"}, "are of LoRA, got the method 'adaptir'"),
    ],
)
def test_a_wrong_configuration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdapterConfig(**options)


def test_modules_that_are_not_there_and_names_that_are_taken_are_refused():
    pipe = fresh_pipeline()
    with pytest.raises(ValueError, match="`targets` 'attention': no such modules in tone"):
        add_adapter(pipe, AdapterConfig(targets="attention", components=("tone",)))
    add_adapter(pipe, AdapterConfig())
    with pytest.raises(ValueError, match="already exists"):
        add_adapter(pipe, AdapterConfig())
    with pytest.raises(ValueError, match="`adapter_names` b: not loaded; there are default"):
        pipe.set_adapters("b")
    with pytest.raises(ValueError, match="as many as `adapter_names`, got 1 and 2"):
        pipe.set_adapters(["default", "b"], [1.0])
