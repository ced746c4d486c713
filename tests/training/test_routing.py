"""The router, looked at from outside."""

from __future__ import annotations

import pytest
import torch

from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel
from foundir_hf.training.routing import EXPERTS, expert_usage, mean_by_task


@pytest.fixture
def unet(pipeline) -> FoundIRUNet2DConditionModel:
    return pipeline.unet


def run(unet: FoundIRUNet2DConditionModel, batch: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(batch)
    sample, lq = (torch.randn(batch, channels, 8, 12, generator=draw) for channels in (16, 128))
    return unet(sample, 7, lq_hidden_states=lq).sample


def test_usage_is_the_mean_routing_weight_of_each_image(unet):
    seen = []
    own_hook = unet.conv_in.moe.router.register_forward_hook(lambda router, inputs, weights: seen.append(weights))
    with expert_usage(unet) as usage, torch.no_grad():
        run(unet)
        run(unet, batch=3)
    own_hook.remove()
    assert [tuple(weights.shape) for weights in usage] == [(2, 3), (3, 3)]
    for mean, weights in zip(usage, seen, strict=True):
        torch.testing.assert_close(mean, weights.mean(dim=(2, 3)))
        torch.testing.assert_close(mean.sum(dim=1), torch.ones(len(mean)))


def test_looking_changes_nothing_and_leaves_nothing_behind(unet):
    with torch.no_grad():
        before = run(unet)
        with expert_usage(unet) as usage:
            during = run(unet)
        run(unet)
    assert torch.equal(before, during)
    assert len(usage) == 1
    with pytest.raises(KeyError), expert_usage(unet):
        raise KeyError
    assert not unet.conv_in.moe.router._forward_hooks


def test_no_gradient_goes_through_what_was_seen(unet):
    with expert_usage(unet) as usage:
        run(unet)
    assert not usage[0].requires_grad


def test_usage_is_averaged_over_the_images_of_each_task():
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    means = mean_by_task(weights, ["haze", "rain", "haze"])
    assert list(means) == ["haze", "rain"]
    assert means["haze"] == dict(zip(EXPERTS, (0.25, 0.375, 0.375), strict=True))
    assert means["rain"] == dict(zip(EXPERTS, (0.0, 1.0, 0.0), strict=True))
    with pytest.raises(ValueError, match="`tasks`"):
        mean_by_task(weights, ["haze"])


def test_the_experts_names_are_in_the_order_of_the_experts(unet):
    classes = [type(expert).__name__ for expert in unet.conv_in.moe.experts]
    assert classes == [name.title().replace("_", "") + "AttentionExpert" for name in EXPERTS]


def test_a_unet_without_a_router_is_refused_by_name(unet):
    silent = FoundIRUNet2DConditionModel.from_config(unet.config, moe_routing="none")
    with pytest.raises(ValueError, match="`unet`"), expert_usage(silent):
        pass
