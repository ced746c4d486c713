"""Fills the tables of `model_card.md` and `docs/adaptir.md`; `make card DATA=DIR TRAIN=DIR` measures what most of them show, runs this.

Between `<!-- NAME -->` and `<!-- end -->` nothing is written by hand. `--check` writes nothing and fails where card and figures disagree.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import adapters
import classics
import experts
import false_alarms
import steps

from foundir_hf.evaluation.tables import card_tables, markdown_table
from foundir_hf.hub import checkpoint_hashes, resolve_checkpoint
from foundir_hf.io.files import write_whole

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
PAGES = ("model_card.md", "docs/adaptir.md")
CHECKPOINT = "tiny"
# Row of the suite `peers` -> what must be reached and what is aimed at: decibels, or decibels above the input.
TARGETS = {
    "noise 15": ("31.5", "32.7"),
    "noise 25": ("28.8", "30.0"),
    "noise 50": ("25.0", "25.7"),
    "JPEG 10": ("+0.8", "+1.3"),
    "motion blur 15 px": ("+2", "27"),
    "defocus radius 4": ("+1.5", "27"),
    "SR x2": ("+2", "31.8"),
    "SR x4": ("+0.9", "26.9"),
    "rain": ("+5", "29.5"),
    "haze": ("19.5", "24"),
    "SOTS indoor": ("+4", "22"),
    "low light": ("22", "24"),
    "mixture of three": ("17", "20"),
    "PolyU": ("+0", "+1"),
    "clean": ("38", "42"),
}


def reached(target: str, row: Mapping[str, Any]) -> bool:
    """Whether a family's row of a report reaches a target, `"31.5"` or `"+0.8"`."""
    value = row["gain"] if target.startswith("+") else row["psnr_output"]
    return value >= float(target)


def target_table(report: Mapping[str, Any]) -> str:
    """Input, output and both targets of every row; what is reached is bold."""
    lines = []
    for row in report["families"]:
        before = "-" if row["psnr_input"] is None else f"{row['psnr_input']:.2f}"
        gain = "-" if row["gain"] is None else f"{row['gain']:+.2f}"
        marked = [f"**{target}**" if reached(target, row) else target for target in TARGETS[row["family"]]]
        lines.append([row["family"], before, f"{row['psnr_output']:.2f}", gain, *marked])
    return markdown_table(["damage", "input dB", "output dB", "gain", "must", "aim"], lines)


def photograph_table(path: Path) -> dict[str, Any]:
    """Photographs by collection and licence, from the manifest of the training data."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts = Counter((row["source"], row["licence_class"], row["split"]) for row in rows)
    kinds = sorted({(source, licence) for source, licence, _ in counts})
    return {"rows": [[source, licence, counts[source, licence, "train"], counts[source, licence, "val"]] for source, licence in kinds]}


def model_index(report: Mapping[str, Any]) -> str:
    """The Hub's metadata of results, as YAML below `model-index:`."""
    lines = ["model-index:", f"  - name: foundir_hf {CHECKPOINT}", "    results:"]
    for row in report["families"]:
        lines += [
            "      - task:",
            "          type: image-to-image",
            "        dataset:",
            f"          name: {row['family']} (suite {report['suite']})",
            "          type: synthetic" if row["family"] not in ("SOTS_indoor_20", "Rain1400_10") else f"          type: {row['family']}",
            "        metrics:",
            "          - type: psnr",
            f"            value: {row['psnr_output']:.2f}",
        ]
    return "\n".join(lines)


def adapter_table(content: Mapping[str, Any]) -> str:
    """`benchmarks/adapters.py`'s report, and which base it is of: a new base may come before the hours of this table are spent anew."""
    bases = ", ".join(f"`{name.split('/')[0]}` {digest[:8]}" for name, digest in content["hashes"].items())
    note = f"{content['steps']} steps on {content['pairs']} pairs, {content['photographs']} photographs to score with; base: {bases}."
    return "\n\n".join([adapters.report(content["cells"]), note, adapters.report_differences(content["cells"])])


def blocks() -> dict[str, Callable[[], str]]:
    """Name of a block -> what makes its text."""

    def figures(name: str) -> dict[str, Any]:
        content = json.loads((FIGURES / f"{name}.json").read_text(encoding="utf-8"))
        if "hashes" in content and content["hashes"] != checkpoint_hashes(resolve_checkpoint(CHECKPOINT)):
            raise ValueError(f"docs/figures/{name}.json was measured on other weights than those of {CHECKPOINT!r}: measure again.")
        return content

    return {
        "families": lambda: card_tables(figures("families"))[0],
        "tasks": lambda: card_tables(figures("families"))[1],
        "targets": lambda: target_table(figures("peers")),
        "classics": lambda: classics.to_table(figures("classics")["rows"]),
        "false_alarms": lambda: false_alarms.to_table(figures("false_alarms")["rows"]),
        "steps": lambda: steps.to_table(figures("steps")["rows"]),
        "experts": lambda: experts.to_table(figures("experts")["psnr"]),
        "photographs": lambda: markdown_table(
            ["collection", "licence", "training", "validation"], [[str(cell) for cell in row] for row in figures("photographs")["rows"]]
        ),
        "adapters": lambda: adapter_table(json.loads((FIGURES / "adapters.json").read_text(encoding="utf-8"))),
        "hashes": lambda: "\n".join(f"- `{n}`: `{digest}`" for n, digest in checkpoint_hashes(resolve_checkpoint(CHECKPOINT)).items()),
        "results": lambda: model_index(figures("families")),
    }


def fill(page: str) -> str:
    """A page with every block made anew; the card's metadata, at the top, is marked by YAML comments."""
    made = blocks()

    def replace(match: re.Match, comment: str) -> str:
        name = match["name"]
        if name not in made:
            raise ValueError(f"block {name!r} must be one of {', '.join(made)}.")
        gap = "\n" if comment == "#" else "\n\n"
        return f"{match['start']}{gap}{made[name]()}{gap}{match['end']}"

    page = re.sub(
        r"(?P<start># (?P<name>\w+): made by benchmarks/card.py)\n.*?(?P<end># end)", partial(replace, comment="#"), page, flags=re.S
    )
    return re.sub(r"(?P<start><!-- (?P<name>\w+) -->)\n.*?(?P<end><!-- end -->)", partial(replace, comment="<"), page, flags=re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the card is not what the figures say")
    parser.add_argument("--manifest", type=Path, help="manifest.csv of the training photographs, to count them anew")
    arguments = parser.parse_args()
    if arguments.manifest is not None:
        content = json.dumps(photograph_table(arguments.manifest), indent=1) + "\n"
        write_whole(FIGURES / "photographs.json", content.encode())
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        filled = fill(page)
        if not arguments.check:
            write_whole(ROOT / name, filled.encode())
        elif filled != page:
            sys.exit(f"{name} is not what docs/figures say: run `python benchmarks/card.py`.")


if __name__ == "__main__":
    main()
