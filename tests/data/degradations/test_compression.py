from __future__ import annotations

import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, picture, psnr, scene, seeded

from foundir_hf.data.degradations.compression import (
    _dct_matrix,
    chroma_subsampling,
    double_jpeg,
    jpeg,
    palette_dither,
    posterization,
    video_blocks,
    webp,
)

COMPRESSIONS = {
    "jpeg": jpeg,
    "jpeg with full colour": partial(jpeg, subsampling=1),
    "double_jpeg": double_jpeg,
    "webp": webp,
    "chroma_subsampling": chroma_subsampling,
    "posterization": posterization,
    "palette_dither": palette_dither,
    "video_blocks": video_blocks,
}
every_compression = pytest.mark.parametrize("name", COMPRESSIONS)


def to_pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())


def through_pillow(image: torch.Tensor, kind: str, **options) -> torch.Tensor:
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, kind, **options)
    return torch.from_numpy(np.asarray(Image.open(buffer).convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 255


def luma(images: torch.Tensor) -> torch.Tensor:
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def blockiness(images: torch.Tensor, offset: int = 7, period: int = 8) -> float:
    """Mean step of brightness across the columns that start a block, relative to the others'."""
    steps = luma(images).diff(dim=3).abs().mean(dim=(0, 1, 2))
    at_edges = torch.zeros(len(steps), dtype=torch.bool)
    at_edges[offset::period] = True
    return float(steps[at_edges].mean() / steps[~at_edges].mean())


@every_compression
def test_every_compression_keeps_the_contract_of_degradations(name):
    assert_contract(COMPRESSIONS[name])


@needs_cuda
@every_compression
def test_every_compression_is_the_same_on_a_gpu(name):
    assert_same_on_cuda(COMPRESSIONS[name])


# --- JPEG ---


def test_the_dct_matrix_is_orthonormal_and_starts_with_the_mean():
    matrix = _dct_matrix(torch.device("cpu"), torch.double)
    assert torch.allclose(matrix @ matrix.T, torch.eye(8, dtype=torch.double), atol=1e-12)
    assert torch.allclose(matrix[0], torch.full((8,), 8**-0.5, dtype=torch.double))


@pytest.mark.parametrize("subsampling", [1, 2])
@pytest.mark.parametrize("quality", [10, 30, 60, 90])
@pytest.mark.parametrize("size", [(128, 160), (75, 101)])
def test_jpeg_gives_what_pillow_gives(quality, size, subsampling):
    image = picture(*size)
    ours = jpeg(image, seeded(), quality=(quality, quality), subsampling=subsampling)
    theirs = through_pillow(image, "JPEG", quality=quality, subsampling={1: "4:4:4", 2: "4:2:0"}[subsampling])
    assert psnr(ours, theirs) >= 38
    assert psnr(ours, image) == pytest.approx(psnr(theirs, image), abs=1.0)


def test_jpeg_damage_falls_with_quality():
    image = picture(96, 96)
    scores = [psnr(jpeg(image, seeded(), quality=(q, q)), image) for q in (5, 10, 20, 40, 60, 80, 95)]
    assert scores == sorted(scores)
    assert scores[-1] - scores[0] > 8


def test_double_jpeg_without_a_shift_at_one_quality_is_nearly_a_single_one():
    image = picture(96, 96)
    once = jpeg(image, seeded(), quality=(20, 20))
    again = double_jpeg(image, seeded(), quality=(20, 20), shift=(0, 0))
    assert psnr(once, again) > psnr(once, image) + 8
    shifted = double_jpeg(image, seeded(), quality=(20, 20), shift=(4, 4))
    assert psnr(shifted, image) < psnr(once, image)
    assert psnr(once, shifted) < psnr(once, again) - 5


@pytest.mark.parametrize("shift", [1, 3, 7])
def test_double_jpeg_is_a_jpeg_of_a_cropped_jpeg(shift):
    image = picture(40, 56)
    save = partial(jpeg, generator=seeded(), quality=(15, 15))
    cropped = save(torch.nn.functional.pad(image, (shift, 0, shift, 0), mode="replicate"))[..., shift:, shift:]
    assert torch.equal(double_jpeg(image, seeded(), quality=(15, 15), shift=(shift, shift)), save(cropped))


# --- Codecs and palettes of Pillow ---


@pytest.mark.parametrize("quality", [5, 50])
@pytest.mark.parametrize("size", [(40, 56), (33, 21)])
def test_webp_is_pillows_own_round_trip(quality, size):
    image = picture(*size)
    assert torch.equal(webp(image, seeded(), quality=(quality, quality)), through_pillow(image, "WEBP", quality=quality))


def test_webp_damage_falls_with_quality():
    image = picture(96, 96)
    scores = [psnr(webp(image, seeded(), quality=(q, q)), image) for q in (1, 20, 60, 95)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("colors", [8, 32])
def test_a_palette_has_its_number_of_colors_and_dither_keeps_the_local_mean(colors):
    image = picture(64, 80)
    result = palette_dither(image, seeded(), colors=(colors, colors))
    used = result[0].flatten(1).unique(dim=1).shape[1]
    assert colors / 2 <= used <= colors
    smooth = partial(torch.nn.functional.avg_pool2d, kernel_size=8)
    plain = torch.from_numpy(np.asarray(to_pillow(image).quantize(colors, dither=Image.Dither.NONE).convert("RGB")).copy())
    plain = plain.permute(2, 0, 1)[None].float() / 255
    assert (smooth(result) - smooth(image)).abs().mean() < 0.9 * (smooth(plain) - smooth(image)).abs().mean()


# --- Color ---


def test_chroma_subsampling_leaves_brightness_alone_but_not_color():
    image = 0.35 + 0.3 * picture(64, 80)  # far from the limits of the range
    result = chroma_subsampling(image.expand(4, -1, -1, -1), seeded())
    assert (luma(result) - luma(image)).abs().max() < 1e-5
    colour, before = result - luma(result), image - luma(image)
    assert (colour.diff(dim=3).abs().amax(dim=(1, 2, 3)) < 0.8 * before.diff(dim=3).abs().max()).all()
    assert torch.allclose(colour.mean(dim=(2, 3)), before.mean(dim=(2, 3)).expand(4, -1), atol=5e-3)


def test_coarser_chroma_bleeds_further():
    image = 0.35 + 0.3 * picture(96, 96)
    scores = [psnr(chroma_subsampling(image, seeded(), factors=(factor,)), image) for factor in (1, 2, 4, 8, 16)]
    assert scores[0] > 100
    assert scores[1:] == sorted(scores[1:], reverse=True)
    assert torch.allclose(chroma_subsampling(grey(0.3), seeded()), grey(0.3), atol=1e-6)


@pytest.mark.parametrize("levels", [2, 5, 12])
def test_posterization_leaves_equally_spaced_levels_and_keeps_their_order(levels):
    ramp = torch.linspace(0, 1, 400).expand(4, 3, 2, -1)
    result = posterization(ramp, seeded(), levels=(levels, levels))
    values = result.unique()
    assert torch.allclose(values, torch.linspace(0, 1, levels), atol=1e-6)
    assert (result.diff(dim=3) >= 0).all()
    assert (result - ramp).abs().max() <= 0.81 / (levels - 1)


def test_a_single_level_is_refused():
    with pytest.raises(ValueError, match=r"at least 2; got \(1, 4\)"):
        posterization(scene(), seeded(), levels=(1, 4))


# --- Video ---


def test_video_blocks_have_edges_where_macroblocks_meet():
    # Many frames, because the previous frame's own grid, which each has carried elsewhere, shows as well.
    frames = video_blocks(picture(160, 240).expand(16, -1, -1, -1), seeded(), step=(90, 90))
    assert blockiness(frames) > 1.1
    assert blockiness(frames, offset=15, period=16) > 1.25
    assert blockiness(picture(160, 240)) < 1.05


def test_a_coarser_quantiser_does_more_damage():
    image = picture(96, 128)
    scores = [psnr(video_blocks(image, seeded(), step=(s, s)), image) for s in (5, 20, 60, 150)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1] + 3


def test_macroblocks_that_are_not_sent_show_the_wrong_place_and_others_do_not():
    """With a quantiser too fine to be seen, only blocks without a residual whose motion vector is wrong differ from the picture."""
    image = scene(160, 160)
    nothing_skipped = video_blocks(image, seeded(), step=(0.5, 0.5), skipped=(0, 0))
    # Colour at half resolution is lost in any case.
    assert (luma(nothing_skipped) - luma(image)).abs().mean() < 0.01
    half_skipped = video_blocks(image, seeded(), step=(0.5, 0.5), skipped=(0.5, 0.5))
    damage = torch.nn.functional.avg_pool2d((luma(half_skipped) - luma(nothing_skipped)).abs(), 16).flatten()
    assert 0.05 < (damage > 0.03).float().mean() < 0.3  # half of the three in ten that point to a wrong place


def test_a_flat_frame_survives_but_for_the_last_grey_levels():
    assert (video_blocks(grey(0.5, 48, 48, batch=2), seeded()) - 0.5).abs().max() < 1e-5
