"""The released graph of FoundIR-v2 as equations over a state dictionary: written from its description, sharing no code with the package.

`d` is the width of the fused features, `h = int(2.66 d)`; two layers an expert, eight heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

HEADS = 8


def released_weights(unet: UNet2DConditionModel, vae: AutoencoderKL, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the released names and shapes, for an SDXL in small."""
    random = torch.Generator().manual_seed(seed)
    width, lq = unet.config.block_out_channels[0], vae.config.block_out_channels[-1]
    d, h = 2 * width, int(2 * width * 2.66)
    shapes = {
        "condition_embedding.norm_in.weight": (lq,),
        "condition_embedding.norm_in.bias": (lq,),
        "condition_embedding.conv_in.weight": (lq, lq, 3, 3),
        "condition_embedding.conv_in.bias": (lq,),
        "condition_embedding.conv_out.weight": (width, lq, 3, 3),
        "condition_embedding.conv_out.bias": (width,),
        "MoE.gate.weight": (3, d, 1, 1),
        "MoE.gate.bias": (3,),
        "spatial_ch_projs.weight": (width, d),
        "spatial_ch_projs.bias": (width,),
        "information_transformer_layes.0.attn.in_proj_weight": (3 * d, d),
    }
    attention = {
        "temperature": (HEADS, 1, 1),
        "qkv.weight": (3 * d, d, 1, 1),
        "qkv_dwconv.weight": (3 * d, 1, 3, 3),
        "project_out.weight": (d, d, 1, 1),
    }
    for layer in range(2):
        a, b, c = (f"MoE.experts.{i}.Expert{x}_transformer_layes.{layer}." for i, x in enumerate("ABC"))
        shapes |= {a + "attn.in_proj_weight": (3 * d, d), a + "attn.in_proj_bias": (3 * d,)}
        shapes |= {a + "attn.out_proj.weight": (d, d), a + "attn.out_proj.bias": (d,)}
        shapes |= {a + "mlp.c_fc.weight": (2 * d, d), a + "mlp.c_fc.bias": (2 * d,)}
        shapes |= {a + "mlp.c_proj.weight": (d, 2 * d), a + "mlp.c_proj.bias": (d,)}
        shapes |= {f"{a}ln_{i}.{part}": (d,) for i in (1, 2) for part in ("weight", "bias")}
        for x in (b, c):
            shapes |= {f"{x}norm{i}.body.{part}": (d,) for i in (1, 2) for part in ("weight", "bias")}
            shapes |= {f"{x}attn.{name}": shape for name, shape in attention.items()}
            shapes |= {f"{x}ffn.project_in.weight": (2 * h, d, 1, 1)}
        shapes |= {b + "ffn.dwconv.weight": (2 * h, 1, 3, 3), b + "ffn.project_out.weight": (d, h, 1, 1)}
        shapes |= {c + "attn.attn3": (1,), c + "ffn.project_out.weight": (d, 2 * h, 1, 1)}
        for size in (3, 5):
            shapes |= {f"{c}ffn.dwconv{size}x{size}.weight": (2 * h, 1, size, size)}
            shapes |= {f"{c}ffn.dwconv{size}x{size}_1.weight": (h, 2, size, size)}
    weights = {}
    for name, shape in shapes.items():
        fan_in = torch.Size(shape[1:]).numel()
        centre = 1.0 if "ln_" in name or "norm" in name or "temperature" in name or "attn3" in name else 0.0
        scale = 0.3 if len(shape) < 2 or "temperature" in name else fan_in**-0.5
        weights[name] = (centre if not name.endswith("bias") else 0.0) + scale * torch.randn(shape, generator=random)
    head = ("conv_norm_out.", "conv_out.")
    for prefix, module in (("", unet), ("denoise_encoder.", vae.encoder)):
        for name, tensor in module.state_dict().items():
            if not (prefix and name.startswith(head)):
                weights[prefix + name] = tensor + 0.02 * torch.randn(tensor.shape, generator=random)
    return weights


def lq_features(weights: dict[str, Tensor], vae: AutoencoderKL, images: Tensor) -> Tensor:
    """The VAE's encoder with the released weights, up to its middle block."""
    encoder = AutoencoderKL.from_config(vae.config).encoder.eval()
    encoder.conv_norm_out = encoder.conv_act = encoder.conv_out = nn.Identity()
    prefix = "denoise_encoder."
    encoder.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)})
    return encoder(images)


def stem(weights: dict[str, Tensor], latents: Tensor, lq: Tensor, groups: int) -> Tensor:
    """What SDXL's UNet gets in place of `conv_in(latents)`."""
    w = weights
    sample = F.conv2d(latents, w["conv_in.weight"], w["conv_in.bias"], padding=1)
    c = "condition_embedding."
    condition = F.group_norm(lq, groups, w[c + "norm_in.weight"], w[c + "norm_in.bias"], eps=1e-6)
    condition = F.silu(F.conv2d(condition, w[c + "conv_in.weight"], w[c + "conv_in.bias"], padding=1))
    condition = F.conv2d(condition, w[c + "conv_out.weight"], w[c + "conv_out.bias"], padding=1)
    fused = torch.cat([sample, condition], dim=1)
    gate = F.conv2d(fused, w["MoE.gate.weight"], w["MoE.gate.bias"]).softmax(dim=1)
    mixed = torch.zeros_like(fused)
    for index, (letter, expert) in enumerate((("A", spatial_layer), ("B", channel_layer), ("C", sparse_layer))):
        x = fused
        for layer in range(2):
            prefix = f"MoE.experts.{index}.Expert{letter}_transformer_layes.{layer}."
            x = expert({k.removeprefix(prefix): v for k, v in w.items() if k.startswith(prefix)}, x)
        mixed = mixed + gate[:, index, None] * x
    tokens = F.linear(mixed.permute(0, 2, 3, 1), w["spatial_ch_projs.weight"], w["spatial_ch_projs.bias"])
    return sample + tokens.permute(0, 3, 1, 2)


