"""What a million photographs cost, from measured seconds: writes docs/figures/scale.json and prints the table of docs/scale.md.

Counted is the time of a processor's core, reading and writing included, with one thread: other work on the machine does not lengthen it.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image, ImageOps

from foundir_hf import __version__, load_pipeline, restore_photo
from foundir_hf.evaluation.demo import SAMPLES
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.io.photograph import Photo
from foundir_hf.restoration.batch import Batch
from foundir_hf.restoration.plan import plan_photos

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "scale.json"
MILLION = 1_000_000


def main() -> None:
    """Measures, writes, prints."""
    parser = argparse.ArgumentParser(description="What a million photographs cost, from measured seconds.")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1.0, 12.0], help="of the photographs (default: 1 12)")
    parser.add_argument("--count", type=int, default=2, help="photographs of each size (default: 2)")
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--price", type=float, help="of an hour of a core, in whatever it is paid in: adds a column")
    parser.add_argument("-o", "--output", type=Path, default=FIGURES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.process_time()
    pipeline = load_pipeline(arguments.checkpoint)
    loading = time.process_time() - begin
    pipeline.set_progress_bar_config(disable=True)
    rows = [
        {"megapixels": size, "count": arguments.count, "core_seconds": round(measure(pipeline, size, arguments.count), 2)}
        for size in arguments.megapixels
    ]
    figures = {
        "version": __version__,
        "weights": checkpoint_hashes(resolve_checkpoint(arguments.checkpoint)),
        "processor": processor(),
        "torch": torch.__version__,
        "loading_core_seconds": round(loading, 2),
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures, arguments.price))


def measure(pipeline, megapixels: float, count: int) -> float:
    """Core seconds of a photograph, from JPEG to JPEG, the mean of `count` after one."""
    side = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    samples = sorted(SAMPLES.glob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photos")
        source.mkdir()
        for number in range(count + 1):
            with Image.open(samples[number % len(samples)]) as image:
                picture = ImageOps.fit(image.convert("RGB"), (side * 4 // 3, side), Image.Resampling.BICUBIC)
            picture.save(source / f"{number}.jpg", quality=92)

        def restore(photo: Photo) -> Photo:
            return restore_photo(pipeline, photo, generator=torch.Generator().manual_seed(0))

        batch = Batch(plan_photos([source], Path(folder, "out")), lambda: restore, {"benchmark": megapixels})
        begin, done = 0.0, 0
        for result in batch.run():
            if result.status != "restored":
                raise SystemExit(result.record["error"])
            begin = begin or time.process_time()  # from the first one's end
            done += 1
        return (time.process_time() - begin) / (done - 1)


def table(figures: dict, price: float | None = None) -> str:
    """The rows as Markdown: a million photographs in hours of a core, and on how many cores they take a day."""
    head = ["megapixels", "core seconds a photograph", "core hours a million", "cores for a million a day"]
    lines = []
    for row in figures["rows"]:
        hours = row["core_seconds"] * MILLION / 3600
        cells = [f"{row['megapixels']:g}", f"{row['core_seconds']:.2f}", f"{hours:,.0f}", f"{hours / 24:,.0f}"]
        lines.append(cells + ([f"{hours * price:,.0f}"] if price is not None else []))
    head += ["price of a million"] if price is not None else []
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
