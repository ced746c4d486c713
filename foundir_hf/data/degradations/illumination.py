"""Illumination: too little light, too much of it, light from the wrong side or of the wrong colour."""

from __future__ import annotations

import math

import torch

from .sampling import chance, coordinates, guided, log_uniform, luma_of, normal, position, smooth_field, to_linear, to_srgb, uniform


def low_light(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    exposure: tuple[float, float] = (0.05, 0.5),
    gamma: tuple[float, float] = (1.0, 1.3),
    noise: tuple[float, float] = (0.0, 0.006),
) -> torch.Tensor:
    """Under-exposure: `exposure` of the light (linear), a darker tone curve, and the sensor's read `noise` that the dark leaves visible."""
    dark = to_linear(images) ** uniform(images, generator, *gamma) * log_uniform(images, generator, *exposure)
    dark = dark + uniform(images, generator, *noise) * (dark + 0.01).sqrt() * normal(images, generator)
    return to_srgb(dark)


def back_light(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    depth: tuple[float, float] = (2.5, 4.5),
    sky: tuple[float, float] = (0.5, 1.5),
    flare: tuple[float, float] = (0.0, 0.04),
) -> torch.Tensor:
    """The light stands behind the subject: the camera exposes for the background and the foreground drowns (BAID, Lv et al., TCSVT 2022).

    What is bright, and far from the lower middle of the frame, counts as background; a guided filter (He et al., TPAMI 2013) makes its mask
    follow the edges of the picture.

    Args:
        depth: By how many stops the foreground darkens.
        sky: By how many stops the background brightens.
        flare: Share of the background's mean light that strays over the whole frame.
    """
    luma = luma_of(images)
    x, y = coordinates(images)
    subject_x, subject_y = uniform(images, generator, -0.2, 0.2), uniform(images, generator, 0.0, 0.35)
    subject = torch.exp(-(((x - subject_x) / 0.4) ** 2) - ((y - subject_y) / 0.6) ** 2)
    spread = (luma - luma.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(2, 3), keepdim=True).sqrt()
    level = (luma - luma.mean(dim=(2, 3), keepdim=True)) / spread.clamp(min=0.05)
    background = guided(luma, torch.sigmoid(4 * (0.45 * level.clamp(-1.5, 1.5) + 1.0 - 2.2 * subject))).clamp(0, 1)
    stops = uniform(images, generator, *sky) * background - uniform(images, generator, *depth) * (1 - background)
    linear = to_linear(images) * 2**stops
    stray = (linear * background).clamp(max=1).mean(dim=(1, 2, 3), keepdim=True)
    return to_srgb(linear + uniform(images, generator, *flare) * stray)


def over_exposure(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    stops: tuple[float, float] = (0.8, 2.5),
    roll_off: tuple[float, float] = (0.0, 0.5),
) -> torch.Tensor:
    """Too much light: a gain of `stops` in linear light until the channels clip (MSEC, Afifi et al., CVPR 2021).

    Cameras bend the curve before it clips: a parabola joins slope 1 to slope 0 over `roll_off` to either side of white.
    """
    gain = 2 ** uniform(images, generator, *stops)
    # No wider than the gain: white must stay white.
    width = torch.minimum(uniform(images, generator, *roll_off), gain - 1).clamp(min=1e-4)
    exposed = to_linear(images) * gain
    over = (exposed - (1 - width)).clamp(min=0)
    bent = exposed - over.square() / (4 * width)
    return to_srgb(torch.where(over < 2 * width, bent, torch.ones_like(bent)))


def color_cast(images: torch.Tensor, generator: torch.Generator, *, strength: tuple[float, float] = (0.25, 0.8)) -> torch.Tensor:
    """A wrong white balance: gains of the channels in linear light (von Kries; Afifi et al., CVPR 2019) that keep the luminance of grey.

    `strength` is the largest error in stops: red against blue (colour temperature) for most, and half as much green against magenta (tint).
    """
    size = uniform(images, generator, *strength)
    direction = uniform(images, generator, 0.0, 2 * math.pi)
    warm, green = size * direction.cos(), 0.5 * size * direction.sin()
    gains = 2 ** torch.cat([warm - green / 2, green, -warm - green / 2], dim=1)
    weights = gains.new_tensor([0.2126, 0.7152, 0.0722]).view(1, 3, 1, 1)
    return to_srgb(to_linear(images) * gains / (gains * weights).sum(dim=1, keepdim=True))


