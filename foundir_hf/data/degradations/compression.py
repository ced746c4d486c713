"""Compression: what codecs, palettes and coarse colours throw away."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .sampling import chance, integer, log_uniform, uniform

# Quantisation tables of ITU-T T.81, annex K, which libjpeg scales by its quality setting.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
) + (99,) * 32  # fmt: skip


def jpeg(images: torch.Tensor, generator: torch.Generator, *, quality: tuple[float, float] = (8, 80), subsampling: int = 2) -> torch.Tensor:
    """Baseline JPEG at a `quality` of libjpeg's scale [1, 100]: colour transform, DCT, quantisation and back.

    Entropy coding is lossless and left out, so this runs batched on any device. Low qualities are drawn more often. Colour has
    `subsampling` times fewer samples in both directions: 2 is 4:2:0, 1 is 4:4:4.
    """
    return _jpeg(images, log_uniform(images, generator, *quality).round(), subsampling)


def double_jpeg(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    quality: tuple[float, float] = (8, 60),
    shift: tuple[int, int] = (1, 7),
) -> torch.Tensor:
    """Saved, cropped and saved again: two JPEGs of different `quality` whose grids of blocks lie `shift` pixels apart in both directions.

    Misaligned blocks are the hard case of JPEG restoration (FBCNN, ICCV 2021).
    """
    first, second = (log_uniform(images, generator, *quality).round() for _ in range(2))
    down, right = (integer(images, generator, *shift) for _ in range(2))
    return _jpeg(_on_moved_grid(images, down, right, shift[1], lambda moved: _jpeg(moved, first)), second)


def webp(images: torch.Tensor, generator: torch.Generator, *, quality: tuple[float, float] = (2, 50)) -> torch.Tensor:
    """WebP at a `quality` of libwebp's scale [0, 100]: through Pillow, one image after another on the CPU, sides up to 16383 pixels."""

    def encode(image: Image.Image, setting: float) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=setting)
        return Image.open(buffer)

    return _through_pillow(images, log_uniform(images, generator, *quality), encode)


def chroma_subsampling(images: torch.Tensor, generator: torch.Generator, *, factors: Sequence[int] = (4, 8, 16)) -> torch.Tensor:
    """Brightness at full resolution, colour at one of `factors` less (4:1:1 and below): colours bleed over edges.

    Every image draws its factor, where the coarse grid lies, and whether it is enlarged smoothly or in squares.
    """
    choice = integer(images, generator, 0, len(factors) - 1)
    squares = chance(images, generator, 0.3)
    reach = max(factors) - 1
    down, right = (integer(images, generator, 0, reach) for _ in range(2))

    def coarsen(chroma: torch.Tensor) -> torch.Tensor:
        result = chroma
        for index, factor in enumerate(factors):
            small = F.avg_pool2d(_pad_to_multiple(chroma, factor), factor)
            smooth = F.interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)
            large = torch.where(squares, F.interpolate(small, scale_factor=factor, mode="nearest"), smooth)
            result = torch.where(choice == index, large[..., : chroma.shape[2], : chroma.shape[3]], result)
        return result

    luma, chroma = _to_ycbcr(images)
    return _to_rgb(luma, _on_moved_grid(chroma, down, right, reach, coarsen)).clamp(0, 1)


def posterization(images: torch.Tensor, generator: torch.Generator, *, levels: tuple[int, int] = (4, 12)) -> torch.Tensor:
    """Each channel keeps `levels` equally spaced values, by anything from truncation to rounding up (Gonzalez and Woods, section 2.4).

    Raises:
        ValueError: If fewer than two `levels` are asked for.
    """
    if levels[0] < 2:
        raise ValueError(f"`levels` must be at least 2; got {levels}.")
    steps = integer(images, generator, *levels) - 1
    return ((images * steps + uniform(images, generator, 0.2, 0.8)).floor() / steps).clamp(0, 1)


