"""Random parameters for degradations, one per image of a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def uniform(images: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """One number per image, uniform in [low, high]: `(batch, 1, 1, 1)`."""
    return low + (high - low) * torch.rand(images.shape[0], 1, 1, 1, generator=generator, device=images.device)


def log_uniform(images: torch.Tensor, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    """One number per image whose logarithm is uniform: `(batch, 1, 1, 1)`."""
    return uniform(images, generator, math.log(low), math.log(high)).exp()


def normal(images: torch.Tensor, generator: torch.Generator, channels: int | None = None) -> torch.Tensor:
    """Standard normal noise of the images' size: `(batch, channels, height, width)`."""
    shape = (images.shape[0], channels or images.shape[1], *images.shape[2:])
    return torch.randn(shape, generator=generator, device=images.device)


def smooth_field(images: torch.Tensor, generator: torch.Generator, cells: int = 4) -> torch.Tensor:
    """A random map that varies over `1/cells` of the image, in [0, 1]: `(batch, 1, height, width)`."""
    coarse = torch.rand(images.shape[0], 1, cells, cells, generator=generator, device=images.device)
    return F.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=False).clamp(0, 1)


def to_linear(images: torch.Tensor) -> torch.Tensor:
    """sRGB -> linear light, by the 2.2 power law that camera simulations use."""
    return images.clamp(min=0) ** 2.2


def to_srgb(linear: torch.Tensor) -> torch.Tensor:
    """Linear light -> sRGB, the inverse of [`to_linear`]."""
    return linear.clamp(0, 1) ** (1 / 2.2)


def fine_detail(images: torch.Tensor) -> torch.Tensor:
    """What 3x3 neighbours do not share, of the images' shape: the images minus their local mean."""
    return images - F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)


def integer(images: torch.Tensor, generator: torch.Generator, low: int, high: int) -> torch.Tensor:
    """One whole number per image, uniform in low, ..., high: `(batch, 1, 1, 1)`, as floating point."""
    return uniform(images, generator, low, high + 1).floor().clamp(max=high)


