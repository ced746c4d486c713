"""Named model sizes: the constructor arguments of every component, as data.

`sdxl` is the paper's model (PAPERS: SDXL with 28,976,733 parameters of experts and router); `tiny` is the default checkpoint's; `nano` is
for experiments with training itself, and for tests of it.
"""

from __future__ import annotations

from typing import Any

_ZERO_TERMINAL_SNR: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "prediction_type": "sample",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def _small(
    pyramid: tuple[int, int, int], blocks: tuple[int, int, int], unet: tuple[int, int, int], tone: int, sample_size: int
) -> dict[str, dict[str, Any]]:
    """A size of our own: a pyramid of three levels, 48 cosine coefficients for 8 x 8 pixels, a UNet on their residual, tone curves."""
    latents = 48
    return {
        "vae": {"block_size": 8, "latent_channels": latents},
        "lq_encoder": {"block_out_channels": pyramid, "blocks_per_level": blocks, "lq_channels": pyramid[-1]},
        "unet": {
            "sample_size": sample_size,
            "in_channels": latents,
            "out_channels": latents,
            "down_block_types": ("DownBlock2D",) * 3,
            "mid_block_type": "UNetMidBlock2D",
            "up_block_types": ("UpBlock2D",) * 3,
            "block_out_channels": unet,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "norm_type": "layer",
            "lq_channels": pyramid[-1],
            "latent_residual": True,
            "moe_num_heads": 4,
            "moe_num_layers": 1,
            "moe_window_size": 16,
            "moe_ffn_expansion": 1.0,
        },
        "tone": {"channels": tone},
        "scheduler": {**_ZERO_TERMINAL_SNR},
    }


CONFIGURATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "nano": _small((8, 16, 32), (1, 1, 1), (16, 32, 32), 8, sample_size=8),
    "tiny": _small((32, 64, 128), (2, 3, 8), (48, 160, 256), 48, sample_size=16),
    "sdxl": {
        "vae": {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 4,
            "sample_size": 1024,
            "scaling_factor": 0.13025,
        },
        "lq_encoder": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
        "unet": {
            "sample_size": 128,
            "in_channels": 4,
            "out_channels": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (320, 640, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "lq_channels": 512,
            "moe_num_layers": 2,
            "moe_window_size": 64,
        },
        "scheduler": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            "prediction_type": "epsilon",
            "timestep_spacing": "leading",
        },
    },
}
