"""`foundir info`: checkpoint, sizes, hashes, device."""

from __future__ import annotations

import argparse

from .. import __version__
from .common import checkpoint_folder, load, model_options, pick_device


def add_parser(commands) -> None:
    """Adds the verb to the command line."""
    parser = commands.add_parser("info", parents=[model_options()], help="show checkpoint, sizes, hashes and device")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Prints the facts."""
    from ..hub import checkpoint_hashes

    folder = checkpoint_folder(arguments)
    device = pick_device(arguments.device)
    print(f"foundir_hf   {__version__}\ncheckpoint   {arguments.checkpoint} ({folder})\ndevice       {device}")
    pipeline = load(arguments)
    total = 0
    for name, component in pipeline.components.items():
        if hasattr(component, "parameters"):
            parameters = sum(p.numel() for p in component.parameters())
            total += parameters
            print(f"{name:<12} {type(component).__name__}, {parameters:,} parameters")
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    print(f"{'total':<12} {total:,} parameters, {size / 1e6:.1f} MB on disk\n{'scheduler':<12} {type(pipeline.scheduler).__name__}")
    for name, digest in checkpoint_hashes(folder).items():
        print(f"sha256       {digest}  {name}")
