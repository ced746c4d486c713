"""The LQ encoder's shapes, its start from a VAE, and the judgement of the whole image."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder


def test_features_come_finest_first_and_halve(pipeline):
    encoded = pipeline.lq_encoder(torch.rand(2, 3, 64, 96) * 2 - 1)
    assert [tuple(f.shape) for f in encoded.lq_features] == [(2, 32, 32, 48), (2, 64, 16, 24), (2, 128, 8, 12)]
    assert tuple(encoded.lq_hidden_states.shape) == (2, 128, 8, 12)
    assert pipeline.lq_encoder.scale_factor == 8


def test_the_paper_s_size_gives_512_channels_at_an_eighth():
    with torch.device("meta"):
        encoder = FoundIRLQEncoder(**CONFIGURATIONS["sdxl"]["lq_encoder"])
        encoded = encoder(torch.zeros(1, 3, 64, 64))
    assert tuple(encoded.lq_hidden_states.shape) == (1, 512, 8, 8)
    assert sum(p.numel() for p in encoder.parameters()) == 34_125_696


def test_it_starts_as_the_vae_s_encoder_without_its_head():
    torch.manual_seed(0)
    widths = (16, 32)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=widths, norm_num_groups=8, **blocks).eval()
    encoder = FoundIRLQEncoder.from_vae(vae).eval()
    seen = []
    vae.encoder.conv_norm_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = torch.rand(1, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        vae.encode(pixels)
        assert torch.equal(encoder(pixels).lq_hidden_states, seen[0])


def test_a_thumbnail_shows_the_whole_image_at_a_fixed_size(pipeline):
    pixels = torch.rand(1, 3, 160, 96) * 2 - 1
    thumbnail = pipeline.lq_encoder.thumbnail(pixels)
    assert tuple(thumbnail.shape) == (1, 3, 64, 64)
    torch.testing.assert_close(thumbnail.mean(), pixels.mean(), atol=2e-2, rtol=0)


def test_a_tile_with_the_whole_image_s_thumbnail_sees_the_whole_image(pipeline):
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    tile = pixels[..., :32, :32]
    encoder = pipeline.lq_encoder
    with torch.no_grad():
        alone = encoder(tile).lq_hidden_states
        dark, bright = (encoder(tile, encoder.thumbnail(pixels + shift)).lq_hidden_states for shift in (-0.5, 0.5))
    assert not torch.equal(dark, bright)
    assert not torch.equal(alone, dark)


def test_without_a_thumbnail_size_there_is_no_judgement():
    encoder = FoundIRLQEncoder(block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1)
    assert encoder.thumbnail(torch.zeros(1, 3, 32, 32)) is None
    assert not any("whole_image" in name for name, _ in encoder.named_parameters())


def test_a_fresh_judgement_changes_nothing():
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    encoder = FoundIRLQEncoder(**sizes, thumbnail_size=16).eval()
    plain = FoundIRLQEncoder(**sizes).eval()
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("whole_image.")}, strict=True)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(encoder(pixels).lq_hidden_states, plain(pixels).lq_hidden_states)


def test_layer_norm_makes_far_pixels_irrelevant(pipeline):
    """With group norm, one bright corner would change the features everywhere, and tiles would show."""
    encoder = pipeline.lq_encoder
    pixels = torch.rand(1, 3, 256, 256) * 2 - 1
    changed = pixels.clone()
    changed[..., 192:, 192:] = 1
    thumbnail = encoder.thumbnail(pixels)
    with torch.no_grad():
        difference = encoder(pixels, thumbnail).lq_hidden_states - encoder(changed, thumbnail).lq_hidden_states
    assert difference[..., :6, :6].abs().max() == 0
    assert difference[..., 26:, 26:].abs().max() > 0


def test_saving_and_loading_keeps_the_output(pipeline, tmp_path):
    pipeline.lq_encoder.save_pretrained(tmp_path)
    loaded = FoundIRLQEncoder.from_pretrained(tmp_path).eval()
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).lq_hidden_states, pipeline.lq_encoder(pixels).lq_hidden_states)


def test_an_unknown_norm_is_refused_by_name():
    with pytest.raises(ValueError, match="norm_type"):
        FoundIRLQEncoder(norm_type="instance")


def test_the_tuple_form_holds_the_same(pipeline):
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    hidden_states, features, refined, embeds = pipeline.lq_encoder(pixels, return_dict=False)
    assert tuple(refined.shape) == (1, 3, 32, 32)
    assert tuple(embeds.shape) == (1, 128)
    assert torch.equal(hidden_states, features[-1])
    assert len(features) == 3


SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}


def test_without_a_refiner_the_image_is_read_as_it_came():
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    encoder = FoundIRLQEncoder(**SMALL)
    assert encoder(pixels).lq_pixel_values is pixels
    assert not any("refiner" in name for name, _ in encoder.named_parameters())


def test_a_fresh_refiner_changes_nothing_and_a_trained_one_comes_before_the_encoder():
    torch.manual_seed(0)
    encoder, plain = FoundIRLQEncoder(**SMALL, refiner_channels=8).eval(), FoundIRLQEncoder(**SMALL).eval()
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("refiner.")}, strict=True)
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        assert torch.equal(encoder(pixels).lq_pixel_values, pixels)
        encoder.refiner.conv_out.bias.fill_(0.25)
        seen = encoder(pixels)
        torch.testing.assert_close(seen.lq_pixel_values, pixels + 0.25)
        torch.testing.assert_close(seen.lq_hidden_states, plain(pixels + 0.25).lq_hidden_states)


def test_whole_image_statistics_are_taken_before_the_refiner():
    """A tile brings the thumbnail of the whole photograph as it came; an image without tiles must be judged by the same."""
    torch.manual_seed(0)
    encoder = FoundIRLQEncoder(**SMALL, thumbnail_size=16, refiner_channels=8).eval()
    encoder.refiner.conv_out.bias.data.fill_(0.25)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        alone, given = encoder(pixels), encoder(pixels, encoder.thumbnail(pixels))
    assert torch.equal(alone.whole_image_embeds, given.whole_image_embeds)