def poisson(rates: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Counts of independent events at the given mean `rates`, of the same shape `(batch, ...)`.

    Each image counts with a generator of its own: how many random numbers a count takes depends on its rate, and one image must not decide
    what another draws.
    """
    seeds = torch.randint(2**62, (len(rates),), generator=generator, device=rates.device).tolist()
    return torch.stack(
        [torch.poisson(rate, torch.Generator(rates.device).manual_seed(seed)) for rate, seed in zip(rates, seeds, strict=True)]
    )


def chance(images: torch.Tensor, generator: torch.Generator, probability: float) -> torch.Tensor:
    """One coin per image, True with `probability`: `(batch, 1, 1, 1)`."""
    return uniform(images, generator, 0.0, 1.0) < probability


def coordinates(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x `(1, 1, 1, width)` and y `(1, 1, height, 1)` of the pixels: 0 at the centre, in units of the short side, y grows downwards."""
    height, width = images.shape[2:]
    x, y = ((torch.arange(n, device=images.device, dtype=images.dtype) - (n - 1) / 2) / min(height, width) for n in (width, height))
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def position(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random point of each image in the units of [`coordinates`]: x and y, `(batch, 1, 1, 1)`."""
    height, width = images.shape[2:]
    x, y = (uniform(images, generator, -0.5, 0.5) * n / min(height, width) for n in (width, height))
    return x, y


def smoothstep(values: torch.Tensor, low: torch.Tensor | float, high: torch.Tensor | float) -> torch.Tensor:
    """0 below `low`, 1 above `high`, a cubic without kinks between."""
    share = ((values - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def fractal(
    images: torch.Tensor, generator: torch.Generator, *, cells: int = 3, octaves: int = 6, persistence: float = 0.55
) -> torch.Tensor:
    """Fractal noise in [0, 1], about uniform, so that a share p of the image lies below p: `(batch, 1, height, width)`.

    The sum of `octaves` of smooth noise (fractional Brownian motion; Perlin, SIGGRAPH 1985): the first varies over `1/cells` of the short
    side, each next one twice as fast and `persistence` times as strong. Octaves finer than the pixels are left out.
    """
    height, width = images.shape[2:]
    short = min(height, width)
    total = torch.zeros(images.shape[0], 1, height, width, device=images.device, dtype=images.dtype)
    for octave in range(octaves):
        count = cells * 2**octave
        if octave and count > short:
            break
        # A margin of random width keeps the lattices of the octaves apart.
        grid = [math.ceil(count * n / short) + 3 for n in (height, width)]
        coarse = torch.randn(images.shape[0], 1, *grid, generator=generator, device=images.device)
        fine = F.interpolate(coarse, scale_factor=short / count, mode="bicubic", align_corners=False) if short > count else coarse
        top, left = (int(torch.rand((), generator=generator, device=images.device) * short / count) for _ in range(2))
        total = total + persistence**octave * fine[..., top : top + height, left : left + width]
    mean = total.mean(dim=(2, 3), keepdim=True)
    deviation = (total - mean).square().mean(dim=(2, 3), keepdim=True).sqrt()
    return 0.5 + 0.5 * torch.erf((total - mean) / (deviation * math.sqrt(2)).clamp(min=1e-6))


def scatter(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    radius: tuple[float, float],
    pitch: float,
    wobble: float = 0.0,
    room: float = 1.4,
    numbers: int = 1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Spots that never touch, one in each cell of a grid that is turned and shifted at random: any number of them at the cost of one.

    Args:
        radius: Of the spots, log-uniform, as a share of the short side. No spot is smaller than 0.6 pixels.
        pitch: Side of a cell as a share of the short side; at least `2 room` times the largest radius.
        wobble: By how much of its radius the outline of a spot departs from a circle.
        room: How many radii around its centre a spot keeps to itself.
        numbers: How many random numbers each spot carries.

    Returns:
        Of the spot that owns each pixel: the pixel's offset from its centre in radii, x and y in two channels, `(batch, 2, height, width)`;
        the same as a distance that is 1 on the outline, its radius in pixels, `(batch, 1, height, width)`; its numbers in [0, 1),
        `(batch, numbers, height, width)`.
    """
    height, width = images.shape[2:]
    batch, short = images.shape[0], min(height, width)
    low, high = (max(0.6, r * short) for r in radius)
    side = max(pitch * short, 2 * room * high)
    x, y = (axis * short for axis in coordinates(images))
    angle = uniform(images, generator, 0.0, math.pi / 2)
    count = int(math.hypot(height, width) / side) + 4
    u = (x * angle.cos() + y * angle.sin()) / side + uniform(images, generator, 0.0, 1.0) + count / 2 - 0.5
    v = (y * angle.cos() - x * angle.sin()) / side + uniform(images, generator, 0.0, 1.0) + count / 2 - 0.5
    cell = (v.floor() * count + u.floor()).long().clamp(0, count**2 - 1).flatten(2)  # (B, 1, H W)
    table = torch.rand(batch, 6 + numbers, count**2, generator=generator, device=images.device)
    own = table.gather(2, cell.expand(-1, 6 + numbers, -1)).unflatten(2, (height, width))
    size = low * (high / low) ** own[:, :1]
    margin = size * room / side
    across = [(c - c.floor() - margin - (1 - 2 * margin) * own[:, i : i + 1]) * side / size for i, c in ((1, u), (2, v))]
    offset = torch.cat([across[0] * angle.cos() - across[1] * angle.sin(), across[0] * angle.sin() + across[1] * angle.cos()], dim=1)
    bearing = torch.atan2(offset[:, 1:], offset[:, :1])
    lobes = sum(torch.cos(k * bearing + 2 * math.pi * own[:, 1 + k : 2 + k]) / k for k in (2, 3, 4)) / 1.1
    distance = offset.square().sum(dim=1, keepdim=True).sqrt() / (1 + wobble * lobes)
    return offset, distance, size, own[:, 6:]


def luma_of(images: torch.Tensor) -> torch.Tensor:
    """Luma of ITU-R BT.601, `(B, 1, H, W)`."""
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def guided(guide: torch.Tensor, mask: torch.Tensor, side: int = 96, epsilon: float = 4e-3) -> torch.Tensor:
    """`mask` smoothed along the edges of `guide`, both `(B, 1, H, W)`: the guided filter, its coefficients at a short side of `side`."""
    shrink = min(1.0, side / min(guide.shape[2:]))
    size = [max(1, round(n * shrink)) for n in guide.shape[2:]]

    def mean(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values, 9, stride=1, padding=4, count_include_pad=False)

    small_guide, small_mask = (F.interpolate(t, size=size, mode="bilinear", antialias=True) for t in (guide, mask))
    guide_mean, mask_mean = mean(small_guide), mean(small_mask)
    slope = (mean(small_guide * small_mask) - guide_mean * mask_mean) / (mean(small_guide**2) - guide_mean**2 + epsilon)
    slope, offset = (F.interpolate(mean(t), size=guide.shape[2:], mode="bilinear") for t in (slope, mask_mean - slope * guide_mean))
    return slope * guide + offset
