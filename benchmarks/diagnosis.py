"""What the classifier of degradations is worth where its training figures do not reach: the other tables of docs/diagnosis.md.

`python benchmarks/diagnosis.py DATA --clean PHOTOS --picture docs/diagnosis.jpg`, where DATA holds CBSD68/GT, real_no_gt, Rain1400_10 and
SOTS_indoor_20, and PHOTOS the training photographs, of which the `val` split is looked at.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from foundir_hf.data.tasks import get_task
from foundir_hf.diagnosis import diagnose, removed_share
from foundir_hf.evaluation.degradation import degrade_image
from foundir_hf.evaluation.suites import SAMPLES
from foundir_hf.io.folder import list_photos
from foundir_hf.io.pictures import contact_sheet, write_picture

# The damage that names of real photographs tell, in the classifier's words; any of several is right.
NAMED = {
    "blur": ("blur",),
    "haze": ("haze",),
    "jpeg": ("compression",),
    "lowlight": ("darkness",),
    "lowres": ("low_resolution",),
    "noise": ("noise",),
    "oldphoto": ("scratches", "color", "noise"),
    "rain": ("rain",),
    "raindrop": ("raindrops",),
    "snow": ("snow",),
    "underwater": ("color", "haze"),
}
ORDERED = (
    *("rain", "light_rain", "heavy_rain", "snow", "haze", "low_light"),
    *("gaussian_noise", "jpeg", "defocus_blur", "downsample_x4"),
)
SHOWN = {
    "chelsea.jpg": ("gaussian_noise", "snow", "foundir_13_rain_haze"),
    "coffee.jpg": ("heavy_rain", "defocus_blur", "color_cast_noise"),
    "astronaut.jpg": ("moire", "jpeg", "low_light"),
}


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def clean_photographs(folder: Path) -> str:
    """How many clean photographs look clean, and what is said of the others. Of a folder with splits, the validation photographs."""
    flagged = [[d for d, p in diagnose(read(path)).items() if p > 0.5] for path in list_photos(folder, "val")]
    alarms = Counter(defect for found in flagged for defect in found)
    told = ", ".join(f"{count} {defect}" for defect, count in alarms.most_common())
    return f"{sum(not found for found in flagged)} of {len(flagged)} clean photographs look clean; false alarms: {told or 'none'}."


def real_photographs(folder: Path) -> str:
    """The rank of the defect that each real photograph is named after."""
    rows, first, third, over = ["| photograph | rank of the named defect | verdict |", "|---|---|---|"], 0, 0, 0
    paths = list_photos(folder)
    for path in paths:
        verdict = diagnose(read(path))
        names = NAMED[path.stem.split("_")[0]]
        rank = 1 + min(list(verdict).index(name) for name in names)
        first, third, over = first + (rank == 1), third + (rank <= 3), over + (max(verdict[name] for name in names) > 0.5)
        top = ", ".join(f"{defect} {share:.0%}" for defect, share in list(verdict.items())[:3])
        rows.append(f"| {path.name} | {rank} | {top} |")
    rows.append(f"\nOf {len(paths)} real photographs the named defect comes first for {first}, among three for {third}; over 50 %: {over}.")
    return "\n".join(rows)


def order(truths: list[np.ndarray], inputs: list[np.ndarray], defects: tuple[str, ...]) -> str:
    """Mean scores of the input, of the average of input and truth, and of the truth; and how often they rise in that order."""
    scores = []
    for truth, damaged in zip(truths, inputs, strict=True):
        before = diagnose(damaged)
        half = ((truth.astype(np.uint16) + damaged + 1) // 2).astype(np.uint8)
        scores.append([removed_share(before, diagnose(image), defects) for image in (damaged, half, truth)])
    means = np.mean(scores, axis=0)
    rising = sum(a < b < c for a, b, c in scores)
    return f"{means[0]:.0f} | {means[1]:.2f} | {means[2]:.2f} | {rising} of {len(scores)}"


def ordered(data: Path) -> str:
    """The table of [`order`] for seeded damage on twenty photographs, and for two sets of pairs."""
    rows = ["| damage | input | half | truth | input < half < truth |", "|---|---|---|---|---|"]
    paths = list_photos(data / "CBSD68" / "GT")[:20]
    truths = [read(path) for path in paths]
    for name in ORDERED:
        task = get_task(name)
        inputs = [degrade_image(truth, task, path.name, 0) for truth, path in zip(truths, paths, strict=True)]
        rows.append(f"| {name} | {order(truths, inputs, task.removes)} |")
    for folder, defect in (("Rain1400_10", "rain"), ("SOTS_indoor_20", "haze")):
        pairs = [(path, next((data / folder / "LQ").glob(f"{path.stem}.*"), None)) for path in list_photos(data / folder / "GT")]
        images = [(read(truth), read(damaged)) for truth, damaged in pairs if damaged is not None]
        rows.append(f"| {folder}, {len(images)} pairs | {order([t for t, _ in images], [d for _, d in images], (defect,))} |")
    return "\n".join(rows)


def picture() -> Image.Image:
    """Samples, clean and damaged, under what the classifier says: at most two verdicts over 50 %."""
    cells = []
    for name, tasks in SHOWN.items():
        clean = np.asarray(ImageOps.fit(Image.open(SAMPLES / name).convert("RGB"), (480, 320), Image.Resampling.LANCZOS))
        for task in ("clean", *tasks):
            damaged = degrade_image(clean, get_task(task), name, 0)
            verdicts = [f"{defect} {p:.0%}" for defect, p in diagnose(damaged).items() if p > 0.5]
            cells.append((f"{task}: {', '.join(verdicts[:2]) or 'looks clean'}", Image.fromarray(damaged)))
    return contact_sheet(cells, columns=4, width=320)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with CBSD68/GT, real_no_gt, Rain1400_10 and SOTS_indoor_20")
    parser.add_argument("--clean", type=Path, help="another folder of clean photographs")
    parser.add_argument("--picture", type=Path, help="where to write the contact sheet")
    arguments = parser.parse_args()
    if arguments.picture is not None:
        write_picture(picture(), arguments.picture)
    for folder in (arguments.data / "CBSD68" / "GT", arguments.clean):
        if folder is not None:
            print(f"{folder}: {clean_photographs(folder)}", end="\n\n")
    print(real_photographs(arguments.data / "real_no_gt"), end="\n\n")
    print(ordered(arguments.data))


if __name__ == "__main__":
    main()
