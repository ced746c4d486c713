"""SDXL in small, with everything it is made of: text_time, transformer blocks, three levels, a VAE of four levels, group norms."""

from __future__ import annotations

from foundir_hf.configurations import CONFIGURATIONS

SMALL_SDXL = {
    **CONFIGURATIONS["sdxl"]["unet"],
    "sample_size": 8,
    "block_out_channels": (32, 64, 64),
    "attention_head_dim": (2, 4, 4),
    "transformer_layers_per_block": (1, 1, 2),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
    "norm_num_groups": 8,
    "lq_channels": 24,
    "moe_num_layers": 1,
}
SMALL_LQ_ENCODER = {"block_out_channels": (8, 8, 16, 24), "norm_num_groups": 4, "layers_per_block": 1}
SMALL_VAE = {
    **CONFIGURATIONS["sdxl"]["vae"],
    "block_out_channels": (8, 8, 16, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
