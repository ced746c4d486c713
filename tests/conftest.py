"""Real components at a tiny size, built once, seeded, on one CPU thread."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.pipelines.pipeline_foundir import FoundIRPipeline
from foundir_hf.training.build import build_modules


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def awaken(module: torch.nn.Module, std: float = 0.02) -> torch.nn.Module:
    """Gives zero-initialised layers small random weights, so that every path of a fresh model carries something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and not parameter.any():
                parameter.normal_(std=std, generator=generator)
    return module


@pytest.fixture(scope="session")
def pipeline() -> FoundIRPipeline:
    """The `tiny` configuration with random weights on every path."""
    modules, scheduler = build_modules("tiny", seed=0)
    awaken(modules)
    pipe = FoundIRPipeline(vae=modules.vae.eval(), lq_encoder=modules.lq_encoder.eval(), unet=modules.unet.eval(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


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
