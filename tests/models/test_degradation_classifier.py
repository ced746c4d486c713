"""The classifier's two views of a photograph, and that its judgement depends on neither size nor number of crops."""

from __future__ import annotations

import pytest
import torch

from foundir_hf.models.degradation_classifier_foundir import FoundIRDegradationClassifier

SIZES = {
    "defects": ("noise", "blur", "haze"),
    "crop_size": 16,
    "max_crops": 6,
    "overview_size": 32,
    "detail_channels": (8, 8),
    "overview_channels": (8, 16),
    "num_heads": 2,
    "hidden_size": 16,
}


@pytest.fixture
def classifier() -> FoundIRDegradationClassifier:
    return FoundIRDegradationClassifier(**SIZES).eval()


def photo(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 7), (16, 16), (33, 47), (64, 48), (20, 900), (700, 12)])
def test_photographs_of_any_size_get_a_probability_for_each_defect(classifier, size):
    probabilities = classifier.probabilities(photo(*size, batch=2))
    assert probabilities.shape == (2, 3)
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("size", [(16, 16), (20, 30), (32, 48), (31, 47)])
def test_crops_cover_a_small_photograph(classifier, size):
    marked = torch.zeros(1, 3, *size)
    detail, _ = classifier.views(marked + torch.arange(size[0] * size[1]).view(size))
    assert set(detail[:, :, 0].flatten().tolist()) == set(range(size[0] * size[1]))
    assert detail.shape[1] <= 6


@pytest.mark.parametrize("size", [(300, 400), (1000, 20), (17, 1000), (160, 160)])
def test_of_a_large_photograph_at_most_the_stated_number_of_crops_is_seen_from_border_to_border(classifier, size):
    places = torch.arange(size[0] * size[1]).view(size).expand(1, 3, *size).float()
    detail, _ = classifier.views(places)
    assert 3 < detail.shape[1] <= 6
    rows, columns = detail[:, :, 0].long() // size[1], detail[:, :, 0].long() % size[1]
    longest = rows if size[0] >= size[1] else columns
    assert longest.min() == 0
    assert longest.max() == max(size) - 1


def test_crops_are_the_photograph_s_own_pixels(classifier):
    pixels = photo(16, 16)
    detail, _ = classifier.views(pixels)
    assert torch.equal(detail[:, 0], pixels)


def test_random_crops_follow_the_generator_and_reach_every_corner(classifier):
    pixels = torch.arange(18 * 19).view(18, 19).expand(1, 3, 18, 19).float()
    first, _ = classifier.views(pixels, 200, torch.Generator().manual_seed(1))
    again, _ = classifier.views(pixels, 200, torch.Generator().manual_seed(1))
    other, _ = classifier.views(pixels, 200, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() == 0
    assert first.max() == 18 * 19 - 1


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 96), (32, 48)), ((500, 300), (54, 32)), ((16, 16), (32, 32)), ((16, 4000), (32, 128))]
)
def test_the_small_copy_keeps_the_shape_up_to_one_to_four(classifier, size, expected):
    _, overview = classifier.views(photo(*size))
    assert tuple(overview.shape) == (1, 3, *expected)


def test_the_small_copy_is_anti_aliased(classifier):
    stripes = torch.zeros(1, 3, 320, 320)
    stripes[..., ::2] = 1
    _, overview = classifier.views(stripes)
    torch.testing.assert_close(overview, torch.full_like(overview, 0.5), atol=0.06, rtol=0)


def test_seeing_every_crop_twice_changes_nothing(classifier):
    detail, overview = classifier.views(photo(40, 40))
    with torch.no_grad():
        torch.testing.assert_close(classifier(detail, overview), classifier(torch.cat([detail, detail], dim=1), overview))


def test_the_order_of_crops_changes_nothing(classifier):
    detail, overview = classifier.views(photo(40, 40))
    with torch.no_grad():
        torch.testing.assert_close(classifier(detail, overview), classifier(detail.flip(1), overview))


