"""`foundir pack`: training data as tar shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import UsageError, check_writable, limit_options, limits, whole


def add_parser(commands) -> None:
    parser = commands.add_parser("pack", parents=[limit_options()], help="write training data as tar shards (WebDataset)")
    parser.add_argument("source", help="folder of photographs, pairs or shards, or hf://NAME[:SPLIT]")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="must not exist yet")
    parser.add_argument("--shard-megabytes", type=whole(1, 2**20), default=256, metavar="N", help="size of a shard (default: 256)")
    parser.add_argument("--format", choices=("jpg", "png", "webp"), help="of the pictures (default: theirs, or png if they differ)")
    parser.add_argument("--quality", type=whole(1, 100), default=95, help="of JPEG files that are encoded anew (default: 95)")
    parser.add_argument("--max-side", type=whole(16, 2**20), metavar="PIXELS", help="shrink clean photographs to this longer side")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the shards and says what is in them."""
    from tqdm.auto import tqdm

    from ..data.samples import Source
    from ..data.shards import pack
    from ..data.sources import open_source

    check_writable(arguments.output.parent)
    try:
        source = open_source(arguments.source)
        if not isinstance(source, Source):
            raise UsageError(f"{arguments.source}: a streamed data set cannot be packed; say hf:// instead.")
        reports = pack(
            source,
            arguments.output,
            shard_bytes=arguments.shard_megabytes * 2**20,
            image_format=arguments.format,
            quality=arguments.quality,
            max_side=arguments.max_side,
            limits=limits(arguments),
        )
        *_, report = tqdm(reports, total=len(source), desc="packing", unit="sample", disable=None)
    except (ImportError, OSError, ValueError) as error:
        raise UsageError(next(iter(str(error).splitlines()), type(error).__name__)) from error
    for name, reason in report.skipped.items():
        print(f"skipped {name}: {reason}")
    print(
        f"{arguments.output}: {report.written} samples in {report.shards} shards; "
        f"{report.reencoded} encoded anew, {len(report.skipped)} skipped"
    )
