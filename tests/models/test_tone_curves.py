"""Tone curves: what they undo, how they are undone, and when the gate lets them."""

from __future__ import annotations

import math

import pytest
import torch

from foundir_hf.models.tone_curves_foundir import FoundIRToneCurves


@pytest.fixture
def tone() -> FoundIRToneCurves:
    torch.manual_seed(0)
    return FoundIRToneCurves(channels=8, thumbnail_size=16).eval()


def random_images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def curves_of(log_gain: float = 0.0, offset: float = 0.0, log_gamma: float = 0.0) -> torch.Tensor:
    """The same curve for every place and colour; gain and gamma as they come out, not as they are bounded."""
    values = [3 * math.atanh(log_gain / 3), offset, 1.2 * math.atanh(log_gamma / 1.2)]
    return torch.tensor(values).repeat_interleave(3).view(1, 9, 1, 1).expand(1, 9, 4, 4)


def test_a_thumbnail_shows_the_whole_image_at_a_fixed_size(tone):
    pixels = random_images(1, 3, 160, 96)
    thumbnail = tone.thumbnail(pixels)
    assert tuple(thumbnail.shape) == (1, 3, 16, 16)
    torch.testing.assert_close(thumbnail.mean(), pixels.mean(), atol=2e-2, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["auto", "always"])
def test_fresh_curves_change_nothing(tone, mode):
    pixels = random_images(2, 3, 32, 48)
    curves = tone(tone.thumbnail(pixels), mode)
    assert tuple(curves.shape) == (2, 9, 4, 4)
    assert not curves.any()
    torch.testing.assert_close(tone.apply_curves(pixels, curves), pixels, atol=1e-6, rtol=0)


@torch.no_grad()
def test_gain_and_offset_undo_haze_and_gain_and_gamma_undo_darkness(tone):
    clean = (random_images(1, 3, 32, 32) + 1) * 0.4 + 0.1
    hazy, curves = clean * 0.4 + 0.9 * 0.6, curves_of(log_gain=-math.log(0.4), offset=-0.9 * 0.6 / 0.4)
    torch.testing.assert_close(tone.apply_curves(hazy * 2 - 1, curves), clean * 2 - 1, atol=1e-5, rtol=0)
    # A power of a gained light is a gain of its power; the toe bends what is nearly black.
    dark, curves = 0.3 * clean**1.2, curves_of(log_gain=-math.log(0.3), log_gamma=-math.log(1.2))
    torch.testing.assert_close(tone.apply_curves(dark * 2 - 1, curves), clean * 2 - 1, atol=0.02, rtol=0)


