"""Haze: what stands in the air between the camera and the scene, by atmospheric scattering over a depth proxy."""

from __future__ import annotations

import torch

from .illumination import lamps
from .sampling import fractal, guided, log_uniform, luma_of, smooth_field, smoothstep, to_linear, to_srgb, uniform


def depth_proxy(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A photograph has no depth map: the proxy rises from the bottom of the frame to its top and varies smoothly across it.

    `(batch, 1, height, width)` in [0.25, 1].
    """
    rise = torch.linspace(1, 0, images.shape[2], device=images.device, dtype=images.dtype).view(1, 1, -1, 1)
    slope = uniform(images, generator, 0.0, 0.8)
    return 0.25 + 0.75 * (slope * rise + (1 - slope) * smooth_field(images, generator))


def haze(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    density: tuple[float, float] = (0.4, 2.6),
    airlight: tuple[float, float] = (0.7, 1.0),
    tint: float = 0.04,
) -> torch.Tensor:
    """Atmospheric scattering: `I = J t + A (1 - t)` with `t = exp(-density * depth)` (Koschmieder; RESIDE, TIP 2019).

    Args:
        density: Optical thickness where the depth proxy is 1.
        airlight: Grey level of `A`, sRGB.
        tint: By how much the channels of `A` depart from grey.
    """
    depth = depth_proxy(images, generator)
    transmission = torch.exp(-uniform(images, generator, *density) * depth)
    return _scatter_light(images, transmission, _airlight(images, generator, airlight, tint))


def layered_haze(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    density: tuple[float, float] = (0.8, 4.0),
    airlight: tuple[float, float] = (0.55, 0.95),
    tint: float = 0.04,
    distance: tuple[float, float] = (0.0, 0.4),
) -> torch.Tensor:
    """Haze over a scene with things near and far, whose outlines its edges follow, indoors too (what real depth maps do to RESIDE's).

    The depth proxy is steep where the picture has edges: a guided filter (He et al., TPAMI 2013) makes it follow them. What is nearest
    stands before the haze.

    Args:
        density, airlight, tint: As in [`haze`].
        distance: Of the nearest thing, where the farthest is 1.
    """
    luma = luma_of(images)
    depth = guided(
        luma, smoothstep(depth_proxy(images, generator) - 0.25 * (1 - smooth_field(images, generator, cells=7)), 0.2, 0.8)
    ).clamp(0, 1)
    near = uniform(images, generator, *distance)
    transmission = torch.exp(-log_uniform(images, generator, *density) * (near + (1 - near) * depth))
    return _scatter_light(images, transmission, _airlight(images, generator, airlight, tint))


def nonhomogeneous_haze(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    density: tuple[float, float] = (1.5, 3.5),
    cover: tuple[float, float] = (0.4, 0.8),
    airlight: tuple[float, float] = (0.75, 0.95),
    tint: float = 0.03,
) -> torch.Tensor:
    """Drifting banks of smoke or fog: the scattering of [`haze`] with a fractal density (what NH-HAZE, CVPRW 2020, shows).

    `cover` is about the share of the frame that the banks reach; a thin haze lies between them.
    """
    depth = depth_proxy(images, generator)
    edge = 1 - uniform(images, generator, *cover)
    banks = 0.08 + 0.92 * smoothstep(fractal(images, generator, cells=2, octaves=6, persistence=0.42), edge - 0.2, edge + 0.8)
    transmission = torch.exp(-uniform(images, generator, *density) * (0.4 + 0.6 * depth) * banks)
    return _scatter_light(images, transmission, _airlight(images, generator, airlight, tint))


def night_haze(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    exposure: tuple[float, float] = (0.04, 0.15),
    density: tuple[float, float] = (0.6, 2.0),
    halo: tuple[float, float] = (0.02, 0.06),
) -> torch.Tensor:
    """Haze at night: airlight comes from lamps, so it varies in place and colour, and they glow (Li, Tan and Brown, ICCV 2015).

    In linear light `I = J L t + A (1 - t) + glow`, with the light `L` and the airlight `A` from the same lamps.

    Args:
        exposure: Of the scene by the sky alone, relative to the photograph.
        density: As in [`haze`].
        halo: Width of the glow in units of the short side; its profile has the heavy tail of multiple scattering (Narasimhan and Nayar,
            CVPR 2003).
    """
    sky = log_uniform(images, generator, *exposure) * images.new_tensor([0.8, 0.9, 1.15]).view(1, 3, 1, 1)
    transmission = torch.exp(-uniform(images, generator, *density) * depth_proxy(images, generator))
    width = uniform(images, generator, *halo)
    light, glow = sky, torch.zeros_like(images)
    for distance, power, size in lamps(images, generator):
        light = light + 0.3 * power / (1 + (distance / 0.35) ** 2)
        reach = width * size
        glow = glow + power * (1.1 * torch.exp(-((distance / reach) ** 0.75)) + 2 * torch.exp(-((distance / (0.3 * reach)) ** 2)))
    return to_srgb(to_linear(images) * light * transmission + (0.3 * sky + 0.45 * light) * (1 - transmission) + glow)


def dust(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    density: tuple[float, float] = (0.7, 2.2),
    airlight: tuple[float, float] = (0.6, 0.85),
) -> torch.Tensor:
    """A sand storm: scattering whose light is yellow to red-brown, because mineral dust absorbs blue (Sokolik and Toon, JGR 1999).

    Optical thickness is `density` for green, less for red and more for blue; `airlight` is the red of the air. Gusts make it uneven.
    """
    gusts = 0.6 + 0.8 * fractal(images, generator, cells=2, octaves=4, persistence=0.4)
    extinction = images.new_tensor([0.85, 1.0, 1.4]).view(1, 3, 1, 1)
    thickness = uniform(images, generator, *density) * depth_proxy(images, generator) * gusts
    brown = uniform(images, generator, 0.0, 1.0)
    green, blue = 0.86 - 0.16 * brown, 0.58 - 0.22 * brown
    color = uniform(images, generator, *airlight) * torch.cat([torch.ones_like(green), green, blue], dim=1)
    return _scatter_light(images, torch.exp(-thickness * extinction), color)


def thin_cloud(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    opacity: tuple[float, float] = (0.4, 0.95),
    cover: tuple[float, float] = (0.35, 0.8),
) -> torch.Tensor:
    """Clouds below a satellite: a white veil of fractal opacity over a part of the scene (RICE, Lin et al., 2019).

    The cloud transmits `1 - opacity` at its thickest and adds what it reflects (Xu et al., TGRS 2016); short waves scatter a little more.
    """
    edge = 1 - uniform(images, generator, *cover)
    thickness = smoothstep(fractal(images, generator, cells=3, octaves=7, persistence=0.55), edge, edge + 0.7)
    extinction = images.new_tensor([0.94, 1.0, 1.06]).view(1, 3, 1, 1)
    transmission = (1 - uniform(images, generator, *opacity) * thickness).clamp(min=1e-3) ** extinction
    return _scatter_light(images, transmission, uniform(images, generator, 0.9, 1.0))


def _airlight(images: torch.Tensor, generator: torch.Generator, level: tuple[float, float], tint: float) -> torch.Tensor:
    """The colour of the air, `(B, 3, 1, 1)`."""
    color = uniform(images, generator, *level) + tint * (
        2 * torch.rand(images.shape[0], 3, 1, 1, generator=generator, device=images.device) - 1
    )
    return color.clamp(0, 1)


def _scatter_light(images: torch.Tensor, transmission: torch.Tensor, airlight: torch.Tensor) -> torch.Tensor:
    return (images * transmission + airlight * (1 - transmission)).clamp(0, 1)
