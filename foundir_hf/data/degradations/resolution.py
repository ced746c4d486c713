"""Resolution: pictures that were made smaller and blown up again, sharpened too much, or scanned in two fields."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .blur import convolve, elliptic_distance, filter_planes, gaussian_psf
from .compression import jpeg
from .noise import gaussian_noise, poisson_noise
from .sampling import chance, uniform

KERNELS = ("bicubic", "bilinear", "area", "nearest")


def downsample(
    images: torch.Tensor, generator: torch.Generator, *, factor: float = 4, smooth_share: float = 0.8, kernel: str = "bicubic"
) -> torch.Tensor:
    """Shrinks by `factor` (anti-aliased with `kernel`, rounded to 8 bits) and enlarges to the old size.

    The enlargement is bicubic with probability `smooth_share`, otherwise bilinear or nearest (FoundIR-v2 draws among the three, so that all
    tasks share one resolution). One choice for the whole batch.

    Raises:
        ValueError: If `kernel` is not one of `KERNELS`; "nearest" has no filter at all, see [`aliasing`].
    """
    height, width = images.shape[2:]
    small_size = (max(1, round(height / factor)), max(1, round(width / factor)))
    small = _shrink(images, small_size, kernel).mul(255).round().div(255).clamp(0, 1)
    draw = torch.rand((), generator=generator, device=images.device).item()
    if draw < smooth_share:
        mode, align_corners = "bicubic", False
    else:
        mode, align_corners = ("bilinear", False) if draw < (1 + smooth_share) / 2 else ("nearest", None)
    return F.interpolate(small, size=(height, width), mode=mode, align_corners=align_corners).clamp(0, 1)


def aliasing(
    images: torch.Tensor, generator: torch.Generator, *, factor: tuple[float, float] = (2, 4), smooth_share: float = 0.5
) -> torch.Tensor:
    """Keeps one pixel in `factor` and filters nothing before: fine detail comes back as jagged edges and moire (Shannon's theorem, 1949).

    Every image draws its factor, which need not be whole, and which of the pixels stays. Back at the old size the pixels are squares, or
    joined bilinearly for a share `smooth_share` of the images.
    """
    step = uniform(images, generator, *factor)
    smooth = chance(images, generator, smooth_share)
    for dim in (2, 3):
        phase = uniform(images, generator, 0.2, 0.8)
        place = (torch.arange(images.shape[dim], device=images.device) + 0.5) / step  # (B, 1, 1, length), in cells
        cell = torch.where(smooth, place - phase, place).floor()
        before, after = (_take_lines(images, ((c + phase) * step).floor(), dim) for c in (cell, cell + 1))
        weight = torch.where(smooth, place - phase - cell, torch.zeros_like(place))
        images = before + (weight.transpose(2, 3) if dim == 2 else weight) * (after - before)
    return images.clamp(0, 1)


def second_order_degradation(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    factor: tuple[float, float] = (2, 4),
    sigma: tuple[float, float] = (0.2, 3.0),
    noise: tuple[float, float] = (1, 30),
    peak: tuple[float, float] = (40, 2000),
    quality: tuple[float, float] = (30, 95),
    scales: tuple[tuple[float, float], tuple[float, float]] = ((0.15, 1.5), (0.3, 1.2)),
) -> torch.Tensor:
    """The life of a picture on the web: two rounds of blur, resizing, noise and JPEG (Real-ESRGAN, ICCVW 2021, section 3.2 and figure 2).

    Blurs are Gaussian, generalised Gaussian, plateau-shaped or sinc filters; a sinc filter, whose ringing is what sharpening and codecs
    leave, also ends the chain (section 3.3), before or after the last JPEG. Sizes, interpolations and that order are drawn once for the
    whole batch, as in the paper's code, everything else for each image.

    Args:
        factor: The picture ends this many times smaller, before it is brought back to the old size.
        sigma: Of the first blur, in pixels; the second one has half of it.
        noise: Deviation of Gaussian noise, in grey levels of 255, for half of the images.
        peak: Photons of white, for Poisson noise on the other half.
        quality: Of both JPEGs.
        scales: The smallest and the largest relative size of the resizings in the first round and in the second.
    """
    height, width = images.shape[2:]
    small = 1 / _once(images, generator, *factor)

    def resize(images: torch.Tensor, scale: float) -> torch.Tensor:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return _shrink(images, size, KERNELS[int(_once(images, generator, 0, 3))]).clamp(0, 1)

    def rescaling(down: float, up: float, shares: tuple[float, float]) -> float:
        """Down to at most `down` times the size, up to at most `up` times, or not at all."""
        draw = _once(images, generator, 0, 1)
        return _once(images, generator, *((down, 1) if draw < shares[0] else (1, up) if draw < sum(shares) else (1, 1)))

    result = convolve(images, _web_psf(images, generator, sigma))
    result = resize(result, rescaling(*scales[0], (0.7, 0.2)))
    result = jpeg(_web_noise(result, generator, noise, peak), generator, quality=quality)

    blurred = convolve(result, _web_psf(result, generator, (sigma[0] / 2, sigma[1] / 2)))
    result = torch.where(chance(result, generator, 0.8), blurred, result)
    result = resize(result, small * rescaling(*scales[1], (0.4, 0.3)))
    result = _web_noise(result, generator, noise, peak)

    jpeg_last = _once(images, generator, 0, 1) < 0.5
    if not jpeg_last:
        result = jpeg(result, generator, quality=quality)
    result = resize(result, small)
    ringing = convolve(result, sinc_psf(result, generator))
    result = torch.where(chance(result, generator, 0.8), ringing, result)
    if jpeg_last:
        result = jpeg(result, generator, quality=quality)
    return F.interpolate(result, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)


def oversharpening(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    strength: tuple[float, float] = (1.5, 5),
    radius: tuple[float, float] = (0.8, 2.5),
) -> torch.Tensor:
    """Unsharp masking overdone (Gonzalez and Woods, section 3.6): halos along edges, coarse noise, burnt highlights.

    Args:
        strength: How many times the detail is added to the picture.
        radius: Deviation of the Gaussian that tells detail from the rest, in pixels.
    """
    detail = images - filter_planes(images, gaussian_psf(images, generator, sigma=radius))
    return (images + uniform(images, generator, *strength) * detail).clamp(0, 1)


def interlacing(images: torch.Tensor, generator: torch.Generator, *, shift: tuple[float, float] = (2, 14)) -> torch.Tensor:
    """Combing: the two fields of an interlaced frame are exposed one after the other, and the camera pans `shift` pixels between them.

    Every second row is shown moved to the left or to the right, the odd or the even ones (the scan of ITU-R BT.601). The edges repeat.
    """
    way = torch.where(chance(images, generator, 0.5), 1.0, -1.0)
    parity = chance(images, generator, 0.5).to(images.dtype)
    place = torch.arange(images.shape[3], device=images.device) + way * uniform(images, generator, *shift)
    before, after = (_take_lines(images, place.floor() + step, dim=3) for step in (0, 1))
    field = before + (place - place.floor()) * (after - before)
    rows = torch.arange(images.shape[2], device=images.device)[:, None] % 2
    return torch.where(rows == parity, field, images)


def sinc_psf(
    images: torch.Tensor, generator: torch.Generator, *, cutoff: tuple[float, float] = (math.pi / 3, math.pi), extent: int = 10
) -> torch.Tensor:
    """PSFs of the ideal low-pass filter, whose cut-off rings: `(B, 1, K, K)` with K = 2 extent + 1, each sums to 1.

    `cutoff` in radians per pixel (Real-ESRGAN, ICCVW 2021, section 3.3).
    """
    axis = torch.arange(-extent, extent + 1, device=images.device, dtype=images.dtype)
    distance = (axis[:, None] ** 2 + axis**2).sqrt().clamp(min=1e-3)  # the limit at 0 is as good as reached
    frequency = uniform(images, generator, *cutoff)
    psf = frequency * torch.special.bessel_j1(frequency * distance) / (2 * torch.pi * distance)
    return psf / psf.sum(dim=(2, 3), keepdim=True)


def _web_psf(images: torch.Tensor, generator: torch.Generator, sigma: tuple[float, float]) -> torch.Tensor:
    """PSFs of Real-ESRGAN's mixture: Gaussian 63 %, generalised Gaussian 14 %, plateau 13 %, sinc 10 %, half of them longer than wide."""
    distance = elliptic_distance(images, generator, sigma=sigma, ratio=(1, 3))
    draw = uniform(images, generator, 0, 1)
    exponent = torch.where(draw < 0.63, 1.0, torch.where(draw < 0.77, uniform(images, generator, 0.5, 4), uniform(images, generator, 1, 2)))
    psf = torch.where(draw < 0.77, torch.exp(-(distance**exponent) / 2), 1 / (1 + distance**exponent))
    psf = psf / psf.sum(dim=(2, 3), keepdim=True)
    return torch.where(draw < 0.9, psf, sinc_psf(images, generator, extent=psf.shape[-1] // 2))


def _web_noise(
    images: torch.Tensor, generator: torch.Generator, sigma: tuple[float, float], peak: tuple[float, float], grey: float = 0.4
) -> torch.Tensor:
    """Gaussian or Poisson noise, equal in all channels for a share `grey` of the images."""
    gaussian, poisson = gaussian_noise(images, generator, sigma=sigma), poisson_noise(images, generator, peak=peak)
    noise = torch.where(chance(images, generator, 0.5), gaussian, poisson) - images
    equal = noise.mean(dim=1, keepdim=True) * 3**0.5
    return (images + torch.where(chance(images, generator, grey), equal, noise)).clamp(0, 1)


def _shrink(images: torch.Tensor, size: tuple[int, int], kernel: str) -> torch.Tensor:
    if kernel not in KERNELS:
        raise ValueError(f"`kernel` must be one of {', '.join(KERNELS)}; got {kernel!r}.")
    if kernel in ("area", "nearest"):
        return F.interpolate(images, size=size, mode="area" if kernel == "area" else "nearest-exact")
    return F.interpolate(images, size=size, mode=kernel, antialias=True)


def _take_lines(images: torch.Tensor, places: torch.Tensor, dim: int) -> torch.Tensor:
    """Rows (`dim` 2) or columns (3) at whole `places` (B, 1, 1, length), the border's beyond it."""
    places = places.long().clamp(0, images.shape[dim] - 1)
    size = [*images.shape]
    size[dim] = places.shape[3]
    return images.gather(dim, (places.transpose(2, 3) if dim == 2 else places).expand(size))


def _once(images: torch.Tensor, generator: torch.Generator, low: float, high: float) -> float:
    """One number for the whole batch, uniform in [low, high)."""
    return low + (high - low) * torch.rand((), generator=generator, device=images.device).item()
