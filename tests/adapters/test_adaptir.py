"""AdaptIR through peft and diffusers, on networks that know nothing of it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from networks import TokenRestorer, run_unet, stock_unet
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from foundir_hf.adapters.adaptir import AdaptIRBlock, AdaptIRConfig, AdaptIRLayer, set_token_grid

CONVOLUTIONS = ["conv1", "conv2"]


def random_config(**changes) -> AdaptIRConfig:
    """An adapter that changes something."""
    return AdaptIRConfig(**{"target_modules": CONVOLUTIONS, "reduction": 4, "init_weights": False, **changes})


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


# --- The block ---


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 8), (16, 16)])
def test_a_block_takes_maps_of_any_size(size):
    block = AdaptIRBlock(12, 20, random_config())
    assert block(torch.randn(2, 12, *size), size).shape == (2, 20, *size)


def test_gradients_are_finite_even_where_the_spectrum_is_empty():
    block = AdaptIRBlock(8, 8, random_config())
    for image in (torch.zeros(1, 8, 6, 6), torch.ones(1, 8, 6, 6), torch.randn(1, 8, 6, 6)):
        block.zero_grad()
        image.requires_grad_()
        block(image, (6, 6)).square().sum().backward()
        assert image.grad.isfinite().all()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in block.parameters())


def test_the_global_branch_starts_as_the_identity_and_sees_everything():
    branch = AdaptIRBlock(8, 8, random_config(min_hidden_size=8)).global_branch
    image = torch.randn(1, 8, 9, 12)
    assert close(branch(image), image)
    nn.init.constant_(branch.amplitude_shift, 0.5)
    moved = image.clone()
    moved[..., 0, 0] += 1
    assert ((branch(moved) - branch(image)).abs().amax(dim=1) > 1e-6).float().mean() > 0.9


def test_the_local_branch_sees_three_by_three_pixels_only():
    branch = AdaptIRBlock(8, 8, random_config(min_hidden_size=8)).local_branch
    image = torch.randn(1, 8, 9, 9)
    moved = image.clone()
    moved[..., 4, 4] += 1
    changed = (branch(moved) - branch(image)).abs().amax(dim=(0, 1)) > 1e-6
    assert changed[3:6, 3:6].all()
    assert changed.sum() == 9


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
def test_an_image_is_adapted_alike_in_training_and_after_and_whatever_else_is_in_the_batch(norm):
    block = AdaptIRBlock(8, 8, random_config(norm=norm))
    batch = torch.randn(3, 8, 7, 7)
    whole = block.train()(batch, (7, 7))
    assert close(whole, block.eval()(batch, (7, 7)))
    assert close(whole[1:2], block(batch[1:2], (7, 7)))


def test_branches_can_be_left_out_and_each_has_its_weights():
    def size(**changes) -> int:
        return sum(parameter.numel() for parameter in AdaptIRBlock(32, 32, random_config(**changes)).parameters())

    everything = size()
    for left in ("local", "global", "channel"):
        assert size(branches=[name for name in ("local", "global", "channel") if name != left]) < everything
    assert size(interaction=False) < everything


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"branches": ["channel"]}, "`branches` must be of local, global, channel, with local or global"),
        ({"branches": ["local", "other"]}, "`branches` must be of"),
        ({"norm": "batch"}, "`norm` must be 'layer', 'group' or 'none', got 'batch'"),
        ({"reduction": 0}, "`reduction` and `min_hidden_size` must be at least 1"),
    ],
)
def test_a_wrong_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        AdaptIRConfig(**changes)


# --- In a model ---


@pytest.mark.parametrize("targets", [CONVOLUTIONS, r".*resnets\.\d+", ["ff", "to_out.0"], ["conv_in", "downsamplers.0.conv", "to_q"]])
def test_a_fresh_adapter_changes_nothing_and_alone_is_trained(targets):
    unet = stock_unet()
    before = run_unet(unet)
    model = get_peft_model(unet, AdaptIRConfig(target_modules=targets))
    assert torch.equal(run_unet(model), before)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".adaptir_block.default." in name for name in trained)
    run_unet(model.train()).square().mean().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name in trained)
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name not in trained)


def test_it_learns():
    unet = stock_unet()
    target = run_unet(stock_unet()).detach() * 0.5
    model = get_peft_model(unet, AdaptIRConfig(target_modules=CONVOLUTIONS, reduction=4))
    optimizer = torch.optim.Adam((parameter for parameter in model.parameters() if parameter.requires_grad), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = (run_unet(model) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_peft_writes_and_reads_it_also_under_another_name(tmp_path):
    model = get_peft_model(stock_unet(), random_config())
    expected = run_unet(model)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert not any("default" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    for name in ("default", "another"):
        assert close(run_unet(PeftModel.from_pretrained(stock_unet(), tmp_path, adapter_name=name)), expected)


def test_it_is_read_in_a_fresh_process(tmp_path):
    model = get_peft_model(stock_unet(), random_config())
    model.save_pretrained(tmp_path / "adapter")
    save_file({"image": run_unet(model)}, tmp_path / "expected.safetensors")
    code = (
        "import foundir_hf.adapters.adaptir, torch; from peft import PeftModel; from safetensors.torch import load_file;"
        "from networks import *;"
        f"expected = load_file({str(tmp_path / 'expected.safetensors')!r})['image'];"
        f"model = PeftModel.from_pretrained(stock_unet(), {str(tmp_path / 'adapter')!r});"
        "assert torch.allclose(run_unet(model), expected, atol=1e-5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_several_adapters_are_chosen_weighted_and_switched_off():
    unet = stock_unet()
    plain = run_unet(unet)
    unet.add_adapter(random_config(), "a")
    unet.add_adapter(random_config(), "b")
    unet.set_adapters(["a"])
    a = run_unet(unet)
    unet.set_adapters(["b"])
    b = run_unet(unet)
    assert not close(a, plain)
    assert not close(a, b)
    unet.set_adapters(["a", "b"], [1.0, 0.0])
    assert close(run_unet(unet), a)
    unet.set_adapters(["a", "b"], [0.5, 0.5])
    assert not close(run_unet(unet), a)
    unet.disable_adapters()
    assert torch.equal(run_unet(unet), plain)
    unet.enable_adapters()
    unet.delete_adapters("a")
    unet.set_adapters(["b"])
    assert close(run_unet(unet), b)


def test_weights_scale_what_an_adapter_adds():
    layer = AdaptIRLayer(nn.Conv2d(4, 4, 3, padding=1), "default", random_config())
    image = torch.randn(1, 4, 8, 8)
    full = layer(image) - layer.base_layer(image)
    layer.set_scale("default", 0.25)
    assert close(layer(image) - layer.base_layer(image), 0.25 * full)
    layer.scale_layer(2)
    assert close(layer(image) - layer.base_layer(image), 0.5 * full)
    layer.unscale_layer()
    assert close(layer(image) - layer.base_layer(image), full)


def test_it_goes_beside_lora():
    unet = stock_unet()
    unet.add_adapter(LoraConfig(target_modules=["to_q"], init_lora_weights=False), "lora")
    lora = run_unet(unet)
    unet.add_adapter(random_config(), "adaptir")
    unet.set_adapters(["lora", "adaptir"])
    assert not close(run_unet(unet), lora)
    unet.set_adapters(["lora", "adaptir"], [1.0, 0.0])
    assert close(run_unet(unet), lora)


def test_it_cannot_be_merged_but_taken_away():
    unet = stock_unet()
    plain = run_unet(unet)
    model = get_peft_model(unet, random_config(target_modules=r".*resnets\.\d+"))
    with pytest.raises(ValueError, match="cannot be merged"):
        model.merge_and_unload()
    unloaded = model.unload()
    assert torch.equal(run_unet(unloaded), plain)
    assert unloaded.state_dict().keys() == stock_unet().state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = get_peft_model(stock_unet().to(dtype), random_config())
    result = run_unet(model)
    assert result.dtype == dtype
    assert result.isfinite().all()
    with torch.autocast("cpu", dtype):
        assert run_unet(get_peft_model(stock_unet(), random_config())).isfinite().all()


def test_a_copy_of_an_adapted_model_is_its_own():
    model = get_peft_model(stock_unet(), random_config(target_modules=["to_q"]))
    twin = copy.deepcopy(model)
    assert close(run_unet(twin, 12, 10), run_unet(model, 12, 10))


# --- Tokens ---


def test_tokens_are_adapted_as_the_map_that_they_are():
    torch.manual_seed(0)
    layer = AdaptIRLayer(nn.Linear(12, 6), "default", random_config())
    maps = torch.randn(2, 5, 7, 12)  # (B, H, W, C)
    with pytest.raises(ValueError, match="height and width that 35 tokens stand for"):
        layer(maps.flatten(1, 2))
    set_token_grid(layer, 5, 7)
    assert close(layer(maps.flatten(1, 2)), layer(maps).flatten(1, 2))
    set_token_grid(layer, 7, 5)
    assert not close(layer(maps.flatten(1, 2)), layer(maps).flatten(1, 2))
    for factor in (2, 3, 16):  # the finest map of a model whose layer works at a fraction of the size
        set_token_grid(layer, 5 * factor, 7 * factor)
        assert close(layer(maps.flatten(1, 2)), layer(maps).flatten(1, 2))
    with pytest.raises(ValueError, match="it was told"):
        layer(torch.randn(1, 34, 12))


def test_a_transformer_for_images_notes_the_size_by_itself():
    torch.manual_seed(0)
    network = TokenRestorer()
    model = get_peft_model(copy.deepcopy(network), AdaptIRConfig(target_modules=["mlp"], reduction=8))
    image = torch.rand(1, 3, 11, 6)
    assert torch.equal(model(image), network(image))
    random = get_peft_model(copy.deepcopy(network), random_config(target_modules=["mlp"]))
    for size in ((11, 6), (6, 11), (8, 8)):
        assert random(torch.rand(1, 3, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("patch", [2, 3, 7])
def test_patches_are_taken_for_the_map_that_they_make(patch):
    torch.manual_seed(0)
    model = get_peft_model(TokenRestorer(patch=patch), random_config(target_modules=["mlp"]))
    pictures = torch.rand(2, 3, 4 * patch, 6 * patch)
    noted = model(pictures)
    set_token_grid(model, 4, 6)
    assert torch.equal(model(pictures), noted)
    set_token_grid(model, 6, 4)  # what the user tells is not overruled by what is noted
    assert not close(model(pictures), noted)
    assert model(torch.rand(2, 3, 5 * patch, 3 * patch)).shape == (2, 3, 5 * patch, 3 * patch)  # unless it cannot be


def test_what_has_nothing_to_adapt_is_refused():
    with pytest.raises(ValueError, match="AdaptIR adapts convolutions, linear layers, and blocks"):
        get_peft_model(stock_unet(), AdaptIRConfig(target_modules=["norm1"]))
