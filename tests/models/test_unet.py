"""The experts are what they say, the router is a simplex, and the UNet starts as the one it was made from."""

from __future__ import annotations

import inspect

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from small_sdxl import SMALL_SDXL
from weights import awaken

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.models.unet_foundir import (
    ChannelAttentionExpert,
    FoundIRUNet2DConditionModel,
    MoEScheduler,
    SoftRouter,
    SparseChannelAttentionExpert,
    SpatialAttentionExpert,
)

# Our own entries of the configuration, beside those of diffusers' UNet.
OWN = [
    name for name, entry in inspect.signature(FoundIRUNet2DConditionModel.__init__).parameters.items() if entry.kind is entry.KEYWORD_ONLY
]


def sdxl_inputs(batch: int = 2, side: int = 8) -> dict:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "sample": draw(batch, 4, side, side),
        "timestep": torch.tensor([5, 900][:batch]),
        "encoder_hidden_states": draw(batch, 7, 32),
        "added_cond_kwargs": {"text_embeds": draw(batch, 16), "time_ids": torch.ones(batch, 6)},
    }


@pytest.fixture
def tiny_unet(pipeline) -> FoundIRUNet2DConditionModel:
    return pipeline.unet


def changed_positions(module: torch.nn.Module, hidden_states: torch.Tensor, where: tuple[int, int]) -> torch.Tensor:
    """Which positions `(H, W)` of the output notice that one position of the first image's input was disturbed."""
    disturbed = hidden_states.clone()
    disturbed[0, :, where[0], where[1]] += torch.linspace(-1, 1, hidden_states.shape[1])
    with torch.no_grad():
        return (module(disturbed) - module(hidden_states))[0].abs().amax(dim=0) > 1e-7


# --- experts --------------------------------------------------------------------------------------------------------------------------


def test_disturbing_one_position_changes_every_position_of_the_spatial_expert():
    expert = SpatialAttentionExpert(16, num_heads=2, num_layers=1, window_size=8)
    assert changed_positions(expert, torch.randn(1, 16, 6, 8), (2, 3)).all()


def test_the_spatial_expert_stays_inside_its_window_on_a_larger_map():
    expert = SpatialAttentionExpert(16, num_heads=2, num_layers=1, window_size=4)
    changed = changed_positions(expert, torch.randn(1, 16, 8, 12), (1, 5))
    assert changed[:4, 4:8].all()
    assert changed.sum() == 16


def test_the_second_layer_shifts_its_windows_so_that_neighbours_meet():
    expert = SpatialAttentionExpert(16, num_heads=2, num_layers=2, window_size=4)
    changed = changed_positions(expert, torch.randn(1, 16, 8, 12), (1, 5))
    assert changed[:6, 2:10].all()  # the window of the first layer and the shifted ones that touch it
    assert not changed[6:].any()


@pytest.mark.parametrize("size", [(5, 9), (16, 4), (1, 7), (9, 9)])
def test_windows_put_every_position_back_where_it_was(size):
    from foundir_hf.models.unet_foundir import _from_windows, _to_windows

    hidden_states = torch.randn(2, 3, *size)
    for shift in (0, 2):
        windows, grid = _to_windows(hidden_states, 4, shift)
        assert windows.shape[1:] == (16, 3)
        assert torch.equal(_from_windows(windows, grid, 4, shift, *size), hidden_states)


def test_attention_in_windows_costs_linearly_many_flops():
    from torch.utils.flop_counter import FlopCounterMode

    expert = SpatialAttentionExpert(16, num_heads=2, num_layers=1, window_size=8)
    flops = []
    for side in (16, 32, 64):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            expert(torch.randn(1, 16, side, side))
        flops.append(counter.get_total_flops())
    assert flops[1] == 4 * flops[0]
    assert flops[2] == 4 * flops[1]


def test_attending_over_the_batch_reproduces_the_released_behaviour():
    expert = SpatialAttentionExpert(16, num_heads=2, num_layers=1, attend_over="batch")
    hidden_states = torch.randn(2, 16, 3, 4)
    disturbed = hidden_states.clone()
    disturbed[0, :, 1, 2] += torch.linspace(-1, 1, 16)
    with torch.no_grad():
        changed = (expert(disturbed) - expert(hidden_states)).abs().amax(dim=1) > 1e-7
    assert changed[:, 1, 2].all()  # it leaks into the other image at the same position
    assert changed.sum() == 2  # and reaches no other position


