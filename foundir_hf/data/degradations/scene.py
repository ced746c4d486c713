"""Scene: water, shadows, screens, glass and stray light between the subject and the sensor."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .haze import depth_proxy
from .sampling import chance, coordinates, fractal, position, smooth_field, smoothstep, to_linear, to_srgb, uniform

# Diffuse attenuation per metre at 600, 525 and 450 nm (red, green, blue) of the ocean types I, II, III and the coastal types 1, 3, 5
# (Jerlov, Marine Optics, 1976, table XXVII).
_JERLOV = (
    (0.235, 0.043, 0.019),
    (0.260, 0.076, 0.068),
    (0.295, 0.116, 0.135),
    (0.300, 0.130, 0.250),
    (0.330, 0.200, 0.390),
    (0.400, 0.310, 0.560),
)


def underwater(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    distance: tuple[float, float] = (1.5, 7.0),
    depth: tuple[float, float] = (1.0, 6.0),
    water: tuple[float, float] = (0.0, 3.7),
    turbidity: tuple[float, float] = (0.03, 0.2),
    levels: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Light lost and scattered in water: `I = J L exp(-a z) + B (1 - exp(-b z))` (Akkaynak and Treibitz, CVPR 2018), in linear light.

    Back-scatter has a coefficient of its own, `b = 0.8 a + s`, and saturates at `B = L s / (s + a)`: what water absorbs least returns most.
    `L = exp(-a depth)` is the daylight. The camera exposes for what is left, and forward scattering takes the finest detail.

    Args:
        distance: To the farthest point of the scene, in metres.
        depth: Below the surface, in metres.
        water: Jerlov's type: 0 to 2 are the ocean types I to III, 3 to 5 the coastal types 1 to 5; between them is interpolated.
        turbidity: Scattering coefficient s per metre, alike for all colours.
        levels: How far the camera stretched the levels of what it saw to black and white, all colours alike; not at all by default.
    """
    table = images.new_tensor(_JERLOV)
    kind = uniform(images, generator, *water).view(-1, 1)
    lower = kind.floor().clamp(0, len(_JERLOV) - 2)
    index = lower.long().view(-1)
    attenuation = (table[index] + (kind - lower) * (table[index + 1] - table[index])).view(-1, 3, 1, 1)
    range_map = uniform(images, generator, *distance) * depth_proxy(images, generator)
    daylight = torch.exp(-attenuation * uniform(images, generator, *depth))
    direct = torch.exp(-attenuation * range_map)
    scattering = uniform(images, generator, *turbidity)
    veil = scattering / (scattering + attenuation) * (1 - torch.exp(-(0.8 * attenuation + scattering) * range_map))
    murk = (veil.mean(dim=1, keepdim=True) * 0.8).clamp(0, 1)
    soft = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    linear = to_linear(images + murk * (soft - images))
    seen = daylight * (linear * direct + veil)
    # The exposure brings the brightest channel back to the mean of the photograph.
    mean = seen.mean(dim=(2, 3), keepdim=True).amax(dim=1, keepdim=True)
    image = to_srgb(seen * (linear.mean(dim=(1, 2, 3), keepdim=True).clamp(0.2, 0.45) / mean.clamp(min=1e-4)).clamp(max=12))
    if levels is None:
        return image
    small = F.adaptive_avg_pool2d(image, 32).flatten(1)
    black, white = (small.quantile(share, dim=1).view(-1, 1, 1, 1) for share in (0.02, 0.98))
    stretched = (image - black) / (white - black).clamp(min=0.1)
    return (image + uniform(images, generator, *levels) * (stretched - image)).clamp(0, 1)


