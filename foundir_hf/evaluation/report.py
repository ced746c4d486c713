"""The report: one JSON that is the same in every run, one Markdown page, and the seconds beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .benchmark import Score
from .statistics import RESAMPLES, summarise
from .suites import Suite
from .tables import to_metric_table, to_table


def to_report(scores: Sequence[Score], seed: int = 0, **context: Any) -> dict[str, Any]:
    """Everything as JSON-ready data: context, per family, per task, per image. An infinite PSNR is the text `"inf"`."""
    images = [
        {
            "set": s.set,
            "family": s.family,
            "task": s.task,
            "image": s.image,
            "methods": {
                name: {metric: "inf" if value == math.inf else value for metric, value in values.items()}
                for name, values in s.methods.items()
            },
        }
        for s in scores
    ]
    return {
        **context,
        "libraries": library_versions(),
        "seed": seed,
        "resamples": RESAMPLES,
        "families": summarise(scores, "family", seed),
        "tasks": summarise(scores, "task", seed),
        "images": images,
    }


def library_versions() -> dict[str, str | None]:
    """Versions of what the numbers come out of; `None` for what is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(
        ("torch", "diffusers", "numpy", "pillow", "scipy", "scikit-image", "torchmetrics", "pyiqa")
    )
    for name in versions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def describe_data(suite: Suite) -> list[dict[str, Any]]:
    """What was measured on: name, files and SHA-256 of every set, and how it was measured."""
    return [
        {
            "set": s.name,
            "kind": s.kind,
            "images": len(s.files),
            "tasks": [damage.name for damage in s.damages],
            "family": s.family,
            "channel": s.channel,
            "crop": s.crop,
            "sha256": s.data_hash(),
        }
        for s in suite.sets
    ]


def to_markdown(report: dict[str, Any], figures: Sequence[str] = ()) -> str:
    """The page beside the report.

    Args:
        report: From [`to_report`], with `suite`, `version`, `checkpoint`, `hashes`, `options`, `metrics`, `outputs` and `data`.
        figures: Paths of pictures, relative to the page.
    """
    families, tasks = report["families"], report["tasks"]
    others = report["outputs"]
    lines = [f"# {report['checkpoint'] or 'Baselines'} on suite `{report['suite']}`", ""]
    gains = [row["gain"] for row in families if row["gain"] is not None]
    if gains:
        lines += [f"Mean gain over the families {sum(gains) / len(gains):+.2f} dB; {sum(g > 0 for g in gains)} of {len(gains)} gain.", ""]
    lines += [
        "PSNR in decibels against the truth, mean over images. `95 % of gain`: bootstrap over photographs. `best baseline`: of the "
        "classical methods run, blind as the model is. `-`: nothing to compare (no truth, or the input equals it). `inf`: equal to the "
        "truth.",
        "",
        "## By family",
        "",
        to_table(families, others),
        "",
        "## By task",
        "",
        to_table(tasks, others),
    ]
    titles = {
        "ssim": "SSIM",
        "ms_ssim": "MS-SSIM",
        "lpips": "LPIPS (lower is better)",
        "dists": "DISTS (lower is better)",
        "removed": "Damage removed, 0 to 1",
    }
    titles |= {"musiq": "MUSIQ", "clipiqa": "CLIP-IQA"}
    for metric in report["metrics"]:
        table = "" if metric == "psnr" else to_metric_table(tasks, metric)
        if table:
            lines += ["", f"## {titles[metric]}", "", table]
    if figures:
        lines += ["", "## Pictures", ""]
        lines += [f"![{name.rsplit('/', 1)[-1].rsplit('.', 1)[0]}]({name})\n" for name in figures]
    lines += ["", "## Provenance", "", f"foundir_hf {report['version']}, seed {report['seed']}{_options(report['options'])}.", ""]
    lines += ["| set | images | measured on | SHA-256 of names and contents |", "|---|---|---|---|"]
    for entry in {(e["set"], e["sha256"], e["channel"], e["crop"]): e for e in report["data"]}.values():
        channel = "Y" if entry["channel"] == "y" else "RGB"
        crop = f", {entry['crop']} pixels of border left out" if entry["crop"] else ""
        lines.append(f"| {entry['set']} | {entry['images']} | {channel}{crop} | `{entry['sha256']}` |")
    if report["hashes"]:
        lines += ["", "Weights (SHA-256):", "", *(f"- `{name}`: `{digest}`" for name, digest in report["hashes"].items())]
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def pictures_of(page: str) -> list[str]:
    """Paths of the pictures that a page of [`to_markdown`] shows, relative to it: only files that the command itself writes."""
    return re.findall(r"^!\[[^\]]*\]\((figures/[\w.-]+\.jpg|figures/gains\.png)\)$", page, re.MULTILINE)


def _options(options: dict[str, Any]) -> str:
    return "".join(f", {name} {value}" for name, value in options.items() if value is not None)