@pytest.mark.parametrize("expert_class", [ChannelAttentionExpert, SparseChannelAttentionExpert])
def test_channel_attention_does_not_depend_on_the_order_of_positions(expert_class):
    attention = expert_class(16, num_heads=2, num_layers=1).layers[0].attention
    with torch.no_grad():  # without the depth-wise 3x3, which looks at neighbours, attention is over channels alone
        attention.qkv_dwconv.weight.zero_()
        attention.qkv_dwconv.weight[:, :, 1, 1] = 1
    hidden_states = torch.randn(1, 16, 4, 6)
    order = torch.randperm(24)
    shuffled = hidden_states.flatten(2)[..., order].unflatten(2, (4, 6))
    with torch.no_grad():
        expected = attention(hidden_states).flatten(2)[..., order].unflatten(2, (4, 6))
        torch.testing.assert_close(attention(shuffled), expected)


@pytest.mark.parametrize("keep_ratio", [0.25, 0.5, 0.75, 1.0])
def test_sparse_attention_keeps_exactly_the_strongest_scores_of_each_row(keep_ratio):
    attention = SparseChannelAttentionExpert(32, num_heads=2, num_layers=1, keep_ratio=keep_ratio).layers[0].attention
    scores = torch.randn(1, 2, 16, 16)
    weights = attention.weigh(scores)
    kept = weights > 0
    assert (kept.sum(dim=-1) == int(16 * keep_ratio)).all()
    dropped_best = scores.masked_fill(kept, float("-inf")).amax(dim=-1)
    assert (dropped_best <= scores.masked_fill(~kept, float("inf")).amin(dim=-1)).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.full((1, 2, 16), 0.2))


def test_sparse_attention_that_keeps_all_equals_dense_attention():
    sparse = SparseChannelAttentionExpert(16, num_heads=2, num_layers=1, keep_ratio=1.0).layers[0].attention
    scores = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(sparse.weigh(scores) / 0.2, scores.softmax(dim=-1))


@pytest.mark.parametrize("keep_ratio", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_keep_ratio_is_refused_by_name(keep_ratio):
    with pytest.raises(ValueError, match="keep_ratio"):
        SparseChannelAttentionExpert(16, keep_ratio=keep_ratio)


# --- router and mixture ---------------------------------------------------------------------------------------------------------------


def test_the_router_is_a_simplex_at_every_pixel():
    weights = SoftRouter(16)(10 * torch.randn(2, 16, 5, 7))
    assert weights.shape == (2, 3, 5, 7)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 5, 7))


def test_the_router_decides_per_pixel():
    hidden_states = torch.randn(1, 16, 5, 7)
    assert changed_positions(SoftRouter(16), hidden_states, (2, 3)).nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_a_router_that_is_sure_leaves_one_expert(chosen):
    moe = MoEScheduler(16, num_heads=2, num_layers=1)
    hidden_states = torch.randn(1, 16, 6, 6)
    with torch.no_grad():
        moe.router.gate.weight.zero_()
        moe.router.gate.bias.copy_(torch.eye(3)[chosen] * 100)
        torch.testing.assert_close(moe(hidden_states), moe.experts[chosen](hidden_states))


def test_every_expert_and_the_router_receive_gradients():
    moe = MoEScheduler(16, num_heads=2, num_layers=1)
    moe(torch.randn(1, 16, 6, 6)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in moe.named_parameters() if "to_k.bias" not in name)


def routed(routing: str) -> MoEScheduler:
    """The same experts and the same router under any routing."""
    torch.manual_seed(0)
    return MoEScheduler(16, num_heads=2, num_layers=1, routing=routing)


def test_hard_routing_leaves_every_pixel_its_strongest_expert_times_its_probability():
    moe = routed("hard")
    hidden_states = 3 * torch.randn(2, 16, 6, 6)
    with torch.no_grad():
        weights = moe.router(hidden_states)
        strongest = weights.argmax(dim=1, keepdim=True)
        assert set(strongest.unique().tolist()) == {0, 1, 2}
        expected = torch.zeros_like(hidden_states)
        for index, expert in enumerate(moe.experts):
            expected = torch.where(strongest == index, weights[:, index : index + 1] * expert(hidden_states), expected)
        torch.testing.assert_close(moe(hidden_states), expected)


@pytest.mark.parametrize("routing", ["soft", "hard"])
def test_the_router_learns_under_both_routings(routing):
    moe = routed(routing)
    moe(3 * torch.randn(2, 16, 6, 6)).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in moe.router.parameters())
    assert moe.router.gate.weight.grad.flatten(1).any(dim=1).all()  # of every expert


