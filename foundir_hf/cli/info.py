"""`foundir info`: checkpoint, sizes, hashes, device; or what a photograph's file holds, and what was done to it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from .common import checkpoint_folder, limit_options, limits, load, model_options, one_line, pick_device
from .photographs import photographs

if TYPE_CHECKING:
    from ..io.photograph import Photo


def add_parser(commands) -> None:
    parser = commands.add_parser(
        "info", parents=[model_options(), limit_options()], help="show checkpoint, sizes, hashes and device, or a photograph"
    )
    parser.add_argument("photographs", nargs="*", type=Path, metavar="FILE", help="show what this file holds, and what was done to it")
    parser.set_defaults(run=run, checks_first=True)


def run(arguments: argparse.Namespace) -> None:
    """Prints the facts."""
    if arguments.photographs:
        for path, photo in photographs(arguments.photographs, limits(arguments)):
            show_photograph(path, photo)
        return
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


def show_photograph(path: Path, photo: Photo) -> None:
    """Prints what a photograph's file holds."""
    from ..io.record import read_record

    width, height = photo.size
    kind = photo.encoded[0] if photo.encoded else "?"
    colours = ("grey" if photo.pixels.ndim == 2 else "RGB") + ("" if photo.alpha is None else " and alpha")
    print(f"{one_line(str(path))}\n{'picture':<12} {width} x {height} pixels, {colours}, {8 * photo.pixels.dtype.itemsize} bits ({kind})")
    for name, part in vars(photo.metadata).items():
        if part:
            size = f"{len(part)} {name if name in ('chunks', 'segments') else 'bytes'}"
            print(f"{name:<12} {f'{part[0]:g} x {part[1]:g}' if name == 'dpi' else size}")
    for note in photo.notes:
        print(f"{'note':<12} {note}")
    record = read_record(photo.metadata)
    print("restored     no record" if not record else "\n".join(f"{name:<12} {value}" for name, value in record.items()))