def palette_dither(images: torch.Tensor, generator: torch.Generator, *, colors: tuple[float, float] = (8, 64)) -> torch.Tensor:
    """A GIF: a palette of `colors` by median cut (Heckbert, SIGGRAPH 1982) and error diffusion (Floyd and Steinberg, 1976).

    Through Pillow: one image after another on the CPU. At most 96 x 96 pixels choose the palette, which takes most of the time.
    """

    def encode(image: Image.Image, setting: float) -> Image.Image:
        sample = image.resize((min(96, image.width), min(96, image.height)), Image.Resampling.NEAREST)
        palette = sample.quantize(round(setting), method=Image.Quantize.MEDIANCUT)
        return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)

    return _through_pillow(images, log_uniform(images, generator, *colors), encode)


def video_blocks(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    step: tuple[float, float] = (30, 110),
    motion: tuple[int, int] = (2, 8),
    skipped: tuple[float, float] = (0.1, 0.5),
) -> torch.Tensor:
    """A predicted frame of a video at a low bit rate: H.264 and its kin (Wiegand et al., TCSVT 2003) without the deblocking filter.

    The previous frame, itself coarsely coded on a grid that the camera's motion has carried along, predicts macroblocks of 16 x 16 pixels,
    some of them from a wrong place; the residual's DCT is quantised with a dead zone by a step that varies among macroblocks, and is not
    sent at all for some.

    Args:
        step: Of the quantiser, in grey levels of 255 (H.264's Qstep: 30 is QP 33, 110 is QP 45).
        motion: Largest error of a motion vector, in pixels.
        skipped: Share of the macroblocks without a residual.
    """
    height, width = images.shape[2:]
    rows, columns = -(-height // 16), -(-width // 16)

    def per_block() -> torch.Tensor:
        return torch.rand(len(images), 1, rows, columns, generator=generator, device=images.device)

    base = log_uniform(images, generator, *step) / 255
    steps = base * 2 ** (2 * per_block() - 1)
    reach = integer(images, generator, *motion)
    wrong = per_block() < 0.3
    errors = [wrong * (2 * per_block() - 1) * reach for _ in range(2)]
    sent = (per_block() > uniform(images, generator, *skipped)).to(images.dtype)
    grid = [integer(images, generator, 1, 15) for _ in range(2)]

    def predicted(planes: torch.Tensor, block: int) -> torch.Tensor:
        """Codes planes whose macroblocks measure `block` pixels."""

        def enlarge(values: torch.Tensor, side: int) -> torch.Tensor:
            return values.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)

        scale = block / 16
        down, right = ((part * scale).floor() for part in grid)
        previous = _on_moved_grid(planes, down, right, block, lambda moved: _quantise(moved, base))
        wrong_y, wrong_x = ((enlarge(error, block) * scale).round() for error in errors)
        prediction = _take(previous, wrong_y, wrong_x, planes.shape[2:])
        # H.264's encoders round down what lies within 5/6 of a step.
        residual = _quantise(planes - prediction, enlarge(steps, block // 8), rounding=1 / 6)
        return prediction + enlarge(sent, block) * residual

    luma, chroma = _to_ycbcr(_pad_to_multiple(images, 16))
    luma = predicted(luma - 0.5, 16) + 0.5
    chroma = F.interpolate(predicted(F.avg_pool2d(chroma, 2), 8), scale_factor=2, mode="bilinear", align_corners=False)
    return _to_rgb(luma, chroma)[..., :height, :width].clamp(0, 1)


def _jpeg(images: torch.Tensor, quality: torch.Tensor, subsampling: int = 2) -> torch.Tensor:
    """[`jpeg`] at the `quality` (B, 1, 1, 1)."""
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    height, width = images.shape[2:]
    luma, chroma = _to_ycbcr(_pad_to_multiple(images, 8 * subsampling) * 255)
    luma = _quantise(luma - 128, _table(_LUMA, scale)) + 128
    chroma = _quantise(F.avg_pool2d(chroma, subsampling), _table(_CHROMA, scale))
    # libjpeg's "fancy" up-sampling is the triangle filter.
    chroma = F.interpolate(chroma, scale_factor=subsampling, mode="bilinear", align_corners=False)
    return (_to_rgb(luma, chroma)[..., :height, :width].round() / 255).clamp(0, 1)


def _table(table: tuple[int, ...], scale: torch.Tensor) -> torch.Tensor:
    """Steps of libjpeg for a scale in percent (B, 1, 1, 1): `(B, 1, 1, 1, 8, 8)`."""
    steps = torch.tensor(table, dtype=scale.dtype, device=scale.device).view(8, 8)
    return ((steps * scale + 50) / 100).floor().clamp(1, 255)[:, None, None]


def _quantise(planes: torch.Tensor, steps: torch.Tensor, rounding: float = 0.5) -> torch.Tensor:
    """DCT of 8 x 8 blocks, rounding to multiples of `steps`, inverse DCT; `planes` (B, C, H, W) with sides divisible by 8.

    `steps` is one per coefficient (B, 1, 1, 1, 8, 8), one per block (B, 1, H/8, W/8) or one per image (B, 1, 1, 1). Fractions of a step
    below `1 - rounding` are rounded down.
    """
    if steps.ndim == 4:
        steps = steps[..., None, None]
    transform = _dct_matrix(planes.device, planes.dtype)
    blocks = planes.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)  # (B, C, H/8, W/8, 8, 8)
    coefficients = transform @ blocks @ transform.T / steps
    coefficients = coefficients.sign() * (coefficients.abs() + rounding).floor()
    blocks = transform.T @ (coefficients * steps) @ transform
    return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _dct_matrix(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The orthonormal DCT-II of length 8."""
    index = torch.arange(8, device=device, dtype=dtype)
    matrix = torch.cos((2 * index[None, :] + 1) * index[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _to_ycbcr(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """BT.601's full range, as JFIF has it: brightness (B, 1, H, W) and Cb, Cr around 0 (B, 2, H, W)."""
    red, green, blue = images.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma.unsqueeze(1), torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], dim=1)


