"""What a run tells while it goes on: a line of JSON for the file, the same for accelerate's trackers, speed, and pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode


class Telemetry:
    """Writes `log.jsonl` and feeds the trackers. Only the main process does.

    Args:
        accelerator: Of the run; its trackers, if it has any, are started.
        output: Run folder.
        configuration: Of the run, for the trackers: flat.
    """

    def __init__(self, accelerator: Accelerator, output: Path, configuration: Mapping[str, str | int | float]):
        self.accelerator, self.path = accelerator, output / "log.jsonl"
        if accelerator.log_with:
            accelerator.init_trackers("tracking", config=dict(configuration))

    def log(self, stage: str, step: int, samples: int, values: Mapping[str, Any]) -> None:
        """Nested mappings are told as such in the file and as `outer/inner` to the trackers, whose step is the number of samples seen."""
        if not self.accelerator.is_main_process:
            return
        row = {"time": round(time.time()), "stage": stage, "step": step, "samples": samples, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.accelerator.log({f"{stage}/{name}": value for name, value in _flat(values)}, step=samples)

    def show(self, stage: str, samples: int, pictures: Mapping[str, torch.Tensor]) -> None:
        """Pictures `(3, height, width)` in [0, 1], by name, for the trackers that take any."""
        for tracker in self.accelerator.trackers if self.accelerator.is_main_process else ():
            if hasattr(tracker, "log_images"):
                images = {f"{stage}/{name}": _to_uint8(picture) for name, picture in pictures.items()}
                # (1, height, width, 3) is what the others take for granted.
                tracker.log_images(images, step=samples, **({"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}))

    def close(self) -> None:
        """Ends the trackers. Not through `end_training`, which ends the process group too: a model wrapped by DDP must not outlive it."""
        for tracker in self.accelerator.trackers:
            tracker.finish()


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, list | tuple):
            found += _flat({str(i): part for i, part in enumerate(value)}, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found.append((prefix + name, value))
    return found


def _to_uint8(picture: torch.Tensor) -> np.ndarray:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)[None].numpy()


class Throughput:
    """How fast training goes, and how much of the time it waits for data.

    Args:
        flops: Floating-point operations that a sample costs, forward and backward; `None` if that is not known.
        peak: Floating-point operations a second that the device reaches, of all processes together, see [`measure_peak`].
    """

    def __init__(self, flops: float | None = None, peak: float | None = None):
        self.flops, self.peak = flops, peak
        self._reset()

    def _reset(self) -> None:
        self._began, self._samples, self._waited = time.perf_counter(), 0, 0.0

    def drawn(self, draw: Callable[[], Any]) -> Any:
        """What `draw` returns; the time it takes counts as waiting for data."""
        began = time.perf_counter()
        drawn = draw()
        self._waited += time.perf_counter() - began
        return drawn

    def count(self, samples: int) -> None:
        """So many samples were learnt from."""
        self._samples += samples

    def report(self) -> dict[str, float]:
        """Since the last report: samples a second, the share of the time spent on data, and the model FLOPs utilisation (PaLM, 2022)."""
        elapsed = max(1e-9, time.perf_counter() - self._began)
        speed = self._samples / elapsed
        values = {"samples_per_second": round(speed, 3), "data_share": round(self._waited / elapsed, 4)}
        if self.flops and self.peak:
            values["mfu"] = round(speed * self.flops / self.peak, 4)
        self._reset()
        return values


def count_flops(forward: Callable[[], Any]) -> int:
    """Floating-point operations of a training step: those of its forward pass three times, since the backward pass costs twice as many."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return 3 * counter.get_total_flops()


@cache
def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product on `device`: what utilisation is told against."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)