def test_without_routing_there_is_nothing_to_train_and_the_features_pass():
    moe = routed("none")
    hidden_states = torch.randn(1, 16, 6, 6)
    assert moe(hidden_states) is hidden_states
    assert not list(moe.parameters())


@pytest.mark.parametrize("routing", ["soft", "hard", "none"])
def test_a_fresh_stem_learns_to_listen_to_the_degraded_image(routing):
    torch.manual_seed(0)
    unet = FoundIRUNet2DConditionModel(**{**SMALL_SDXL, "moe_routing": routing})
    optimizer = torch.optim.SGD(unet.conv_in.parameters(), 0.1)
    lq = torch.randn(2, 24, 8, 8)
    for _ in range(3):  # the first steps must leave the zeros that the stem starts from
        optimizer.zero_grad()
        unet(**sdxl_inputs(), lq_hidden_states=lq).sample.square().mean().backward()
        optimizer.step()
    assert unet.conv_in.condition_embedding.conv_in.weight.grad.any()


def test_routings_share_their_parameters_and_differ_in_what_they_say():
    soft, hard = routed("soft"), routed("hard")
    hard.load_state_dict(soft.state_dict(), strict=True)
    hidden_states = torch.randn(1, 16, 6, 6)
    with torch.no_grad():
        assert not torch.equal(soft(hidden_states), hard(hidden_states))


def test_an_unknown_routing_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`routing` must be .* got 'top2'"):
        FoundIRUNet2DConditionModel(**{**SMALL_SDXL, "moe_routing": "top2"})


# --- the UNet -------------------------------------------------------------------------------------------------------------------------


def test_the_paper_s_configuration_has_the_paper_s_parameter_counts():
    with torch.device("meta"):
        unet = FoundIRUNet2DConditionModel(**CONFIGURATIONS["sdxl"]["unet"])
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    stem = unet.conv_in
    assert [count(expert) for expert in stem.moe.experts] == [6_567_680, 9_913_448, 12_493_682]
    assert count(stem.moe.router) == 1_923
    assert count(stem.moe) == 28_976_733
    assert count(stem.condition_embedding) == 3_835_712
    assert count(stem.projection) == 205_120
    assert count(unet) - count(stem) + count(stem.conv_in) == 2_567_463_684  # SDXL's own


def test_a_fresh_model_computes_exactly_what_plain_sdxl_does():
    torch.manual_seed(0)
    plain = UNet2DConditionModel(**{k: v for k, v in SMALL_SDXL.items() if k not in OWN}).eval()
    unet = FoundIRUNet2DConditionModel.from_unet(plain, **{k: SMALL_SDXL[k] for k in OWN if k in SMALL_SDXL}).eval()
    inputs = sdxl_inputs()
    with torch.no_grad():
        assert torch.equal(unet(**inputs, lq_hidden_states=torch.randn(2, 24, 8, 8)).sample, plain(**inputs).sample)


def test_a_trained_stem_listens_to_the_degraded_image():
    torch.manual_seed(0)
    unet = awaken(FoundIRUNet2DConditionModel(**SMALL_SDXL)).eval()
    inputs = sdxl_inputs()
    with torch.no_grad():
        one, two = (unet(**inputs, lq_hidden_states=torch.randn(2, 24, 8, 8)).sample for _ in range(2))
    assert (one - two).abs().max() > 1e-4


@pytest.mark.parametrize("lq", [None, torch.zeros(1, 128, 4, 4)])
def test_missing_or_misfit_features_are_refused_by_name(tiny_unet, lq):
    with pytest.raises(ValueError, match="lq_hidden_states"):
        tiny_unet(torch.zeros(1, 48, 8, 8), 10, lq_hidden_states=lq)


def test_saving_and_loading_keeps_configuration_and_output(tiny_unet, tmp_path):
    tiny_unet.save_pretrained(tmp_path)
    loaded = FoundIRUNet2DConditionModel.from_pretrained(tmp_path).eval()
    sample, lq = torch.randn(1, 48, 8, 12), torch.randn(1, tiny_unet.config.lq_channels, 8, 12)
    with torch.no_grad():
        torch.testing.assert_close(loaded(sample, 7, lq_hidden_states=lq).sample, tiny_unet(sample, 7, lq_hidden_states=lq).sample)
    assert {k: loaded.config[k] for k in OWN} == {k: tiny_unet.config[k] for k in OWN}
    again = FoundIRUNet2DConditionModel.from_config(loaded.config)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in tiny_unet.named_parameters()}


