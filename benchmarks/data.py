"""Samples a second of every data source, by one worker, against what training eats: one script, one table.

`python benchmarks/data.py`, or with `--photos FOLDER` of your own. A ratio above 1 says that one worker feeds training; 1 divided by it is
how many workers it takes. Absolute numbers on a shared machine say little: the ratios come from the same minute of the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from foundir_hf.cli import main as foundir
from foundir_hf.data.loading import TrainingData
from foundir_hf.data.sources import open_source
from foundir_hf.data.stream import CropStream
from foundir_hf.training.build import build_modules
from foundir_hf.training.config import StageConfig

TASKS = {"gaussian_noise": 1.0, "jpeg": 1.0, "haze": 1.0, "motion_blur": 1.0}


def make_photos(folder: Path, count: int, megapixels: float, seed: int = 0) -> Path:
    """Smooth random pictures with some grain, as JPEG files: they decode about as slowly as photographs."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (round(height * 4 / 3), height)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = generator.normal(0, 6, (size[1], size[0], 1))
        picture = (np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:04d}.jpg", quality=95, subsampling=0)
    return folder


def per_second(take, warm_up: int, samples: int) -> float:
    """How many samples a second `take(count)` delivers after a warm-up."""
    take(warm_up)
    start = time.perf_counter()
    take(samples)
    return samples / (time.perf_counter() - start)


def stream_rate(spec: str | Path, size: int, samples: int) -> float:
    """Crops a second of one worker, decoding included, damage excluded (the training device does it)."""
    stream = CropStream(open_source(spec), size, workers=1, read_ahead=4)

    def take(count: int) -> None:
        for _ in islice(stream, count):
            pass

    # What was prepared during the warm-up's last moments counts for nothing in a longer run.
    rate = per_second(take, 8, samples)
    stream.close()
    return rate


def memory_rate(spec: str | Path, stage: StageConfig, samples: int, device: str) -> float:
    """Whole pairs a second from memory, damage included, on the training device."""
    source = TrainingData(spec, device, in_memory="yes").batches(TASKS, stage.batch_size, stage.crop_size, stage.context_size, seed=0)

    def take(count: int) -> None:
        for step in range(max(1, count // stage.batch_size)):
            source.batch(source.generator(step))
        _wait(device)

    return per_second(take, stage.batch_size, samples // stage.batch_size * stage.batch_size)


def appetite(spec: str | Path, stage: StageConfig, steps: int, device: str) -> float:
    """Samples a second that training steps of `tiny` consume, given the batch."""
    modules, noise_scheduler = build_modules("tiny")
    modules.to(device)
    modules.to(memory_format=torch.channels_last)  # as training does  # pyright: ignore[reportCallIssue]
    modules.requires_grad_(True)
    optimizer = torch.optim.AdamW(modules.parameters())
    source = TrainingData(spec, device, in_memory="yes").batches(TASKS, stage.batch_size, stage.crop_size, stage.context_size, seed=0)
    batch, generator = source.batch(source.generator(0)), source.generator(1)

    def take(count: int) -> None:
        for _ in range(max(1, count // stage.batch_size)):
            _step(modules, stage, batch, noise_scheduler, generator, optimizer)
        _wait(device)

    return per_second(take, stage.batch_size, steps * stage.batch_size)


def _step(modules: torch.nn.Module, stage: StageConfig, batch, noise_scheduler, generator, optimizer) -> None:
    modules(stage, batch, noise_scheduler, generator).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description="Samples a second of every data source against what training eats.")
    parser.add_argument("--photos", type=Path, help="folder of photographs (default: synthetic JPEG files)")
    parser.add_argument("--count", type=int, default=24, help="synthetic photographs (default: 24)")
    parser.add_argument("--megapixels", type=float, default=1.0, help="size of the synthetic photographs (default: 1)")
    parser.add_argument("--samples", type=int, default=96, help="measured with each source (default: 96)")
    parser.add_argument("--steps", type=int, default=6, help="training steps measured (default: 6)")
    parser.add_argument("--crop-size", type=int, default=96)
    parser.add_argument("--context-size", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    stage = StageConfig(
        "benchmark",
        "restoration",
        steps=arguments.steps,
        trainable={"": 1.0},
        batch_size=arguments.batch_size,
        crop_size=arguments.crop_size,
        context_size=arguments.context_size,
    )
    with tempfile.TemporaryDirectory() as scratch:
        photos = arguments.photos or make_photos(Path(scratch, "photos"), arguments.count, arguments.megapixels)
        with contextlib.redirect_stdout(io.StringIO()):
            if foundir(["pack", str(photos), "-o", f"{scratch}/shards"]):
                parser.exit(2)
        hungry = appetite(photos, stage, arguments.steps, arguments.device)
        rates = {
            "folder, one worker": stream_rate(photos, stage.context_size, arguments.samples),
            "tar shards, one worker": stream_rate(f"{scratch}/shards", stage.context_size, arguments.samples),
        }
        with contextlib.suppress(ImportError):
            name = f"hf+stream://{scratch}/shards"
            rates["datasets, streamed, one worker"] = stream_rate(name, stage.context_size, arguments.samples)
        rates[f"memory, damage included, {arguments.device}"] = memory_rate(photos, stage, arguments.samples, arguments.device)
    print(f"\nOne training step of `tiny` on {arguments.device}, batch {stage.batch_size}, crop {stage.crop_size}: {hungry:.1f} samples/s")
    print("\n| source | samples/s | of the appetite |\n|---|---|---|")
    for source, rate in rates.items():
        print(f"| {source} | {rate:.1f} | {rate / hungry:.1f} |")


if __name__ == "__main__":
    main()
