from __future__ import annotations

import math

import pytest
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, picture, scene, seeded

from foundir_hf.data.degradations.media import _cells, fold_creases, old_photo, paint_loss, scratches, sepia, stains

MEDIA = [scratches, sepia, paint_loss, stains, fold_creases, old_photo]


@pytest.mark.parametrize("degrade", MEDIA)
def test_media_keep_the_contract_of_degradations(degrade):
    assert_contract(degrade)


@needs_cuda
@pytest.mark.parametrize("degrade", MEDIA)
def test_media_are_the_same_on_a_gpu(degrade):
    assert_same_on_cuda(degrade)


def touched(degrade, images: torch.Tensor, seed: int = 0, **ranges) -> torch.Tensor:
    """Where each image changed: `(batch, height, width)`."""
    return (degrade(images, seeded(seed), **ranges) - images).abs().amax(dim=1) > 1e-3


def test_scratches_touch_few_pixels_and_leave_the_others():
    share = touched(scratches, grey(0.5, 200, 160, batch=8)).float().mean(dim=(1, 2))
    assert (share > 0.002).all()
    assert (share < 0.15).all()


def test_scratches_run_down_the_film():
    lines = touched(scratches, grey(0.5, 200, 160, batch=8), count=12, hairs=0, specks=(0, 0)).float()
    upright, sideways = (lines.diff(dim=d).abs().mean() for d in (1, 2))
    assert sideways > 3 * upright


def test_dust_is_dark_and_bright():
    result = scratches(grey(0.5, 200, 200, batch=4), seeded(), count=0, hairs=0, specks=(0.6, 0.6))
    assert result.max() > 0.8
    assert result.min() < 0.2
    assert torch.equal(scratches(scene(), seeded(), count=0, hairs=0, specks=(0, 0)), scene())


def test_sepia_has_one_hue_and_lifts_black():
    result = sepia(picture(60, 80).expand(6, -1, -1, -1), seeded())
    ratios = result / result[:, :1]
    assert torch.allclose(ratios, ratios.mean(dim=(2, 3), keepdim=True).expand_as(ratios), atol=1e-3)
    assert (ratios[:, 1].mean(dim=(1, 2)) < 1).all()
    assert (ratios[:, 2].mean(dim=(1, 2)) < ratios[:, 1].mean(dim=(1, 2))).all()
    assert sepia(grey(0.0), seeded(), lift=(0.1, 0.1)).min() > 0.04


def test_warmth_is_how_far_sepia_is_from_grey():
    blues = [float((r := sepia(grey(0.5), seeded(), warmth=(w, w)))[:, 2].mean() / r[:, 0].mean()) for w in (0.0, 0.5, 1.0)]
    assert blues[0] == pytest.approx(1, abs=1e-5)
    assert blues == sorted(blues, reverse=True)


def test_paint_loss_bares_about_the_asked_share_of_the_wall():
    black = grey(0.0, 160, 160, batch=6)  # plaster is bright, chalky paint is not, cracks do not show
    shares = []
    for cover in (0.05, 0.2, 0.4):
        bare = paint_loss(black, seeded(), cover=(cover, cover))[:, 0] > 0.35
        shares.append(float(bare.float().mean()))
        assert shares[-1] == pytest.approx(cover, abs=0.03)
    assert shares == sorted(shares)


def test_the_edges_of_lost_paint_are_fractal():
    """The outline gets longer the closer one looks: the length of a smooth one would not."""
    bare = (paint_loss(grey(0.0, 256, 256, batch=6), seeded(), cover=(0.3, 0.3))[:, :1] > 0.35).float()
    outline = torch.nn.functional.max_pool2d(bare, 2, 1) - bare[..., :-1, :-1]
    boxes = [float(torch.nn.functional.max_pool2d(outline, side).sum()) for side in (2, 16)]
    dimension = math.log2(boxes[0] / boxes[1]) / 3
    assert 1.08 < dimension < 1.9  # 0.96 to 0.98 for smooth noise


