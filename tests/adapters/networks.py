"""Small networks to adapt that are not ours: a stock diffusers UNet, and a restoration transformer on tokens."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import nn

CONDITION = torch.zeros(2, 3, 8)


def stock_unet() -> UNet2DConditionModel:
    """A text-conditioned UNet as diffusers has it, in small."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=8,
        attention_head_dim=4,
    ).eval()


def run_unet(unet: nn.Module, height: int = 16, width: int = 12) -> torch.Tensor:
    sample = torch.randn(2, 4, height, width, generator=torch.Generator().manual_seed(1)).to(next(unet.parameters()).dtype)
    return unet(sample, 10, encoder_hidden_states=CONDITION.to(sample.dtype)).sample


class TokenBlock(nn.Module):
    """Pre-norm attention and feed-forward on tokens, as in SwinIR and IPT, over the whole map."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class TokenRestorer(nn.Module):
    """Image in, image out: a convolution, blocks on tokens, a token a patch, a convolution, and the image added."""

    def __init__(self, dim: int = 48, depth: int = 2, patch: int = 1):
        super().__init__()
        self.head = nn.Sequential(nn.PixelUnshuffle(patch), nn.Conv2d(3 * patch**2, dim, 3, padding=1))
        self.blocks = nn.ModuleList(TokenBlock(dim) for _ in range(depth))
        self.tail = nn.Sequential(nn.Conv2d(dim, 3 * patch**2, 3, padding=1), nn.PixelShuffle(patch))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.head(image)
        tokens = maps.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return image + self.tail(tokens.transpose(1, 2).unflatten(2, maps.shape[-2:]))
