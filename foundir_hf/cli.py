"""`foundir`: the command line. Thin over the API; every failure a person can cause is one line and exit code 2."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import NoReturn

from . import __version__

EXIT_USAGE = 2


class UsageError(Exception):
    """Something that the person at the keyboard can put right."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        quiet_libraries()
        arguments.run(arguments)
    except UsageError as error:
        print(f"foundir: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("foundir: interrupted; files already written are whole.", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # one line instead of argparse's usage block
        self.exit(EXIT_USAGE, f"foundir: {message} (see `{self.prog} --help`)\n")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="foundir", description="Restore damaged photographs.")
    parser.add_argument("--version", action="version", version=f"foundir_hf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    model = _Parser(add_help=False)
    model.add_argument("--checkpoint", default="tiny", help="bundled name, folder or Hub repository (default: tiny)")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    model.add_argument("--seed", type=_whole(0, 2**63 - 1), default=0, help="same seed, same bytes (default: 0)")

    options = _Parser(add_help=False)
    options.add_argument("--steps", type=_whole(1, 1000), default=1, help="denoising steps (default: 1)")
    options.add_argument("--fidelity", type=_number(0, 1), default=1.0, help="0 decodes latents alone, 1 keeps the photo (default: 1)")
    options.add_argument("--strength", type=_number(0, 1), default=1.0, help="0 returns the input, 1 the restoration (default: 1)")
    options.add_argument("--start-from", choices=("noise", "lq"), default="noise", help="where the diffusion starts (default: noise)")
    options.add_argument("--tile-size", type=_whole(16, 2**20), default=1024, help="pixels, a multiple of 16 (default: 1024)")
    options.add_argument("--tile-overlap", type=_whole(0, 2**20), default=128, help="pixels, a multiple of 16 (default: 128)")
    options.add_argument("--color-fix", choices=("adain", "wavelet"), help="take colours from the input (for super-resolution)")

    restore = commands.add_parser("restore", parents=[model, options], help="restore photographs and folders of photographs")
    restore.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="photograph, or folder (searched recursively)")
    restore.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder, or a file name for a single photograph")
    restore.add_argument("--upscale", type=_number(1, 8), default=1.0, help="enlarge by this factor (default: 1)")
    restore.add_argument("--overwrite", action="store_true", help="replace files that exist (never an input)")
    restore.set_defaults(run=_restore)

    demo = commands.add_parser("demo", parents=[model], help="damage and restore sample photographs, show what was gained")
    demo.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="OUT", help="folder for the pictures (default: demo)")
    demo.set_defaults(run=_demo)

    evaluate = commands.add_parser("evaluate", parents=[model, options], help="measure PSNR on seeded damage and on pairs")
    evaluate.add_argument("--clean", type=Path, metavar="DIR", help="clean photographs, damaged by every task")
    evaluate.add_argument("--paired", type=Path, action="append", default=[], metavar="DIR", help="folder with GT/ and LQ/; repeatable")
    evaluate.add_argument("--limit", type=_whole(1, 10**9), help="at most so many photographs of each folder")
    evaluate.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the report as JSON")
    evaluate.set_defaults(run=_evaluate)

    info = commands.add_parser("info", parents=[model], help="show checkpoint, sizes, hashes and device")
    info.set_defaults(run=_info)

    export = commands.add_parser("export", parents=[model], help="write a folder that diffusers loads without this package")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    export.set_defaults(run=_export)
    return parser


