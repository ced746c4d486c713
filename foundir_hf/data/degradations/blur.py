"""Blur: motion of the camera and lenses out of focus, most of it as convolutions with a point spread function (PSF)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .sampling import to_linear, to_srgb, uniform


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


def gaussian_blur(
    images: torch.Tensor, generator: torch.Generator, *, sigma: tuple[float, float] = (0.8, 4), ratio: tuple[float, float] = (1, 1)
) -> torch.Tensor:
    """Gaussian PSF of `sigma` pixels, and `sigma / ratio` across at a random angle (Real-ESRGAN, ICCVW 2021, section 3.1: an/isotropic)."""
    return convolve(images, gaussian_psf(images, generator, sigma=sigma, ratio=ratio))


def zoom_blur(
    images: torch.Tensor, generator: torch.Generator, *, amount: tuple[float, float] = (0.03, 0.16), offset: float = 0.15
) -> torch.Tensor:
    """The focal length changes while the shutter is open (ImageNet-C, ICLR 2019), in linear light.

    Args:
        amount: Relative change of scale between opening and closing, half of it to either side of the picture's own scale.
        offset: Largest distance of the optical axis from the middle, as a share of the sides.
    """
    growth = uniform(images, generator, *amount).log1p()
    return _sweep(images, growth, torch.zeros_like(growth), _center(images, generator, offset), largest=amount[1])


def rotation_blur(
    images: torch.Tensor, generator: torch.Generator, *, angle: tuple[float, float] = (1, 7), offset: float = 0.4
) -> torch.Tensor:
    """The camera rolls by `angle` degrees about the optical axis while the shutter is open (Whyte et al., IJCV 2012), in linear light.

    `offset` is the largest distance of the axis from the middle, as a share of the sides.
    """
    turn = torch.deg2rad(uniform(images, generator, *angle))
    return _sweep(images, torch.zeros_like(turn), turn, _center(images, generator, offset), largest=math.radians(angle[1]))


def camera_shake(
    images: torch.Tensor, generator: torch.Generator, *, extent: tuple[float, float] = (6, 28), anxiety: tuple[float, float] = (0.1, 1.0)
) -> torch.Tensor:
    """A hand that trembles during a long exposure: a random trajectory as the PSF, applied to linear light; see [`shake_psf`]."""
    return to_srgb(convolve(to_linear(images), shake_psf(images, generator, extent=extent, anxiety=anxiety)))


def glass_blur(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    radius: tuple[float, float] = (1, 4),
    sigma: tuple[float, float] = (0.5, 0.9),
) -> torch.Tensor:
    """Frosted glass: every pixel shows a place near by (ImageNet-C, ICLR 2019, swaps pixels one by one; a random field does it at once).

    Args:
        radius: Largest displacement to either side, in pixels.
        sigma: Of the slight Gaussian blur before and after, in pixels.
    """
    height, width = images.shape[2:]
    psf = gaussian_psf(images, generator, sigma=sigma)
    field = 2 * torch.rand(len(images), 2, height, width, generator=generator, device=images.device) - 1
    pixels = field * uniform(images, generator, *radius)
    grid = F.affine_grid(torch.eye(2, 3, device=images.device).expand(len(images), -1, -1), [*images.shape], align_corners=False)
    grid = grid + torch.stack([pixels[:, 0] * 2 / width, pixels[:, 1] * 2 / height], dim=-1)
    warped = F.grid_sample(convolve(images, psf), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return convolve(warped, psf)


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
    return _draw(path_x, path_y, extent, width)


def shake_psf(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    extent: tuple[float, float],
    anxiety: tuple[float, float] = (0.1, 1.0),
    width: float = 0.5,
    steps: int = 160,
) -> torch.Tensor:
    """PSFs of random camera trajectories: `(B, 1, K, K)`, each sums to 1 (Boracchi and Foi, TIP 2012; DeblurGAN, CVPR 2018, section 4).

    A particle with inertia whose heading is disturbed by small random turns and, rarely, by an impulse that throws it back. The PSF is
    bright where it slows down.

    Args:
        extent: Larger side of the trajectory's bounding box, in pixels.
        anxiety: How strong the turns and how frequent the impulses are; 0 is a straight line.
        width: Of the Gaussian pen, in pixels.
        steps: Of the trajectory.
    """
    time = (len(images), 1, 1, steps)
    turns, hurry, impulses = (torch.randn(time, generator=generator, device=images.device) for _ in range(3))
    nerves = uniform(images, generator, *anxiety)
    thrown = (torch.rand(time, generator=generator, device=images.device) < 0.03 * nerves) * (torch.pi + 0.5 * impulses)
    heading = uniform(images, generator, 0.0, 2 * torch.pi) + (0.3 * nerves * turns + thrown).cumsum(dim=-1)
    speed = (0.12 * nerves * hurry.cumsum(dim=-1)).clamp(-2, 2).exp()
    path_x, path_y = ((speed * f(heading)).cumsum(dim=-1) for f in (torch.cos, torch.sin))
    box = torch.maximum(*(path.amax(dim=-1, keepdim=True) - path.amin(dim=-1, keepdim=True) for path in (path_x, path_y)))
    scale = uniform(images, generator, *extent) / box.clamp(min=1e-6)
    # Its centroid may sit at an end of the box.
    return _draw(path_x * scale, path_y * scale, int(extent[1]) + 2, width)


def gaussian_psf(
    images: torch.Tensor, generator: torch.Generator, *, sigma: tuple[float, float], ratio: tuple[float, float] = (1, 1)
) -> torch.Tensor:
    """Gaussian PSFs of `sigma` pixels along a random angle and `sigma / ratio` across it: `(B, 1, K, K)`, each sums to 1."""
    psf = torch.exp(-elliptic_distance(images, generator, sigma=sigma, ratio=ratio) / 2)
    return psf / psf.sum(dim=(2, 3), keepdim=True)


def elliptic_distance(
    images: torch.Tensor, generator: torch.Generator, *, sigma: tuple[float, float], ratio: tuple[float, float] = (1, 1)
) -> torch.Tensor:
    """Squared distance from the centre of a PSF in units of `sigma` along a random angle, of `sigma / ratio` across it: `(B, 1, K, K)`.

    K reaches to three times the largest `sigma`. No axis is shorter than 0.25 pixels, below which a sampled Gaussian is a single pixel.
    """
    extent = math.ceil(3 * sigma[1])
    axis = torch.arange(-extent, extent + 1, device=images.device, dtype=images.dtype)
    y, x = axis[:, None], axis[None, :]
    angle = uniform(images, generator, 0.0, torch.pi)
    along = uniform(images, generator, *sigma)
    across = along / uniform(images, generator, *ratio)
    cos, sin = angle.cos(), angle.sin()
    return ((cos * x + sin * y) / along.clamp(min=0.25)) ** 2 + ((cos * y - sin * x) / across.clamp(min=0.25)) ** 2


def convolve(images: torch.Tensor, psf: torch.Tensor) -> torch.Tensor:
    """[`filter_planes`] for images: clamped to [0, 1], which the FFT's rounding leaves."""
    return filter_planes(images, psf).clamp(0, 1)


