"""Scores of a photograph without a reference: how noisy, soft, hazy, dark, compressed, clipped, flat or tinted it is.

All are deterministic, all rise with the damage they are named after except `short_side` and `chroma`, and none of them knows what the
picture shows: a white wall in front of a pale sky looks like haze to them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F

SCORES: Mapping[str, str] = {
    "short_side": "pixels of the shorter side",
    "noise": "standard deviation in grey levels of 255, where the picture is smoothest",
    "blur": "width of the sharpest edges, as the deviation of a Gaussian in pixels, at most 8",
    "softness": "share of the parts with edges whose edges are wider than 2 pixels",
    "blockiness": "step across the 8 x 8 grid, relative to steps beside it",
    "haze": "0 to 1: veiled, pale and without hard edges, all at once",
    "darkness": "stops that the upper quartile lies below mid-grey (18 % of linear light)",
    "blown": "share of pixels that are white in every channel",
    "clipped": "share of pixels at the upper end of the scale, in the channel with most of them",
    "flatness": "share of 16 x 16 tiles without texture",
    "tint": "degrees between the colour of the light and grey",
    "chroma": "0 to 1: mean distance between the largest and the smallest channel",
}

WIDEST = 8.0
# Copies for scores of the scene as a whole: the camera's resolution must not count.
SMALL = 256


def score_photo(pixels: torch.Tensor) -> dict[str, float]:
    """All of [`SCORES`], by name.

    Args:
        pixels: `(3, H, W)`, uint8, sRGB. A side below 64 pixels is mirrored outwards before scoring.

    Raises:
        ValueError: `pixels` is something else.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or not pixels.numel():
        raise ValueError(f"`pixels` must be uint8 of shape (3, H, W), got {pixels.dtype} of shape {tuple(pixels.shape)}.")
    short_side = min(pixels.shape[1:])
    levels = _at_least(pixels.float(), 64)
    luma = _luma(levels)
    shrink = min(1.0, SMALL / max(levels.shape[1:]))
    size = [max(16, round(extent * shrink)) for extent in levels.shape[1:]]
    small = F.interpolate(levels[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 255) / 255
    blur, softness = edge_width(luma)
    return {
        "short_side": float(short_side),
        "noise": noise_level(luma),
        "blur": blur,
        "softness": softness,
        "blockiness": blockiness(luma),
        "haze": haze_density(small),
        "darkness": darkness(small),
        "blown": float((levels.amin(0) >= 250).float().mean()),
        "clipped": float((levels >= 254).flatten(1).float().mean(1).amax()),
        "flatness": float((_tiles(luma, 16).std(1) < 2).float().mean()),
        "tint": tint(small),
        "chroma": float((small.amax(0) - small.amin(0)).mean()),
    }


def noise_level(luma: torch.Tensor) -> float:
    """Standard deviation of white noise in the units of `luma` `(H, W)`.

    The second difference of both directions (Immerkaer, CVIU 1996) hides most of the scene, in the tenth of the 32 x 32 tiles that copies
    shrunk 4 and 8 times show to be smoothest (weak-texture selection, after Liu et al., TIP 2013). What texture is left has about as much
    energy in every octave (Field, JOSA 1987), somewhat less in the finest, from which the lens takes; white noise loses three quarters
    from one octave to the next. Two octaves thus tell the two apart. Tiles near black or white are left out, for noise is clipped there.
    Blotches and film grain wider than about 3 pixels pass for texture; turf and concrete pass for noise.
    """
    height, width = (extent // 32 * 32 for extent in luma.shape)
    octaves = [luma[:height, :width]]
    while len(octaves) < 4:
        octaves.append(F.avg_pool2d(octaves[-1][None, None], 2)[0, 0])
    tiles = _tiles(octaves[0], 32)
    usable = ((tiles < 2) | (tiles > 252)).float().mean(1) < 0.02
    if not usable.any():
        return 0.0
    energy = [_tiles(_second_difference(octave).square(), 32 >> i).mean(1)[usable] for i, octave in enumerate(octaves)]
    structure = energy[2] + energy[3]
    smoothest = structure.topk(math.ceil(0.1 * len(structure)), largest=False).indices
    fine, medium = (e[smoothest].median() for e in energy[:2])
    texture = 1.5  # energy of texture an octave further down, relative to the finest
    return float(((texture * fine - medium) / (texture - 0.25)).clamp(min=0).sqrt())


def edge_width(luma: torch.Tensor) -> tuple[float, float]:
    """Width of the sharpest edges and share of soft ones.

    Blurring an edge of width `s` once more by `r` divides its gradient by `sqrt(1 + r^2 / s^2)` (Zhuo and Sim, Pattern Recognition 2011,
    section 3); solved for `s` at the steepest pixels of every 32 x 32 tile that has an edge at all.

    Args:
        luma: `(H, W)` in grey levels of 255.

    Returns:
        The width below which a tenth of the tiles lies, in pixels, at most 8; the share of tiles above 2 pixels, in [0, 1]. (8, 1) without
        any edge. Pixels themselves add to the width of edges below 2 pixels: 1 is measured as 1.3.
    """
    again = 1.5
    before, after = _gradient(luma), _gradient(_gaussian_blur(luma, again))
    steepest, where = _tiles(after, 32).topk(20, dim=1)
    ratio = (_tiles(before, 32).gather(1, where) / steepest.clamp(min=1e-3)).median(1).values
    width = (again / (ratio.square() - 1).clamp(min=1e-4).sqrt()).clamp(max=WIDEST)
    width = width[steepest.mean(1) > 2]  # grey levels a pixel
    if not width.numel():
        return WIDEST, 1.0
    return float(width.quantile(0.1)), float((width > 2).float().mean())


def blockiness(luma: torch.Tensor) -> float:
    """The step across block borders beyond that of its neighbours, relative to the neighbours' (after Wang, Sheikh and Bovik, ICIP 2002).

    The grid may start anywhere, as it does in a crop: the strongest of the 8 phases counts, in the direction in which it is weaker. The
    grid of a file that was shrunk after compression is not found, and most of its artefacts are gone.

    Args:
        luma: `(H, W)` in grey levels of 255.
    """
    found = []
    for plane in (luma, luma.T):
        step = (plane[:, 1:] - plane[:, :-1]).abs()
        beside = (step[:, :-2] + step[:, 2:]) / 2
        excess = (step[:, 1:-1] - beside).mean(0)
        phases = torch.stack([excess[phase::8].mean() for phase in range(8)])
        # A step of half a grey level is rounding.
        found.append((phases.amax() - phases.median()) / (beside.mean() + 0.5))
    return float(torch.stack(found).amin())


def haze_density(small: torch.Tensor) -> float:
    """How much a scene looks veiled, in [0, 1].

    Haze lifts the dark channel (He, Sun and Tang, CVPR 2009: in clear air every neighbourhood has something dark or colourful), takes away
    colour and softens the hardest edges. White walls do the first, grey scenes the second, water the third: their product is high
    where all of it comes together, relative to the brightest hundredth, as the dark channel is to the airlight: a night is no haze. Pure
    white counts as none either, for airlight is hardly ever clipped.

    Args:
        small: `(3, H, W)` in [0, 1], about 256 pixels wide: neighbourhoods are 7 x 7.
    """
    unclipped = (small.amin(0) <= 0.95).float().mean()
    small = (small / small.amax(0).flatten().quantile(0.99).clamp(min=0.05)).clamp(max=1)
    low, high = small.amin(0), small.amax(0)
    dark = -F.max_pool2d(F.pad(-low[None, None], (3, 3, 3, 3), mode="replicate"), 7, 1)
    edges = 2 * _gradient(_luma(small)).quantile(0.98)
    colorless = (1 - (high - low).flatten().quantile(0.9)) ** 3
    return float((dark.mean().sqrt() * colorless * unclipped / (1 + edges / 0.06)).pow(1 / 3))


def darkness(small: torch.Tensor) -> float:
    """Stops (powers of two of linear light) that the upper quartile of luminance lies below mid-grey, 18 %; `small` `(3, H, W)` in [0, 1].

    -2.5 for a white page, 10 at most. The upper quartile: one lamp makes no night bright, and one shadow no day dark.
    """
    linear = small**2.2
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return float(torch.log2(0.18 / luminance.flatten().quantile(0.75).clamp(min=0.18 / 2**10)))


def tint(small: torch.Tensor) -> float:
    """Degrees between the estimated colour of the light and grey, in [0, 54.7]; `small` `(3, H, W)` in [0, 1].

    Shades of grey with the Minkowski norm p = 6 in linear light (Finlayson and Trezzi, CIC 2004). A sunset has a tint, too.
    """
    light = (small**2.2).flatten(1).pow(6).mean(1).pow(1 / 6)
    cosine = light.sum() / (light.norm() * math.sqrt(3)).clamp(min=1e-6)
    return float(torch.rad2deg(torch.acos(cosine.clamp(max=1)))) if light.any() else 0.0


def _luma(image: torch.Tensor) -> torch.Tensor:
    return 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def _at_least(image: torch.Tensor, side: int) -> torch.Tensor:
    """Mirrors a small `image` `(3, H, W)` outwards until both sides reach `side`."""
    for dim in (1, 2):
        while image.shape[dim] < side:
            image = torch.cat([image, image.flip(dim)], dim)
    return image


def _tiles(plane: torch.Tensor, side: int) -> torch.Tensor:
    """The whole tiles of a plane `(H, W)`: `(tiles, side * side)`."""
    return plane.unfold(0, side, side).unfold(1, side, side).flatten(2).flatten(0, 1)


def _gradient(plane: torch.Tensor) -> torch.Tensor:
    """Magnitude of the central differences, per pixel: `(H, W)` -> `(H - 2, W - 2)`."""
    return torch.hypot(plane[1:-1, 2:] - plane[1:-1, :-2], plane[2:, 1:-1] - plane[:-2, 1:-1]) / 2


def _second_difference(plane: torch.Tensor) -> torch.Tensor:
    """Immerkaer's mask, scaled to leave the deviation of white noise as it is, with a mirrored border: `(H, W)` -> `(H, W)`."""
    once = torch.tensor([1.0, -2.0, 1.0], dtype=plane.dtype)
    mask = torch.outer(once, once) / 6
    return F.conv2d(F.pad(plane[None, None], (1, 1, 1, 1), mode="reflect"), mask[None, None])[0, 0]


def _gaussian_blur(plane: torch.Tensor, deviation: float) -> torch.Tensor:
    radius = math.ceil(3 * deviation)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, dtype=plane.dtype) ** 2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum())[None, None, None]
    rows = F.conv2d(F.pad(plane[None, None], (radius, radius, 0, 0), mode="reflect"), kernel)
    return F.conv2d(F.pad(rows, (0, 0, radius, radius), mode="reflect"), kernel.transpose(2, 3))[0, 0]
