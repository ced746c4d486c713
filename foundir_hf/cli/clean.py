"""`foundir clean`: ground-truth cleaning."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .common import UsageError, check_writable, limit_options, limits, whole

if TYPE_CHECKING:
    import torch

    from ..curation.cleaning import Rule, Verdict


def add_parser(commands) -> None:
    parser = commands.add_parser("clean", parents=[limit_options()], help="find photographs that are no ground truth, and for which tasks")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="photographs; none of them is touched")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="manifest to write (JSON), for training to read")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="rules (YAML) instead of the built-in ones; see docs/cleaning.md")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="contact sheet of what was caught and kept (JPEG or PNG)")
    parser.add_argument("--sheet-photos", type=whole(1, 1000), default=30, metavar="N", help="at most so many of each group (default: 30)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist (never a photograph or the rules)")
    parser.add_argument("--iqa", nargs="+", default=[], metavar="NAME", help="more scores for rules: musiq, clipiqa (extra `iqa`)")
    parser.add_argument("--workers", type=whole(1, 2), default=2, help="1 or 2 (default: 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Scores, judges, writes the manifest and prints what every rule caught."""
    for path in (arguments.output, arguments.sheet):
        if path is not None:
            check_writable(path.parent)
            if path.is_dir():
                raise UsageError(f"{path}: is a folder; a file name is needed.")
    from ..io.pictures import PICTURE_SUFFIXES

    if arguments.sheet is not None and arguments.sheet.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"{arguments.sheet}: `--sheet` must end in one of {', '.join(PICTURE_SUFFIXES)}.")
    from ..curation.cleaning import DEFAULT_RULES, NEAREST, clean, load_rules, write_manifest
    from ..data.sources import find_targets

    metrics = _metrics(arguments.iqa)
    try:
        rules = load_rules(arguments.rules or DEFAULT_RULES)
        source, paired = find_targets(arguments.folder)
        _check_outputs(arguments, source.paths)
        if paired:  # several tasks share their clean photographs: dropping the repeats would take the pairs of all but the first
            rules = tuple(rule for rule in rules if rule.score != NEAREST)
        verdicts = clean(source.paths, rules, metrics=metrics, workers=arguments.workers, limits=limits(arguments))
        named = {source.name(index): verdict for index, verdict in enumerate(verdicts)}
        write_manifest(arguments.output, named, rules)
        if arguments.sheet is not None:
            write_sheet(arguments.sheet, arguments.folder, named, arguments.sheet_photos)
    except (ValueError, OSError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    print(summary(named, rules))


def summary(verdicts: Mapping[str, Verdict], rules: Sequence[Rule]) -> str:
    """A table of how many photographs each rule caught, and the totals."""
    from ..curation.cleaning import DEFECTS, catches

    limits = [f"{rule.score} > {rule.above:g}" if rule.above is not None else f"{rule.score} < {rule.below:g}" for rule in rules]
    wide = max(map(len, limits), default=4)
    lines = [f"{'rule':{wide}}  {'verdict':14}  photographs"]
    for rule, limit in zip(rules, limits, strict=True):
        lines.append(f"{limit:{wide}}  {rule.verdict:14}  {catches(rule, verdicts.values()):11d}")
    judged = verdicts.values()
    dropped, unreadable = sum(v.dropped for v in judged), sum(not v.scores for v in judged)
    defective = sum(bool(v.defects) and not v.dropped for v in judged)
    per_defect = [f"{name} {count}" for name in DEFECTS if (count := sum(name in v.defects and not v.dropped for v in judged))]
    lines += [
        "",
        f"{len(verdicts)} photographs: {len(verdicts) - dropped - defective} fit for every task, "
        f"{defective} not for some ({', '.join(per_defect) or 'none'}), {dropped} dropped ({unreadable} unreadable)",
    ]
    return "\n".join(lines)


def write_sheet(path: Path, folder: Path, verdicts: Mapping[str, Verdict], most: int = 30, columns: int = 10, width: int = 160) -> None:
    """Writes a contact sheet: dropped photographs, those with each defect, those fit for every task; evenly chosen if more than `most`."""
    from PIL import Image

    from ..curation.cleaning import DEFECTS
    from ..io.decoder import read_rgb
    from ..io.pictures import contact_sheet, write_picture

    groups = {"dropped": [name for name, v in verdicts.items() if v.dropped and v.scores]}
    groups |= {defect: [name for name, v in verdicts.items() if defect in v.defects and not v.dropped] for defect in DEFECTS}
    groups["kept"] = [name for name, v in verdicts.items() if not v.dropped and not v.defects]
    blank = Image.new("RGB", (width, width * 3 // 4), "white")
    cells = []
    for group, names in groups.items():
        chosen = names if len(names) <= most else [names[i * len(names) // most] for i in range(most)]
        for name in chosen:
            picture = Image.fromarray(read_rgb(folder / name))
            scale = min(blank.width / picture.width, blank.height / picture.height)
            # `ImageOps.pad` would make a strip of 400 x 1 no pixel high.
            picture = picture.resize((max(1, round(scale * picture.width)), max(1, round(scale * picture.height))))
            cell = blank.copy()
            cell.paste(picture, ((cell.width - picture.width) // 2, (cell.height - picture.height) // 2))
            cells.append((f"{group}: {Path(name).stem}"[:20], cell))
        cells += [("", blank)] * (-len(cells) % columns)
    if cells:  # nothing at all was readable
        write_picture(contact_sheet(cells, columns=columns, width=width), path)


def _check_outputs(arguments: argparse.Namespace, photos: Sequence[Path]) -> None:
    """Refuses, before anything is scored, to write over what is not ours."""
    from ..curation.cleaning import read_manifest
    from ..io.files import IMAGE_SUFFIXES

    # Those that are not judged too: LQ files, and what a manifest.csv leaves out.
    beside = (path for path in arguments.folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    inputs = {path.resolve() for path in (*photos, *beside, *([arguments.rules] if arguments.rules else []))}
    for path in (arguments.output, arguments.sheet):
        if path is not None and path.exists() and path.resolve() in inputs:
            raise UsageError(f"{path}: is an input; photographs and rules are never overwritten.")
    if arguments.sheet is not None and arguments.sheet.resolve() == arguments.output.resolve():
        raise UsageError(f"{arguments.output}: is named twice; `--output` and `--sheet` must be two files.")
    if arguments.overwrite:
        return
    if arguments.sheet is not None and arguments.sheet.exists():
        raise UsageError(f"{arguments.sheet}: exists; pass --overwrite to replace it.")
    if arguments.output.exists():
        try:
            read_manifest(arguments.output)
        except (ValueError, OSError) as error:
            raise UsageError(f"{arguments.output}: exists and is no cleaning manifest; pass --overwrite to replace it.") from error


def _metrics(names: Sequence[str]) -> dict[str, Callable[[torch.Tensor], float]]:
    from ..evaluation.perceptual import PERCEPTUAL, Perceptual, PerceptualUnavailableError

    alone = [name for name, needs_truth in PERCEPTUAL.items() if not needs_truth]
    for name in names:
        if name not in alone:
            raise UsageError(f"`--iqa` must be of {', '.join(alone)}; got {name!r}.")
    try:
        models = {name: Perceptual(name) for name in names}
    except PerceptualUnavailableError as error:
        raise UsageError(str(error)) from error
    return {name: _of_pixels(model) for name, model in models.items()}


def _of_pixels(model) -> Callable[[torch.Tensor], float]:
    return lambda pixels: model(pixels.permute(1, 2, 0).numpy(), None)
