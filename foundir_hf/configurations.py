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
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def _small(
    vae: tuple[int, int, int], lq_encoder: tuple[int, int, int], unet: tuple[int, int], refiner: int, tone: int, sample_size: int
) -> dict[str, dict[str, Any]]:
    """A size of our own from the widths of its parts: eight pixels a latent of 16 channels, layer norms, a refiner, tone curves."""
    common: dict[str, Any] = {"layers_per_block": 1, "norm_num_groups": 8, "norm_type": "layer"}
    encoder = {**common, "patch_size": 2, "mid_block_add_attention": False}
    return {
        "vae": {
            **encoder,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "block_out_channels": vae,
            "latent_channels": 16,
            "lq_block_out_channels": lq_encoder[:-1],
            "sample_size": sample_size,
            "scaling_factor": 1.0,
            "whole_image_embed_dim": 128,
            "cosine_shortcut": True,
        },
        "lq_encoder": {
            **encoder,
            "block_out_channels": lq_encoder,
            "thumbnail_size": 64,
            "refiner_channels": refiner,
            "tone_channels": tone,
            "tone_threshold": 0.1,
        },
        "unet": {
            **common,
            "in_channels": 16,
            "out_channels": 16,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "mid_block_type": "UNetMidBlock2D",
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "block_out_channels": unet,
            "lq_channels": lq_encoder[-1],
            "moe_num_layers": 1,
            "moe_window_size": 16,
        },
        "scheduler": {**_ZERO_TERMINAL_SNR},
    }


CONFIGURATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "nano": _small((16, 24, 32), (16, 32, 48), (32, 64), 8, 8, sample_size=64),
    "tiny": _small((32, 64, 96), (32, 64, 128), (64, 160), 32, 48, sample_size=128),
    "sdxl": {
        "vae": {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "latent_channels": 4,
            "sample_size": 1024,
            "scaling_factor": 0.13025,
            "lq_block_out_channels": (128, 256, 512, 512),
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
