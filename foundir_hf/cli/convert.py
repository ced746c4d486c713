"""`foundir convert`: the checkpoint that the authors of FoundIR-v2 released -> a folder of ours."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from .common import UsageError, check_writable, some_path
from .export import write_card


def add_parser(commands) -> None:
    parser = commands.add_parser("convert", help="turn the weights that FoundIR-v2's authors released into a checkpoint")
    parser.add_argument("weights", type=some_path, metavar="FILE", help="what they released, as torch.save writes it")
    parser.add_argument("--base", required=True, metavar="DIR", help="folder or Hub repository of the SDXL that it was trained from")
    parser.add_argument("--vae", metavar="DIR", help="folder or Hub repository of another SDXL autoencoder (default: the base's)")
    parser.add_argument("-o", "--output", type=some_path, required=True, metavar="DIR", help="new folder")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the folder, whole or not at all."""
    output = arguments.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"`--output` {output}: exists; give a new folder.")
    check_writable(output)
    from ..convert import convert_official

    try:
        pipeline = convert_official(arguments.weights, arguments.base, arguments.vae)
    except (ValueError, OSError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".foundir-", dir=output.parent) as unfinished:
        folder = Path(unfinished) / output.name
        pipeline.save_pretrained(folder)
        write_card(folder, pipeline)
        os.replace(folder, output)  # an empty folder may stand there
    print(
        f"{output}: load_pipeline({str(output)!r})(photo, num_inference_steps=20, guidance_scale=5.0, start_from='lq') restores as the"
        " authors do; terms of the weights: NOTICE."
    )
