"""`foundir evaluate`: measuring."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import __version__
from ..evaluation.metrics import DEFAULT_METRICS, METRICS
from .common import (
    UsageError,
    adapter_options,
    check_options,
    check_writable,
    load,
    model_options,
    pipeline_options,
    restoration_options,
    weight_hashes,
    whole,
)

EXTRAS = ("baselines", "figures")


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        parents=[model_options(), adapter_options(), restoration_options()],
        help="measure on seeded damage and on pairs, beside baselines and other methods",
        description="Measure a checkpoint (`--checkpoint none`: only baselines and `--outputs`).",
    )
    parser.add_argument("--suite", metavar="SUITE", help="dev, families, foundir20, peers, quick, or a YAML file (see docs/evaluation.md)")
    parser.add_argument("--data", type=Path, default=Path("."), metavar="DIR", help="where the suite's folders are (default: here)")
    for kind, text in (
        ("clean", "clean photographs, damaged by every task"),
        ("paired", "folder with GT/ (or HQ/) and LQ/"),
        ("unpaired", "degraded photographs without ground truth"),
    ):
        parser.add_argument(f"--{kind}", type=Path, action="append", default=[], metavar="DIR", help=f"{text}; repeatable")
    parser.add_argument("--limit", type=whole(1, 10**9), help="at most so many photographs of each set")
    default = ",".join(DEFAULT_METRICS)
    more = ", ".join(name for name in METRICS if name not in DEFAULT_METRICS)
    parser.add_argument("--metrics", default=default, help=f"also {more} (default: {default})")
    parser.add_argument("--outputs", action="append", default=[], metavar="NAME=DIR", help="restored images of another method; repeatable")
    parser.add_argument("--write-inputs", type=Path, metavar="DIR", help="write the degraded inputs for other methods, and stop")
    parser.add_argument("--without", action="append", default=[], choices=EXTRAS, help="leave out; repeatable")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for report.*, timing.* and figures/")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints a table, writes the report."""
    if not (arguments.suite or arguments.clean or arguments.paired or arguments.unpaired):
        raise UsageError("`evaluate` needs --suite, --clean, --paired or --unpaired.")
    if arguments.suite and (arguments.clean or arguments.paired or arguments.unpaired):
        raise UsageError("`--suite` and folders of one's own are measured in separate runs.")
    for folder in (arguments.output, arguments.write_inputs):
        if folder is not None:
            check_writable(folder)
    from ..evaluation.benchmark import check
    from ..evaluation.metrics import Meter, MissingExtraError
    from ..evaluation.outputs import write_inputs
    from ..evaluation.perceptual import PerceptualUnavailableError

    metrics = [name.strip() for name in arguments.metrics.split(",")]
    try:
        suite = _suite(arguments)
        if arguments.write_inputs is not None:
            count = write_inputs(suite, arguments.write_inputs, arguments.seed)
            print(f"{count} inputs -> {arguments.write_inputs}")
            return
        around = None if arguments.output is None else suite.folder_around(arguments.output)
        if around is not None:
            raise UsageError(f"{arguments.output}: must not lie among the photographs that are measured, in {around}.")
        Meter(metrics)  # what cannot be measured is told before a model is loaded
        others = _outputs(arguments, suite)
        check(suite, others)
        if arguments.checkpoint == "none":
            if arguments.adapter:
                raise UsageError("`--adapter` needs a checkpoint; --checkpoint is none.")
            pipeline, hashes, options = None, {}, {}
        else:
            pipeline, hashes = load(arguments), weight_hashes(arguments)
            check_options(arguments, pipeline)
            options = pipeline_options(arguments)
        _evaluate(arguments, suite, pipeline, metrics, others, hashes, options)
    # A folder without photographs, a file that is none, a library that is not installed.
    except (ValueError, OSError, MissingExtraError, PerceptualUnavailableError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _suite(arguments: argparse.Namespace):
    from ..evaluation.suites import folder_suite, load_suite

    if arguments.suite:
        suite = load_suite(arguments.suite, arguments.data, arguments.limit)
    else:
        suite = folder_suite(arguments.clean, arguments.paired, arguments.unpaired, arguments.limit)
    suite.check()
    return suite


def _outputs(arguments: argparse.Namespace, suite) -> list:
    from ..evaluation.outputs import Outputs

    others = []
    for text in arguments.outputs:
        name, equals, folder = text.partition("=")
        if not name or not equals or not folder:
            raise UsageError(f"`--outputs` must be NAME=DIR, got {text!r}.")
        others.append(Outputs(name, Path(folder), suite))
    return others


def _evaluate(arguments: argparse.Namespace, suite, pipeline, metrics: list[str], others: list, hashes: dict, options: dict) -> None:
    from ..evaluation.benchmark import measure
    from ..evaluation.figures import Grids, write_chart
    from ..evaluation.report import describe_data, pictures_of, to_markdown, to_report
    from ..evaluation.statistics import summarise
    from ..evaluation.tables import to_table
    from ..evaluation.timing import describe_machine, to_timing, to_timing_page
    from ..io.files import write_whole

    folder = arguments.output
    grids = Grids(folder / "figures") if folder is not None and "figures" not in arguments.without else None
    scores, times = [], []
    for measurement in measure(
        suite,
        pipeline,
        seed=arguments.seed,
        metrics=metrics,
        outputs=others,
        with_baselines="baselines" not in arguments.without,
        **options,
    ):
        scores.append(measurement.score)
        times.append((measurement.score, measurement.seconds, measurement.case.degraded[..., 0].size / 1e6))
        if grids is not None:
            grids.add(measurement)
    names = [other.name for other in others]
    rows = summarise(scores, "family", arguments.seed)
    print(to_table(rows, names))
    gains = [row["gain"] for row in rows if row["gain"] is not None]
    if gains:
        print(f"\nmean gain {sum(gains) / len(gains):+.2f} dB; {sum(g > 0 for g in gains)} of {len(gains)} families gain")
    if folder is None:
        return
    report = to_report(
        scores,
        arguments.seed,
        version=__version__,
        suite=suite.name,
        definition=suite.definition,
        checkpoint=None if pipeline is None else arguments.checkpoint,
        hashes=hashes,
        options=options,
        metrics=metrics,
        outputs=names,
        data=describe_data(suite),
    )
    figures = []
    if grids is not None:
        grids.finish()
        figures = [path.relative_to(folder).as_posix() for path in grids.written]
        if write_chart(report["tasks"], folder / "figures" / "gains.png"):
            figures.insert(0, "figures/gains.png")
    if (folder / "report.md").is_file():
        for name in set(pictures_of((folder / "report.md").read_text(encoding="utf-8", errors="replace"))) - set(figures):
            (folder / name).unlink(missing_ok=True)
    timing = to_timing(times, **describe_machine())
    for name, content in (("report.json", report), ("timing.json", timing)):
        write_whole(folder / name, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    write_whole(folder / "timing.md", to_timing_page(timing).encode())
    write_whole(folder / "report.md", to_markdown(report, figures).encode())
    print(f"\n-> {folder / 'report.md'}")
