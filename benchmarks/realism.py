"""Can a judge tell our damage from the real thing? Public pairs, and the same photographs damaged by our own sub-tasks.

`python benchmarks/realism.py --data DATA -o docs/figures` with the folders of `foundir evaluate`. The judge reads the features of the
classifier behind `foundir diagnose`, less those of the undamaged photograph, and is fitted to all photographs but one, whose real and
made copies it then tells apart: 50 % of them right is chance, the aim; 100 % says that ours is another kind of damage.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.linalg import cho_factor, cho_solve
from tqdm.auto import tqdm

from foundir_hf.cli import quiet_libraries
from foundir_hf.data.tasks import get_task
from foundir_hf.diagnosis import load_classifier
from foundir_hf.evaluation.degradation import degrade_image
from foundir_hf.evaluation.tables import markdown_table
from foundir_hf.io.decoder import read_rgb
from foundir_hf.io.files import write_whole
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture

# Real pairs, and which of our sub-tasks ought to look like them.
FAMILIES = {
    "PolyU_30": ("gaussian_noise", "camera_noise", "phone_noise"),
    "SOTS_indoor_20": ("haze", "layered_haze", "dense_haze"),
    "Rain1400_10": ("rain", "long_rain", "fine_rain"),
}
COPIES = 3  # of each photograph, made; the real one counts as often


class Judged(NamedTuple):
    """How often the judge was right about real and made copies of photographs that it had not seen, and the photographs."""

    right: float
    photographs: int


def features(images: list[np.ndarray]) -> np.ndarray:
    """What the classifier's last layer but one reads of `uint8` pictures: `(images, features)`."""
    classifier, seen = load_classifier(), []
    handle = classifier.hidden.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        for image in images:
            classifier.probabilities(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255)
    finally:
        handle.remove()
    return torch.cat(seen).double().numpy()


def told_apart(real: np.ndarray, made: np.ndarray) -> float:
    """Share of copies that a ridge classifier gets right, real and made weighing the same, one photograph left out at a time.

    `real` is `(photographs, features)`, `made` `(photographs, copies, features)`.
    """
    photographs, copies, width = made.shape
    correct = []
    for left_out in range(photographs):
        others = np.arange(photographs) != left_out
        known = np.concatenate([np.repeat(real[others], copies, axis=0), made[others].reshape(-1, width)])
        labels = np.repeat([1.0, -1.0], len(known) // 2)
        mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
        rows = (known - mean) / spread
        kernel = rows @ rows.T / width
        weights = cho_solve(cho_factor(kernel + 0.1 * np.eye(len(rows))), labels)
        new = (np.concatenate([np.repeat(real[left_out][None], copies, axis=0), made[left_out]]) - mean) / spread
        verdict = new @ rows.T / width @ weights
        correct.append((np.sign(verdict) == np.repeat([1.0, -1.0], copies)).mean())
    return float(np.mean(correct))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with PolyU_30, SOTS_indoor_20 and Rain1400_10")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for realism.json")
    parser.add_argument("--sheet", type=Path, help="picture of real and made copies; not for publication, which PolyU's licence forbids")
    arguments = parser.parse_args()
    quiet_libraries()
    rows: dict[str, dict[str, Judged]] = {}
    cells: list[tuple[str, Image.Image]] = []
    for family, tasks in FAMILIES.items():
        truths = {path.stem: read_rgb(path) for path in list_photos(arguments.data / family / "GT")}
        damaged = {path.stem: read_rgb(path) for path in list_photos(arguments.data / family / "LQ")}
        names = sorted(damaged)
        clean = features([truths[name] for name in names])
        real = features([damaged[name] for name in names]) - clean
        rows[family] = {}
        cells += [(f"{family}, real", Image.fromarray(damaged[names[0]]))]
        for task in tqdm(tasks, desc=family):
            made = [[degrade_image(truths[name], get_task(task), name, seed) for seed in range(COPIES)] for name in names]
            differences = np.stack([features(copies) for copies in made]) - clean[:, None]
            rows[family][task] = Judged(told_apart(real, differences), len(names))
            cells += [(f"{task}: told apart {rows[family][task].right:.0%}", Image.fromarray(made[0][0]))]
    print(to_table(rows))
    arguments.output.mkdir(parents=True, exist_ok=True)
    content = {family: {task: judged._asdict() for task, judged in tasks.items()} for family, tasks in rows.items()}
    write_whole(arguments.output / "realism.json", (json.dumps(content, indent=1) + "\n").encode())
    if arguments.sheet:
        write_picture(contact_sheet(cells, columns=4, width=320), arguments.sheet, quality=90)


def to_table(rows: dict[str, dict[str, Judged]]) -> str:
    """The verdicts as a Markdown table."""
    cells = [[family, task, str(one.photographs), f"{one.right:.0%}"] for family, tasks in rows.items() for task, one in tasks.items()]
    return markdown_table(["real pairs", "sub-task", "photographs", "told apart"], cells)


if __name__ == "__main__":
    main()
