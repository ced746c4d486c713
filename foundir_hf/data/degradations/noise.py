"""Noise: what the sensor adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .blur import filter_planes, gaussian_psf
from .compression import jpeg
from .sampling import chance, fine_detail, log_uniform, luma_of, normal, poisson, to_linear, to_srgb, uniform


def gaussian_noise(
    images: torch.Tensor, generator: torch.Generator, *, sigma: tuple[float, float] = (5, 55), clip: bool = True
) -> torch.Tensor:
    """White Gaussian noise; `sigma` in grey levels of 255 (DnCNN, TIP 2017: blind denoising draws from [0, 55])."""
    noisy = images + uniform(images, generator, *sigma) / 255 * normal(images, generator)
    return noisy.clamp(0, 1) if clip else noisy


def camera_noise(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    shot: tuple[float, float] = (1e-4, 1.2e-2),
    read: tuple[float, float] = (1e-3, 2e-2),
    chroma: tuple[float, float] = (0.0, 0.7),
) -> torch.Tensor:
    """Heteroscedastic noise in linear light: variance `shot * signal + read^2` (Foi et al., TIP 2008; Brooks et al., CVPR 2019).

    Demosaicking and in-camera filters smear it, so a share `chroma` of it is averaged over 3x3 neighbours, which makes blotches of colour.
    """
    linear = to_linear(images)
    deviation = _shot_and_read(linear, generator, shot, read)
    white = normal(images, generator)
    blotches = torch.nn.functional.avg_pool2d(white, 3, stride=1, padding=1, count_include_pad=False) * 3
    share = uniform(images, generator, *chroma)
    noise = (1 - share) * white + share * blotches
    return to_srgb(linear + deviation * noise)


def phone_noise(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    shot: tuple[float, float] = (1e-4, 8e-3),
    read: tuple[float, float] = (1e-3, 1.5e-2),
    grain: tuple[float, float] = (0.4, 1.2),
    blotch: tuple[float, float] = (1.0, 4.0),
    smoothing: tuple[float, float] = (0.0, 0.8),
    sharpness: tuple[float, float] = (0.0, 1.0),
    quality: tuple[float, float] = (70, 97),
) -> torch.Tensor:
    """Camera noise as it leaves a phone: smeared by demosaicking and by the camera's own denoiser, sharpened, saved as JPEG.

    What is left are grains wider than a pixel and wider blotches of colour (Nam et al., CVPR 2016, who measured it on JPEGs of cameras).

    Args:
        shot, read: As in [`camera_noise`].
        grain, blotch: Deviation of the Gaussian that smears brightness and colour, in pixels.
        smoothing: Share of the finest detail that the denoiser takes away with the noise.
        sharpness: Of the camera's unsharp mask.
        quality: Of its JPEG.
    """
    deviation = _shot_and_read(to_linear(images), generator, shot, read)
    bright, colored = (_grains(images, generator, size=size, channels=n) for size, n in ((grain, 1), (blotch, 3)))
    noise = bright + uniform(images, generator, 0.0, 0.8) * (colored - colored.mean(dim=1, keepdim=True))
    smooth = to_linear((images - uniform(images, generator, *smoothing) * fine_detail(images)).clamp(0, 1))
    noisy = to_srgb(smooth + deviation * noise)
    sharpened = (noisy + uniform(images, generator, *sharpness) * fine_detail(noisy)).clamp(0, 1)
    return jpeg(sharpened, generator, quality=quality)


def poisson_noise(images: torch.Tensor, generator: torch.Generator, *, peak: tuple[float, float] = (12, 400)) -> torch.Tensor:
    """Photon counting in linear light: white sends a pixel `peak` photons, which arrive as a Poisson process (Foi et al., TIP 2008).

    Few photons are drawn as often as many: `peak` is log-uniform.
    """
    photons = log_uniform(images, generator, *peak)
    return to_srgb(poisson(to_linear(images) * photons, generator) / photons)


def speckle_noise(images: torch.Tensor, generator: torch.Generator, *, sigma: tuple[float, float] = (0.15, 0.65)) -> torch.Tensor:
    """Interference of coherent light (radar, ultrasound, laser): linear light times a gamma variable of mean 1 and deviation `sigma`.

    The sum of 1/sigma^2 independent looks (Goodman, JOSA 1976). One wave lights all channels, so they share the field. The gamma variable
    is a transformed normal one (Wilson and Hilferty, PNAS 1931).
    """
    deviation = uniform(images, generator, *sigma)
    gain = (1 - deviation**2 / 9 + deviation / 3 * normal(images, generator, channels=1)).clamp(min=0) ** 3
    return to_srgb(to_linear(images) * gain)


def salt_and_pepper_noise(
    images: torch.Tensor, generator: torch.Generator, *, density: tuple[float, float] = (0.01, 0.2), color_share: float = 0.5
) -> torch.Tensor:
    """Impulses: a share `density` of the pixels is pure white or pure black, equally often (Gonzalez and Woods, section 5.2).

    A share `color_share` of the images is hit in each channel separately, as by defects under a colour filter array, the others in whole
    pixels, as by errors of transmission.
    """
    size = images.shape
    hits, signs = (torch.rand(size, generator=generator, device=images.device) for _ in range(2))
    whole = ~chance(images, generator, color_share)
    hits, signs = (torch.where(whole, draw[:, :1], draw) for draw in (hits, signs))
    return torch.where(hits < log_uniform(images, generator, *density), (signs < 0.5).to(images.dtype), images)


def color_noise(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    sigma: tuple[float, float] = (5, 18),
    radius: tuple[float, float] = (1, 4.5),
) -> torch.Tensor:
    """Blotches of wrong colour: what a high ISO leaves when the camera has smoothed its noise (Nam et al., CVPR 2016: spatial correlation).

    Args:
        sigma: Deviation of the two colour differences Cb and Cr in the shadows, in grey levels of 255; half of it in the highlights.
        radius: Deviation of the Gaussian that smooths the noise, in pixels.
    """
    blotches = _grains(images, generator, size=radius, channels=2) * uniform(images, generator, *sigma) / 255
    cb, cr = (blotches * (1 - 0.5 * luma_of(images))).unbind(1)
    return (images + torch.stack([1.402 * cr, -0.344136 * cb - 0.714136 * cr, 1.772 * cb], dim=1)).clamp(0, 1)


def film_grain(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    strength: tuple[float, float] = (6, 28),
    size: tuple[float, float] = (0.4, 1.3),
    chroma: tuple[float, float] = (0.0, 0.4),
) -> torch.Tensor:
    """Grains of developed silver: where they cover a share `u` of the film, it varies by `sqrt(u (1 - u))` (Newson et al., CGF 2017).

    Args:
        strength: Deviation in mid-tones, in grey levels of 255; pure black and white have none.
        size: Deviation of the Gaussian shape of a grain, in pixels.
        chroma: Share of the grain that differs between the three dye layers of a colour film.
    """
    grains = _grains(images, generator, size=size, channels=4)
    share = uniform(images, generator, *chroma)
    grain = (1 - share**2).sqrt() * grains[:, :1] + share * grains[:, 1:]
    cover = luma_of(images).clamp(0, 1)
    return (images + uniform(images, generator, *strength) / 255 * 2 * (cover * (1 - cover)).sqrt() * grain).clamp(0, 1)


def banding_noise(
    images: torch.Tensor, generator: torch.Generator, *, strength: tuple[float, float] = (3e-3, 3e-2), color: float = 0.4
) -> torch.Tensor:
    """Read-out lines of the sensor with offsets of their own, in linear light (Wei et al., CVPR 2020, section 3: row noise is Gaussian).

    Args:
        strength: Deviation of the offsets, as a share of white. Rows or columns, by a coin per image.
        color: Share of the offsets that differs between the channels, whose pixels sit in alternate lines of the sensor.
    """
    length = max(images.shape[2:])
    lines = torch.randn(len(images), 4, length, generator=generator, device=images.device)
    lines = (1 - color**2) ** 0.5 * lines[:, :1] + color * lines[:, 1:]
    # The supply voltage drifts during the read-out: broad bands under the single lines.
    drift = torch.randn(len(images), 1, 2 + length // 16, generator=generator, device=images.device)
    share = uniform(images, generator, 0.0, 0.8).squeeze(3)
    offsets = (1 - share) * lines + share * F.interpolate(drift, size=length, mode="linear")
    rows, columns = offsets[:, :, : images.shape[2], None], offsets[:, :, None, : images.shape[3]]
    offsets = torch.where(chance(images, generator, 0.7), rows, columns)
    return to_srgb(to_linear(images) + log_uniform(images, generator, *strength) * offsets)


def _shot_and_read(linear: torch.Tensor, generator: torch.Generator, shot: tuple[float, float], read: tuple[float, float]) -> torch.Tensor:
    """Deviation of a sensor's noise at every pixel of linear light, see [`camera_noise`]."""
    return (log_uniform(linear, generator, *shot) * linear + log_uniform(linear, generator, *read) ** 2).sqrt()


def _grains(images: torch.Tensor, generator: torch.Generator, *, size: tuple[float, float], channels: int) -> torch.Tensor:
    """Normal noise of deviation 1, smoothed by a Gaussian of `size` pixels: `(batch, channels, height, width)`."""
    psf = gaussian_psf(images, generator, sigma=size)
    return filter_planes(normal(images, generator, channels), psf) / psf.square().sum(dim=(2, 3), keepdim=True).sqrt()