def test_cracks_darken_thin_lines_of_the_paint():
    white = grey(1.0, 200, 200, batch=6)
    whole, cracked = (paint_loss(white, seeded(), cover=(0.0, 0.0), cracks=(c, c)) for c in (0.0, 1.0))
    difference = (whole - cracked).mean(dim=1)
    assert difference.min() >= -1e-5
    share = (difference > 0.2).float().mean(dim=(1, 2))
    assert ((share > 0.001) & (share < 0.12)).all()


def test_borders_of_cells_are_lines_around_areas():
    distance = _cells(scene(160, 160, batch=4), seeded(), pitch=0.2)
    assert distance.min() >= 0
    assert 0.005 < (distance < 0.5).float().mean() < 0.2
    assert distance.amax(dim=(1, 2, 3)).min() > 4


def test_stains_only_darken_and_tea_takes_blue():
    image = grey(0.8, 120, 120, batch=8)
    result = stains(image, seeded(), ink=0.0)
    assert (result <= image).all()
    loss = (image - result).mean(dim=(2, 3))
    assert (loss[:, 2] > loss[:, 0]).all()


def test_tea_stains_have_a_dark_rim():
    image = grey(0.9, 200, 200, batch=12)
    density = -(stains(image, seeded(), count=1, ink=0.0, strength=(0.6, 0.6)) / image).log()[:, 2]
    inside = density > 0.05
    for index in torch.nonzero(inside.float().mean(dim=(1, 2)) > 0.1).flatten().tolist():
        # Erode twice: the first shell is the rim, what is left deep within is the middle.
        keep = inside[index].float()[None, None]
        outer, inner = (1 - torch.nn.functional.max_pool2d(1 - keep, side, 1, side // 2) for side in (5, 25))
        rim = density[index][((keep - outer) > 0.5)[0, 0]]
        middle = density[index][(inner > 0.5)[0, 0]]
        assert rim.quantile(0.9) > 1.15 * middle.median()


def test_ink_is_nearly_opaque():
    result = stains(grey(0.9, 160, 160, batch=20), seeded(), count=1, ink=1.0)
    assert (result.amin(dim=(2, 3))[:, 0] < 0.3).float().mean() > 0.8


def test_a_crease_is_a_white_line_from_side_to_side():
    dark = grey(0.2, 160, 160, batch=8)
    result = fold_creases(dark, seeded(), count=1, width=(0.01, 0.01))
    white = (result.amin(dim=1) > 0.6).flatten(1).float().mean(dim=1)
    assert ((white > 0.001) & (white < 0.08)).all()
    far = (result - dark).abs().amax(dim=1) < 1e-2
    assert (far.flatten(1).float().mean(dim=1) > 0.4).all()


def test_old_photos_are_monochrome_or_faded():
    images = picture(48, 48).expand(16, -1, -1, -1)
    ranges = {"creased": 0.0, "stained": 0.0, "grain": (0.0, 0.0)}
    silver, color = (old_photo(images, seeded(), monochrome=m, **ranges) for m in (1.0, 0.0))

    def chroma(result: torch.Tensor) -> torch.Tensor:
        """How much the ratio of red to blue varies over an image."""
        return (result[:, 0] / result[:, 2].clamp(min=0.02)).log().flatten(1).std(dim=1)

    assert chroma(silver).max() < chroma(color).min()


def test_the_grain_of_a_silver_print_is_grey():
    ranges = {"monochrome": 1.0, "creased": 0.0, "stained": 0.0}
    smooth, grainy = (old_photo(grey(0.5, 96, 96), seeded(3), grain=(g, g), **ranges) for g in (0.0, 10.0))
    noise = (grainy - smooth)[0]
    assert noise.std() * 255 == pytest.approx(10, rel=0.1)
    assert torch.allclose(noise[0], noise[2], atol=1e-3)
