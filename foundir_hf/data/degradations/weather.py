"""Weather: rain and snow, in the air and on the lens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .blur import convolve, motion_psf
from .illumination import lamps
from .sampling import coordinates, log_uniform, normal, scatter, smooth_field, smoothstep, to_linear, to_srgb, uniform


def rain(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    length: tuple[float, float] = (8, 50),
    strength: tuple[float, float] = (0.3, 1.0),
    tilt: float = 0.7,
    veil: tuple[float, float] = (0.0, 0.15),
    sparsity: tuple[float, float] = (0.0, 2.2),
) -> torch.Tensor:
    """Streaks of falling drops: noise smeared along the fall (Garg and Nayar, 2007; as made for the DDN set, CVPR 2017).

    Args:
        length: Of a streak, in pixels.
        strength: Brightness of the strongest streaks.
        tilt: Largest angle from the vertical, in radians.
        veil: Of the mist of distant drops, the share of grey light it adds.
        sparsity: Level above which white noise makes a drop, in standard deviations: 0 is a cloudburst, 3 a few single drops.
    """
    streaks = _streaks(images, generator, length=length, tilt=tilt, sparsity=sparsity)
    # Gusts: rain is not equally dense everywhere.
    gusts = 1 - uniform(images, generator, 0.0, 0.9) * smooth_field(images, generator, cells=3)
    streaks = streaks * gusts * uniform(images, generator, *strength)
    light = uniform(images, generator, 0.75, 1.0)
    misty = images + uniform(images, generator, *veil) * gusts * (light - images)
    return (misty + streaks * (light - 0.35 * misty).clamp(min=0)).clamp(0, 1)


def long_rain(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    length: tuple[float, float] = (20, 140),
    width: tuple[float, float] = (1.0, 4.5),
    strength: tuple[float, float] = (0.15, 0.55),
    tilt: float = 0.6,
    sparsity: tuple[float, float] = (0.0, 1.4),
) -> torch.Tensor:
    """Rain as a long shutter smears it: long, soft, faint streaks in two layers, near to parallel (what the DDN set shows, CVPR 2017).

    Args:
        length, width: Of a streak, in pixels.
        strength: Brightness of the strongest streaks.
        tilt: Largest angle from the vertical, in radians.
        sparsity: As in [`rain`].
    """
    height, breadth = images.shape[2:]
    x, y = coordinates(images)
    x, y = x * min(height, breadth), y * min(height, breadth)
    fall = uniform(images, generator, -tilt, tilt)
    cells = [round(1.5 * math.hypot(height, breadth) / smallest) + 2 for smallest in (length[0], width[0])]
    total = torch.zeros_like(images[:, :1])
    for _ in range(2):
        long, wide = log_uniform(images, generator, *length), uniform(images, generator, *width)
        angle = fall + uniform(images, generator, -0.03, 0.03)
        along, across = y * angle.cos() - x * angle.sin(), x * angle.cos() + y * angle.sin()
        drops = torch.randn(len(images), 1, *cells, generator=generator, device=images.device)
        places = torch.cat([across / wide * 2 / cells[1], along / long * 2 / cells[0]], dim=1).permute(0, 2, 3, 1)
        streaks = F.grid_sample(drops, places, mode="bicubic", padding_mode="reflection", align_corners=False)
        total = total + uniform(images, generator, 0.3, 1.0) * (streaks - uniform(images, generator, *sparsity)).clamp(min=0)
    gusts = 1 - uniform(images, generator, 0.0, 0.8) * smooth_field(images, generator, cells=3)
    light = uniform(images, generator, 0.75, 1.0)
    streaks = (total * gusts * uniform(images, generator, *strength)).clamp(0, 1)
    return (images + streaks * (light - uniform(images, generator, 0.2, 0.6) * images).clamp(min=0)).clamp(0, 1)


def night_rain(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    exposure: tuple[float, float] = (0.04, 0.15),
    length: tuple[float, float] = (10, 40),
    strength: tuple[float, float] = (0.4, 1.0),
    tilt: float = 0.5,
    sparsity: tuple[float, float] = (1.2, 2.6),
) -> torch.Tensor:
    """Rain at night: the scene lies in the dark, and a streak shows only as far as a lamp lights it (GTAV-NightRain, Zhang et al., 2022).

    `exposure` of the scene by the sky alone, relative to the photograph; the others as in [`rain`]. All light adds up linearly.
    """
    streaks = _streaks(images, generator, length=length, tilt=tilt, sparsity=sparsity) * uniform(images, generator, *strength)
    sky = log_uniform(images, generator, *exposure) * images.new_tensor([0.8, 0.9, 1.15]).view(1, 3, 1, 1)
    light, glow, lit = sky, torch.zeros_like(images), 0.35 * sky
    for distance, power, size in lamps(images, generator):
        light = light + 0.3 * power / (1 + (distance / 0.35) ** 2)
        lit = lit + 0.5 * power * torch.exp(-distance / 0.22)
        glow = glow + power * (0.5 * torch.exp(-((distance / (0.025 * size)) ** 0.8)) + 3 * torch.exp(-((distance / (0.009 * size)) ** 2)))
    return to_srgb(to_linear(images) * light + streaks * lit + glow)


def raindrops(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    radius: tuple[float, float] = (0.007, 0.04),
    amount: tuple[float, float] = (0.3, 0.9),
    softness: tuple[float, float] = (0.25, 0.75),
) -> torch.Tensor:
    """Drops on the lens or a window: each shows the scene upside down, small and blurred (Halimeh and Roser, IV 2009).

    Pixels outside the drops stay as they are.

    Args:
        radius: Of the drops, from the smallest to the largest, in units of the short side.
        amount: Share of the places for drops that one occupies.
        softness: Width of the blurred rim as a share of the radius: the camera is focused on the scene, not on the glass.
    """
    height, width = images.shape[2:]
    short = min(height, width)
    # A drop shows a field many times its own size: sampling it needs a picture that is small already.
    small = F.interpolate(images, size=[max(1, round(n / max(1.0, short / 56))) for n in (height, width)], mode="bilinear", antialias=True)
    x, y = coordinates(images)
    share = uniform(images, generator, *amount)
    soft = uniform(images, generator, *softness)
    middle = math.sqrt(radius[0] * radius[1])
    result = images
    for low, high in ((radius[0], middle), (radius[0], middle), (middle, radius[1])):
        offset, distance, size, own = scatter(images, generator, radius=(low, high), pitch=4.2 * high, wobble=0.22, numbers=3)
        # The field grows towards the rim, as in a fish-eye.
        reach = 0.3 * (0.6 + 0.4 * distance**2)
        view = torch.cat([x - offset[:, :1] * (size / short + reach), y - offset[:, 1:] * (size / short + reach)], dim=1)
        view = view * view.new_tensor([2 * short / width, 2 * short / height]).view(1, 2, 1, 1)
        inside = F.grid_sample(small, view.permute(0, 2, 3, 1), mode="bilinear", padding_mode="reflection", align_corners=False)
        mask = smoothstep(-distance, -1.0, -(1 - soft)) * (own[:, :1] < share)
        # Light from above leaves through the lower edge: a bright crescent there, a dark rim over it.
        rim = smoothstep(distance, 0.55, 1.0)
        shade = 1.08 - 0.35 * rim * (0.5 - 0.5 * offset[:, 1:]).clamp(0, 1)
        gleam = 0.35 * rim * offset[:, 1:].clamp(0, 1) * (0.4 + 0.6 * own[:, 1:2])
        spot = 0.5 * own[:, 2:] * smoothstep(-((offset[:, :1] + 0.3) ** 2 + (offset[:, 1:] + 0.35) ** 2), -0.06, -0.0)
        drop = inside * shade + (gleam + spot) * (1 - inside) + 0.04
        result = result + 0.95 * mask * (drop - result)
    return result.clamp(0, 1)


def snow(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    amount: tuple[float, float] = (0.15, 0.9),
    size: tuple[float, float] = (0.0014, 0.022),
    speed: tuple[float, float] = (0.0, 1.5),
    tilt: float = 0.8,
    veil: tuple[float, float] = (0.0, 0.2),
) -> torch.Tensor:
    """Flakes of three depths (Snow100K, Liu et al., TIP 2018) over a veil (JSTASR, Chen et al., ECCV 2020): snow only brightens.

    Far flakes are small and many; near ones are large, out of focus and transparent.

    Args:
        amount: Share of the places for flakes that one occupies.
        size: Radius from the farthest to the nearest flakes, in units of the short side.
        speed: How far a flake falls while half of the exposure passes, in its radii.
        tilt: Largest angle of the fall from the vertical, in radians.
        veil: Share of grey light that the flakes too far to see add, more at the top.
    """
    short = min(images.shape[2:])
    share = uniform(images, generator, *amount)
    light = uniform(images, generator, 0.85, 1.0)
    _, y = coordinates(images)
    height = max(1.0, images.shape[2] / short)
    thick = uniform(images, generator, *veil) * (0.7 - 0.6 * y / height) * (0.6 + 0.8 * smooth_field(images, generator, cells=3))
    result = images + thick.clamp(0, 1) * (light - images).clamp(min=0)
    fall = math.pi / 2 + tilt * (2 * uniform(images, generator, 0.0, 1.0) - 1)
    path = uniform(images, generator, *speed)
    steps = [size[0] * (size[1] / size[0]) ** (k / 5) for k in range(6)]
    # Radius, spacing in radii, softness and opacity of the far, the middle and the near flakes.
    for low, high, pitch, soft, opacity in (
        (steps[0], steps[2], 7.0, 0.6, 0.75),
        (steps[2], steps[4], 9.0, 0.45, 1.0),
        (steps[4], steps[5], 11.0, 0.7, 0.5),
    ):
        room = 1.4 + speed[1]
        offset, distance, _, own = scatter(
            images, generator, radius=(low, high), pitch=max(pitch, 2 * room) * high, wobble=0.35, room=room, numbers=3
        )
        smear = path * (0.5 + 0.5 * own[:, 2:])
        along = offset[:, :1] * fall.cos() + offset[:, 1:] * fall.sin()
        across = offset[:, 1:] * fall.cos() - offset[:, :1] * fall.sin()
        outline = distance / offset.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
        distance = outline * (across.square() + (along.abs() - smear).clamp(min=0).square()).sqrt()
        flakes = smoothstep(-distance, -1.0, -1.0 + soft) * (own[:, :1] < share) * opacity * (0.45 + 0.55 * own[:, 1:2])
        result = result + flakes / (1 + 0.4 * smear) * (light - result).clamp(min=0)
    return result.clamp(0, 1)


def _streaks(
    images: torch.Tensor, generator: torch.Generator, *, length: tuple[float, float], tilt: float, sparsity: tuple[float, float]
) -> torch.Tensor:
    """Coverage by falling drops in [0, 1]: `(B, 1, H, W)`."""
    upright = (math.pi / 2 - tilt, math.pi / 2 + tilt)
    drops = normal(images, generator, channels=1)
    # How sparse the drops are: only noise above this level makes a streak.
    drops = (drops - uniform(images, generator, *sparsity)).clamp(min=0)
    psf = motion_psf(images, generator, length=length, angle=upright, width=0.6)
    peak = drops.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    streaks = convolve(drops / peak, psf)
    low = streaks.mean(dim=(2, 3), keepdim=True)
    sample = streaks.flatten(1)
    sample = sample[:, :: 1 + (sample.shape[1] - 1) // 2**24]  # `quantile` takes no more than 2^24 values
    high = sample.quantile(0.995, dim=1).view(-1, 1, 1, 1)
    return ((streaks - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
