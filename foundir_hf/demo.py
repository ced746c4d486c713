"""`foundir demo`: sample photographs, damaged and restored, as pictures and a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from .data.photos import list_photos
from .data.tasks import TASKS
from .evaluation.benchmark import INPUT, RESTORED, Score
from .evaluation.damage import degrade_image
from .evaluation.files import read_rgb
from .evaluation.metrics import psnr
from .evaluation.statistics import summarise
from .evaluation.suites import SAMPLES
from .evaluation.tables import to_table
from .pipelines.pipeline_foundir import FoundIRPipeline


def run_demo(pipeline: FoundIRPipeline, output: Path, seed: int = 0) -> str:
    """Restores every task of the table on the sample photographs in turn.

    Writes `<task>.png` (damaged | restored | original) and `overview.png` into `output`, and returns a Markdown table of PSNR.
    """
    photos = [(path.name, read_rgb(path)) for path in list_photos(SAMPLES)]
    output.mkdir(parents=True, exist_ok=True)
    pipeline.set_progress_bar_config(disable=True)
    scores, strips = [], []
    for index, task in enumerate(tqdm(TASKS.values(), desc="restoring samples")):
        name, truth = photos[index % len(photos)]
        degraded = degrade_image(truth, task, name, seed)
        generator = torch.Generator().manual_seed(seed)
        restored = np.asarray(pipeline(Image.fromarray(degraded), generator=generator).images[0])
        before, after = psnr(degraded, truth), psnr(restored, truth)
        scores.append(Score("samples", task.family, task.name, name, {INPUT: {"psnr": before}, RESTORED: {"psnr": after}}))
        captions = (f"{task.name}: {before:.1f} dB", f"restored: {after:.1f} dB", "original")
        strip = _strip([degraded, restored, truth], captions)
        strip.save(output / f"{task.name}.png")
        strips.append(strip)
    _stack(strips).save(output / "overview.png")
    return to_table(summarise(scores, "task"))


def _strip(images: list[np.ndarray], captions: tuple[str, ...], bar: int = 22) -> Image.Image:
    """Images of one size side by side, each under its caption."""
    height, width = images[0].shape[:2]
    strip = Image.new("RGB", (width * len(images), height + bar), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=15)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        strip.paste(Image.fromarray(image), (i * width, bar))
        draw.text((i * width + 4, 2), caption, fill="black", font=font)
    return strip


def _stack(strips: list[Image.Image], width: int = 900) -> Image.Image:
    """Strips below each other in two columns, all shrunk to one width."""
    shrunk = [s.resize((width, round(s.height * width / s.width)), Image.Resampling.LANCZOS) for s in strips]
    columns = [shrunk[: (len(shrunk) + 1) // 2], shrunk[(len(shrunk) + 1) // 2 :]]
    sheet = Image.new("RGB", (2 * width, max(sum(s.height for s in column) for column in columns)), "white")
    for i, column in enumerate(columns):
        top = 0
        for strip in column:
            sheet.paste(strip, (i * width, top))
            top += strip.height
    return sheet
