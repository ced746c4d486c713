"""Real components at a tiny size, built once, seeded, on one CPU thread."""

from __future__ import annotations

import json
import os

# Read by torch when it is imported, and by every process that a test starts. Tests run beside each other, a core each; and how many threads
# share a sum decides its last bits, which Adam makes much of.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image
from small_sdxl import SMALL_LQ_ENCODER, SMALL_SDXL, SMALL_VAE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from weights import awaken

from foundir_hf.adapters.attach import AdapterConfig, adapted_components, add_adapter
from foundir_hf.adapters.files import Base, save_adapter
from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.hub import load_pipeline
from foundir_hf.models.lq_encoder_foundir import FoundIRLQEncoder
from foundir_hf.models.unet_foundir import FoundIRUNet2DConditionModel
from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pipeline() -> FoundIRPipeline:
    """The `nano` configuration, which is `tiny` with fewer channels, with random weights on every path."""
    modules, scheduler = build_modules("nano", seed=0)
    awaken(modules)
    pipe = FoundIRPipeline(**modules.eval().components(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def sdxl() -> FoundIRPipeline:
    """Every part of the paper's model in small, without text encoders, with random weights on every path."""
    torch.manual_seed(0)
    pipe = FoundIRPipeline(
        vae=awaken(AutoencoderKL(**SMALL_VAE)).eval(),
        lq_encoder=awaken(FoundIRLQEncoder(**SMALL_LQ_ENCODER)).eval(),
        unet=awaken(FoundIRUNet2DConditionModel(**SMALL_SDXL)).eval(),
        scheduler=DDIMScheduler(**CONFIGURATIONS["sdxl"]["scheduler"]),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def sdxl_with_text(sdxl, tmp_path_factory) -> FoundIRPipeline:
    """`sdxl` with both text encoders, of random weights, and a vocabulary of letters."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(c + "</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    texts = {"text_encoder": CLIPTextModel(config).eval(), "text_encoder_2": CLIPTextModelWithProjection(config).eval()}
    pipe = FoundIRPipeline(**{**sdxl.components, **texts, "tokenizer": tokenizer, "tokenizer_2": tokenizer})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def checkpoint(pipeline, tmp_path_factory) -> Path:
    """`pipeline` as a folder. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("pipeline") / "checkpoint"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapters(checkpoint, tmp_path_factory) -> Path:
    """A folder as `foundir serve --adapters` takes it: `scans`, of `checkpoint`, which changes every picture, and what is no adapter."""
    folder = tmp_path_factory.mktemp("adapters")
    pipe = load_pipeline(checkpoint)
    add_adapter(pipe, AdapterConfig("lora", rank=2))
    for model in adapted_components(pipe).values():
        awaken(model, std=0.1)
    save_adapter(pipe, folder / "scans", Base.of_checkpoint(checkpoint), card="---\nlibrary_name: peft\n---\n# For scans\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "README.md").write_text("No adapter.")
    return folder


@pytest.fixture
def photo() -> Image.Image:
    """A 72 x 56 picture with gradients, edges and texture."""
    y, x = np.mgrid[0:56, 0:72]
    texture = np.random.default_rng(0).integers(0, 40, (56, 72, 3))
    picture = np.stack([x * 3, y * 4, (x // 9 + y // 9) % 2 * 180], axis=-1) + texture
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
