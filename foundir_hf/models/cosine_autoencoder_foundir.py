"""The autoencoder of the small sizes: the low frequencies of blocks, by the discrete cosine transform. Nothing in it is learnt.

Hub code: this file is copied verbatim next to the weights, so it imports torch and diffusers only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.utils.accelerate_utils import apply_forward_hook


class FoundIRCosineAutoencoder(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Blocks of pixels <-> the lowest of their cosine coefficients, along the rows, the columns and the three colours.

    The transform is orthonormal and linear, so that decoding what was encoded is a projection: what the latents cannot hold is what is left
    over. Each coefficient is told in a unit of its own, the square root of its usual deviation. In units of the deviation itself, four for
    the mean and a hundredth for the finest, each optimizer step of a denoiser moves brightness by whole levels and detail not at all; in
    equal units brightness is learnt slowly.

    Args:
        block_size (`int`): Side of a block: image pixels per latent, along one side.
        latent_channels (`int`): Coefficients kept a block, at most `3 * block_size**2`.
        unit (`float`): Of the coefficient with the largest deviation.
        scaling_factor (`float`): As of diffusers' autoencoders; the units leave nothing to scale.
    """

    @register_to_config
    def __init__(self, block_size: int = 8, latent_channels: int = 48, unit: float = 1.0, scaling_factor: float = 1.0):
        super().__init__()
        if not 0 < latent_channels <= 3 * block_size**2:
            raise ValueError(f"`latent_channels` must lie in [1, {3 * block_size**2}], got {latent_channels}.")
        basis, deviation = _cosine_basis(latent_channels, block_size)
        self.register_buffer("basis", basis)  # (latents, 3 * block_size**2)
        self.register_buffer("units", unit * (deviation / deviation[0]).sqrt())  # (latents,)

    @apply_forward_hook
    def encode(self, x: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple:
        """Images `(batch, 3, height, width)` in [-1, 1] -> a distribution of latents that is a single point."""
        with torch.autocast(x.device.type, enabled=False):  # half precision would show as steps in smooth skies
            size = self.config.block_size
            filters = (self.basis.float() / self.units.float()[:, None]).unflatten(1, (-1, size, size))
            latents = F.conv2d(x.float(), filters, stride=size)
        moments = torch.cat([latents, torch.zeros_like(latents)], dim=1)
        posterior = DiagonalGaussianDistribution(moments, deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(self, z: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """Latents `(batch, latent_channels, height, width)` -> images `(batch, 3, height * block_size, width * block_size)`."""
        with torch.autocast(z.device.type, enabled=False):
            # Contiguous, as images are: arithmetic on two layouts takes four times as long.
            folded = F.conv2d(z.float().contiguous(), (self.basis.float() * self.units.float()[:, None]).T[..., None, None])
        sample = F.pixel_shuffle(folded, self.config.block_size)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self, sample: torch.Tensor, sample_posterior: bool = False, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """What is left of images after encoding and decoding; the arguments are `AutoencoderKL`'s, and there is nothing to be sampled."""
        return self.decode(self.encode(sample).latent_dist.mode(), return_dict=return_dict)


def _cosine_basis(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` coefficients of a colour block with the largest expected deviation: their filters, orthonormal, and that deviation."""
    side, colour = _cosines(size), _cosines(3)
    # Natural spectra fall as 1/f, and the two differences of colours carry about a fifth of their sum's amplitude.
    candidates = sorted(
        ((1.0 if axis == 0 else 0.2) / (1 + 2 * (u + v)), axis, u, v) for axis in range(3) for u in range(size) for v in range(size)
    )[: -count - 1 : -1]
    filters = [(colour[axis][:, None, None] * side[u][:, None] * side[v][None, :]).flatten() for _, axis, u, v in candidates]
    return torch.stack(filters).float(), torch.tensor([deviation for deviation, *_ in candidates])


def _cosines(size: int) -> torch.Tensor:
    """The orthonormal cosine transform of `size` values, a frequency a row."""
    index = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos((2 * index[None, :] + 1) * index[:, None] * torch.pi / (2 * size)) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix
