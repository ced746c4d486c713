"""The fidelity decoder: plain at 0, the photograph at 1 before training, and gated in between."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import AutoencoderKL
from weights import awaken

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.models.autoencoder_foundir import CosineShortcut, FoundIRAutoencoderKL, PixelSkip
from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder

SMALL = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "latent_channels": 6,
}


@pytest.fixture(scope="module")
def fresh() -> tuple[FoundIRAutoencoderKL, FoundIRLQEncoder]:
    torch.manual_seed(0)
    sizes = CONFIGURATIONS["tiny"]
    return FoundIRAutoencoderKL(**sizes["vae"]).eval(), FoundIRLQEncoder(**sizes["lq_encoder"]).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    """Smooth pictures, `(2, 3, 48, 64)` in [-1, 1]."""
    coarse = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(2)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(48, 64), mode="bicubic").clamp(-1, 1)


@torch.no_grad()
def decode(vae, lq_encoder, pixels, fidelity, latents=None):
    latents = vae.encode(pixels).latent_dist.mode() if latents is None else latents
    seen = lq_encoder(pixels)
    skips = {"lq_features": seen.lq_features, "lq_pixel_values": pixels, "whole_image_embeds": seen.whole_image_embeds}
    return vae.decode(latents, **skips, fidelity=fidelity).sample


def test_an_untrained_decoder_at_full_fidelity_returns_the_photograph(fresh, pixels):
    torch.testing.assert_close(decode(*fresh, pixels, 1.0), pixels)


def test_fidelity_zero_is_the_plain_decoder(pipeline, pixels):
    with torch.no_grad():
        latents = pipeline.vae.encode(pixels).latent_dist.mode()
        plain = pipeline.vae.decode(latents, fidelity=0).sample
    assert torch.equal(decode(pipeline.vae, pipeline.lq_encoder, pixels, 0.0, latents), plain)
    other = decode(pipeline.vae, pipeline.lq_encoder, 1 - pixels, 0.0, latents)
    assert torch.equal(other, plain)  # the photograph plays no part


def test_fidelity_zero_equals_diffusers_autoencoder_with_the_same_weights(pixels):
    torch.manual_seed(0)
    ours = FoundIRAutoencoderKL(**SMALL, lq_block_out_channels=(8, 8)).eval()
    theirs = AutoencoderKL(**SMALL).eval()
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if not k.startswith(("skips.", "pixel_skip."))}, strict=True)
    with torch.no_grad():
        latents = theirs.encode(pixels).latent_dist.mode()
        assert torch.equal(ours.encode(pixels).latent_dist.mode(), latents)
        assert torch.equal(ours.decode(latents, fidelity=0).sample, theirs.decode(latents).sample)


def test_made_from_a_vae_it_encodes_and_decodes_as_that_vae_does(pixels):
    torch.manual_seed(0)
    vae = AutoencoderKL(**SMALL, scaling_factor=0.3).eval()
    ours = FoundIRAutoencoderKL.from_vae(vae).eval()
    assert ours.config.scaling_factor == 0.3
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
        assert torch.equal(ours.encode(pixels).latent_dist.mode(), latents)
        assert torch.equal(ours.decode(latents, fidelity=0).sample, vae.decode(latents).sample)
    torch.testing.assert_close(decode(ours, FoundIRLQEncoder.from_vae(vae).eval(), pixels, 1.0), pixels)


def test_more_fidelity_brings_a_fresh_decoder_closer_to_the_photograph(fresh, pixels):
    errors = [float((decode(*fresh, pixels, f) - pixels).square().mean()) for f in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-4 > errors[-1]


def test_fidelity_needs_the_photograph(fresh):
    with pytest.raises(ValueError, match="lq_features"):
        fresh[0].decode(torch.zeros(1, 16, 4, 4), fidelity=0.5)


def test_latents_are_an_eighth_of_the_size(fresh, pixels):
    vae = fresh[0]
    with torch.no_grad():
        assert tuple(vae.encode(pixels).latent_dist.mode().shape) == (2, 16, 6, 8)
    assert vae.scale_factor == 8


def test_a_fresh_autoencoder_is_the_cosine_codec(fresh, pixels):
    vae = fresh[0]
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mode()
        torch.testing.assert_close(latents, vae.shortcut.to_latents(pixels))
        round_trip = vae.decode(latents, fidelity=0).sample
    error = ((round_trip - pixels) / 2).square().mean()
    assert -10 * error.log10() > 20  # low frequencies survive; saturated chroma keeps its mean only


def test_the_cosine_codec_decodes_what_it_encoded_and_keeps_the_mean():
    codec = CosineShortcut(16, 8)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        latents = codec.to_latents(images)
        once = codec.to_images(latents)
        torch.testing.assert_close(codec.to_latents(once), latents, atol=1e-4, rtol=1e-4)  # a projection
        block_means = torch.nn.functional.avg_pool2d(images, 8)
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(once, 8), block_means, atol=5e-3, rtol=0)


def test_a_full_set_of_cosines_loses_nothing():
    codec = CosineShortcut(48, 4)
    images = torch.rand(1, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(codec.to_images(codec.to_latents(images)), images, atol=1e-4, rtol=0)


def test_gains_are_bounded_and_act_on_light():
    skip = PixelSkip(4, 3, patch_size=2)
    with torch.no_grad():
        skip.conv.bias[: -3 * 4] = 1e3  # all but the offsets are log gains
        black_and_grey = torch.tensor([-1.0, -0.9]).view(1, 1, 1, 2).expand(1, 3, 2, 2)
        out = skip(torch.zeros(1, 4, 1, 1), black_and_grey)
    torch.testing.assert_close(out[..., 0], torch.full((1, 3, 2), -1.0))  # black stays black
    torch.testing.assert_close(out[..., 1] + 1, torch.full((1, 3, 2), 0.1 * torch.e**3), rtol=1e-3, atol=0)


def test_bands_sum_to_the_image_and_a_constant_is_all_in_the_last():
    skip = PixelSkip(4, 3, patch_size=2, num_bands=3)
    images = torch.rand(2, 3, 20, 26)
    bands = skip.bands(images)
    assert len(bands) == 4
    torch.testing.assert_close(sum(bands), images)
    flat = skip.bands(torch.full((1, 3, 9, 9), 0.3))
    torch.testing.assert_close(flat[-1], torch.full((1, 3, 9, 9), 0.3))
    assert all(band.abs().max() < 1e-6 for band in flat[:-1])


def test_each_band_is_an_octave_below_the_one_before():
    x = torch.arange(256.0)
    skip = PixelSkip(4, 3, patch_size=2)
    strongest = []
    for period in (2, 4, 8, 16, 256):
        wave = torch.cos(2 * torch.pi * x / period).expand(1, 3, 8, 256)
        energy = [band[..., 64:-64].square().mean() for band in skip.bands(wave)]
        strongest.append(int(torch.stack(energy).argmax()))
    assert strongest == sorted(strongest)
    assert strongest[0] == 0
    assert strongest[-1] == 4


def test_the_whole_image_s_embedding_sets_the_tone_of_every_pixel_alike():
    skip = PixelSkip(4, 3, patch_size=2, embed_dim=5)
    with torch.no_grad():
        skip.tone.weight[:-3, 0] = 1.0  # the first entry is a log gain of all bands
        skip.tone.weight[-3:, 1] = 1.0  # the second is an offset
        pixels = torch.rand(1, 3, 16, 16) * 0.5 - 1
        out = skip(torch.zeros(1, 4, 8, 8), pixels, torch.tensor([[0.5, 0.1, 0, 0, 0]]))
    gain = math.exp(3 * math.tanh(0.5 / 3))
    torch.testing.assert_close(out, gain * (pixels + 1) - 1 + 0.1)


def test_weakening_the_finest_band_removes_noise_and_keeps_the_mean():
    skip = PixelSkip(4, 3, patch_size=2)
    with torch.no_grad():
        skip.conv.bias[: 3 * 4] = -1e3  # the finest band's log gains
        noisy = 0.2 * torch.randn(1, 3, 64, 64)
        out = skip(torch.zeros(1, 4, 32, 32), noisy)
    assert out.std() < 0.6 * noisy.std()
    torch.testing.assert_close(out.mean(), noisy.mean(), atol=2e-3, rtol=0)


def test_every_skip_matters_once_it_is_trained(pixels):
    torch.manual_seed(0)
    vae = awaken(FoundIRAutoencoderKL(**SMALL, lq_block_out_channels=(8, 12))).eval()
    features = [torch.randn(2, 8, 48, 64), torch.randn(2, 12, 24, 32)]
    latents = torch.randn(2, 6, 24, 32)
    with torch.no_grad():
        before = vae.decode(latents, lq_features=tuple(features), lq_pixel_values=pixels).sample
        for level in range(2):
            changed = list(features)
            changed[level] = torch.randn_like(features[level])
            after = vae.decode(latents, lq_features=tuple(changed), lq_pixel_values=pixels).sample
            assert not torch.equal(before, after)


def test_without_a_skip_at_the_coarsest_level_only_latents_tell_what_is_there(pixels):
    torch.manual_seed(0)
    vae = awaken(FoundIRAutoencoderKL(**SMALL, lq_block_out_channels=(8,))).eval()
    features, latents = [torch.randn(2, 8, 48, 64), torch.randn(2, 12, 24, 32)], torch.randn(2, 6, 24, 32)
    with torch.no_grad():
        before = vae.decode(latents, lq_features=tuple(features), lq_pixel_values=pixels).sample
        unseen = vae.decode(latents, lq_features=(features[0], features[1] + 1), lq_pixel_values=pixels).sample
        seen = vae.decode(latents, lq_features=(features[0] + 1, features[1]), lq_pixel_values=pixels).sample
        other = vae.decode(latents + 1, lq_features=tuple(features), lq_pixel_values=pixels).sample
    assert torch.equal(before, unseen)
    assert not torch.equal(before, seen)
    assert not torch.equal(before, other)


def test_saving_and_loading_keeps_configuration_and_output(pipeline, pixels, tmp_path):
    pipeline.vae.save_pretrained(tmp_path)
    loaded = FoundIRAutoencoderKL.from_pretrained(tmp_path).eval()
    expected = decode(pipeline.vae, pipeline.lq_encoder, pixels, 0.7)
    torch.testing.assert_close(decode(loaded, pipeline.lq_encoder, pixels, 0.7), expected)
    assert loaded.config.in_channels == 3
    assert loaded.config.cosine_shortcut


def test_widths_must_match_the_levels():
    with pytest.raises(ValueError, match="lq_block_out_channels"):
        FoundIRAutoencoderKL(**SMALL, lq_block_out_channels=(8, 8, 8))
    with pytest.raises(ValueError, match="lq_block_out_channels"):
        FoundIRAutoencoderKL(**SMALL, lq_block_out_channels=())