def fading(images: torch.Tensor, generator: torch.Generator, *, amount: tuple[float, float] = (0.3, 0.7)) -> torch.Tensor:
    """A colour print that bleached: each dye keeps a share of its density, the base yellows (Frey and Gschwind, JIST 1994).

    With D = -log10 of linear light, at most 2 on paper, what remains is `(1 - amount * loss) D + stain`. Cyan, which absorbs red, fades
    most: blacks lift, contrast falls and the print turns red or yellow. Light fell on it unevenly.
    """
    density = -(0.01 + 0.99 * to_linear(images)).log10()
    unequal = torch.rand(images.shape[0], 3, 1, 1, generator=generator, device=images.device)
    loss = unequal.new_tensor([0.85, 0.65, 0.55]).view(1, 3, 1, 1) + 0.3 * (unequal - 0.5)
    share = uniform(images, generator, *amount)
    uneven = 0.85 + 0.3 * smooth_field(images, generator, cells=3)
    stain = 0.12 * share * torch.rand(images.shape[0], 3, 1, 1, generator=generator, device=images.device)
    stain = stain * stain.new_tensor([0.3, 0.6, 1.5]).view(1, 3, 1, 1)
    return to_srgb(10 ** -((1 - share * loss * uneven).clamp(min=0) * density + stain))


def vignetting(
    images: torch.Tensor, generator: torch.Generator, *, strength: tuple[float, float] = (0.6, 0.95), shift: float = 0.08
) -> torch.Tensor:
    """Light falls off with the fourth power of the cosine of the field angle (Kang and Weiss, ECCV 2000).

    Args:
        strength: Share of the light that half a diagonal from the optical axis loses.
        shift: Of the axis from the centre of the frame, at most, in units of the short side.
    """
    x, y = coordinates(images)
    height, width = images.shape[2:]
    corner = ((height**2 + width**2) / (4 * min(height, width) ** 2)) ** 0.5
    axis_x, axis_y = (uniform(images, generator, -shift, shift) for _ in range(2))
    radius = ((x - axis_x) ** 2 + (y - axis_y) ** 2) / corner**2
    tangent = (1 - uniform(images, generator, *strength)) ** -0.5 - 1  # squared, at the corner: cos^4 = (1 + tan^2)^-2
    return to_srgb(to_linear(images) / (1 + tangent * radius) ** 2)


def lamps(images: torch.Tensor, generator: torch.Generator, count: int = 6) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Up to `count` lamps at night, each half of the time: sodium, warm white, cold white or a coloured sign, mostly in the upper half.

    Returns:
        For each, the distance of the pixels in units of the short side, `(batch, 1, height, width)`, and its linear RGB power, of which the
        strongest channel is in [0.4, 1] or 0 for a lamp that is off, `(batch, 3, 1, 1)`, and its size relative to the others in [0.5, 2],
        `(batch, 1, 1, 1)`. The first one is always on.
    """
    x, y = coordinates(images)
    palette = images.new_tensor(
        [[1.0, 0.55, 0.18], [1.0, 0.78, 0.48], [0.85, 0.93, 1.0], [1.0, 0.66, 0.3], [1.0, 0.87, 0.67], [1.0, 0.3, 0.2], [0.35, 0.75, 1.0]]
    )
    found = []
    for index in range(count):
        lamp_x, lamp_y = position(images, generator)
        lamp_y = torch.where(lamp_y > 0, lamp_y * 0.3, lamp_y)
        kind = torch.randint(len(palette), (images.shape[0],), generator=generator, device=images.device)
        power = palette[kind].view(-1, 3, 1, 1) * uniform(images, generator, 0.4, 1.0)
        on = chance(images, generator, 0.5)
        size = log_uniform(images, generator, 0.5, 2.0)
        found.append(
            (((x - lamp_x) ** 2 + (y - lamp_y) ** 2).sqrt(), torch.where(on, power, torch.zeros_like(power)) if index else power, size)
        )
    return found
