"""Tone curves: what is wrong with a whole photograph's exposure, haze and colour, told from a thumbnail and undone last.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import nn


class FoundIRToneCurves(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """For every place and colour of a photograph a curve, `light -> (gain * light + offset) ** gamma`.

    Haze is `I = J t + A (1 - t)`, so `J` is a gain and an offset of `I`; an under-exposed `J` is a gain and a power of it. Both vary
    slowly, so a grid of a quarter of the thumbnail's side holds them, in the way of the bilateral grids of HDRNet (Gharbi et al., SIGGRAPH
    2017) and the curves of Zero-DCE (CVPR 2020). The grid is interpolated to pixels, so detail passes untouched.

    A pale photograph may be meant so. A second network, the judge, says how sure it is that the tones were wrong: a gate in [0, 1] on the
    logarithms of gain and gamma and on the offset, a hard sigmoid (Louizos et al., ICLR 2018), so that it can close altogether. It sees
    the distributions of light and colour before and after the curves, and no places, by which it would learn by heart how bright each
    training photograph ought to be.

    Args:
        image_channels (`int`): Of the photograph.
        channels (`int`): Width at half the thumbnail's size; half as many again at a quarter.
        thumbnail_size (`int`): Side of the thumbnail in pixels, divisible by 4.
        quantiles (`int`): Of each statistic of the thumbnail that is told as a distribution.
        judge_channels (`int`): Width of the judge.
    """

    max_log_gain, max_log_gamma = 3.0, 1.2

    @register_to_config
    def __init__(
        self, image_channels: int = 3, channels: int = 48, thumbnail_size: int = 64, quantiles: int = 16, judge_channels: int = 32
    ):
        super().__init__()
        if thumbnail_size % 4:
            raise ValueError(f"`thumbnail_size` must be divisible by 4, got {thumbnail_size}.")
        coarse = channels * 3 // 2
        statistics = image_channels + 2  # see `_tone_statistics`
        self.conv_in = nn.Conv2d(4 * (image_channels + 5), channels, 3, padding=1)
        self.before = _ResidualBlock(channels)
        self.down = nn.Conv2d(channels, coarse, 2, stride=2)
        self.middle = nn.Sequential(_ResidualBlock(coarse), _ResidualBlock(coarse))
        self.summary = nn.Sequential(
            nn.Linear(2 * coarse + statistics * quantiles, 2 * coarse), nn.ReLU(), nn.Linear(2 * coarse, 2 * coarse), nn.ReLU()
        )
        self.modulation = nn.Linear(2 * coarse, 2 * coarse)
        self.after = _ResidualBlock(coarse)
        self.conv_out = nn.Conv2d(coarse, 3 * image_channels, 3, padding=1)
        self.whole_out = nn.Linear(2 * coarse, 3 * image_channels)
        self.judge = nn.Sequential(
            nn.Linear(2 * statistics * quantiles + 1, judge_channels), nn.ReLU(), nn.Linear(judge_channels, judge_channels), nn.ReLU()
        )
        self.gate = nn.Linear(judge_channels + 1, 1)
        for layer in (self.modulation, self.conv_out, self.whole_out, self.gate):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Most photographs are as they were meant, and a small change is the likelier mistake: half open where a tenth of the range changes.
        with torch.no_grad():
            self.gate.weight[0, -1], self.gate.bias[0] = 20.0, -2.2 * 10.0

    def thumbnail(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The small copy of whole images that `forward` takes: `(B, C, H, W)` -> `(B, C, thumbnail_size, thumbnail_size)`."""
        size, height = self.config.thumbnail_size, pixel_values.shape[2]
        if pixel_values.numel() < 2**26:
            return F.adaptive_avg_pool2d(pixel_values.float(), size)
        # A row of the thumbnail at a time: pooling copies what is a part of a larger tensor.
        rows = [(row * height // size, -(-(row + 1) * height // size)) for row in range(size)]
        return torch.cat([F.adaptive_avg_pool2d(pixel_values[..., top:end, :].float(), (1, size)) for top, end in rows], dim=2)

    def forward(self, thumbnail: torch.Tensor, mode: Literal["auto", "always"] = "auto") -> torch.Tensor:
        """Judges whole images by their thumbnails.

        Args:
            thumbnail (`torch.Tensor` of shape `(batch, image_channels, thumbnail_size, thumbnail_size)`): In [-1, 1].
            mode (`"auto"` or `"always"`): Whether the gate decides how far the curves are taken, or they are taken as they are. A gate
                that learns learns from its own image alone: it moves no curve.

        Returns:
            Log gains, offsets and log gammas of each colour, `(batch, 3 * image_channels, thumbnail_size / 4, thumbnail_size / 4)`.
        """
        thumbnail = thumbnail.clamp(-1, 1)  # an estimate may overshoot
        statistics = _tone_statistics(thumbnail)
        hidden_states = self.middle(self.down(self.before(self.conv_in(F.pixel_unshuffle(_tone_maps(thumbnail, statistics), 2)))))
        distribution = self._quantiles(statistics)
        whole = self.summary(torch.cat([hidden_states.mean(dim=(2, 3)), hidden_states.amax(dim=(2, 3)), distribution], dim=1))
        scale, shift = self.modulation(whole)[:, :, None, None].chunk(2, dim=1)
        curves = self.conv_out(self.after(hidden_states * (1 + scale) + shift)) + self.whole_out(whole)[:, :, None, None]
        if mode == "always":
            return curves
        curves = curves.detach()
        toned = self.apply_curves(thumbnail, curves).clamp(-1, 1)
        change = ((toned - thumbnail).float() / 2).square().mean(dim=(1, 2, 3)).sqrt()
        # In tenths of the range, so that all that the judge looks at is of like size.
        change = 10 * change[:, None].to(distribution.dtype)
        verdict = self.judge(torch.cat([distribution, self._quantiles(_tone_statistics(toned)), change], dim=1))
        logits = self.gate(torch.cat([verdict, change], dim=1))
        return curves * (_hard_sigmoid(logits) * _telling(thumbnail))[:, :, None, None].to(curves.dtype)

    def _quantiles(self, statistics: torch.Tensor) -> torch.Tensor:
        ordered = statistics.flatten(2).sort(dim=2).values  # (B, statistics, size**2)
        places = torch.linspace(0, ordered.shape[2] - 1, self.config.quantiles, device=ordered.device).round().long()
        return ordered[:, :, places].flatten(1)

    def toned(self, pixel_values: torch.Tensor, mode: Literal["auto", "always"] = "auto") -> torch.Tensor:
        """Whole images `(B, C, H, W)` in [-1, 1] with their own curves applied. How they are judged sends no gradient to the images."""
        return self.apply_curves(pixel_values, self(self.thumbnail(pixel_values.detach()), mode))

    def apply_curves(
        self, pixel_values: torch.Tensor, curves: torch.Tensor, inverse: bool = False, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Applies what `forward` returned to whole images.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch, image_channels, height, width)`): In [-1, 1].
            curves (`torch.Tensor`): Of these images.
            inverse (`bool`, defaults to `False`): Undo the curves instead; what they cut off at black is lost.
            out (`torch.Tensor`, *optional*): Where to write to; may be `pixel_values` itself, if no gradient is wanted.

        Returns:
            Images of the same shape and type; beyond 1 where light overshoots.
        """
        log_gain, offset, log_gamma = curves.float().chunk(3, dim=1)
        gain = (self.max_log_gain * torch.tanh(log_gain / self.max_log_gain)).exp()
        gamma = (self.max_log_gamma * torch.tanh(log_gamma / self.max_log_gamma)).exp()
        height, width = pixel_values.shape[2:]
        parts = torch.stack([gain, offset, gamma])  # (3, B, C, size, size)
        rows, columns = (_interpolation(parts.shape[-1], side, parts.device) for side in (height, width))
        images = torch.empty_like(pixel_values) if out is None else out
        # Powers and their interpolation in single precision: half of it would band smooth skies. In bands of rows, because the interpolated
        # curves of a photograph take as much memory as three of it.
        with torch.autocast(pixel_values.device.type, enabled=False):
            for top in range(0, height, 256):
                band = (..., slice(top, top + 256), slice(None))
                maps = rows[top : top + 256] @ parts @ columns.T  # (3, B, C, rows, W)
                images[band] = (_bend((pixel_values[band].float() + 1) / 2, *maps.unbind(), inverse) * 2 - 1).to(images.dtype)
        return images


def _interpolation(source: int, target: int, device: torch.device) -> torch.Tensor:
    """What bilinear interpolation does along one axis: `(target, source)`."""
    return F.interpolate(torch.eye(source, device=device)[None], size=target, mode="linear", align_corners=False)[0].T


def _bend(light: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor, gamma: torch.Tensor, inverse: bool) -> torch.Tensor:
    """Light in [0, 1] through its curves."""
    # The toe keeps the slope of a power finite at black, and black black.
    toe = 1 / 255
    black = toe**gamma
    if inverse:
        return ((light.clamp(min=0) + black) ** (1 / gamma) - toe - offset) / gain
    return ((gain * light + offset).clamp(min=0) + toe) ** gamma - black


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.conv2(F.relu(self.conv1(hidden_states)))


def _telling(thumbnail: torch.Tensor) -> torch.Tensor:
    """0 for flat cards and even gradients, whose tones nobody can judge, 1 from a deviation of four levels of 255 on: `(B, 1)`."""
    structure = thumbnail - thumbnail.mean(dim=(2, 3), keepdim=True)
    slope = torch.linspace(-1, 1, thumbnail.shape[-1], device=thumbnail.device, dtype=thumbnail.dtype)
    for along in (slope[:, None], slope[None]):
        structure = structure - along * (structure * along).mean(dim=(2, 3), keepdim=True) / slope.square().mean()
    contrast = structure.square().mean(dim=(1, 2, 3)).sqrt() / 2
    return (contrast[:, None] * 255 / 2 - 1).clamp(0, 1)


def _hard_sigmoid(logits: torch.Tensor) -> torch.Tensor:
    """In [0, 1], both ends included. Its gradient is the softsign's, whose tails are long, so that what is quite shut can learn to open."""
    soft = F.softsign(logits) / 2
    return soft + ((1.2 * logits.sigmoid() - 0.1).clamp(0, 1) - soft).detach()


def _tone_statistics(thumbnail: torch.Tensor) -> torch.Tensor:
    """What tells haze and darkness, whose distributions count: the colours, darkness and saturation, about [-1, 1], `(B, C + 2, H, W)`."""
    light = (thumbnail + 1) / 2
    brightest, darkest = light.amax(dim=1, keepdim=True), light.amin(dim=1, keepdim=True)
    stops = (brightest + 1 / 64).log2() / 3 + 1  # darkness is a factor
    return torch.cat([thumbnail, stops, 2 * (brightest - darkest) - 1], dim=1)


def _tone_maps(thumbnail: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
    """The thumbnail, its statistics and what the brightest and darkest of a neighbourhood tell, about [-1, 1]: `(B, C + 5, H, W)`."""
    light = (thumbnail + 1) / 2
    stops, saturation = statistics[:, -2:-1], statistics[:, -1:]
    dark_channel = -F.max_pool2d(-light.amin(dim=1, keepdim=True), 5, stride=1, padding=2)  # He et al., TPAMI 2011: haze lifts it
    luma = light.mean(dim=1, keepdim=True)
    brightest = F.max_pool2d(luma, 5, stride=1, padding=2)
    return torch.cat([thumbnail, stops, 2 * dark_channel - 1, saturation, 2 * brightest - 1, 2 * luma - 1], dim=1)
