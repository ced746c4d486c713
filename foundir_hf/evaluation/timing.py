"""How long it took, on what: beside the report and not in it, because no two runs take as long."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from typing import Any

import torch

from .benchmark import Score
from .tables import markdown_table


def to_timing(measurements: Iterable[tuple[Score, dict[str, float], float]], **context: Any) -> dict[str, Any]:
    """Seconds by task and method, as JSON-ready data; beside the report, because no two runs take as long.

    Args:
        measurements: `(score, seconds by method, megapixels)`.
        context: Peak memory, machine, threads.
    """
    rows: dict[tuple[str, str, str], list[float]] = {}
    for score, seconds, megapixels in measurements:
        for method, duration in seconds.items():
            row = rows.setdefault((score.set, score.task, method), [0.0, 0.0, 0.0])
            row[0], row[1], row[2] = row[0] + 1, row[1] + duration, row[2] + megapixels
    tasks = [
        {"set": key[0], "task": key[1], "method": key[2], "images": int(n), "seconds": s, "seconds_per_megapixel": s / mp}
        for key, (n, s, mp) in rows.items()
    ]
    return {**context, "tasks": tasks}


def to_timing_page(timing: dict[str, Any]) -> str:
    """[`to_timing`] with [`describe_machine`] as a Markdown page: a table by task and method, peak memory, machine."""
    header = ["set", "task", "method", "images", "seconds per image", "seconds per megapixel"]
    rows = [
        [r["set"], r["task"], r["method"], str(r["images"]), f"{r['seconds'] / r['images']:.3f}", f"{r['seconds_per_megapixel']:.2f}"]
        for r in timing["tasks"]
    ]
    lines = ["# Time and memory", "", markdown_table(header, rows) if rows else "Nothing was run.", ""]
    for title, mebibytes in (("Peak memory", timing["peak_mib"]), ("Peak memory of the GPU", timing["peak_cuda_mib"])):
        if mebibytes is not None:
            lines.append(f"- {title}: {mebibytes:.0f} MiB")
    lines += [f"- {name.capitalize()}: {value}" for name, value in timing["machine"].items() if value is not None]
    return "\n".join(lines) + "\n"


def describe_machine() -> dict[str, Any]:
    """Processor, threads, and the peak memory of this process so far in MiB (`None` where the system does not tell)."""
    return {
        "peak_mib": _peak_mebibytes(),
        "peak_cuda_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None,
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
        },
    }


def _peak_mebibytes() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (20 if sys.platform == "darwin" else 10)  # bytes on macOS, KiB on Linux