def shadow(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    light: tuple[float, float] = (0.2, 0.5),
    penumbra: tuple[float, float] = (0.01, 0.06),
    ragged: tuple[float, float] = (0.0, 0.12),
) -> torch.Tensor:
    """A cast shadow: only the sky lights it, so it is darker and a little blue (the linear model of Le and Samaras, ICCV 2019).

    Args:
        light: Share of the linear light that is left in the umbra.
        penumbra: Width of the soft edge in units of the short side.
        ragged: How far foliage frays the outline, in units of the short side; 0 is the edge of a building.
    """
    x, y = coordinates(images)
    center_x, center_y = (0.7 * p for p in position(images, generator))
    outside = torch.full_like(images[:, :1], -1e3)
    # A convex polygon, the intersection of half-planes that face away from its centre.
    turn = uniform(images, generator, 0.0, 2 * math.pi)
    for side in range(5):
        angle = turn + 2 * math.pi * (side + uniform(images, generator, -0.35, 0.35)) / 5
        plane = (x - center_x) * angle.cos() + (y - center_y) * angle.sin() - uniform(images, generator, 0.15, 0.5)
        outside = torch.maximum(outside, plane)
    outside = outside + uniform(images, generator, *ragged) * 2 * (fractal(images, generator, cells=5, octaves=4, persistence=0.5) - 0.5)
    width = uniform(images, generator, *penumbra)
    umbra = smoothstep(-outside, -width, width)
    sky = uniform(images, generator, *light) * (
        1 + uniform(images, generator, 0.05, 0.3) * images.new_tensor([-0.6, 0.0, 1.0]).view(1, 3, 1, 1)
    )
    return to_srgb(to_linear(images) * (1 - umbra * (1 - sky)))


def lens_flare(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    strength: tuple[float, float] = (0.4, 1.0),
    ghosts: tuple[float, float] = (0.06, 0.35),
) -> torch.Tensor:
    """A bright source in the frame: glare, a star of streaks, and ghosts on the line through the centre (Flare7K, NeurIPS 2022).

    Stray light adds to the scene in linear light. `strength` of all of it; `ghosts` is their light relative to the source's.
    """
    x, y = coordinates(images)
    source_x, source_y = (0.85 * p for p in position(images, generator))
    source_y = torch.where(source_y > 0, -0.6 * source_y, source_y)
    dx, dy = x - source_x, y - source_y
    distance = (dx**2 + dy**2).sqrt()
    warm = uniform(images, generator, 0.0, 1.0)
    color = torch.cat([torch.ones_like(warm), 0.95 - 0.15 * warm, 0.88 - 0.38 * warm], dim=1)
    size = uniform(images, generator, 0.03, 0.07)
    core = 1.5 * torch.exp(-((distance / size) ** 2))
    glare = 0.35 * torch.exp(-distance / (3.0 * size)) + 0.10 * torch.exp(-distance / 0.5)
    # Diffraction at the blades of the aperture: an even star with rays of unequal length.
    bearing = torch.atan2(dy, dx) + uniform(images, generator, 0.0, math.pi)
    blades = 3 + torch.randint(3, (images.shape[0], 1, 1, 1), generator=generator, device=images.device)
    sharp = uniform(images, generator, 30.0, 90.0)
    unequal = 0.7 + 0.3 * torch.cos(2 * bearing + uniform(images, generator, 0.0, 2 * math.pi))
    star = torch.cos(bearing * blades).abs() ** sharp * torch.exp(-distance / (0.12 * unequal + 1e-3)) * 0.8
    light = (core + glare + star) * color
    # A ghost is the aperture imaged by two reflections: a disc, a ring or a hexagon on the line from the source through the centre.
    level = uniform(images, generator, *ghosts)
    for _ in range(7):
        along = uniform(images, generator, -1.6, 0.6)
        radius = uniform(images, generator, 0.02, 0.11)
        ghost_x, ghost_y = x - source_x * along, y - source_y * along
        away = (ghost_x**2 + ghost_y**2).sqrt()
        turn = torch.atan2(ghost_y, ghost_x)
        hexagon = away * torch.cos((turn + math.pi / 6).remainder(math.pi / 3) - math.pi / 6) / 0.95
        away = torch.where(chance(images, generator, 0.5), hexagon, away)
        filled = smoothstep(-away, -radius, -0.9 * radius)
        hollow = uniform(images, generator, 0.0, 0.8)
        body = filled * (1 - hollow * smoothstep(-away, -radius, -0.6 * radius))
        hue = 0.35 + 0.65 * torch.rand(images.shape[0], 3, 1, 1, generator=generator, device=images.device)
        light = light + level * uniform(images, generator, 0.2, 1.0) * body * hue
    return to_srgb(to_linear(images) + uniform(images, generator, *strength) * light)