def _restore(arguments: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    jobs = plan_outputs(arguments.paths, arguments.output, overwrite=arguments.overwrite)
    pipeline = _load(arguments)
    from .photo import PhotoError, read_photo, restore_photo, write_photo

    options = {**_pipeline_options(arguments), "upscale": arguments.upscale}
    single = len(jobs) == 1
    # One bar, on terminals only (`None`): over the tiles of a single photograph, or over the photographs.
    pipeline.set_progress_bar_config(disable=None if single else True, leave=False, desc="restoring")
    failures = []
    for source, target in tqdm(jobs, desc="photographs", unit="photo", disable=True if single else None):
        try:
            photo = restore_photo(pipeline, read_photo(source), generator=_generator(arguments), **options)
            write_photo(photo, target)
        except (PhotoError, ValueError) as error:  # one bad photograph must not stop the others
            failures.append(str(error))
        except (MemoryError, RuntimeError) as error:  # torch says it with a RuntimeError
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            failures.append(f"{source}: out of memory; try a smaller --tile-size.")
        else:
            tqdm.write(f"{source} -> {target}")
            continue
        if not single:
            tqdm.write(f"foundir: {failures[-1]}", file=sys.stderr)
    if failures and single:
        raise UsageError(failures[0])
    if failures:
        raise UsageError(f"{len(failures)} of {len(jobs)} photographs were not restored.")


def plan_outputs(paths: list[Path], output: Path, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Which file becomes which; raises [`UsageError`] before any work is done.

    A folder's photographs keep their relative paths below `output`. A single photograph may be given a file name instead.
    """
    import PIL.Image

    from .data.photos import IMAGE_SUFFIXES
    from .photo import WRITERS

    jobs: list[tuple[Path, Path]] = []
    if output.suffix.lower() in PIL.Image.registered_extensions() and output.suffix.lower() not in WRITERS and not output.is_dir():
        raise UsageError(f"`--output` {output}: cannot write {output.suffix}; accepted are {', '.join(sorted(WRITERS))}.")
    names_file = output.suffix.lower() in WRITERS and not output.is_dir()
    if names_file and (len(paths) > 1 or paths[0].is_dir()):
        raise UsageError(f"`--output` {output} names a file; several photographs need a folder.")
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise UsageError(f"{path}: holds no photographs.")
            jobs += [(p, output / p.relative_to(path)) for p in inside]
        elif path.is_file():
            target = output if names_file else output / path.name
            if target.suffix.lower() not in WRITERS:
                known = ", ".join(sorted(IMAGE_SUFFIXES))
                raise UsageError(f"{path}: not a photograph by its name; known are {known}.")
            jobs.append((path, target))
        else:
            raise UsageError(f"{path}: no such file or folder.")

    targets: dict[Path, Path] = {}
    inputs = {source.resolve() for source, _ in jobs}
    for source, target in jobs:
        resolved = target.resolve()
        if resolved in inputs:
            raise UsageError(f"{target}: is an input; originals are never overwritten.")
        if resolved in targets:
            raise UsageError(f"{source} and {targets[resolved]} would both be written to {target}.")
        if target.exists() and not overwrite:
            raise UsageError(f"{target}: exists; pass --overwrite to replace it.")
        targets[resolved] = source
    check_writable(output.parent if names_file else output)
    return jobs


def check_writable(folder: Path) -> None:
    """Raises [`UsageError`] if nothing can be written into `folder`, which need not exist yet."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"{folder}: cannot be a folder, because {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{folder}: cannot be written.")


def _demo(arguments: argparse.Namespace) -> None:
    check_writable(arguments.output)
    pipeline = _load(arguments)
    from .demo import run_demo

    print(run_demo(pipeline, arguments.output, arguments.seed))
    print(f"\nLook at {arguments.output / 'overview.png'} (damaged | restored | original).")


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.clean is None and not arguments.paired:
        raise UsageError("`evaluate` needs --clean or --paired.")
    if arguments.output is not None:
        check_writable(arguments.output.parent)
        if arguments.output.is_dir():
            raise UsageError(f"{arguments.output}: is a folder; the report needs a file name.")
    pipeline = _load(arguments)
    from .evaluation.benchmark import evaluate, summarise, to_report, to_table

    paired = {folder.resolve().name: folder for folder in arguments.paired}
    options = _pipeline_options(arguments)
    try:
        scores = evaluate(pipeline, clean=arguments.clean, paired=paired, seed=arguments.seed, limit=arguments.limit, **options)
    except (ValueError, OSError) as error:  # a folder without photographs, a file that is none
        raise UsageError(str(error)) from error
    rows = summarise(scores)
    print(to_table(rows))
    gains = [row["gain"] for row in rows if row["gain"] is not None]
    if gains:
        print(f"\nmean gain {sum(gains) / len(gains):+.2f} dB; {sum(g > 0 for g in gains)} of {len(gains)} families gain")
    if arguments.output is not None:
        hashes = checkpoint_hashes(_folder(arguments))
        report = to_report(
            scores, version=__version__, checkpoint=arguments.checkpoint, hashes=hashes, seed=arguments.seed, options=options
        )
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _info(arguments: argparse.Namespace) -> None:
    folder = _folder(arguments)
    device = _device(arguments.device)
    print(f"foundir_hf   {__version__}\ncheckpoint   {arguments.checkpoint} ({folder})\ndevice       {device}")
    pipeline = _load(arguments)
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


def _export(arguments: argparse.Namespace) -> None:
    check_writable(arguments.output)
    _load(arguments).save_pretrained(arguments.output)
    print(f"{arguments.output}: DiffusionPipeline.from_pretrained({str(arguments.output)!r}, trust_remote_code=True)")


def checkpoint_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a checkpoint, by relative path."""
    files = sorted(folder.rglob("*.safetensors"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _pipeline_options(arguments: argparse.Namespace) -> dict:
    multiple = 16
    for name in ("tile_size", "tile_overlap"):
        if getattr(arguments, name) % multiple:
            raise UsageError(f"`--{name.replace('_', '-')}` must be a multiple of {multiple}, got {getattr(arguments, name)}.")
    if arguments.tile_overlap >= arguments.tile_size:
        raise UsageError(f"`--tile-overlap` must be smaller than --tile-size {arguments.tile_size}, got {arguments.tile_overlap}.")
    return {
        "num_inference_steps": arguments.steps,
        "fidelity": arguments.fidelity,
        "strength": arguments.strength,
        "start_from": arguments.start_from,
        "tile_size": arguments.tile_size,
        "tile_overlap": arguments.tile_overlap,
        "color_fix": arguments.color_fix,
    }


def _load(arguments: argparse.Namespace):
    device = _device(arguments.device)
    from .hub import load_pipeline

    try:
        return load_pipeline(arguments.checkpoint, device=device)
    except (ValueError, OSError) as error:
        raise UsageError(str(error).splitlines()[0]) from error


def _folder(arguments: argparse.Namespace) -> Path:
    from .hub import resolve_checkpoint

    try:
        return resolve_checkpoint(arguments.checkpoint)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _generator(arguments: argparse.Namespace):
    import torch

    return torch.Generator().manual_seed(arguments.seed)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # `meta` makes tensors, but never numbers
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"`--device` {name!r} is not available here; try auto or cpu.") from error
    return name


def quiet_libraries() -> None:
    """Keeps the libraries' advice off the screen; their errors arrive as exceptions and are told in one line."""
    import logging

    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity(logging.CRITICAL)
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def _number(low: float, high: float):
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN fails too
            raise argparse.ArgumentTypeError(f"must be a number in [{low}, {high}], got {text!r}")
        return value

    return parse


def _whole(low: int, high: int):
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in [{low}, {high}], got {text!r}")
        return value

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
