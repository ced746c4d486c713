from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from scenes import assert_contract, assert_same_on_cuda, grey, needs_cuda, picture, psnr, scene, seeded

from foundir_hf.data.degradations.resolution import (
    KERNELS,
    aliasing,
    downsample,
    interlacing,
    oversharpening,
    second_order_degradation,
    sinc_psf,
)

# Down-sampling draws its interpolation once for the whole batch, as documented.
DOWNSAMPLINGS = {f"downsample x{factor}": partial(downsample, factor=factor) for factor in (2, 3, 4, 8)}
DOWNSAMPLINGS |= {f"downsample by {kernel}": partial(downsample, kernel=kernel) for kernel in KERNELS}
PER_IMAGE = {
    "aliasing": aliasing,
    "second_order_degradation": second_order_degradation,
    "oversharpening": oversharpening,
    "interlacing": interlacing,
}


def detail(image: torch.Tensor) -> float:
    return float(image.diff(dim=3).abs().mean())


@pytest.mark.parametrize("name", PER_IMAGE)
def test_every_loss_of_resolution_keeps_the_contract_of_degradations(name):
    assert_contract(PER_IMAGE[name])


@pytest.mark.parametrize("name", DOWNSAMPLINGS)
def test_every_downsampling_keeps_the_contract_of_degradations(name):
    assert_contract(DOWNSAMPLINGS[name], per_image=0)


@needs_cuda
@pytest.mark.parametrize("name", DOWNSAMPLINGS | PER_IMAGE)
def test_every_loss_of_resolution_is_the_same_on_a_gpu(name):
    assert_same_on_cuda((DOWNSAMPLINGS | PER_IMAGE)[name])


# --- Down-sampling ---


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_downsampling_keeps_constant_images(factor, kernel):
    image = grey(102 / 255, 33, 47)
    assert all(torch.allclose(downsample(image, seeded(seed), factor=factor, kernel=kernel), image, atol=1e-5) for seed in range(12))


def test_downsampling_by_more_removes_more_detail():
    image = scene(64, 64)
    small = [downsample(image, seeded(), factor=factor, smooth_share=1.0) for factor in (2, 4, 8)]
    details = [detail(image), *map(detail, small)]
    assert all(finer > 1.1 * coarser for finer, coarser in pairwise(details))
    scores = [psnr(result, image) for result in small]
    assert scores[0] > scores[1] + 0.5
    assert scores[1] > scores[2]


def test_kernels_of_downsampling_differ_and_only_nearest_lets_detail_alias():
    noise = torch.rand(1, 3, 64, 64, generator=seeded(1))
    stds = {kernel: float(downsample(noise, seeded(), factor=4, smooth_share=1.0, kernel=kernel).std()) for kernel in KERNELS}
    assert len({round(std, 4) for std in stds.values()}) == len(KERNELS)
    assert stds["nearest"] > 2 * max(std for kernel, std in stds.items() if kernel != "nearest")


def test_an_unknown_kernel_is_refused_and_the_accepted_ones_are_named():
    with pytest.raises(ValueError, match="'box'") as error:
        downsample(scene(), seeded(), kernel="box")
    assert all(kernel in str(error.value) for kernel in KERNELS)


# --- Aliasing ---


def test_aliasing_keeps_pixel_values_and_repeats_them_in_squares():
    image = torch.rand(1, 1, 36, 48, generator=seeded(1)).expand(1, 3, -1, -1)
    result = aliasing(image, seeded(), factor=(3, 3), smooth_share=0)
    assert set(result.flatten().tolist()) <= set(image.flatten().tolist())
    cells = result.unflatten(3, (-1, 3)).unflatten(2, (-1, 3))  # (1, 3, 12, 3, 16, 3)
    assert torch.equal(cells, cells[:, :, :, :1, :, :1].expand_as(cells))
    assert result.unique().numel() == 12 * 16


def test_smooth_aliasing_keeps_the_pixels_in_place():
    ramp = torch.linspace(0, 1, 60).expand(8, 3, 20, -1)
    result = aliasing(ramp, seeded(), factor=(2.5, 2.5), smooth_share=1)
    # A pixel is taken from where it was: within a pixel of the ramp, but for its ends, which are repeated.
    assert (result - ramp)[..., 4:-4].abs().max() <= 1.05 / 59


