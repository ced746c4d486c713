"""The router, looked at from outside."""

from __future__ import annotations

import pytest
import torch

from foundir_hf.interpret import EXPERTS, record_routing, record_stages, without_expert
from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel


@pytest.fixture
def unet(pipeline) -> FoundIRUNet2DConditionModel:
    return pipeline.unet


def run(unet: FoundIRUNet2DConditionModel, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(batch)
    channels = (unet.config.in_channels, unet.config.lq_channels)
    sample, lq = (torch.randn(batch, count, 8, 12, generator=draw) for count in channels)
    return unet(sample, 7, lq_hidden_states=lq).sample


def test_the_routing_weights_of_every_pass_are_recorded(unet):
    with record_routing(unet) as maps, torch.no_grad():
        run(unet)
        run(unet, batch=3)
    assert [tuple(weights.shape) for weights in maps] == [(2, 3, 8, 12), (3, 3, 8, 12)]
    for weights in maps:
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(weights), 8, 12))
    assert maps[0].std() > 0


def test_looking_changes_nothing_and_leaves_nothing_behind(unet):
    with torch.no_grad():
        before = run(unet)
        with record_routing(unet) as maps:
            during = run(unet)
        run(unet)
    assert torch.equal(before, during)
    assert len(maps) == 1
    with pytest.raises(KeyError), record_routing(unet):
        raise KeyError
    assert not unet.conv_in.moe.router._forward_hooks


def test_no_gradient_goes_through_what_was_seen(unet):
    with record_routing(unet) as maps:
        run(unet)
    assert not maps[0].requires_grad


@pytest.mark.parametrize("expert", EXPERTS)
def test_an_expert_that_is_switched_off_has_no_say_and_the_others_share_its_weight(unet, expert):
    index = EXPERTS.index(expert)
    moe = unet.conv_in.moe
    with torch.no_grad():
        before = run(unet)
        with record_routing(unet) as maps:
            run(unet)
        with without_expert(unet, expert), record_routing(unet) as changed:
            off = run(unet)
            broken = moe.experts[index].register_forward_hook(lambda module, inputs, output: output + 100)
            still_off = run(unet)
            broken.remove()
        assert torch.equal(run(unet), before)
    assert torch.equal(off, still_off)  # whatever it says
    assert not torch.allclose(off, before)
    expected = maps[0].clone()
    expected[:, index] = 0
    torch.testing.assert_close(changed[0], expected / expected.sum(dim=1, keepdim=True))


def test_an_unknown_expert_is_refused(unet):
    with (
        pytest.raises(ValueError, match="`expert` must be one of spatial, channel, sparse_channel, got 'other'"),
        without_expert(unet, "other"),
    ):
        pass


def test_the_experts_names_are_in_the_order_of_the_experts(unet):
    classes = [type(expert).__name__ for expert in unet.conv_in.moe.experts]
    assert classes == [name.title().replace("_", "") + "AttentionExpert" for name in EXPERTS]


def test_a_unet_without_a_router_is_refused_by_name(unet):
    silent = FoundIRUNet2DConditionModel.from_config(unet.config, moe_routing="none")
    for look in (record_routing(silent), without_expert(silent, "channel")):
        with pytest.raises(ValueError, match="`unet`"), look:
            pass


def test_the_stages_of_a_tiled_restoration_are_kept_and_its_pixels_are_the_same(pipeline, photo):
    options = {"tile_size": 64, "tile_overlap": 32, "num_inference_steps": 2, "tone": "always", "output_type": "pt"}
    before = pipeline(photo, generator=torch.Generator().manual_seed(0), **options).images
    with record_stages(pipeline) as account:
        during = pipeline(photo, generator=torch.Generator().manual_seed(0), **options).images
    assert torch.equal(before, during)
    assert account.grid is not None
    assert len(account.grid) == 2
    assert len(account.routing) == 2 * 2  # tiles, steps
    experts = account.expert_map()
    assert experts.shape == (3, account.grid.height, account.grid.width)
    torch.testing.assert_close(experts.sum(dim=0), torch.ones_like(experts[0]))
    left = account.grid.column_spans[1][0]  # where no other tile is blended in
    alone = torch.stack([maps[0, :, : len(experts[0]), :left] for maps in account.routing[::2]]).mean(dim=0)
    torch.testing.assert_close(experts[:, :, :left], alone)
    # An estimate without denoiser and tone curves is what the pipeline itself gives when it is asked for that alone.
    alone = pipeline(photo, **{**options, "num_inference_steps": 0, "tone": "off"}).images[0]
    assert torch.equal(account.estimate[:, : photo.height, : photo.width], (alone * 255).round().byte())
    assert account.curves.shape[:2] == (1, 9)
    assert "encode_lq" not in vars(pipeline)
    assert not pipeline.tone._forward_hooks


def test_stages_that_did_not_run_are_told_apart(pipeline, photo):
    with record_stages(pipeline) as account:
        pipeline(photo, num_inference_steps=0, tone="off")
    assert account.estimate is not None
    assert account.expert_map() is None
    assert account.curves is None