@torch.no_grad()
def test_curves_can_be_undone_where_they_cut_nothing_off(tone):
    pixels = random_images(2, 3, 24, 40) * 0.7
    curves = torch.randn(2, 9, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.3
    curves[:, 3:6] = curves[:, 3:6].abs() * 0.2  # offsets
    bent = tone.apply_curves(pixels, curves)
    assert (bent - pixels).abs().mean() > 0.1
    torch.testing.assert_close(tone.apply_curves(bent, curves, inverse=True), pixels, atol=1e-4, rtol=0)


@torch.no_grad()
def test_every_colour_and_place_has_its_own_curve(tone):
    curves = torch.zeros(1, 9, 4, 4)
    curves[:, 4, :, 2:] = 0.1  # the offset of green on the right
    change = tone.apply_curves(torch.zeros(1, 3, 32, 32), curves)
    assert change[:, (0, 2)].abs().max() < 1e-6
    torch.testing.assert_close(change[0, 1, :, -4:], torch.full((32, 4), 0.2), atol=1e-5, rtol=0)
    assert change[0, 1, :, :4].abs().max() < 1e-6
    assert (change[0, 1, 0].diff() >= -1e-6).all()  # a ramp between them


def test_black_stays_black_and_no_power_of_it_has_an_infinite_slope(tone):
    curves = curves_of(log_gamma=-1.19)
    black = torch.full((1, 3, 8, 8), -1.0, requires_grad=True)
    bent = tone.apply_curves(black, curves)
    bent.sum().backward()
    torch.testing.assert_close(bent, black)
    assert black.grad.isfinite().all()


@torch.no_grad()
def test_a_fresh_gate_lets_large_changes_through_and_small_ones_not(tone):
    thumbnail = 0.2 * random_images(1, 3, 16, 16)
    shares = []
    for offset in (0.05, 0.11, 0.2):
        tone.whole_out.bias[3:6] = offset
        shares.append((tone(thumbnail, "auto") / tone(thumbnail, "always"))[0, 3, 0, 0].item())
    assert shares == pytest.approx([0.0, 0.5, 1.0], abs=0.02)


@torch.no_grad()
def test_a_flat_card_tells_nothing_of_its_tones(tone):
    tone.whole_out.bias[3:6] = 0.4  # far enough for any gate
    texture = (torch.arange(16) % 2 * 2.0 - 1).expand(1, 3, 16, 16)
    changes = [tone(2 * levels / 255 * texture + 0.1, "auto")[0, 3, 0, 0].item() for levels in (0, 2, 3, 4, 40)]
    assert changes == pytest.approx([0.0, 0.0, 0.2, 0.4, 0.4], abs=5e-3)  # the texture has a little slope
    assert tone(torch.full((1, 3, 16, 16), 0.1), "always")[0, 3, 0, 0].item() == pytest.approx(0.4)
    gradient = torch.linspace(-0.5, 0.5, 16).expand(1, 3, 16, 16) + torch.linspace(-0.2, 0.2, 16)[:, None]
    assert tone(gradient, "auto")[0, 3, 0, 0].item() == pytest.approx(0.0, abs=1e-5)


@torch.no_grad()
def test_the_judge_sees_light_and_colours_but_no_places(tone):
    """The same pixels elsewhere, under the same curve everywhere: the same verdict."""
    tone.whole_out.bias[3:6] = 0.11
    tone.judge[-2].weight.normal_(generator=torch.Generator().manual_seed(1))
    tone.gate.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(2))
    tone.gate.bias.zero_()
    thumbnail = 0.2 * random_images(1, 3, 16, 16)
    moved = thumbnail.flatten(2)[:, :, torch.randperm(256, generator=torch.Generator().manual_seed(3))].view_as(thumbnail)
    for layer in (tone.conv_out, tone.modulation):
        assert not layer.weight.any()  # so that curves know no places either
    original, elsewhere, darker = (tone(x, "auto")[0, 3, 0, 0].item() for x in (thumbnail, moved, thumbnail - 0.3))
    assert 0 < original < 0.11
    assert elsewhere == pytest.approx(original, abs=2e-3)  # but for the dark channel's neighbourhoods, which the judge does not see
    assert darker != pytest.approx(original, abs=2e-3)


def test_a_gate_learns_though_it_is_shut_and_moves_no_curve(tone):
    with torch.no_grad():
        tone.whole_out.bias[3:6] = 0.05
    pixels = 0.2 * random_images(1, 3, 32, 32)
    curves = tone(tone.thumbnail(pixels), "auto")
    assert not curves.any()
    (tone.apply_curves(pixels, curves) - pixels - 0.1).square().sum().backward()
    assert tone.gate.bias.grad.item() < 0  # it opens
    assert tone.whole_out.weight.grad is None or not tone.whole_out.weight.grad.any()
    assert tone.whole_out.bias.grad is None or not tone.whole_out.bias.grad.any()


def test_always_moves_the_curves_and_not_the_gate(tone):
    pixels = random_images(1, 3, 32, 32)
    curves = tone(tone.thumbnail(pixels), "always")
    (tone.apply_curves(pixels, curves) - 0.1).square().sum().backward()
    assert tone.whole_out.bias.grad.any()
    assert tone.gate.weight.grad is None


@torch.no_grad()
def test_curves_under_autocast_are_applied_in_single_precision(tone):
    pixels = random_images(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(tone.apply_curves(pixels, torch.zeros(1, 9, 4, 4, dtype=torch.bfloat16)), pixels, atol=1e-6, rtol=0)


def test_saving_and_loading_keeps_the_curves(tone, tmp_path):
    with torch.no_grad():
        for layer in (tone.conv_out, tone.whole_out, tone.modulation):
            layer.weight.normal_(0, 0.1)
    tone.save_pretrained(tmp_path)
    thumbnail = random_images(1, 3, 16, 16)
    torch.testing.assert_close(FoundIRToneCurves.from_pretrained(tmp_path).eval()(thumbnail, "always"), tone(thumbnail, "always"))


def test_a_thumbnail_that_cannot_be_quartered_is_refused():
    with pytest.raises(ValueError, match="`thumbnail_size` must be divisible by 4, got 30"):
        FoundIRToneCurves(thumbnail_size=30)
