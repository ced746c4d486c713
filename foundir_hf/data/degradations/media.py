"""Media: what time does to prints, films and walls."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .illumination import fading
from .noise import gaussian_noise
from .sampling import chance, coordinates, fractal, position, scatter, smooth_field, smoothstep, uniform


def scratches(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    count: int = 10,
    width: tuple[float, float] = (0.0008, 0.004),
    specks: tuple[float, float] = (0.1, 0.5),
    hairs: int = 2,
) -> torch.Tensor:
    """Film that ran through a gate: nearly vertical bright or dark lines, specks of dust and hairs (Kokaram, 1998).

    Args:
        count: Of lines, at most; each is there half of the time.
        width: Of a line, in units of the short side.
        specks: Share of the places for specks that one occupies.
        hairs: At most; each is there half of the time.
    """
    result = images
    for index in range(count + hairs):
        hair = index >= count
        tilt = uniform(images, generator, 0.0, math.pi) if hair else math.pi / 2 + uniform(images, generator, -0.06, 0.06)
        bow = uniform(images, generator, -12.0, 12.0) if hair else uniform(images, generator, -0.06, 0.06)
        span = uniform(images, generator, 0.04, 0.14) if hair else uniform(images, generator, 0.1, 1.0)
        across, along = _along(images, generator, tilt, bow)
        thick = uniform(images, generator, *(0.0012, 0.0025) if hair else width)
        ink = _ink(images, across, thick) * smoothstep(-along.abs(), -span, -0.8 * span)
        # A scratch lifts off and comes back.
        ink = ink * (1 if hair else smoothstep(torch.cos(along * uniform(images, generator, 4.0, 30.0) + 9 * span), -1.2, 0.4))
        bright = chance(images, generator, 0.15 if hair else 0.7).to(images.dtype)
        present = chance(images, generator, 0.5).to(images.dtype)
        level = bright * uniform(images, generator, 0.75, 1.0) + (1 - bright) * uniform(images, generator, 0.05, 0.25)
        result = result + present * uniform(images, generator, 0.4, 0.95) * ink * (level - result)
    share = uniform(images, generator, *specks)
    for high, pitch in ((0.0025, 0.05), (0.006, 0.2)):
        _, distance, size, own = scatter(images, generator, radius=(high / 3, high), pitch=pitch, wobble=0.5, room=1.6, numbers=2)
        mask = ((1 - distance) * size + 0.5).clamp(0, 1) * (own[:, :1] < share) * 0.85
        result = result + mask * ((own[:, 1:] > 0.35).to(images.dtype) * 0.85 + 0.08 - result)
    return result.clamp(0, 1)


def sepia(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    lift: tuple[float, float] = (0.03, 0.18),
    warmth: tuple[float, float] = (0.45, 1.0),
    contrast: tuple[float, float] = (0.75, 1.15),
) -> torch.Tensor:
    """A silver print on old paper: grey levels from a lifted black to the tone of the paper, all of one hue.

    Args:
        lift: Brightness of black, relative to the paper.
        warmth: From grey to the full tone of a sulphide-toned print.
        contrast: Of the grey levels around their mean.
    """
    # Orthochromatic plates hardly saw red.
    weights = torch.cat([uniform(images, generator, 0.1, 0.35), torch.full((images.shape[0], 1, 1, 1), 0.5, device=images.device)], dim=1)
    weights = torch.cat([weights, 0.5 - weights[:, :1]], dim=1)
    grey = (images * weights).sum(dim=1, keepdim=True)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    grey = (mean + uniform(images, generator, *contrast) * (grey - mean)).clamp(0, 1)
    warm = uniform(images, generator, *warmth)
    hue = uniform(images, generator, 0.0, 1.0)
    paper = torch.cat([torch.ones_like(warm), 1 - (0.17 + 0.07 * hue) * warm, 1 - (0.36 + 0.1 * hue) * warm], dim=1)
    paper = paper * uniform(images, generator, 0.85, 0.98)
    black = uniform(images, generator, *lift)
    return paper * (black + (1 - black) * grey)


def paint_loss(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    cover: tuple[float, float] = (0.04, 0.22),
    cracks: tuple[float, float] = (0.3, 1.0),
) -> torch.Tensor:
    """A mural that flakes: patches with fractal edges bare the plaster, which lies deeper and catches a shadow; craquelure runs between.

    Args:
        cover: Share of the wall that lost its paint.
        cracks: Darkness of the cracks; they are the borders of Worley's cells (SIGGRAPH 1996), bent, and open only in places.
    """
    short = min(images.shape[2:])
    shape = fractal(images, generator, cells=3, octaves=8, persistence=0.6)
    limit = uniform(images, generator, *cover)
    loss = smoothstep(limit - shape, -0.004, 0.004)
    rough = fractal(images, generator, cells=24, octaves=5, persistence=0.8)
    tone = uniform(images, generator, 0.62, 0.82) * torch.cat(
        [torch.ones_like(limit), uniform(images, generator, 0.86, 0.93), uniform(images, generator, 0.68, 0.8)], dim=1
    )
    blotch = smooth_field(images, generator, cells=6)
    plaster = tone * (0.86 + 0.14 * rough + 0.08 * blotch)
    # Light from the upper left: the edge of the paint throws its shadow into the hole.
    step = max(1, round(0.004 * short))
    edge = loss - F.pad(loss, (step, 0, step, 0), mode="replicate")[..., : loss.shape[2], : loss.shape[3]]
    shade = 1 - 0.45 * loss * edge.clamp(min=0)
    crack = _cells(images, generator, pitch=0.13)
    opening = uniform(images, generator, 0.0008, 0.003) * short * (0.3 + 1.4 * smooth_field(images, generator, cells=7))
    open_here = smoothstep(fractal(images, generator, cells=3, octaves=3), 0.35, 0.65)
    dark = uniform(images, generator, *cracks) * ((opening - crack) + 0.5).clamp(0, 1) * open_here
    painted = images * (1 - 0.75 * dark)
    chalk = images.mean(dim=1, keepdim=True) * 0.4 + 0.5 * tone
    worn = 0.35 * smoothstep(limit + 0.18 - shape, 0.0, 0.2)
    painted = painted + worn * rough * (chalk - painted)
    return (painted + loss * (plaster * shade - painted)).clamp(0, 1)


def stains(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    count: int = 4,
    strength: tuple[float, float] = (0.3, 1.0),
    ink: float = 0.25,
) -> torch.Tensor:
    """Tea, damp and ink: transparent stains multiply the light, and are darkest at the rim, where they dried (Deegan et al., Nature 1997).

    Args:
        count: Of stains, at most; the first is always there, each further one half of the time.
        strength: Optical density at the rim, for blue, in natural units.
        ink: Probability that a stain is a blot of blue-black ink, nearly opaque and without a rim.
    """
    x, y = coordinates(images)
    ragged = fractal(images, generator, cells=4, octaves=6, persistence=0.5) - 0.5
    uneven = fractal(images, generator, cells=3, octaves=5)
    result = images
    for index in range(count):
        center_x, center_y = position(images, generator)
        wet = chance(images, generator, 1 - ink)
        radius = torch.where(wet, uniform(images, generator, 0.1, 0.4), uniform(images, generator, 0.03, 0.1))
        bearing = torch.atan2(y - center_y, x - center_x)
        lobes = sum(torch.cos(k * bearing + uniform(images, generator, 0.0, 2 * math.pi)) / k for k in (1, 2, 3))
        inside = radius * (1 + 0.15 * lobes) + 0.45 * radius * ragged - ((x - center_x) ** 2 + (y - center_y) ** 2).sqrt()
        edge = uniform(images, generator, 0.003, 0.01)
        rim = torch.exp(-(inside.clamp(min=0) / (1.5 * edge + 0.03 * radius)))
        tea = (
            (0.3 + 0.35 * uneven + 0.6 * rim) * uniform(images, generator, *strength) * images.new_tensor([0.2, 0.5, 1.0]).view(1, 3, 1, 1)
        )
        blot = (0.8 + 1.2 * uneven) * images.new_tensor([1.6, 1.4, 0.9]).view(1, 3, 1, 1)
        present = (chance(images, generator, 0.5) if index else torch.ones_like(wet)).to(images.dtype)
        density = present * smoothstep(inside, -edge, edge) * torch.where(wet, tea, blot)
        result = result * torch.exp(-density)
    return result


def fold_creases(
    images: torch.Tensor, generator: torch.Generator, *, count: int = 3, width: tuple[float, float] = (0.0015, 0.006)
) -> torch.Tensor:
    """A print that was folded: along the crease the emulsion breaks off and shows white paper, and the sheet shades to both sides of it.

    Of `count` creases the first is always there, each further one half of the time; `width` in units of the short side.
    """
    ragged = fractal(images, generator, cells=24, octaves=5, persistence=0.75)
    crumble = fractal(images, generator, cells=9, octaves=5, persistence=0.6)
    result = images
    for index in range(count):
        tilt = uniform(images, generator, 0.0, math.pi)
        across, _ = _along(images, generator, tilt, uniform(images, generator, -0.25, 0.25))
        across = across + 0.02 * (crumble - 0.5)
        present = (chance(images, generator, 0.5) if index else chance(images, generator, 1.0)).to(images.dtype)
        thick = uniform(images, generator, *width) * (0.1 + 1.9 * (ragged * crumble).sqrt())
        broken = present * _ink(images, across, thick) * smoothstep(ragged + crumble, 0.35, 0.8)
        bend = present * 0.09 * torch.exp(-across.abs() / 0.04) * torch.tanh(across / 0.006)
        result = result + bend * (0.5 + result)
        result = result + 0.9 * broken * (uniform(images, generator, 0.82, 0.97) - result)
    return result.clamp(0, 1)


def old_photo(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    monochrome: float = 0.6,
    grain: tuple[float, float] = (3, 11),
    softness: tuple[float, float] = (0.0, 0.9),
    creased: float = 0.5,
    stained: float = 0.3,
) -> torch.Tensor:
    """An old print: softness, then a sepia tone or bleached dyes, grain, scratches, for some creases and stains (Wan et al., CVPR 2020).

    Args:
        monochrome: Probability of a silver print; otherwise it is a colour print that faded.
        grain: Standard deviation of the grain in grey levels of 255.
        softness: Share of a small blur in the picture.
        creased: Probability of creases.
        stained: Probability of stains.
    """
    size = max(1, round(0.0025 * min(images.shape[2:]))) * 2 + 1
    soft = F.avg_pool2d(images, size, stride=1, padding=size // 2, count_include_pad=False)
    result = images + uniform(images, generator, *softness) * (soft - images)
    silver = chance(images, generator, monochrome)
    result = torch.where(silver, sepia(result, generator), fading(result, generator))
    noisy = gaussian_noise(result, generator, sigma=grain)
    result = torch.where(silver, (result + (noisy - result).mean(dim=1, keepdim=True) * 3**0.5).clamp(0, 1), noisy)
    result = scratches(result, generator)
    result = torch.where(chance(images, generator, creased), fold_creases(result, generator), result)
    return torch.where(chance(images, generator, stained), stains(result, generator, ink=0.1), result)


def _along(
    images: torch.Tensor, generator: torch.Generator, tilt: torch.Tensor | float, bow: torch.Tensor | float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates across and along a parabola of curvature `bow` through a random point at `tilt` radians: two of `(B, 1, H, W)`."""
    x, y = coordinates(images)
    center_x, center_y = position(images, generator)
    tilt = torch.as_tensor(tilt, device=images.device)
    along = (x - center_x) * tilt.cos() + (y - center_y) * tilt.sin()
    across = (y - center_y) * tilt.cos() - (x - center_x) * tilt.sin()
    return across - bow * along**2, along


