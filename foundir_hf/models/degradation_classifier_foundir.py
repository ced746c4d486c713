"""A small classifier of degradations: which defects a photograph has, each with a probability of its own.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
"""

from __future__ import annotations

import math
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

# Of the tone statistics: how dark, how bright and how wide the distribution of each channel is.
_QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


class FoundIRDegradationClassifier(ModelMixin, ConfigMixin):
    """Looks at a photograph twice: at crops of its own pixels (noise, grids, blur) and at a small copy of the whole (haze, darkness).

    Args:
        defects (`tuple[str]`): What the outputs stand for, in their order. One photograph may have several.
        crop_size (`int`): Side of the crops, in pixels; even, at least 16.
        max_crops (`int`): So many of them at most, spread evenly over a photograph.
        overview_size (`int`): Short side of the small copy, in pixels; even, at least 16.
        detail_channels (`tuple[int]`): Width of each level of the crops' trunk; a level halves the size.
        overview_channels (`tuple[int]`): The same of the small copy's.
        num_heads (`int`): Of the attention that pools each trunk; divides the last width of both.
        hidden_size (`int`): Of the layer that judges both views together.
    """

    @register_to_config
    def __init__(
        self,
        defects: tuple[str, ...] = ("noise", "blur"),
        crop_size: int = 96,
        max_crops: int = 24,
        overview_size: int = 96,
        detail_channels: tuple[int, ...] = (32, 48, 72),
        overview_channels: tuple[int, ...] = (24, 40, 64, 64),
        num_heads: int = 4,
        hidden_size: int = 96,
    ):
        super().__init__()
        if not defects or len(set(defects)) != len(defects):
            raise ValueError(f"`defects` must be at least one name, each once, got {tuple(defects)}.")
        for name, value in (("crop_size", crop_size), ("overview_size", overview_size)):
            if value % 2 or value < 16:
                raise ValueError(f"`{name}` must be even and at least 16, got {value}.")
        if any(widths[-1] % num_heads for widths in (detail_channels, overview_channels)):
            raise ValueError(f"`num_heads` must divide {detail_channels[-1]} and {overview_channels[-1]}, got {num_heads}.")
        self.detail = _trunk(6, detail_channels)
        self.overview = _trunk(3, overview_channels)
        self.detail_pool = _MeanAndAttentionPool(detail_channels[-1], num_heads)
        self.overview_pool = _MeanAndAttentionPool(overview_channels[-1], num_heads)
        self.register_buffer("bands", _dct_filters(), persistent=False)
        self.norm_statistics = nn.BatchNorm1d(3 * 63 + 2 * 8)
        pooled = 2 * detail_channels[-1] + 2 * overview_channels[-1] + 5 * len(_QUANTILES) + self.norm_statistics.num_features
        self.hidden = nn.Sequential(nn.Linear(pooled, hidden_size), nn.ReLU(), nn.Dropout(0.1))
        self.out = nn.Linear(hidden_size, len(defects))

    def views(
        self, pixel_values: torch.Tensor, crops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What `forward` looks at.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`): In [0, 1], of any size; small ones are mirrored outwards.
            crops (`int`, *optional*): So many crops at random places drawn from `generator`; by default they cover the photograph or, where
                that took more than `max_crops`, are spread over it evenly.

        Returns:
            The crops `(batch, crops, 3, crop_size, crop_size)`, and the small copy `(batch, 3, height', width')` whose short side is
            `overview_size`; the long side is at most four times that.
        """
        size, side = self.config.crop_size, self.config.overview_size
        pixel_values = _mirror(pixel_values, size)
        height, width = pixel_values.shape[2:]
        if crops is None:
            places = list(product(*_spread(height, width, size, self.config.max_crops)))
        else:
            draws = torch.rand(crops, 2, generator=generator, device=pixel_values.device).tolist()
            places = [(int(y * (height - size + 1)), int(x * (width - size + 1))) for y, x in draws]
        detail = torch.stack([pixel_values[..., y : y + size, x : x + size] for y, x in places], dim=1)
        scale = side / min(height, width)
        small = [min(4 * side, max(side, 2 * round(n * scale / 2))) for n in (height, width)]  # even: the trunk folds pixels two by two
        return detail, F.interpolate(pixel_values, size=small, mode="bilinear", antialias=True)

    def forward(self, detail: torch.Tensor, overview: torch.Tensor) -> torch.Tensor:
        """[`~FoundIRDegradationClassifier.views`] of photographs -> log-odds of each defect, `(batch, len(defects))`."""
        batch, crops = detail.shape[:2]
        detail, overview = detail.to(self.dtype), overview.to(self.dtype)
        pixels = detail.flatten(0, 1)
        with torch.autocast(detail.device.type, enabled=False):  # bfloat16 has fewer levels than a file
            # What a smooth image has nothing of, enlarged until a single grey level counts.
            residual = torch.tanh(8 * (pixels - _binomial_blur(pixels)))
            statistics = self._detail_statistics(pixels).unflatten(0, (batch, crops)).mean(dim=1)
        features = self.detail(torch.cat([pixels - 0.5, residual], dim=1))
        features = features.unflatten(0, (batch, crops)).transpose(1, 2).flatten(2)  # one bag of places a photograph
        pooled = [
            self.detail_pool(features),
            self.overview_pool(self.overview(overview - 0.5).flatten(2)),
            _tone_statistics(overview),
            self.norm_statistics(statistics.to(self.dtype)),
        ]
        return self.out(self.hidden(torch.cat(pooled, dim=1)))

    def _detail_statistics(self, pixels: torch.Tensor) -> torch.Tensor:
        """What needs no learning: energies of the 63 bands of an 8 x 8 DCT, and steps that repeat every eight pixels; `(crops, 205)`."""
        pixels = pixels.float()  # squares of a grey level are too small for half precision
        luma = pixels.mean(dim=1, keepdim=True)
        chroma = pixels[:, ::2] - luma  # R - Y and B - Y
        bands = F.conv2d(torch.cat([luma, chroma], dim=1).flatten(0, 1)[:, None], self.bands.float(), stride=8)
        energy = bands.square().flatten(2).unflatten(0, (-1, 3)) + 1e-6  # (crops, Y and two of chroma, bands, blocks)
        typical, total = energy[:, 0].log().mean(dim=2), energy.mean(dim=3).log()
        return torch.cat([typical, total[:, 0], total[:, 1:].mean(dim=1), *(_grid_steps(luma, dim) for dim in (2, 3))], dim=1)

    @torch.no_grad()
    def probabilities(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Photographs of one size `(batch, 3, height, width)` in [0, 1] -> probability of each defect, `(batch, len(defects))`."""
        return torch.sigmoid(self(*self.views(pixel_values)).float())


class _MeanAndAttentionPool(nn.Module):
    """`(batch, channels, places)` -> `(batch, 2 * channels)`: the mean, and the mean weighted by how much a place has to say.

    Neither grows with the number of places, so that crops and photographs of any size are judged alike.
    """

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.scores = nn.Conv1d(channels, num_heads, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weights = self.scores(features).softmax(dim=2)  # (B, heads, places)
        heads = features.unflatten(1, (weights.shape[1], -1))  # (B, heads, channels/heads, places)
        attended = (heads * weights[:, :, None]).sum(dim=3).flatten(1)
        return torch.cat([features.mean(dim=2), attended], dim=1)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(_conv(channels, channels), nn.ReLU(inplace=True), _conv(channels, channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return F.relu(features + self.layers(features))


def _trunk(in_channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Dense convolutions on pixels folded two by two into channels; every level halves the size."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(2), _conv(4 * in_channels, widths[0]), nn.ReLU(inplace=True)]
    for narrow, wide in pairwise(widths):
        layers += [_conv(narrow, wide, stride=2), nn.ReLU(inplace=True), _ResidualBlock(wide)]
    return nn.Sequential(*layers)


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    # Normalised over the batch: normalising each image would hide how strong its noise and how low its contrast is.
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels))


def _dct_filters() -> torch.Tensor:
    """The orthonormal 8 x 8 DCT-II without its mean, `(63, 1, 8, 8)`."""
    n = torch.arange(8, dtype=torch.float64)
    waves = torch.cos(math.pi * (n + 0.5) * n[:, None] / 8) * 0.5
    waves[0] *= 0.5**0.5
    return torch.einsum("uy,vx->uvyx", waves, waves).reshape(64, 1, 8, 8)[1:].float()


def _grid_steps(luma: torch.Tensor, dim: int) -> torch.Tensor:
    """Mean step between neighbours at each of the eight phases of a grid of blocks, against their mean, largest first: `(crops, 8)`.

    Blocks stand out whatever their offset (after Wang, Sheikh and Bovik, ICIP 2002, who know it).
    """
    steps = luma.diff(dim=dim).abs().mean(dim=(1, 5 - dim))
    steps = steps[:, : steps.shape[1] // 8 * 8].unflatten(1, (-1, 8)).mean(dim=1) + 1e-4
    return (steps / steps.mean(dim=1, keepdim=True)).log().sort(dim=1, descending=True).values


def _binomial_blur(images: torch.Tensor) -> torch.Tensor:
    taps = images.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])


def _tone_statistics(overview: torch.Tensor) -> torch.Tensor:
    """Quantiles of R, G, B, of the darkest channel (haze lifts it: He et al., CVPR 2009) and of the chroma, max - min; `(batch, 35)`."""
    small = F.avg_pool2d(overview, 4)  # tones, not grain; and sixteen times fewer values to sort
    darkest, brightest = small.amin(dim=1, keepdim=True), small.amax(dim=1, keepdim=True)
    values = torch.cat([small, darkest, brightest - darkest], dim=1).flatten(2).sort(dim=2).values
    places = [round(q * (values.shape[2] - 1)) for q in _QUANTILES]
    return 2 * values[..., places].flatten(1) - 1


def _mirror(images: torch.Tensor, side: int) -> torch.Tensor:
    """Mirrors small images outwards, as often as it takes, until both sides reach `side`."""
    for dim in (2, 3):
        extent = images.shape[dim]
        if extent < side:
            period = max(1, 2 * extent - 2)
            index = torch.arange(side, device=images.device) % period
            images = images.index_select(dim, torch.minimum(index, period - index) if extent > 1 else index)
    return images


def _spread(height: int, width: int, size: int, most: int) -> tuple[list[int], list[int]]:
    """Where crops begin, along height and width: as many as cover the image, or `most`, as evenly as its shape allows."""
    rows = min(math.ceil(height / size), max(1, round(math.sqrt(most * height / width))))
    columns = min(math.ceil(width / size), max(1, most // rows))
    rows = min(math.ceil(height / size), max(1, most // columns))
    return _starts(height - size, rows), _starts(width - size, columns)


def _starts(last: int, count: int) -> list[int]:
    return [round(i * last / (count - 1)) for i in range(count)] if count > 1 else [last // 2]
