"""`foundir diagnose`: what is wrong with a photograph."""

from __future__ import annotations

import argparse
import json

from .common import UsageError, limit_options, limits, one_line, quiet_libraries, some_path
from .photographs import photographs
from .results import tell_passed_over

# A photograph has a defect from here on; weaker suspicions down to the other are shown below those.
LIKELY, SUSPECTED = 0.5, 0.15
_BAR = 20


def add_parser(commands) -> None:
    parser = commands.add_parser("diagnose", parents=[limit_options()], help="tell what is wrong with photographs, with probabilities")
    parser.add_argument("paths", nargs="+", type=some_path, metavar="IMAGE", help="photograph, or folder (searched recursively)")
    parser.add_argument("--json", action="store_true", help="print every probability, by file, as JSON")
    parser.set_defaults(run=run, checks_first=True)


def run(arguments: argparse.Namespace) -> None:
    """Prints a small table for each photograph; one that cannot be read is told and skipped."""
    from ..restoration.plan import find_photos

    try:
        found = find_photos(arguments.paths)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    quiet_libraries()
    from ..diagnosis import diagnose, load_classifier

    classifier, diagnoses = load_classifier(), {}
    try:
        for path, photo in photographs(list(found.photos), limits(arguments)):
            diagnoses[str(path)] = diagnose(photo.image, classifier)
            if not arguments.json:
                print(to_table(one_line(str(path)), diagnoses[str(path)]))
    finally:
        if arguments.json and diagnoses:
            rounded = {path: {defect: round(p, 4) for defect, p in diagnosis.items()} for path, diagnosis in diagnoses.items()}
            print(json.dumps(rounded, indent=1))
        tell_passed_over(found.passed_over)


def to_table(name: str, diagnosis: dict[str, float]) -> str:
    """A photograph's name and a line a defect, with a bar; or that it looks clean."""
    likeliest = next(iter(diagnosis))
    if diagnosis[likeliest] < LIKELY:
        return f"{name}\n  looks clean (most suspected: {_spoken(likeliest)}, {diagnosis[likeliest]:.0%})"
    lines = [name]
    for defect, probability in diagnosis.items():
        if probability >= SUSPECTED:
            bar = "#" * round(probability * _BAR)
            lines.append(f"  {_spoken(defect):<15} {bar:<{_BAR}} {probability:>4.0%}" + ("" if probability >= LIKELY else "  perhaps"))
    return "\n".join(lines)


def _spoken(defect: str) -> str:
    return defect.replace("_", " ")