def filter_planes(planes: torch.Tensor, psf: torch.Tensor) -> torch.Tensor:
    """Filters planes of any values with one PSF per image, mirrored at the borders: `(B, C, H, W)`, `(B, 1, K, K)` -> `(B, C, H, W)`.

    By FFT, whose cost does not depend on the PSF's size.
    """
    height, width = planes.shape[2:]
    radius = psf.shape[-1] // 2
    mode = "reflect" if radius < min(height, width) else "replicate"
    padded = F.pad(planes, (radius,) * 4, mode=mode)
    size = padded.shape[2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(psf, s=size)
    # The PSF's centre sits `radius` pixels in, and so does the picture: the shifts add up.
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def _draw(path_x: torch.Tensor, path_y: torch.Tensor, extent: int, width: float) -> torch.Tensor:
    """Paths `(B, 1, 1, N)` around their centroids with a Gaussian pen of `width` pixels: `(B, 1, K, K)` with K = 2 extent + 1."""
    path_x, path_y = (p - p.mean(dim=-1, keepdim=True) for p in (path_x, path_y))
    axis = torch.arange(-extent, extent + 1, device=path_x.device, dtype=path_x.dtype)
    along_x = torch.exp(-((axis.view(1, -1, 1) - path_x[:, 0]) ** 2) / (2 * width**2))  # (B, K, N)
    along_y = torch.exp(-((axis.view(1, -1, 1) - path_y[:, 0]) ** 2) / (2 * width**2))
    psf = (along_y @ along_x.transpose(1, 2)).unsqueeze(1)  # the sum over the path of separable dots
    return psf / psf.sum(dim=(2, 3), keepdim=True)


def _center(images: torch.Tensor, generator: torch.Generator, offset: float) -> torch.Tensor:
    """A point per image up to `offset` of the sides away from the middle, in `grid_sample`'s coordinates: `(B, 2, 1)`."""
    return 2 * offset * (2 * torch.rand(len(images), 2, 1, generator=generator, device=images.device) - 1)


def _sweep(images: torch.Tensor, growth: torch.Tensor, turn: torch.Tensor, center: torch.Tensor, largest: float) -> torch.Tensor:
    """Mean of the views while the picture grows by exp(`growth`) and turns by `turn` radians about `center`, in linear light.

    Averaging two views half a sweep apart, then two of that a quarter apart and so on gives 2^n equally spaced views for 2n warps.
    """
    height, width = images.shape[2:]
    # Views about a pixel apart in the corners, where a sweep of at most `largest` moves most.
    doublings = min(8, max(1, math.ceil(math.log2(max(2.0, largest * math.hypot(height, width) / 2)))))
    light = to_linear(images)
    for doubling in range(doublings):
        share = 0.25 * 0.5**doubling
        light = (_warp(light, share * growth, share * turn, center) + _warp(light, -share * growth, -share * turn, center)) / 2
    return to_srgb(light)


def _warp(images: torch.Tensor, growth: torch.Tensor, turn: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Grows each image by exp(`growth`) and turns it by `turn` about `center`, mirrored at the borders, clamped to [0, 1]."""
    height, width = images.shape[2:]
    cos, sin = ((-growth).exp() * f(turn) for f in (torch.cos, torch.sin))
    rows = [torch.cat([cos, -sin * height / width], dim=3), torch.cat([sin * width / height, cos], dim=3)]
    matrix = torch.cat(rows, dim=2).squeeze(1)  # (B, 2, 2) in coordinates of -1 to 1 along both sides
    grid = F.affine_grid(torch.cat([matrix, center - matrix @ center], dim=2), [*images.shape], align_corners=False)
    return F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)
