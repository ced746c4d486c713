"""The LQ encoders' shapes, the start from a VAE, the pyramid's estimate."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder, FoundIRPyramidEncoder


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_paper_s_size_gives_512_channels_at_an_eighth():
    with torch.device("meta"):
        encoder = FoundIRLQEncoder(**CONFIGURATIONS["sdxl"]["lq_encoder"])
        encoded = encoder(torch.zeros(1, 3, 64, 64))
    assert tuple(encoded.lq_hidden_states.shape) == (1, 512, 8, 8)
    assert encoder.scale_factor == 8
    assert sum(p.numel() for p in encoder.parameters()) == 34_125_696


def test_it_starts_as_the_vae_s_encoder_without_its_head_and_its_estimate_is_the_image():
    torch.manual_seed(0)
    widths = (16, 32)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=widths, norm_num_groups=8, **blocks).eval()
    encoder = FoundIRLQEncoder.from_vae(vae).eval()
    seen = []
    vae.encoder.conv_norm_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = random_images(1, 3, 16, 24)
    with torch.no_grad():
        vae.encode(pixels)
        encoded = encoder(pixels)
    assert torch.equal(encoded.lq_hidden_states, seen[0])
    assert encoded.estimate is pixels


def test_the_pyramid_gives_features_at_an_eighth_and_an_estimate_of_full_size(pipeline):
    encoded = pipeline.lq_encoder(random_images(2, 3, 64, 96))
    assert tuple(encoded.lq_hidden_states.shape) == (2, pipeline.lq_encoder.config.lq_channels, 8, 12)
    assert tuple(encoded.estimate.shape) == (2, 3, 64, 96)
    assert pipeline.lq_encoder.scale_factor == 8


def test_a_fresh_pyramid_estimates_the_degraded_image():
    pixels = random_images(1, 3, 32, 48)
    assert torch.equal(FoundIRPyramidEncoder(**CONFIGURATIONS["nano"]["lq_encoder"])(pixels).estimate, pixels)


@torch.no_grad()
def test_every_level_of_the_pyramid_takes_part_in_estimate_and_features(pipeline):
    encoder, pixels = pipeline.lq_encoder, random_images(1, 3, 64, 64)
    whole = encoder(pixels)
    for blocks in (*encoder.down_blocks, *encoder.up_blocks):
        hook = blocks.register_forward_hook(lambda module, args, output: output * 0)
        changed = encoder(pixels)
        hook.remove()
        assert not torch.equal(changed.estimate, whole.estimate)
        assert not torch.equal(changed.lq_hidden_states, whole.lq_hidden_states)


@torch.no_grad()
def test_far_pixels_are_irrelevant(pipeline):
    """Nothing is normalised over the map: one bright corner would change the estimate everywhere, and tiles would show."""
    encoder, pixels = pipeline.lq_encoder, random_images(1, 3, 512, 512)
    changed = pixels.clone()
    changed[..., 448:, 448:] = 1
    before, after = encoder(pixels), encoder(changed)
    assert torch.equal(before.estimate[..., :192, :192], after.estimate[..., :192, :192])
    assert not torch.equal(before.estimate[..., 448:, 448:], after.estimate[..., 448:, 448:])


def test_saving_and_loading_keeps_the_output(pipeline, tmp_path):
    pipeline.lq_encoder.save_pretrained(tmp_path)
    loaded = FoundIRPyramidEncoder.from_pretrained(tmp_path).eval()
    pixels = random_images(1, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).lq_hidden_states, pipeline.lq_encoder(pixels).lq_hidden_states)


@pytest.mark.parametrize("name", ["lq_encoder", "paper"])
def test_the_tuple_form_holds_the_same(pipeline, sdxl, name):
    encoder, pixels = sdxl.lq_encoder if name == "paper" else pipeline.lq_encoder, random_images(1, 3, 32, 32)
    encoded = encoder(pixels)
    hidden_states, estimate = encoder(pixels, return_dict=False)
    assert torch.equal(hidden_states, encoded.lq_hidden_states)
    assert torch.equal(estimate, encoded.estimate)


def test_levels_that_do_not_match_are_refused_by_name():
    with pytest.raises(ValueError, match="`block_out_channels` and `blocks_per_level`"):
        FoundIRPyramidEncoder(block_out_channels=(8, 16), blocks_per_level=(1, 1, 1))