def _to_rgb(luma: torch.Tensor, chroma: torch.Tensor) -> torch.Tensor:
    """The inverse of [`_to_ycbcr`]."""
    (cb, cr), luma = chroma.unbind(1), luma.squeeze(1)
    return torch.stack([luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb], dim=1)


def _pad_to_multiple(planes: torch.Tensor, side: int) -> torch.Tensor:
    """Repeats the last row and column until both sides are multiples of `side`."""
    height, width = planes.shape[2:]
    return F.pad(planes, (0, -width % side, 0, -height % side), mode="replicate")


def _take(planes: torch.Tensor, down: torch.Tensor, right: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The pixels `down` below and `right` of every place of a picture of `size`, the border's beyond it.

    `down` and `right` are whole numbers, one per image (B, 1, 1, 1) or per place (B, 1, *size).
    """
    height, width = planes.shape[2:]
    y = (torch.arange(size[0], device=planes.device)[:, None] + down).long().clamp(0, height - 1)
    x = (torch.arange(size[1], device=planes.device) + right).long().clamp(0, width - 1)
    index = (y * width + x).flatten(2).expand(-1, planes.shape[1], -1)
    return planes.flatten(2).gather(2, index).unflatten(2, (size[0], size[1]))


def _on_moved_grid(
    planes: torch.Tensor, down: torch.Tensor, right: torch.Tensor, reach: int, code: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """`code` applied to the picture after it has been moved by (`down`, `right`) of [0, `reach`] pixels, and moved back."""
    height, width = planes.shape[2:]
    return _take(code(_take(planes, -down, -right, (height + reach, width + reach))), down, right, (height, width))


def _through_pillow(images: torch.Tensor, settings: torch.Tensor, encode: Callable[[Image.Image, float], Image.Image]) -> torch.Tensor:
    """Each image with 8 bits through `encode` at its setting (B, 1, 1, 1)."""
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    decoded = [
        np.asarray(encode(Image.fromarray(p), setting).convert("RGB"))
        for p, setting in zip(pixels, settings.flatten().tolist(), strict=True)
    ]
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images.device, images.dtype) / 255
