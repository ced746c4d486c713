"""How the shares of tasks should be set while training: the paper's ablation, at equal cost, over seeds, on photographs nobody trained on.

    python benchmarks/equilibrium.py runs/ablation --data PHOTOS --test PHOTOS_TO_TEST_WITH \\
        --recipe training/configs/ablation/four_tasks.yaml --seeds 0 1 2

trains every cell (a strategy with its settings) for every seed, scores it, and writes `report.md`, `shares.png` and `results.json` into the
folder. Cells that are there are not trained again, so an interrupted benchmark goes on, and `--cells` adds to it. A cell is a strategy,
with settings after a colon: of `EquilibriumConfig`, `reference_samples`, or of the denoiser:
`des:interval=100,alpha=4`, `mixing:moe_routing=none`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CELLS = ("mixing", "sequential", "incremental", "des")
STUDENT_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}  # two-sided, by the number of seeds


def parse_cell(text: str) -> tuple[str, dict[str, Any]]:
    """`des:interval=100` -> the strategy and its settings."""
    strategy, _, settings = text.partition(":")
    pairs = [setting.partition("=") for setting in settings.split(",") if setting]
    return strategy, {name: value if value.isalpha() else float(value) if "." in value else int(value) for name, _, value in pairs}


def train_cell(cell: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Trains one cell with one seed, scores it, and returns the file of its scores."""
    import torch

    from foundir_hf.cli import quiet_libraries
    from foundir_hf.training.build import prepare_modules
    from foundir_hf.training.config import TrainConfig
    from foundir_hf.training.loop import train

    name = f"{arguments.label} {cell}".strip()
    folder = arguments.runs / name.replace(" ", "-").replace(":", "-").replace("=", "").replace(",", "-") / f"seed-{seed}"
    result = folder / "result.json"
    if result.is_file():
        return result
    torch.set_num_threads(1)
    quiet_libraries()
    strategy, settings = parse_cell(cell)
    unet = {name: settings.pop(name) for name in list(settings) if name.startswith("moe_")}
    config = TrainConfig.from_yaml(arguments.recipe)
    config = replace(config, seed=seed, unet={**config.unet, **unet})
    reference = int(settings.pop("reference_samples", config.reference_samples))
    (stage,) = config.stages
    equilibrium = replace(stage.equilibrium, strategy=strategy, **settings)
    config = replace(config, reference_samples=reference, stages=(replace(stage, equilibrium=equilibrium),))
    modules, noise_scheduler = prepare_modules(config)
    if arguments.pairs:
        pairs = arguments.runs / "pairs"
        train(config, modules, noise_scheduler, pairs / "train", folder, validation=pairs / "val")
    else:
        train(config, modules, noise_scheduler, arguments.data, folder, manifest=arguments.manifest)
    scores = score(folder / stage.name, stage.tasks, arguments.test, arguments.photographs)
    history = json.loads((folder / f"equilibrium-{stage.name}.json").read_text())
    content = {"cell": name, "seed": seed, "scores": scores, "history": history}
    result.write_text(json.dumps(content), encoding="utf-8")
    return result


def make_pairs(arguments: argparse.Namespace) -> None:
    """Every task's training and validation pairs as files, so that the cells need not degrade anything; nothing where they are already."""
    import numpy as np
    from PIL import Image

    from foundir_hf.data.augmentation import Augmentation
    from foundir_hf.data.loading import TrainingData
    from foundir_hf.training.config import TrainConfig

    config = TrainConfig.from_yaml(arguments.recipe)
    (stage,) = config.stages
    folder, unfinished = arguments.runs / "pairs", arguments.runs / "pairs.part"
    if folder.is_dir():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    data = TrainingData(arguments.data, reference_samples=config.reference_samples, manifest=arguments.manifest, in_memory="yes")
    changes = Augmentation(stage.tone_share, stage.texture_share, stage.whole_share, stage.intent_share)
    made = {("val", task): pairs for task, pairs in data.reference(stage.tasks, config.reference_size).items()}
    for task in stage.tasks:
        source = data.batches({task: 1.0}, arguments.pairs, stage.context_size, stage.context_size, config.seed, changes)
        made["train", task] = source.batch(source.generator(0))
    for (split, task), pairs in made.items():
        for part, images in (("HQ", pairs.hq), ("LQ", pairs.lq)):
            place = unfinished / split / task / part
            place.mkdir(parents=True)
            for number, image in enumerate(images):
                pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
                Image.fromarray(np.ascontiguousarray(pixels)).save(place / f"{number}.png", compress_level=1)
    unfinished.rename(folder)