def moire(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    strength: tuple[float, float] = (0.25, 0.6),
    fringes: tuple[float, float] = (3.0, 18.0),
) -> torch.Tensor:
    """A screen photographed: its stripes of red, green and blue beat with the pixels of the sensor (Sun et al., TIP 2018).

    A stripe pattern of nearly one period a pixel aliases to its difference from one period: a slow wave, a third of a period apart in the
    three channels, bent by the lens and the tilt of the screen. The rows of the screen beat alike in all channels.

    Args:
        strength: Amplitude of the waves relative to the linear light, in the channels; half of it for the rows.
        fringes: How many of them cross the short side.
    """
    x, y = coordinates(images)
    size = uniform(images, generator, *strength)
    wave = torch.zeros_like(images)
    third = images.new_tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1) * (2 * math.pi / 3)
    for share, spread in ((1.0, 1.0), (0.5, 0.15), (0.4, 1.0)):
        count = uniform(images, generator, *fringes)
        angle = uniform(images, generator, 0.0, math.pi)
        curve = count * uniform(images, generator, 0.2, 1.2)
        center_x, center_y = position(images, generator)
        bow = curve * ((x - center_x) ** 2 + (y - center_y) ** 2)
        warp = uniform(images, generator, 0.0, 2.5) * smooth_field(images, generator, cells=4)
        phase = 2 * math.pi * (count * (x * angle.cos() + y * angle.sin()) + bow + warp)
        focus = 0.25 + 0.75 * smooth_field(images, generator, cells=3)
        wave = wave + share * focus * torch.cos(phase + spread * third)
    # The black between the stripes takes light, the backlight gives some of it back.
    return to_srgb(to_linear(images) * (1 + size * wave).clamp(min=0.05) + 0.012)


def reflection(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    strength: tuple[float, float] = (0.35, 0.9),
    blur: tuple[float, float] = (0.004, 0.02),
    ghost: tuple[float, float] = (0.0, 0.03),
) -> torch.Tensor:
    """A window: `I = (1 - 0.3 w) T + w R`, R a second scene, out of focus and doubled by both faces of the glass (Shih et al., CVPR 2015).

    The second scene is the image itself, mirrored: a batch has no say in what is reflected. Sums are in linear light, and dim parts of R do
    not show (Fan et al., ICCV 2017).

    Args:
        strength: Largest weight w; it varies over the pane.
        blur: Radius of the defocus in units of the short side.
        ghost: Shift of the double image in units of the short side.
    """
    height, width = images.shape[2:]
    short = min(height, width)
    other = to_linear(images.flip(3))
    x, y = coordinates(images)
    radius, shift = uniform(images, generator, *blur), uniform(images, generator, *ghost)
    turn = uniform(images, generator, 0.0, 2 * math.pi)
    zoom = uniform(images, generator, 0.6, 1.0)
    # Discs of 13 samples, of the scene and of its double, from a picture small enough that they do not show apart.
    scale = max(1.0, short * blur[0] / 0.7)
    small = F.interpolate(other, size=[max(1, round(n / scale)) for n in (height, width)], mode="bilinear", antialias=True)
    unit = images.new_tensor([2 * short / width, 2 * short / height]).view(1, 2, 1, 1)
    seen = torch.zeros_like(images)
    for weight, offset in ((0.65, 0.0), (0.35, 1.0)):
        for step in range(13):
            angle = 2.399963 * step
            reach = radius * math.sqrt(step / 13)
            at_x = zoom * x + reach * math.cos(angle) + offset * shift * turn.cos()
            at_y = zoom * y + reach * math.sin(angle) + offset * shift * turn.sin()
            grid = torch.cat([at_x.expand(-1, -1, height, -1), at_y.expand(-1, -1, -1, width)], dim=1) * unit
            seen = seen + weight / 13 * F.grid_sample(small, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)
    seen = (seen - 0.3 * seen.mean(dim=(1, 2, 3), keepdim=True)).clamp(min=0)
    pane = uniform(images, generator, *strength) * (0.3 + 0.7 * smooth_field(images, generator, cells=3))
    return to_srgb((1 - 0.3 * pane) * to_linear(images) + pane * seen)
