"""Scores against seeded damage on the sample photographs: each must rise with its own kind."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.curation.quality import SCORES, WIDEST, blockiness, darkness, edge_width, haze_density, noise_level, score_photo, tint
from foundir_hf.data.degradations.blur import defocus_blur
from foundir_hf.data.degradations.compression import jpeg
from foundir_hf.data.degradations.haze import haze
from foundir_hf.data.degradations.illumination import color_cast, low_light, over_exposure
from foundir_hf.data.degradations.noise import gaussian_noise
from foundir_hf.evaluation.demo import SAMPLES
from foundir_hf.io.folder import list_photos

# White noise of one deviation in every channel is that much weaker in luma.
LUMA = math.hypot(0.299, 0.587, 0.114)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def load(path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


PHOTOS = {path.stem: load(path) for path in list_photos(SAMPLES)}
# The scores of what tests compare with, once.
CLEAN = {name: score_photo(photo) for name, photo in PHOTOS.items()}
every_photo = pytest.mark.parametrize("name", sorted(PHOTOS))


def damaged(photo: torch.Tensor, degradation, seed: int = 0) -> torch.Tensor:
    return (degradation(photo[None].float() / 255, seeded(seed))[0] * 255).round().to(torch.uint8)


def scored(photo: torch.Tensor, degradation) -> dict[str, float]:
    return score_photo(damaged(photo, degradation))


def assert_rising(values: list[float], step: float = 0.0) -> None:
    assert all(after > before + step for before, after in pairwise(values)), values


def luma_of(photo: torch.Tensor) -> torch.Tensor:
    red, green, blue = photo.float()
    return 0.299 * red + 0.587 * green + 0.114 * blue


# --- The contract ---


@every_photo
def test_scores_are_finite_numbers_by_their_documented_names_and_deterministic(name):
    scores = score_photo(PHOTOS[name])
    assert list(scores) == list(SCORES)
    assert all(isinstance(value, float) and math.isfinite(value) for value in scores.values())
    assert scores == CLEAN[name]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64), (65, 63)])
def test_any_size_has_scores(size):
    pixels = torch.randint(256, (3, *size), generator=seeded(), dtype=torch.uint8)
    scores = score_photo(pixels)
    assert scores["short_side"] == min(size)
    assert all(map(math.isfinite, scores.values()))


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(1, 8, 8, dtype=torch.uint8),
        torch.zeros(8, 8, dtype=torch.uint8),
        torch.zeros(3, 0, 8, dtype=torch.uint8),
    ],
)
def test_what_is_no_photograph_is_refused(pixels):
    with pytest.raises(ValueError, match=r"`pixels` must be uint8 of shape \(3, H, W\), got"):
        score_photo(pixels)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_plain_picture_is_flat_and_without_sharp_edges_and_nothing_divides_by_zero(level):
    scores = score_photo(torch.full((3, 96, 128), level, dtype=torch.uint8))
    assert scores["flatness"] == 1
    assert (scores["blur"], scores["softness"]) == (WIDEST, 1)
    assert [scores["noise"], scores["blockiness"], scores["chroma"]] == pytest.approx([0, 0, 0], abs=1e-4)  # grey levels
    assert scores["tint"] == pytest.approx(0, abs=0.1)
    assert scores["blown"] == scores["clipped"] == (level == 255)


# --- Noise ---


@every_photo
@pytest.mark.parametrize("sigma", [15, 25])
def test_white_noise_is_measured_in_grey_levels(name, sigma):
    scores = scored(PHOTOS[name], partial(gaussian_noise, sigma=(sigma, sigma)))
    assert scores["noise"] == pytest.approx(sigma * LUMA, rel=0.12)


@every_photo
def test_noise_rises_with_noise_and_not_with_the_scene(name):
    levels = [scored(PHOTOS[name], partial(gaussian_noise, sigma=(s, s)))["noise"] for s in (5, 15, 25)]
    assert_rising([CLEAN[name]["noise"], *levels], step=1)


def test_noise_is_exact_on_grey_and_blind_to_slow_gradients():
    noise = torch.randn(256, 256, generator=seeded())
    ramp = torch.linspace(40, 200, 256).expand(256, 256)
    assert noise_level(128 + 4 * noise) == pytest.approx(4, rel=0.05)
    assert noise_level(ramp + 4 * noise) == pytest.approx(4, rel=0.05)
    assert noise_level(ramp) < 0.05


def test_texture_with_equal_energy_in_every_octave_is_hardly_noise():
    frequency = torch.hypot(torch.fft.fftfreq(512)[:, None], torch.fft.rfftfreq(512)[None]).clamp(min=1 / 512)
    texture = torch.fft.irfft2(torch.fft.rfft2(torch.randn(512, 512, generator=seeded())) / frequency)
    texture = 128 + 25 * texture / texture.std()
    white = 128 + 25 * torch.randn(512, 512, generator=seeded())
    assert noise_level(texture) < 0.3 * noise_level(white)


def test_noise_is_not_sought_where_it_is_clipped():
    noise = torch.randn(256, 256, generator=seeded())
    half_black = 128 + 6 * noise
    half_black[:, :128] = 0
    assert noise_level(half_black) == pytest.approx(6, rel=0.1)
    assert noise_level(torch.zeros(256, 256)) == 0


# --- Blur ---


@every_photo
def test_edges_widen_with_the_radius_of_defocus(name):
    found = [scored(PHOTOS[name], partial(defocus_blur, radius=(r, r))) for r in (1, 3, 5)]
    assert_rising([CLEAN[name]["blur"], *(scores["blur"] for scores in found)], step=0.1)
    assert found[0]["softness"] < found[1]["softness"] < found[2]["softness"]


@pytest.mark.parametrize("width", [1.0, 2.0, 3.0])
def test_the_width_of_a_gaussian_edge_is_measured_in_pixels(width):
    position = torch.arange(256) - 127.5
    edge = 60 + 120 * 0.5 * (1 + torch.erf(position / (width * math.sqrt(2))))
    assert edge_width(edge.expand(128, 256))[0] == pytest.approx(width, abs=0.3)


def test_one_sharp_part_in_a_soft_picture_counts_as_sharp_but_leaves_much_of_it_soft():
    photo = PHOTOS["coffee"]
    soft = damaged(photo, partial(defocus_blur, radius=(5, 5)))
    mixed = soft.clone()
    mixed[:, 96:256, 128:320] = photo[:, 96:256, 128:320]
    assert score_photo(mixed)["blur"] < 0.6 * score_photo(soft)["blur"]
    assert score_photo(photo)["softness"] + 0.3 < score_photo(mixed)["softness"]


# --- Compression ---


@every_photo
def test_blockiness_rises_as_jpeg_quality_falls(name):
    levels = [scored(PHOTOS[name], partial(jpeg, quality=(q, q)))["blockiness"] for q in (75, 50, 20, 10)]
    assert_rising([CLEAN[name]["blockiness"], *levels], step=0.03)


@every_photo
@pytest.mark.parametrize("offset", [(0, 5), (3, 0), (4, 7)])
def test_the_grid_is_found_wherever_it_starts(name, offset):
    compressed = damaged(PHOTOS[name], partial(jpeg, quality=(20, 20)))
    whole, cropped = blockiness(luma_of(compressed)), blockiness(luma_of(compressed[:, offset[0] :, offset[1] :]))
    assert cropped == pytest.approx(whole, rel=0.15)


def test_stripes_of_one_direction_are_no_grid():
    stripes = (torch.arange(256) % 8 < 4).float().expand(256, 256) * 100
    assert blockiness(stripes) < 0.05


# --- Haze ---


@every_photo
def test_haze_rises_with_its_density(name):
    levels = [scored(PHOTOS[name], partial(haze, density=(d, d)))["haze"] for d in (0.4, 1.0, 2.0)]
    assert_rising([CLEAN[name]["haze"], *levels], step=0.03)


def small(photo: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(photo[None].float() / 255, size=(192, 256), mode="bilinear", antialias=True)[0]


def test_what_is_bright_hard_edged_or_colourful_is_less_hazy_than_haze():
    grey = small(PHOTOS["coffee"]).mean(0, keepdim=True).expand(3, -1, -1)
    fog = 0.25 * grey + 0.75 * 0.8
    snow = 0.25 * grey + 0.75 * 0.8
    snow = torch.where(torch.rand(1, 192, 256, generator=seeded()) < 0.03, 0.05, snow)  # dark twigs
    green = fog * torch.tensor([0.4, 1.0, 0.4]).view(3, 1, 1)
    page = torch.ones(3, 192, 256)
    assert haze_density(fog) > 1.2 * haze_density(snow)
    assert haze_density(fog) > 1.2 * haze_density(green)
    assert haze_density(page) == 0


# --- Light and colour ---


@every_photo
def test_darkness_counts_stops(name):
    exposures = [
        scored(PHOTOS[name], partial(low_light, exposure=(e, e), gamma=(1, 1), noise=(0, 0)))["darkness"] for e in (0.5, 0.25, 0.125)
    ]
    assert_rising([CLEAN[name]["darkness"], *exposures], step=0.7)
    assert exposures[1] - exposures[0] == pytest.approx(1, abs=0.15)


def test_darkness_is_zero_at_mid_grey_and_bounded():
    assert darkness(torch.full((3, 32, 32), 0.18 ** (1 / 2.2))) == pytest.approx(0, abs=1e-3)
    assert darkness(torch.zeros(3, 32, 32)) == pytest.approx(10)
    assert darkness(torch.ones(3, 32, 32)) == pytest.approx(-2.474, abs=1e-3)


def test_a_lamp_does_not_make_a_night_bright():
    night = torch.full((3, 64, 64), 0.1)
    lit = night.clone()
    lit[:, :24, :24] = 1.0
    assert darkness(lit) == pytest.approx(darkness(night))


@every_photo
def test_over_exposure_clips(name):
    photo, exposed = CLEAN[name], scored(PHOTOS[name], over_exposure)
    assert exposed["clipped"] > photo["clipped"]
    assert exposed["blown"] >= photo["blown"]


def test_clipping_counts_the_worst_channel_and_blown_all_of_them():
    pixels = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    pixels[0, :32] = 255
    pixels[1, :16] = 255
    scores = score_photo(pixels)
    assert (scores["clipped"], scores["blown"]) == (0.5, 0)
    pixels[2, :16] = 255
    assert score_photo(pixels)["blown"] == 0.25


def test_tint_is_an_angle_and_chroma_is_nought_without_colour():
    red = torch.zeros(3, 32, 32)
    red[0] = 0.5
    assert tint(red) == pytest.approx(54.74, abs=0.01)
    assert tint(torch.full((3, 32, 32), 0.4)) == pytest.approx(0, abs=0.1)
    grey = luma_of(PHOTOS["coffee"]).round().to(torch.uint8).expand(3, -1, -1)
    assert score_photo(grey)["chroma"] == 0
    assert CLEAN["coffee"]["chroma"] > 0.1


def test_a_cast_of_colour_is_seen():
    photo = PHOTOS["astronaut"]
    assert scored(photo, partial(color_cast, strength=(0.8, 0.8)))["tint"] > score_photo(photo)["tint"] + 5
