"""What the experts of the MoE-driven scheduler do: who is asked for which damage, where in a photograph, and what is lost without each.

`python benchmarks/experts.py --photos PHOTOS -o OUT` writes `experts.json`, `experts.png` (mean routing weight of every sub-task) and
`experts.jpg` (weights pixel by pixel on real photographs). Degradation is made of the sample photographs that ship with the package.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from foundir_hf import load_pipeline
from foundir_hf.cli import quiet_libraries
from foundir_hf.data.tasks import TASKS
from foundir_hf.evaluation.benchmark import RESTORED, measure
from foundir_hf.evaluation.suites import SAMPLES, folder_suite
from foundir_hf.evaluation.tables import markdown_table
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.interpret import EXPERTS, record_routing, without_expert
from foundir_hf.io.decoder import read_rgb
from foundir_hf.io.files import write_whole
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture

OFF = {"nothing": None, **{f"without {expert}": expert for expert in EXPERTS}}


def routing_by_task(pipeline, limit: int) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Mean routing weight of each expert by sub-task, and PSNR by sub-task with each expert switched off."""
    suite = folder_suite(clean=[SAMPLES], limit=limit)
    weights, psnrs = defaultdict(list), {name: defaultdict(list) for name in OFF}
    for name, expert in OFF.items():
        with nullcontext() if expert is None else without_expert(pipeline.unet, expert), record_routing(pipeline.unet) as maps:
            for done in measure(suite, pipeline, metrics=("psnr",), with_baselines=False):
                psnrs[name][done.case.task].append(done.score.methods[RESTORED]["psnr"])
                if expert is None:
                    weights[done.case.task].append(torch.cat(maps).mean(dim=(0, 2, 3)).tolist())
                maps.clear()
    means = {task: [fmean(values) for values in zip(*rows, strict=True)] for task, rows in weights.items()}
    return means, {name: {task: fmean(values) for task, values in by_task.items()} for name, by_task in psnrs.items()}


def by_family(values: Mapping[str, float]) -> dict[str, float]:
    """Means over the sub-tasks of each family."""
    families = defaultdict(list)
    for task, value in values.items():
        families[TASKS[task].family].append(value)
    return {family: fmean(members) for family, members in families.items()}


def draw_heat_map(weights: Mapping[str, Sequence[float]], path: Path) -> None:
    """A row a sub-task, a column an expert, each against that expert's mean over all sub-tasks: their differences are small beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    values = np.array(list(weights.values()))
    offset = values - values.mean(axis=0)
    columns = 4
    rows = -(-len(values) // columns)
    figure, axes = pyplot.subplots(1, columns, figsize=(3.1 * columns, 0.2 * rows + 1.2), layout="constrained")
    limit, pictures = np.abs(offset).max(), []
    labels = [f"{e.replace('_', ' ')}\n{m:.2f}" for e, m in zip(EXPERTS, values.mean(axis=0), strict=True)]
    for column, axis in enumerate(axes):
        part = slice(column * rows, (column + 1) * rows)
        pictures.append(axis.imshow(offset[part], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto"))
        axis.set_yticks(range(len(offset[part])), list(weights)[part], fontsize=7)
        axis.set_xticks(range(len(EXPERTS)), labels, fontsize=6)
    figure.colorbar(pictures[0], ax=axes, label="routing weight, less the expert's mean", shrink=0.7)
    figure.savefig(path, dpi=110)


def draw_maps(pipeline, photos: Sequence[Path], path: Path, side: int = 512) -> None:
    """Photograph, restoration and the routing weights of each pixel, brighter where the expert is asked more than elsewhere."""
    cells = []
    for photo in photos:
        image = Image.fromarray(read_rgb(photo))
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        with record_routing(pipeline.unet) as maps:
            restored = pipeline(image, generator=torch.Generator().manual_seed(0)).images[0]
        cells += [(photo.stem[:28], image), ("restored", restored)]
        for expert, plane in zip(EXPERTS, maps[0][0].numpy(), strict=True):
            low, high = float(plane.min()), float(plane.max())
            shade = Image.fromarray(((plane - low) / max(high - low, 1e-6) * 255).astype(np.uint8))
            cells.append((f"{expert.replace('_', ' ')} {low:.2f} to {high:.2f}", shade.resize(image.size, Image.Resampling.NEAREST)))
    write_picture(contact_sheet(cells, columns=2 + len(EXPERTS), width=240), path)


def to_table(content: Mapping[str, Mapping[str, float]]) -> str:
    """PSNR by family, and what it changes by when an expert is switched off."""
    whole = content["nothing"]
    rows = [
        [family, f"{value:.2f}", *(f"{content[name][family] - value:+.2f}" for name in list(OFF)[1:])] for family, value in whole.items()
    ]
    return markdown_table(["family", "PSNR", *list(OFF)[1:]], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, help="real photographs to draw maps on")
    parser.add_argument("--names", nargs="+", help="of these, the stems to draw (default: the first six)")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--limit", type=int, default=2, help="sample photographs that every sub-task damages (default: 2)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the three files")
    arguments = parser.parse_args()
    quiet_libraries()
    pipeline = load_pipeline(arguments.checkpoint)
    pipeline.set_progress_bar_config(disable=True)
    if arguments.photos is not None:
        photos = list_photos(arguments.photos)
        chosen = [photo for photo in photos if photo.stem in arguments.names] if arguments.names else photos[:6]
        draw_maps(pipeline, chosen, arguments.output / "experts.jpg")
    weights, psnrs = routing_by_task(pipeline, arguments.limit)
    draw_heat_map(weights, arguments.output / "experts.png")
    content = {
        "hashes": checkpoint_hashes(resolve_checkpoint(arguments.checkpoint)),
        "routing": {task: {e: round(w, 4) for e, w in zip(EXPERTS, row, strict=True)} for task, row in weights.items()},
        "psnr": {name: by_family(values) for name, values in psnrs.items()},
    }
    write_whole(arguments.output / "experts.json", (json.dumps(content, indent=1) + "\n").encode())
    print(to_table(content["psnr"]))


if __name__ == "__main__":
    main()