@pytest.mark.parametrize("routing", ["hard", "none"])
def test_the_routing_is_saved_with_the_weights(routing, tmp_path):
    unet = awaken(FoundIRUNet2DConditionModel(**{**SMALL_SDXL, "moe_routing": routing})).eval()
    unet.save_pretrained(tmp_path)
    loaded = FoundIRUNet2DConditionModel.from_pretrained(tmp_path).eval()
    assert loaded.config.moe_routing == loaded.conv_in.moe.routing == routing
    lq = torch.randn(2, 24, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded(**sdxl_inputs(), lq_hidden_states=lq).sample, unet(**sdxl_inputs(), lq_hidden_states=lq).sample)


def test_a_configuration_that_says_nothing_of_routing_is_soft(tiny_unet):
    silent = {key: value for key, value in tiny_unet.config.items() if key != "moe_routing"}
    assert FoundIRUNet2DConditionModel.from_config(silent).conv_in.moe.routing == "soft"


def test_lora_can_be_added_and_a_fresh_one_changes_nothing(pipeline):
    unet = FoundIRUNet2DConditionModel.from_config(pipeline.unet.config).eval()
    sample, lq = torch.randn(1, 48, 8, 8), torch.randn(1, unet.config.lq_channels, 8, 8)
    with torch.no_grad():
        before = unet(sample, 7, lq_hidden_states=lq).sample
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "conv1"]))
    trainable = [name for name, p in unet.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora_" in name for name in trainable)
    with torch.no_grad():
        torch.testing.assert_close(unet(sample, 7, lq_hidden_states=lq).sample, before)


def test_an_empty_prompt_is_zeros_and_whole_images_of_the_given_size():
    prompt = FoundIRUNet2DConditionModel(**SMALL_SDXL).empty_prompt(2, 64, 96)
    assert tuple(prompt["encoder_hidden_states"].shape) == (2, 77, 32)
    assert tuple(prompt["added_cond_kwargs"]["text_embeds"].shape) == (2, 16)
    assert not prompt["encoder_hidden_states"].any()
    assert not prompt["added_cond_kwargs"]["text_embeds"].any()
    assert prompt["added_cond_kwargs"]["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]] * 2


def test_an_empty_prompt_has_the_paper_s_sizes_and_counts_pixels_in_half_precision():
    with torch.device("meta"):
        unet = FoundIRUNet2DConditionModel(**CONFIGURATIONS["sdxl"]["unet"]).half()
        prompt = unet.empty_prompt(1, 4097, 512)
    assert tuple(prompt["encoder_hidden_states"].shape) == (1, 77, 2048)
    assert tuple(prompt["added_cond_kwargs"]["text_embeds"].shape) == (1, 1280)
    assert prompt["encoder_hidden_states"].dtype == torch.float16
    assert prompt["added_cond_kwargs"]["time_ids"].dtype == torch.float32


def test_a_unet_that_takes_no_text_wants_no_prompt(tiny_unet):
    assert tiny_unet.empty_prompt(2, 64, 96) == {}


def test_layer_norms_replace_group_norms_only_when_asked():
    kinds = lambda unet: {type(m).__name__ for m in unet.modules()}  # noqa: E731
    with torch.device("meta"):
        tiny = FoundIRUNet2DConditionModel(**CONFIGURATIONS["tiny"]["unet"])
        grouped = FoundIRUNet2DConditionModel(**{**CONFIGURATIONS["tiny"]["unet"], "norm_type": "group"})
    assert "GroupNorm" not in kinds(tiny)
    assert "GroupNorm" in kinds(grouped)
    with pytest.raises(ValueError, match="norm_type"):
        FoundIRUNet2DConditionModel(**{**CONFIGURATIONS["tiny"]["unet"], "norm_type": "batch"})


def test_a_residual_goes_through_a_gate_that_starts_open_and_can_close():
    torch.manual_seed(0)
    unet = FoundIRUNet2DConditionModel(**CONFIGURATIONS["nano"]["unet"])
    latents, lq = torch.randn(2, unet.config.in_channels, 8, 8), torch.randn(2, unet.config.lq_channels, 8, 8)
    output = unet(latents, 7, lq_hidden_states=lq)
    assert output.gate.shape == (2, 1, 8, 8)
    assert torch.equal(output.sample, output.ungated * output.gate)
    assert output.gate.min() > 0.9
    assert output.sample.shape == latents.shape
    assert torch.equal(unet(latents, 7, lq_hidden_states=lq, return_dict=False)[0], output.sample)
    with torch.no_grad():
        unet.conv_out.bias[-1] = -9
    assert not unet(latents, 7, lq_hidden_states=lq).sample.any()
