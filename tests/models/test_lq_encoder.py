"""The LQ encoder's shapes, its start from a VAE, and the judgement of the whole image."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import AutoencoderKL
from peft import LoraConfig

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder, _interpolation


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


def curves_of(log_gain: float = 0.0, offset: float = 0.0, log_gamma: float = 0.0) -> torch.Tensor:
    """The same curve for every place and colour; gain and gamma as they come out, not as they are bounded."""
    values = [3 * math.atanh(log_gain / 3), offset, 1.2 * math.atanh(log_gamma / 1.2)]
    return torch.tensor(values).repeat_interleave(3).view(1, 9, 1, 1).expand(1, 9, 4, 4)


@pytest.fixture
def toned() -> FoundIRLQEncoder:
    torch.manual_seed(0)
    return FoundIRLQEncoder(**SMALL, thumbnail_size=16, tone_channels=8).eval()


@torch.no_grad()
def test_fresh_tone_curves_change_nothing_and_trained_ones_come_before_the_encoder(toned):
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    plain = FoundIRLQEncoder(**SMALL, thumbnail_size=16).eval()
    plain.load_state_dict({k: v for k, v in toned.state_dict().items() if not k.startswith("tone_curves.")}, strict=True)
    torch.testing.assert_close(toned(pixels).lq_pixel_values, pixels)
    toned.tone_curves.whole_out.bias[3:6] = 0.1  # offsets
    brighter = (pixels + 0.2).clamp(-1, 1)
    seen = toned(pixels)
    torch.testing.assert_close(seen.lq_pixel_values, brighter)
    # The rest of the encoder judges what the curves have left, not what they have mended.
    expected = plain(brighter, (plain.thumbnail(pixels) + 0.2).clamp(-1, 1))
    torch.testing.assert_close(seen.lq_hidden_states, expected.lq_hidden_states)
    torch.testing.assert_close(seen.whole_image_embeds, expected.whole_image_embeds)


@torch.no_grad()
def test_gain_and_offset_undo_haze_and_gain_and_gamma_undo_darkness(toned):
    clean = torch.rand(1, 3, 32, 32, dtype=torch.float64) * 0.8 + 0.1
    hazy, curves = clean * 0.4 + 0.9 * 0.6, curves_of(log_gain=-math.log(0.4), offset=-0.9 * 0.6 / 0.4)
    torch.testing.assert_close(toned.tone_curves.apply_to(hazy * 2 - 1, curves), clean * 2 - 1, atol=1e-6, rtol=0)
    # A power of a gained light is a gain of its power; the toe bends what is nearly black.
    dark, curves = 0.3 * clean**1.2, curves_of(log_gain=-math.log(0.3), log_gamma=-math.log(1.2))
    torch.testing.assert_close(toned.tone_curves.apply_to(dark * 2 - 1, curves), clean * 2 - 1, atol=0.02, rtol=0)


@torch.no_grad()
def test_black_stays_black_and_no_power_of_it_has_an_infinite_slope(toned):
    curves = curves_of(log_gamma=-1.19)
    with torch.enable_grad():
        black = torch.full((1, 3, 8, 8), -1.0, requires_grad=True)
        toned.tone_curves.apply_to(black, curves).sum().backward()
    torch.testing.assert_close(toned.tone_curves.apply_to(black, curves), black)
    assert black.grad.isfinite().all()


@torch.no_grad()
def test_a_tile_gets_the_curves_of_its_place(toned):
    pixels = torch.rand(1, 3, 64, 48) * 2 - 1
    curves = torch.randn(1, 9, 4, 4) * 0.2
    whole = toned.tone_curves.apply_to(pixels, curves)
    part = toned.tone_curves.apply_to(pixels[..., 16:48, 8:40], curves, (16 / 64, 8 / 48, 48 / 64, 40 / 48))
    torch.testing.assert_close(part, whole[..., 16:48, 8:40])
    assert not torch.allclose(part, toned.tone_curves.apply_to(pixels[..., 16:48, 8:40], curves), atol=0.01)


@torch.no_grad()
def test_curves_are_interpolated_as_bilinear_resizing_does():
    grid = torch.randn(1, 1, 4, 4)
    rows, columns = _interpolation(30, 0, 1, 4, grid.device), _interpolation(20, 0, 1, 4, grid.device)
    resized = torch.nn.functional.interpolate(grid, size=(30, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(rows @ grid @ columns.T, resized)


@torch.no_grad()
def test_small_changes_are_left_out_image_by_image(toned):
    thumbnail = torch.zeros(3, 3, 16, 16)
    curves = torch.cat([curves_of(offset=offset) for offset in (0.05, 0.11, 0.2)])
    kept = toned.tone_curves.eval().where_it_matters(thumbnail, curves, 0.1)
    shares = (kept / curves)[:, 3, 0, 0]  # an offset of 0.11 is half of the way from 0.1 to 0.12
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.5, 1.0]), atol=1e-3, rtol=0)
    assert toned.tone_curves.where_it_matters(thumbnail, curves, 0.0) is curves


def test_whoever_learns_small_changes_sees_what_they_do(toned):
    thumbnail, curves = torch.zeros(1, 3, 16, 16), curves_of(offset=0.05)
    assert toned.tone_curves.train().where_it_matters(thumbnail, curves, 0.1) is curves
    toned.tone_curves.requires_grad_(False)  # while something else learns, they do what they will do
    assert not toned.tone_curves.where_it_matters(thumbnail, curves, 0.1).any()


def test_adapters_take_the_threshold_away_by_their_weight(toned):
    toned.add_adapter(LoraConfig(target_modules=r"tone_curves\.conv_(in|out)", r=1, lora_alpha=1), "mine")
    toned.eval()
    thumbnail, curves = torch.zeros(1, 3, 16, 16), curves_of(offset=0.05)
    assert toned.tone_curves.where_it_matters(thumbnail, curves, 0.1) is curves
    for weight, share in ((0.0, 0.0), (0.2, 0.0), (0.55, 0.5556), (-1.0, 1.0), (3.0, 1.0)):  # 0.05 / 0.045 is 0.11 above the threshold
        toned.set_adapters("mine", weight)
        kept = toned.tone_curves.where_it_matters(thumbnail, curves, 0.1)
        assert (kept / curves)[0, 3, 0, 0].item() == pytest.approx(share, abs=1e-3), weight
    toned.disable_adapters()
    assert not toned.tone_curves.where_it_matters(thumbnail, curves, 0.1).any()


@torch.no_grad()
def test_the_encoder_keeps_to_its_threshold(toned):
    pixels = torch.rand(1, 3, 32, 32) - 0.5
    toned.tone_curves.whole_out.bias[3:6] = 0.1
    assert not torch.allclose(toned(pixels).lq_pixel_values, pixels, atol=0.1)
    toned.eval().register_to_config(tone_threshold=0.15)
    torch.testing.assert_close(toned(pixels).lq_pixel_values, pixels)


def test_tone_curves_under_autocast_keep_single_precision(toned):
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        curves = torch.zeros(1, 9, 4, 4, dtype=torch.bfloat16)
        torch.testing.assert_close(toned.tone_curves.apply_to(pixels, curves), pixels)


@pytest.mark.parametrize("size", [None, 30])
def test_tone_curves_need_a_thumbnail(size):
    with pytest.raises(ValueError, match=rf"`tone_channels` needs a `thumbnail_size` divisible by 4, got {size}"):
        FoundIRLQEncoder(**SMALL, thumbnail_size=size, tone_channels=8)