def score(pipeline_folder: Path, tasks: Iterable[str], test: Path, photographs: int) -> dict[str, dict[str, list[float]]]:
    """PSNR and SSIM of every test photograph under every task, seeded damage, one step."""
    import numpy as np
    from PIL import Image

    from foundir_hf import load_pipeline
    from foundir_hf.data.tasks import get_task
    from foundir_hf.evaluation.degradation import degrade_image
    from foundir_hf.evaluation.metrics import psnr, ssim
    from foundir_hf.io.folder import list_photos

    pipeline = load_pipeline(str(pipeline_folder))
    pipeline.set_progress_bar_config(disable=True)
    paths = list_photos(test)
    paths = paths[:: max(1, len(paths) // photographs)][:photographs]
    scores: dict[str, dict[str, list[float]]] = {}
    for task in tasks:
        rows: list[tuple[float, float, float]] = []
        for path in paths:
            truth = np.asarray(Image.open(path).convert("RGB"))
            damaged = degrade_image(truth, get_task(task), path.name, 1)
            restored = np.asarray(pipeline(Image.fromarray(damaged)).images[0])
            rows.append((psnr(damaged, truth), psnr(restored, truth), ssim(restored, truth) or math.nan))
        scores[task] = {name: [row[i] for row in rows] for i, name in enumerate(("input", "psnr", "ssim"))}
    return scores


def mean(values: Sequence[float]) -> float:
    """Arithmetic."""
    return sum(values) / len(values)


def interval(values: Sequence[float]) -> float:
    """Half the width of Student's 95 % interval of the mean over seeds; `nan` for one seed."""
    if len(values) not in STUDENT_95:
        return math.nan
    centre = mean(values)
    deviation = math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
    return STUDENT_95[len(values)] * deviation / math.sqrt(len(values))


def report(results: Sequence[dict], cells: Sequence[str]) -> str:
    """The table: a cell a row, means over seeds; differences to the first cell seed by seed, since seeds share their data."""
    tasks = list(results[0]["scores"])
    means = {
        (row["cell"], row["seed"]): [mean([mean(row["scores"][task][metric]) for task in tasks]) for metric in ("psnr", "ssim")]
        for row in results
    }
    lines = [
        f"| strategy | seeds | mean PSNR | mean SSIM | PSNR against `{cells[0]}` | {' | '.join(tasks)} |",
        f"|---|---|---|---|---|{'---|' * len(tasks)}",
    ]
    for cell in cells:
        rows = [row for row in results if row["cell"] == cell]
        if not rows:
            continue
        psnrs = [means[cell, row["seed"]][0] for row in rows]
        gains = [means[cell, row["seed"]][0] - means[cells[0], row["seed"]][0] for row in rows if (cells[0], row["seed"]) in means]
        by_task = [f"{mean([mean(row['scores'][task]['psnr']) for row in rows]):.2f}" for task in tasks]
        gain = "-" if cell == cells[0] or not gains else f"{mean(gains):+.3f} ± {interval(gains):.3f}"
        ssims = mean([means[cell, row["seed"]][1] for row in rows])
        lines.append(f"| {cell} | {len(rows)} | {mean(psnrs):.3f} ± {interval(psnrs):.3f} | {ssims:.4f} | {gain} | {' | '.join(by_task)} |")
    inputs = [mean(results[0]["scores"][task]["input"]) for task in tasks]
    lines.append(f"| input | - | {mean(inputs):.3f} | - | - | {' | '.join(f'{value:.2f}' for value in inputs)} |")
    return "\n".join(lines)


def plot_shares(results: Sequence[dict], cells: Sequence[str], path: Path) -> None:
    """Shares over the steps, a panel a cell; thin lines are seeds, thick ones their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = [cell for cell in cells if any(row["cell"] == cell for row in results)]
    figure, axes = pyplot.subplots(1, len(chosen), figsize=(3.2 * len(chosen), 3.2), sharey=True, squeeze=False)
    for axis, cell in zip(axes[0], chosen, strict=True):
        histories = [row["history"] for row in results if row["cell"] == cell]
        for number, task in enumerate(histories[0]["rounds"][0]["proportions"]):
            curves = []
            for history in histories:
                steps = [row["step"] for row in history["rounds"]] + [history["steps"]]
                shares = [row["proportions"][task] for row in history["rounds"]]
                curves.append([*shares, shares[-1]])
                axis.step(steps, curves[-1], where="post", color=f"C{number}", alpha=0.3, linewidth=0.8)
            axis.step(steps, [mean(values) for values in zip(*curves, strict=True)], where="post", color=f"C{number}", label=task)
        axis.set_title(cell, fontsize=9)
        axis.set_xlabel("update")
        axis.set_ylim(0, 1.02)
    axes[0][0].set_ylabel("share")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of the runs and of the report")
    parser.add_argument("--data", type=Path, required=True, help="photographs to train on, with validation photographs")
    parser.add_argument("--manifest", type=Path, help="of `foundir clean` for them")
    parser.add_argument("--pairs", type=int, metavar="COUNT", help="make so many pairs of each task beforehand, and train on crops of them")
    parser.add_argument("--test", type=Path, required=True, help="other photographs, to score with")
    parser.add_argument("--photographs", type=int, default=34, help="how many of them")
    parser.add_argument("--recipe", type=Path, required=True, help="of one stage")
    parser.add_argument("--label", default="", help="told before the cells' names: what is special about this recipe")
    parser.add_argument("--cells", nargs="+", default=CELLS, help=f"(default: {' '.join(CELLS)})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    if arguments.pairs:
        make_pairs(arguments)
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(train_cell, cell, seed, arguments) for seed, cell in product(arguments.seeds, arguments.cells)]
        for number, future in enumerate(as_completed(futures), 1):
            print(f"{number} of {len(futures)}: {future.result().parent}", flush=True)
    results = [json.loads(path.read_text()) for path in sorted(arguments.runs.glob("*/*/result.json"))]
    told = [f"{arguments.label} {cell}".strip() for cell in arguments.cells]
    cells = list(dict.fromkeys([*told, *(row["cell"] for row in results)]))
    (arguments.runs / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (arguments.runs / "report.md").write_text(report(results, cells) + "\n", encoding="utf-8")
    plot_shares(results, cells, arguments.runs / "shares.png")
    print(report(results, cells))


if __name__ == "__main__":
    main()
