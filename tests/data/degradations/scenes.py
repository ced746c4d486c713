"""Pictures for the tests of degradations, and the contract that all of them keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

SIZES = ((1, 1), (1, 2), (3, 1), (2, 5), (4, 4), (8, 8), (7, 3), (33, 47), (48, 64))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(height: int = 48, width: int = 64, batch: int = 1) -> torch.Tensor:
    """Gradients, sharp edges and fine texture: `(batch, 3, height, width)`, all images equal."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    texture = torch.rand(3, height, width, generator=seeded(99)) * 0.2
    picture = torch.stack([x / max(1, width), y / max(1, height), ((x // 9 + y // 7) % 2).float()]) * 0.7 + 0.05 + texture
    return picture.clamp(0, 1).expand(batch, -1, -1, -1).clone()


def picture(height: int, width: int) -> torch.Tensor:
    """Shading, coloured shapes and waves without noise, with 8 bits: `(1, 3, height, width)`."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    waves = 0.15 * torch.sin(20 * x * (1.2 + y))
    disc = ((x - 0.2) ** 2 + (y + 0.1) ** 2 < 0.3).float()
    planes = torch.stack([0.5 + 0.3 * x + 0.1 * disc, 0.5 + 0.3 * y - 0.2 * disc, 0.4 + 0.2 * x * y + 0.15 * disc]) + waves
    return (planes.clamp(0, 1) * 255).round()[None] / 255


def grey(level: float, height: int = 64, width: int = 64, batch: int = 1) -> torch.Tensor:
    return torch.full((batch, 3, height, width), level)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def assert_images_like(result: torch.Tensor, images: torch.Tensor) -> None:
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert torch.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 1


def assert_contract(degrade: Callable[[torch.Tensor, torch.Generator], torch.Tensor], *, per_image: float = 0.02) -> None:
    """What holds for every degradation.

    Any size gives finite images of the same shape in [0, 1], the seed decides the result, the input is not modified, every image is
    damaged, and equal images of a batch are damaged differently: by more than `per_image` somewhere (0 for draws that serve a whole batch).
    """
    for seed, size in enumerate(SIZES):
        images = scene(*size, batch=2)
        assert_images_like(degrade(images, seeded(seed)), images)
    images = scene(batch=4)
    before = images.clone()
    result = degrade(images, seeded())
    assert torch.equal(images, before)
    assert torch.equal(result, degrade(images, seeded()))
    assert any(not torch.equal(result, degrade(images, seeded(seed))) for seed in range(1, 30))
    assert all((a - b).abs().mean() > 1e-3 for a, b in zip(result, before, strict=True))
    if per_image:
        assert all((result[i] - result[j]).abs().max() > per_image for i in range(4) for j in range(i))


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def assert_same_on_cuda(degrade: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> None:
    """Both devices draw different numbers from the same seed: brightness and damage of many images must agree within what chance allows."""
    images = scene(40, 40, batch=192)
    statistics = []
    for device in ("cpu", "cuda"):
        here = images.to(device)
        results = [degrade(here, torch.Generator(device).manual_seed(seed)) for seed in range(8)]
        assert all(result.device == here.device for result in results)
        per_image = torch.stack([torch.stack([r.mean(dim=(1, 2, 3)), (r - here).abs().mean(dim=(1, 2, 3))]) for r in results])
        # Batches differ more than their images where one draw serves a whole batch.
        statistics.append((per_image.mean(dim=(0, 2)).cpu(), per_image.mean(dim=2).std(dim=0).cpu() / len(results) ** 0.5))
    (cpu, cpu_error), (cuda, cuda_error) = statistics
    assert ((cpu - cuda).abs() <= 5 * (cpu_error**2 + cuda_error**2).sqrt() + 1e-4).all()
