"""The cosine codec: a projection onto low frequencies, exact where it holds a picture."""

from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn

from foundir_hf.models.cosine_autoencoder_foundir import FoundIRCosineAutoencoder


@pytest.fixture
def codec() -> FoundIRCosineAutoencoder:
    return FoundIRCosineAutoencoder(block_size=8, latent_channels=48)


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_latents_are_at_an_eighth_and_decoding_is_a_projection(codec):
    images = random_images(2, 3, 48, 64)
    latents = codec.encode(images).latent_dist.mode()
    assert tuple(latents.shape) == (2, 48, 6, 8)
    decoded = codec.decode(latents).sample
    assert tuple(decoded.shape) == tuple(images.shape)
    torch.testing.assert_close(codec.encode(decoded).latent_dist.mode(), latents, atol=1e-5, rtol=0)
    assert (decoded - images).abs().mean() > 0.1  # noise is mostly what it does not hold


def test_what_is_left_over_is_orthogonal_to_what_is_held(codec):
    images = random_images(1, 3, 32, 32)
    held = codec.decode(codec.encode(images).latent_dist.mode()).sample
    assert (held * (images - held)).sum().abs() < 1e-3


def test_all_coefficients_lose_nothing():
    images = random_images(1, 3, 24, 32)
    whole = FoundIRCosineAutoencoder(block_size=4, latent_channels=48)
    torch.testing.assert_close(whole.decode(whole.encode(images).latent_dist.mode()).sample, images, atol=1e-5, rtol=0)


def test_the_first_coefficient_is_the_blocks_brightness_and_the_others_are_of_the_cosine_transform(codec):
    block = random_images(1, 3, 8, 8)
    expected = dctn(block[0].double().numpy(), norm="ortho")  # over colours, rows and columns
    values = (codec.encode(block).latent_dist.mode()[0, :, 0, 0] * codec.units).double().numpy()
    assert values[0] == pytest.approx(expected[0, 0, 0], abs=1e-5)
    nearest = abs(abs(values)[:, None] - abs(expected).ravel()).min(axis=1)
    assert nearest.max() < 1e-5


def test_units_fall_with_the_frequency_and_only_as_the_root_of_the_deviation(codec):
    assert codec.units[0] == 1
    assert (codec.units.diff() <= 0).all()
    assert 0.1 < codec.units[-1] < 0.3


def test_smooth_pictures_are_held_better_than_fine_ones(codec):
    coarse = torch.nn.functional.interpolate(random_images(1, 3, 4, 5), size=(48, 64), mode="bicubic").clamp(-1, 1)
    lost = [(codec.decode(codec.encode(x).latent_dist.mode()).sample - x).square().mean() for x in (coarse, random_images(1, 3, 48, 64))]
    assert 50 * lost[0] < lost[1]


def test_half_precision_and_autocast_compute_in_single_precision(codec):
    images = random_images(1, 3, 16, 16)
    expected = codec.encode(images).latent_dist.mode()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode(images).latent_dist.mode(), expected)
    half = codec.half().encode(images.half()).latent_dist.mode()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, atol=5e-3, rtol=0)


def test_nothing_in_it_is_learnt_and_it_survives_saving(codec, tmp_path):
    assert list(codec.parameters()) == []
    codec.save_pretrained(tmp_path)
    loaded = FoundIRCosineAutoencoder.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.buffers(), codec.buffers(), strict=True))


def test_more_coefficients_than_a_block_has_are_refused():
    with pytest.raises(ValueError, match=r"`latent_channels` must lie in \[1, 48\], got 49"):
        FoundIRCosineAutoencoder(block_size=4, latent_channels=49)
