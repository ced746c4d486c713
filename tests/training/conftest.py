"""Photographs to train on, SDXL in small, and interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from small_sdxl import SMALL_SDXL, SMALL_VAE

from foundir_hf.configurations import CONFIGURATIONS
from foundir_hf.training.objectives import FoundIRModules


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Two photographs to train on and one to validate with."""
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:48, 0:56]
    for i, name in enumerate("abc"):
        picture = np.stack([40 + x * 3, 200 - y * (i + 1), 128 + 90 * np.sin(x / (3 + i)) * np.cos(y / 5)], axis=-1)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "manifest.csv").write_text("file,split\na.png,train\nb.png,train\nc.png,val\n")
    return folder


@pytest.fixture
def interrupted_after(monkeypatch):
    """A context in which training ends like a pressed Ctrl-C after so many steps."""

    @contextmanager
    def interrupted(steps: int) -> Iterator[None]:
        forward, done = FoundIRModules.forward, count()

        def limited(*args, **kwargs):
            if next(done) == steps:
                raise KeyboardInterrupt
            return forward(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(FoundIRModules, "forward", limited)
            try:
                yield
            except KeyboardInterrupt:
                return
        pytest.fail("nothing interrupted the training")

    return interrupted


@pytest.fixture(scope="session")
def plain_sdxl() -> StableDiffusionXLPipeline:
    """SDXL in small as diffusers has it, without text encoders: nothing here asks for them."""
    torch.manual_seed(0)
    unet = {name: value for name, value in SMALL_SDXL.items() if not name.startswith(("lq_", "moe_"))}
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(**SMALL_VAE).eval(),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=UNet2DConditionModel(**unet).eval(),
        scheduler=EulerDiscreteScheduler.from_config(CONFIGURATIONS["sdxl"]["scheduler"]),
    )


@pytest.fixture
def folder(plain_sdxl, tmp_path) -> Path:
    plain_sdxl.save_pretrained(tmp_path / "sdxl")
    return tmp_path / "sdxl"
