from __future__ import annotations

import torch

from foundir_hf.data.augmentation import Augmentation, intent_jitter, texture_jitter, tone_jitter, whole_jitter


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramp(batch: int) -> torch.Tensor:
    """From dark to bright, with colour: `(batch, 3, 8, 32)`, all alike."""
    row = torch.linspace(0.05, 0.9, 32)
    return torch.stack([row, row * 0.8 + 0.05, row * 0.6]).view(1, 3, 1, 32).expand(batch, 3, 8, 32).clone()


def test_the_share_decides_how_many_images_change():
    images = ramp(400)
    changed = (tone_jitter(images, seeded(), share=0.25) != images).flatten(1).any(dim=1).float().mean()
    assert 0.18 < changed < 0.32
    assert torch.equal(tone_jitter(images, seeded(), share=0.0), images)


def test_every_image_draws_its_own_tone_and_stays_an_image():
    images = ramp(16)
    before = images.clone()
    toned = tone_jitter(images, seeded(), share=1.0)
    assert torch.equal(images, before)
    assert 0 <= toned.min() <= toned.max() <= 1
    assert toned.mean(dim=(1, 2, 3)).unique().numel() == 16
    assert torch.equal(toned, tone_jitter(images, seeded(), share=1.0))


def test_the_order_of_brightness_survives():
    toned = tone_jitter(ramp(32), seeded(1), share=1.0).mean(dim=1)[:, 0]
    assert (toned.diff(dim=1) >= 0).all()


def test_ranges_at_one_change_nothing_but_rounding():
    unit = {"exposure": (1, 1), "gamma": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "lift": (0, 0)}
    assert torch.allclose(tone_jitter(ramp(2), seeded(), share=1.0, **unit), ramp(2), atol=1e-5)


def test_each_range_does_what_its_name_says():
    same = {"exposure": (1, 1), "gamma": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "lift": (0, 0)}
    images = ramp(1)
    darker = tone_jitter(images, seeded(), share=1.0, **{**same, "exposure": (0.5, 0.5)})
    assert torch.allclose(darker, images * 0.5 ** (1 / 2.2), atol=1e-4)
    flatter = tone_jitter(images, seeded(), share=1.0, **{**same, "contrast": (0.5, 0.5)})
    assert torch.allclose(flatter.std(), images.std() / 2, rtol=1e-3)
    grey = tone_jitter(images, seeded(), share=1.0, **{**same, "saturation": (0.0, 0.0)})
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-6)
    lifted = tone_jitter(images * 0, seeded(), share=1.0, **{**same, "lift": (0.1, 0.1)})
    assert torch.allclose(lifted, torch.tensor(0.1), atol=1e-5)
    white = tone_jitter(images * 0 + 1, seeded(), share=1.0, **{**same, "lift": (0.1, 0.1)})
    assert torch.allclose(white, torch.tensor(1.0), atol=1e-5)


def test_sharpness_scales_detail_and_leaves_flat_areas_alone():
    images = (torch.arange(16) % 2 * 0.2 + 0.4).expand(2, 3, 16, 16).clone()
    crisper = texture_jitter(images, seeded(), share=1.0, sharpness=(0.5, 0.5), grain=(0, 0))
    softer = texture_jitter(images, seeded(), share=1.0, sharpness=(-0.3, -0.3), grain=(0, 0))
    assert crisper.std() > images.std() > softer.std()
    flat = images * 0 + 0.4
    assert torch.allclose(texture_jitter(flat, seeded(), share=1.0, grain=(0, 0)), flat, atol=1e-6)


def test_grain_is_grey_and_as_strong_as_it_says():
    flat = torch.full((4, 3, 64, 64), 0.5)
    noise = texture_jitter(flat, seeded(), share=1.0, sharpness=(0, 0), grain=(4, 4)) - flat
    assert torch.allclose(noise[:, 0], noise[:, 2], atol=1e-6)
    assert abs(noise.std().item() * 255 - 4) < 0.2
    half = texture_jitter(flat.repeat(50, 1, 1, 1), seeded(), share=0.5, sharpness=(0, 0), grain=(4, 4)) - 0.5
    assert 0.35 < (half.flatten(1).std(dim=1) > 0.001).float().mean() < 0.65


def test_no_augmentation_is_the_default():
    assert torch.equal(Augmentation()(ramp(2), seeded()), ramp(2))
    assert not torch.equal(Augmentation(texture=1.0)(ramp(2), seeded()), ramp(2))


def test_whole_jitter_changes_its_share_as_tone_curves_could():
    images = ramp(300)
    jittered = whole_jitter(images, seeded(), share=0.4)
    changed = (jittered != images).flatten(1).any(dim=1)
    assert 0.3 < changed.float().mean() < 0.5
    assert jittered.min() >= 0
    assert jittered.max() <= 1
    assert torch.equal(Augmentation(whole=0.4)(images, seeded()), jittered)


def test_intent_jitter_changes_its_share_and_keeps_photographs_in_range():
    images = torch.rand(200, 3, 16, 16, generator=seeded())
    meant = intent_jitter(images, seeded(), share=0.4)
    assert meant.min() >= 0
    assert meant.max() <= 1
    changed = (meant != images).flatten(1).any(dim=1)
    assert 0.3 < changed.float().mean() < 0.5
    assert len({round(float(mean), 1) for mean in (meant - images)[changed].mean(dim=(1, 2, 3))}) > 2  # of several kinds


def test_what_was_meant_is_for_tasks_that_leave_tones_alone():
    images = torch.rand(6, 3, 16, 16, generator=seeded())
    mends_tones = torch.tensor([True, False] * 3)
    meant = Augmentation(intent=1.0)(images, seeded(), mends_tones)
    assert torch.equal(meant[mends_tones], images[mends_tones])
    assert all(not torch.equal(meant[i], images[i]) for i in (1, 3, 5))
