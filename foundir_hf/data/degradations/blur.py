"""Blur: motion of the camera and lenses out of focus, as convolutions with a point spread function (PSF)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .sampling import uniform


def motion_blur(
    images: torch.Tensor, generator: torch.Generator, *, length: tuple[float, float] = (5, 23), bend: float = 0.6
) -> torch.Tensor:
    """The camera moves along an arc while the shutter is open; `length` in pixels, `bend` the largest turn to either side in radians."""
    return convolve(images, motion_psf(images, generator, length=length, bend=bend))


def defocus_blur(images: torch.Tensor, generator: torch.Generator, *, radius: tuple[float, float] = (1, 6)) -> torch.Tensor:
    """A point out of focus becomes a disc of `radius` pixels (thin-lens circle of confusion), with an anti-aliased rim."""
    extent = int(radius[1]) + 1
    axis = torch.arange(-extent, extent + 1, device=images.device, dtype=images.dtype)
    distance = (axis[None, :] ** 2 + axis[:, None] ** 2).sqrt()
    discs = (uniform(images, generator, *radius) + 0.5 - distance).clamp(0, 1)  # (B, 1, K, K)
    return convolve(images, discs / discs.sum(dim=(2, 3), keepdim=True))


def motion_psf(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    length: tuple[float, float],
    bend: float = 0.0,
    angle: tuple[float, float] = (0.0, torch.pi),
    width: float = 0.45,
) -> torch.Tensor:
    """PSFs of a path of `length` pixels at `angle` radians, drawn with a Gaussian pen of `width` pixels: `(B, 1, K, K)`, each sums to 1."""
    extent = int(length[1] / 2) + 2
    steps = torch.linspace(-0.5, 0.5, 2 * extent + 1, device=images.device, dtype=images.dtype).view(1, 1, 1, -1)
    direction = uniform(images, generator, *angle) + uniform(images, generator, -bend, bend) * steps
    stride = uniform(images, generator, *length) / (steps.numel() - 1)
    path_x, path_y = (torch.cumsum(f(direction) * stride, dim=-1) for f in (torch.cos, torch.sin))  # (B, 1, 1, N)
    path_x, path_y = (p - p.mean(dim=-1, keepdim=True) for p in (path_x, path_y))
    axis = torch.arange(-extent, extent + 1, device=images.device, dtype=images.dtype)
    along_x = torch.exp(-((axis.view(1, -1, 1) - path_x[:, 0]) ** 2) / (2 * width**2))  # (B, K, N)
    along_y = torch.exp(-((axis.view(1, -1, 1) - path_y[:, 0]) ** 2) / (2 * width**2))
    psf = (along_y @ along_x.transpose(1, 2)).unsqueeze(1)  # the sum over the path of separable dots
    return psf / psf.sum(dim=(2, 3), keepdim=True)


def convolve(images: torch.Tensor, psf: torch.Tensor) -> torch.Tensor:
    """Filters each image with its own PSF, mirrored at the borders: `(B, C, H, W)`, `(B, 1, K, K)` -> `(B, C, H, W)`.

    By FFT, whose cost does not depend on the PSF's size.
    """
    height, width = images.shape[2:]
    radius = psf.shape[-1] // 2
    mode = "reflect" if radius < min(height, width) else "replicate"
    padded = F.pad(images, (radius,) * 4, mode=mode)
    size = padded.shape[2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(psf, s=size)
    # The PSF's centre sits `radius` pixels in, and so does the picture: the shifts add up.
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width].clamp(0, 1)