def _ink(images: torch.Tensor, across: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Coverage of a line of `width`, anti-aliased; one thinner than a pixel is fainter instead."""
    short = min(images.shape[2:])
    thick = width * short
    return (thick.clamp(min=1) / 2 + 0.5 - across.abs() * short).clamp(0, 1) * thick.clamp(max=1)


def _cells(images: torch.Tensor, generator: torch.Generator, *, pitch: float) -> torch.Tensor:
    """Distance in pixels to the nearest border of Worley's cells about `pitch` of the short side wide: `(B, 1, H, W)`."""
    height, width = images.shape[2:]
    short = min(height, width)
    x, y = (axis / pitch for axis in coordinates(images))
    bend = 0.5
    u, v = (
        a + bend * (fractal(images, generator, cells=4, octaves=6, persistence=0.55) - 0.5) * 2 + n / (2 * short * pitch) + 3
        for a, n in ((x, width), (y, height))
    )
    columns, rows = (math.ceil(n / (short * pitch)) + 7 for n in (width, height))
    points = torch.rand(images.shape[0], 2, rows * columns, generator=generator, device=images.device)
    first = torch.full_like(u, 1e3)
    second = first.clone()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            column, row = (u.floor() + right).clamp(0, columns - 1), (v.floor() + down).clamp(0, rows - 1)
            at = (row * columns + column).long().flatten(2).expand(-1, 2, -1)
            own = points.gather(2, at).unflatten(2, (height, width))
            distance = ((column + own[:, :1] - u) ** 2 + (row + own[:, 1:] - v) ** 2).sqrt()
            second = torch.minimum(second, torch.maximum(first, distance))
            first = torch.minimum(first, distance)
    return (second - first) / 2 * pitch * short