def spatial_layer(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Attention whose sequence is the batch: the module that the tokens `(B, HW, C)` are handed to takes the first axis for it."""
    d = x.shape[1]
    tokens = x.flatten(2).transpose(1, 2)
    attention = nn.MultiheadAttention(d, HEADS)
    attention.load_state_dict({name.removeprefix("attn."): tensor for name, tensor in w.items() if name.startswith("attn.")})
    normed = F.layer_norm(tokens, (d,), w["ln_1.weight"], w["ln_1.bias"])
    tokens = tokens + attention(normed, normed, normed, need_weights=False)[0]
    hidden = F.linear(F.layer_norm(tokens, (d,), w["ln_2.weight"], w["ln_2.bias"]), w["mlp.c_fc.weight"], w["mlp.c_fc.bias"])
    tokens = tokens + F.linear(hidden * torch.sigmoid(1.702 * hidden), w["mlp.c_proj.weight"], w["mlp.c_proj.bias"])
    return tokens.transpose(1, 2).reshape(x.shape)


def channel_layer(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Channels attend to channels; a gated feed-forward network."""
    x = x + channel_attention(w, pixel_norm(w, "norm1.body.", x), lambda scores: scores.softmax(dim=-1))
    hidden = F.conv2d(pixel_norm(w, "norm2.body.", x), w["ffn.project_in.weight"])
    hidden = depth_wise(hidden, w["ffn.dwconv.weight"])
    h = hidden.shape[1] // 2
    return x + F.conv2d(F.gelu(hidden[:, :h]) * hidden[:, h:], w["ffn.project_out.weight"])


def sparse_layer(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The top three quarters of each row of the scores; a feed-forward network of two scales."""

    def sparse(scores: Tensor) -> Tensor:
        rank = scores.argsort(dim=-1, descending=True).argsort(dim=-1)
        return scores.masked_fill(rank >= int(scores.shape[-1] * 3 / 4), float("-inf")).softmax(dim=-1) * w["attn.attn3"]

    x = x + channel_attention(w, pixel_norm(w, "norm1.body.", x), sparse)
    hidden = F.conv2d(pixel_norm(w, "norm2.body.", x), w["ffn.project_in.weight"])
    a3, b3 = F.relu(depth_wise(hidden, w["ffn.dwconv3x3.weight"])).chunk(2, dim=1)
    a5, b5 = F.relu(depth_wise(hidden, w["ffn.dwconv5x5.weight"])).chunk(2, dim=1)
    first = F.relu(depth_wise(torch.cat([a3, a5], dim=1), w["ffn.dwconv3x3_1.weight"]))
    second = F.relu(depth_wise(torch.cat([b3, b5], dim=1), w["ffn.dwconv5x5_1.weight"]))
    return x + F.conv2d(torch.cat([first, second], dim=1), w["ffn.project_out.weight"])


def channel_attention(w: dict[str, Tensor], x: Tensor, weigh) -> Tensor:
    """Of L2-normalised queries and keys, times a temperature a head."""
    batch, d, height, width = x.shape
    qkv = depth_wise(F.conv2d(x, w["attn.qkv.weight"]), w["attn.qkv_dwconv.weight"])
    q, k, v = (part.reshape(batch, HEADS, d // HEADS, height * width) for part in qkv.chunk(3, dim=1))
    q, k = (part / part.square().sum(dim=-1, keepdim=True).sqrt().clamp(min=1e-12) for part in (q, k))
    scores = torch.einsum("bhip,bhjp->bhij", q, k) * w["attn.temperature"]
    return F.conv2d(torch.einsum("bhij,bhjp->bhip", weigh(scores), v).reshape(x.shape), w["attn.project_out.weight"])


def pixel_norm(w: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Every pixel over its channels."""
    mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt() * w[prefix + "weight"][:, None, None] + w[prefix + "bias"][:, None, None]


def depth_wise(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution of as many groups as it has outputs."""
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=weight.shape[0])


def denoise(
    weights: dict[str, Tensor], unet: UNet2DConditionModel, latents: Tensor, timestep, text: Tensor, lq: Tensor, added: dict
) -> Tensor:
    """The released denoiser: SDXL's UNet with the released weights behind the stem."""
    plain = UNet2DConditionModel.from_config(unet.config).eval()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})

    class Stem(nn.Module):
        def forward(self, sample: Tensor) -> Tensor:
            return stem(weights, sample, lq, unet.config.norm_num_groups)

    plain.conv_in = Stem()
    return plain(latents, timestep, text, added_cond_kwargs=added).sample