def test_photographs_of_a_batch_are_judged_apart(classifier):
    pixels = torch.cat([photo(40, 40), 1 - photo(40, 40) ** 2])
    together = classifier.probabilities(pixels)
    alone = torch.cat([classifier.probabilities(pixels[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together[0], together[1])


def test_both_views_count(classifier):
    detail, overview = classifier.views(photo(40, 40))
    with torch.no_grad():
        plain = classifier(detail, overview)
        assert not torch.allclose(classifier(detail * 0.5, overview), plain)
        assert not torch.allclose(classifier(detail, overview * 0.5), plain)


def test_gradients_reach_every_parameter(classifier):
    classifier.train()
    log_odds = classifier(*classifier.views(photo(40, 40, batch=4)))
    log_odds.square().mean().backward()
    assert [name for name, p in classifier.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_it_is_saved_with_its_defects_and_judges_the_same_afterwards(classifier, tmp_path):
    classifier.save_pretrained(tmp_path)
    loaded = FoundIRDegradationClassifier.from_pretrained(tmp_path).eval()
    assert tuple(loaded.config.defects) == SIZES["defects"]
    torch.testing.assert_close(loaded.probabilities(photo(40, 50)), classifier.probabilities(photo(40, 50)))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


@pytest.mark.parametrize("defects", [(), ("noise", "noise")])
def test_defects_must_differ_and_be_some(defects):
    with pytest.raises(ValueError, match="`defects` must be at least one name, each once"):
        FoundIRDegradationClassifier(**{**SIZES, "defects": defects})


def test_heads_must_divide_the_widths():
    with pytest.raises(ValueError, match="`num_heads` must divide 8 and 16, got 3"):
        FoundIRDegradationClassifier(**{**SIZES, "num_heads": 3})


@pytest.mark.parametrize("name", ["crop_size", "overview_size"])
@pytest.mark.parametrize("value", [8, 33])
def test_sizes_must_be_even_and_not_tiny(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be even and at least 16, got {value}"):
        FoundIRDegradationClassifier(**{**SIZES, name: value})


def test_autocast_blurs_no_grey_levels():
    """In bfloat16 neighbouring levels of a file are one number; what tells noise from nothing is computed before that."""
    classifier = FoundIRDegradationClassifier(**SIZES)
    seen = []
    classifier.detail.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    detail, overview = classifier.views(200 / 255 + (photo(16, 16) > 0.5) / 255)
    with torch.no_grad():
        classifier.eval()(detail, overview)
        with torch.autocast("cpu", torch.bfloat16):
            classifier(detail, overview)
    assert seen[0][:, 3:].std() > 0.01
    torch.testing.assert_close(seen[1][:, 3:], seen[0][:, 3:])


def test_the_bands_are_an_orthonormal_basis_without_the_mean(classifier):
    bands = classifier.bands.flatten(1)
    torch.testing.assert_close(bands @ bands.T, torch.eye(63), atol=1e-5, rtol=0)
    torch.testing.assert_close(bands.sum(dim=1), torch.zeros(63), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 5)])
def test_blocks_show_in_the_statistics_wherever_their_grid_lies(classifier, top, left):
    smooth = torch.linspace(0, 1, 80).expand(1, 3, 80, 80) + torch.linspace(0, 0.5, 80)[:, None]
    blocks = smooth[..., ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3)
    window = (..., slice(top, top + 64), slice(left, left + 64))
    plain, blocky = (classifier._detail_statistics(image[window])[0, -16:].unflatten(0, (2, 8)) for image in (smooth, blocks))
    assert (plain[:, 0] < 0.1).all()
    assert (blocky[:, 0] > 1.5).all()  # one phase of eight has all the steps
    assert (blocky[:, 1:] < 0).all()


def test_half_precision_judges_nearly_alike(classifier):
    expected = classifier.probabilities(photo(40, 50))
    torch.testing.assert_close(classifier.half().probabilities(photo(40, 50)), expected, atol=5e-3, rtol=0)
