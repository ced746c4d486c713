"""`foundir demo`: sample photographs, damaged and restored, as pictures and a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..data.tasks import get_task
from ..io.decoder import read_rgb
from ..io.folder import list_photos
from ..io.pictures import contact_sheet, write_picture
from ..pipelines.pipeline_foundir import FoundIRPipeline
from .benchmark import INPUT, RESTORED, Score
from .degradation import degrade_image
from .metrics import psnr
from .statistics import summarise
from .suites import SAMPLES
from .tables import to_table

# The commonest damage; the table has many more.
DEMO_TASKS = (
    *("gaussian_noise", "camera_noise", "motion_blur", "defocus_blur", "jpeg", "downsample_x2", "downsample_x4", "rain", "haze"),
    *("low_light", "mixture", "clean"),
)


def run_demo(pipeline: FoundIRPipeline, output: Path, seed: int = 0) -> str:
    """Restores [`DEMO_TASKS`] on the sample photographs in turn.

    Writes `<task>.png` (damaged | restored | original) and `overview.jpg` into `output`, and returns a Markdown table of PSNR.
    """
    photos = [(path.name, read_rgb(path)) for path in list_photos(SAMPLES)]
    output.mkdir(parents=True, exist_ok=True)
    pipeline.set_progress_bar_config(disable=True)
    scores, overview = [], []
    for index, task in enumerate(tqdm([get_task(name) for name in DEMO_TASKS], desc="restoring samples")):
        name, truth = photos[index % len(photos)]
        degraded = degrade_image(truth, task, name, seed)
        generator = torch.Generator().manual_seed(seed)
        restored = np.asarray(pipeline(Image.fromarray(degraded), generator=generator).images[0])
        before, after = psnr(degraded, truth), psnr(restored, truth)
        scores.append(Score("samples", task.family, task.name, name, {INPUT: {"psnr": before}, RESTORED: {"psnr": after}}))
        captions = (f"{task.name}: {before:.1f} dB", f"restored: {after:.1f} dB", "original")
        cells = list(zip(captions, map(Image.fromarray, (degraded, restored, truth)), strict=True))
        write_picture(contact_sheet(cells, columns=3, width=truth.shape[1]), output / f"{task.name}.png")
        overview += cells
    write_picture(contact_sheet(overview, columns=6, width=260), output / "overview.jpg")
    return to_table(summarise(scores, "task"))
