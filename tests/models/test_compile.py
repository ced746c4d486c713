"""torch.compile takes every component as one graph. Graphs are counted, not timed: nothing is generated here."""

from __future__ import annotations

import copy

import pytest
import torch
from small_sdxl import SMALL_LQ_ENCODER, SMALL_SDXL
from weights import awaken

from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder
from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel
from foundir_hf.training.build import build_modules


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def nano() -> torch.nn.Module:
    modules, _ = build_modules("nano")
    return awaken(modules.eval())


def graphs_and_breaks(function, *args, **kwargs) -> tuple[int, int]:
    with torch.no_grad():
        explained = torch._dynamo.explain(function)(*args, **kwargs)
    return explained.graph_count, explained.graph_break_count


def text(batch: int) -> dict:
    added = {"text_embeds": torch.randn(batch, 16), "time_ids": torch.ones(batch, 6)}
    return {"encoder_hidden_states": torch.randn(batch, 7, 32), "added_cond_kwargs": added}


def test_every_component_of_the_small_sizes_is_one_graph(nano):
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    assert graphs_and_breaks(nano.lq_encoder, image) == (1, 0)
    # 24 x 40 latents are more than one window of the spatial expert.
    assert graphs_and_breaks(nano.unet, torch.randn(1, 48, 24, 40), torch.tensor(9), lq_hidden_states=torch.randn(1, 32, 24, 40)) == (1, 0)
    assert graphs_and_breaks(nano.vae.encode, image) == (1, 0)
    assert graphs_and_breaks(nano.vae.decode, torch.randn(1, 48, 8, 8)) == (1, 0)
    assert graphs_and_breaks(nano.tone, nano.tone.thumbnail(image), "auto") == (1, 0)


def test_the_paper_s_denoiser_and_encoder_are_one_graph_each():
    unet = FoundIRUNet2DConditionModel(**{**SMALL_SDXL, "transformer_layers_per_block": (1, 1, 1), "layers_per_block": 1}).eval()
    latents, lq = torch.randn(2, 4, 8, 8), torch.randn(2, 24, 8, 8)
    assert graphs_and_breaks(unet, latents, torch.tensor(9), lq_hidden_states=lq, **text(2)) == (1, 0)
    assert graphs_and_breaks(FoundIRLQEncoder(**SMALL_LQ_ENCODER).eval(), torch.randn(1, 3, 64, 64)) == (1, 0)


def test_what_repeats_can_be_compiled_alone_and_computes_the_same(nano):
    """diffusers' regional compilation: a layer is compiled once for all places; a break in it would be an error."""
    modules = copy.deepcopy(nano)
    image, latents = torch.rand(1, 3, 64, 64), torch.randn(1, 48, 8, 8)
    with torch.no_grad():
        encoded = modules.lq_encoder(image)
        expected = modules.unet(latents, 9, lq_hidden_states=encoded.lq_hidden_states).sample
        for component in (modules.lq_encoder, modules.unet):
            component.compile_repeated_blocks(fullgraph=True, backend="eager")
        again = modules.lq_encoder(image)
        torch.testing.assert_close(again.estimate, encoded.estimate)
        torch.testing.assert_close(modules.unet(latents, 9, lq_hidden_states=again.lq_hidden_states).sample, expected)
    compiled = {type(module).__name__ for module in modules.modules() if module._compiled_call_impl is not None}
    assert compiled == {"_ResidualBlock", "_SpatialLayer", "_ChannelLayer"}
