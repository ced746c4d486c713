"""Named model sizes: the constructor arguments of every component, as data.

`sdxl` is the paper's model (PAPERS: SDXL with 28,976,733 parameters of experts and router); `tiny` is the default checkpoint's.
"""

from __future__ import annotations

from typing import Any

CONFIGURATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "vae": {
            "patch_size": 2,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "block_out_channels": (32, 64, 96),
            "layers_per_block": 1,
            "latent_channels": 16,
            "norm_num_groups": 8,
            "norm_type": "layer",
            "mid_block_add_attention": False,
            "lq_block_out_channels": (32, 64, 128),
            "sample_size": 128,
            "scaling_factor": 1.0,
        },
        "lq_encoder": {
            "patch_size": 2,
            "block_out_channels": (32, 64, 128),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "norm_type": "layer",
            "mid_block_add_attention": False,
            "thumbnail_size": 64,
        },
        "unet": {
            "in_channels": 16,
            "out_channels": 16,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "mid_block_type": "UNetMidBlock2D",
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "block_out_channels": (64, 160),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "norm_type": "layer",
            "lq_channels": 128,
            "moe_num_layers": 1,
            "moe_window_size": 16,
        },
        "scheduler": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
            "set_alpha_to_one": True,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "timestep_spacing": "trailing",
        },
    },
}
