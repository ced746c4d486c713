"""What more denoising steps and less fidelity bring and cost, all settings on the same images in one run.

`python benchmarks/steps.py --data DATA -o FILE`. `DATA` is what `foundir evaluate --suite families` takes. Guidance is not among
the settings: it needs prompt embeddings, which a checkpoint without text encoder does not make.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries
from foundir_hf.evaluation.benchmark import RESTORED, measure
from foundir_hf.evaluation.suites import load_suite
from foundir_hf.evaluation.tables import markdown_table
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.io.files import write_whole


def sharpness(image: np.ndarray, truth: np.ndarray) -> float:
    """Mean step between neighbouring pixels, in units of the truth's: below 1 the picture is softer, above 1 noisier or sharper."""
    steps = [fmean(float(np.abs(np.diff(pixels.astype(np.float32), axis=axis)).mean()) for axis in (0, 1)) for pixels in (image, truth)]
    return steps[0] / max(steps[1], 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the suite's photographs")
    parser.add_argument("--suite", default="families")
    parser.add_argument("--limit", type=int, default=2, help="photographs of each set (default: 2)")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 2, 4, 8])
    parser.add_argument("--fidelity", type=float, nargs="+", default=[1.0, 0.0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file")
    arguments = parser.parse_args()
    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    suite = load_suite(arguments.suite, arguments.data, arguments.limit)
    pipeline.set_progress_bar_config(disable=True)
    pipeline(np.zeros((256, 256, 3), np.uint8))  # warm up: the first setting is what times are told in
    rows, first = [], None
    # The estimate, without steps, goes through no latents: it knows no fidelity.
    settings = dict.fromkeys((fidelity if steps else None, steps) for fidelity, steps in product(arguments.fidelity, arguments.steps))
    for fidelity, steps in settings:
        scores, sharp, seconds = [], [], 0.0
        options = {"num_inference_steps": steps, "fidelity": fidelity}
        for done in measure(suite, pipeline, metrics=("psnr", "ssim"), with_baselines=False, **options):
            scores.append(done.score.methods[RESTORED])
            sharp.append(sharpness(done.images[RESTORED], done.case.truth))  # pyright: ignore[reportArgumentType]  this suite has truths
            seconds += done.seconds[RESTORED]
        row = {name: fmean(float(score[name] or 0) for score in scores) for name in ("psnr", "ssim")}
        # Seconds of a busy machine mean little; against the first setting, in the same run, they mean something.
        first = first or seconds
        rows.append({"fidelity": fidelity, "steps": steps, **row, "sharpness": fmean(sharp), "time": seconds / first})
        print(to_table(rows[-1:]).splitlines()[-1], flush=True)
    content = {"hashes": checkpoint_hashes(resolve_checkpoint(arguments.checkpoint)), "images": len(suite), "rows": rows}
    write_whole(arguments.output, (json.dumps(content, indent=1) + "\n").encode())


def to_table(rows: Sequence[dict]) -> str:
    """The settings as a Markdown table."""
    forms = {"fidelity": "g", "steps": "d", "psnr": ".2f", "ssim": ".4f", "sharpness": ".2f", "time": ".1f"}
    cells = [["-" if row[name] is None else format(row[name], form) for name, form in forms.items()] for row in rows]
    return markdown_table(list(forms), cells)


if __name__ == "__main__":
    main()