def test_stripes_finer_than_the_lattice_come_back_coarser():
    stripes = (torch.arange(120) % 3 == 0).float().expand(1, 3, 8, -1)
    aliased = aliasing(stripes, seeded(), factor=(2, 2), smooth_share=0)
    assert aliased.std() > 0.8 * stripes.std()  # full contrast, where a filter would have left grey
    spectrum = (aliased - aliased.mean())[0, 0, 0].abs().new_tensor((aliased - aliased.mean())[0, 0, 0].tolist())
    peak = torch.fft.rfft(spectrum).abs()
    assert peak[: 120 // 3].max() > 0.5 * peak.max()  # below the stripes' own frequency


# --- Second order ---


def test_the_second_order_chain_loses_detail_for_every_seed_and_varies_much():
    image = picture(96, 96).expand(2, -1, -1, -1)
    scores = []
    for seed in range(16):
        result = second_order_degradation(image, seeded(seed))
        scores += [psnr(result[i], image[i]) for i in range(2)]
    assert all(8 < score < 35 for score in scores)
    assert max(scores) - min(scores) > 4


@pytest.mark.parametrize(
    "harder",
    [
        {"factor": (4, 4)},
        {"sigma": (3, 3)},
        {"noise": (30, 30), "peak": (40, 40)},
        {"quality": (10, 10)},
        {"scales": ((0.2, 1), (0.3, 1))},
    ],
)
def test_every_part_of_the_second_order_chain_can_be_turned_up(harder):
    image, seeds = picture(96, 96), range(5)
    mild: dict[str, Any] = {"factor": (1, 1), "sigma": (0.1, 0.1), "noise": (0, 0), "peak": (1e6, 1e6), "quality": (98, 98)}
    mild["scales"] = ((1, 1), (1, 1))
    means = [
        sum(psnr(second_order_degradation(image, seeded(s), **setting), image) for s in seeds) / 5 for setting in (mild, mild | harder)
    ]
    assert means[1] < means[0] - 1


@pytest.mark.parametrize("cutoff", [math.pi / 3, 2.0])
def test_a_sinc_filter_sums_to_one_rings_and_passes_only_below_its_cutoff(cutoff):
    psf = sinc_psf(grey(0.5), seeded(), cutoff=(cutoff, cutoff), extent=30)[0, 0]
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    assert psf.min() < 0
    response = torch.fft.fft2(psf).abs()
    frequency = torch.fft.fftfreq(61) * 2 * math.pi
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt()
    assert response[radius < 0.8 * cutoff].min() > 0.85
    assert response[(radius > 1.2 * cutoff) & (radius < math.pi)].max() < 0.15


# --- Sharpening and fields ---


def test_oversharpening_puts_halos_beside_an_edge_and_keeps_flat_places():
    edge = grey(0.4, 32, 64)
    edge[..., 32:] = 0.6
    sharp = oversharpening(edge, seeded(), strength=(3, 3), radius=(1.5, 1.5))
    assert sharp[..., :32].min() < 0.3
    assert sharp[..., 32:].max() > 0.7
    assert torch.allclose(sharp[..., :20], edge[..., :20], atol=1e-4)
    heights = [float(oversharpening(edge, seeded(), strength=(s, s), radius=(1.5, 1.5)).max()) for s in (0.5, 1, 2)]
    assert heights == sorted(heights)


def test_interlacing_touches_every_other_row_only():
    images = scene(20, 40, batch=12)
    changed = (interlacing(images, seeded()) != images).any(dim=3).any(dim=1)  # (12, 20)
    parities = set()
    for rows in changed:
        touched = rows.nonzero().flatten()
        assert torch.equal(touched, torch.arange(int(touched[0]), 20, 2))
        parities.add(int(touched[0]))
    assert parities == {0, 1}


def test_an_interlaced_field_is_the_picture_moved_by_the_pan():
    image = torch.rand(1, 3, 6, 40, generator=seeded(2))
    result = interlacing(image, seeded(), shift=(5, 5))
    moved = (result != image).any(dim=3).any(dim=1)[0]
    left, right = (image[:, :, moved].roll(shift, dims=3)[..., 5:-5] for shift in (-5, 5))
    field = result[:, :, moved][..., 5:-5]
    assert torch.allclose(field, left, atol=1e-5) or torch.allclose(field, right, atol=1e-5)
