"""Colour fixes take colours from the reference and leave detail alone."""

from __future__ import annotations

import pytest
import torch

from foundir_hf.pipelines.color_fix_foundir import COLOR_FIXES, adain_color_fix, wavelet_color_fix


@pytest.mark.parametrize("fix", COLOR_FIXES.values())
def test_a_colour_cast_is_removed(fix):
    reference = torch.rand(2, 3, 48, 64)
    cast = torch.tensor([0.2, -0.1, 0.05]).view(1, 3, 1, 1)
    torch.testing.assert_close(fix(reference + cast, reference), reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("fix", COLOR_FIXES.values())
def test_how_pixels_lie_in_memory_changes_no_bit(fix):
    """Channels first as tensors come, channels last as files do."""
    images, reference = torch.rand(1, 3, 150, 170), torch.rand(1, 3, 150, 170)
    assert torch.equal(fix(images, reference.to(memory_format=torch.channels_last)), fix(images, reference))


@pytest.mark.parametrize("fix", COLOR_FIXES.values())
def test_an_image_fixed_by_itself_is_itself(fix):
    images = torch.rand(1, 3, 40, 40)
    torch.testing.assert_close(fix(images, images), images, atol=1e-5, rtol=0)


def test_adain_gives_each_channel_the_reference_s_statistics():
    images, reference = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 20, 24) * 0.5 + 0.2
    fixed = adain_color_fix(images, reference)
    torch.testing.assert_close(fixed.mean(dim=(2, 3)), reference.mean(dim=(2, 3)))
    torch.testing.assert_close(fixed.std(dim=(2, 3), correction=0), reference.std(dim=(2, 3), correction=0))


def test_adain_survives_a_constant_image():
    assert adain_color_fix(torch.full((1, 3, 8, 8), 0.5), torch.rand(1, 3, 8, 8)).isfinite().all()


def test_wavelet_keeps_the_fine_detail():
    checkers = (torch.arange(96)[:, None] + torch.arange(96)[None]) % 2 * 0.4 - 0.2
    reference = torch.full((1, 3, 96, 96), 0.5)
    fixed = wavelet_color_fix(reference + 0.1 + checkers, reference)
    inside = (..., slice(32, -32), slice(32, -32))  # the border's own repetition disturbs the pattern at the edge
    torch.testing.assert_close(fixed[inside], (reference + checkers)[inside], atol=1e-5, rtol=0)
