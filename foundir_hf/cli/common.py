"""What the verbs share: options, checks, loading, what is told. Every failure a person can cause is a [`UsageError`] or a [`WorkError`]."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import __version__
from ..io.files import is_url
from ..io.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import torch

    from ..captioning import Captioner
    from ..pipelines.pipeline_foundir import FoundIRPipeline


class UsageError(Exception):
    """Something that the person at the keyboard can put right: told in one line, exit code 2."""


class WorkError(Exception):
    """Work that was asked for rightly and failed, in part or whole: told in one line, exit code 1."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line instead of argparse's usage block."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"foundir: {message} (see `{self.prog} --help`)\n")


def model_options() -> Parser:
    """`--checkpoint`, `--device`, `--seed`."""
    parser = Parser(add_help=False)
    parser.add_argument("--checkpoint", default="tiny", help="bundled name, folder or Hub repository (default: tiny)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--seed", type=whole(0, 2**63 - 1), default=0, help="same seed, same bytes (default: 0)")
    return parser


def adapter_options() -> Parser:
    """`--adapter`, see [`load`]."""
    parser = Parser(add_help=False)
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="DIR[:WEIGHT]", help="folder or Hub repository; repeatable (weight: 1)"
    )
    return parser


def restoration_options() -> Parser:
    """Options of the pipeline's call; see [`pipeline_options`] and [`check_options`]."""
    parser = Parser(add_help=False)
    parser.add_argument("--steps", type=whole(0, 1000), default=1, help="denoising steps; 0 is the fast estimate (default: 1)")
    parser.add_argument(
        "--tone",
        choices=("auto", "off", "always"),
        default="auto",
        help="mend exposure, haze and colour of the whole where the model is sure, never, or however unsure it is (default: auto)",
    )
    parser.add_argument(
        "--fidelity", type=number(0, 1), help="0 decodes latents alone, 1 adds what they cannot hold (default: the checkpoint's own)"
    )
    parser.add_argument("--strength", type=number(0, 1), default=1.0, help="0 returns the input, 1 the restoration (default: 1)")
    parser.add_argument("--start-from", choices=("noise", "lq"), default="noise", help="where the diffusion starts (default: noise)")
    parser.add_argument("--prompt", help="what the photographs show (checkpoints with text encoders)")
    parser.add_argument("--negative-prompt", help="what they do not show, for --guidance")
    parser.add_argument("--guidance", type=number(0, 100), help="classifier-free guidance; above 1 a step takes two passes (default: 1)")
    parser.add_argument("--tile-size", type=whole(1, 2**20), default=1024, help="pixels, for tiny a multiple of 32 (default: 1024)")
    parser.add_argument("--tile-overlap", type=whole(0, 2**20), default=128, help="pixels, for tiny a multiple of 32 (default: 128)")
    parser.add_argument("--color-fix", choices=("adain", "wavelet"), help="take colours from the input (for super-resolution)")
    return parser


def check_writable(folder: Path) -> None:
    """Raises [`UsageError`] if nothing can be written into `folder`, which need not exist yet."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"{folder}: cannot be a folder, because {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise UsageError(f"{folder}: cannot be written.")


def limit_options(
    defaults: Limits = DEFAULT_LIMITS,
    *,
    megapixels: str = "of a photograph, before it is decoded",
    megabytes: str = "of a file, before it is read",
    seconds: str = "for reading a file, and again for restoring it",
) -> Parser:
    """`--max-megapixels`, `--max-megabytes`, `--max-seconds`, and what their helps say that they are of; see [`limits`]."""
    parser = Parser(add_help=False)
    for name, what in (("megapixels", megapixels), ("megabytes", megabytes), ("seconds", seconds)):
        default = getattr(defaults, name)
        parser.add_argument(
            f"--max-{name}", type=number(0, 1e12), default=default, metavar="N", help=f"refuse more {name} {what} (default: {default:g})"
        )
    return parser


def limits(arguments: argparse.Namespace) -> Limits:
    """What a file may take."""
    return Limits(arguments.max_megapixels, arguments.max_megabytes, arguments.max_seconds)


def pipeline_options(arguments: argparse.Namespace) -> dict:
    """The keyword arguments of the pipeline's call."""
    text = {"prompt": arguments.prompt, "negative_prompt": arguments.negative_prompt, "guidance_scale": arguments.guidance}
    return {
        "num_inference_steps": arguments.steps,
        "tone": arguments.tone,
        "fidelity": arguments.fidelity,
        "strength": arguments.strength,
        "start_from": arguments.start_from,
        "tile_size": arguments.tile_size,
        "tile_overlap": arguments.tile_overlap,
        "color_fix": arguments.color_fix,
        **{name: value for name, value in text.items() if value is not None},
    }


def check_options(arguments: argparse.Namespace, pipeline: FoundIRPipeline) -> None:
    """Raises [`UsageError`] for options of the pipeline's call that this checkpoint cannot take."""
    multiple = pipeline.size_multiple
    for name in ("tile_size", "tile_overlap"):
        if getattr(arguments, name) % multiple:
            raise UsageError(f"`--{name.replace('_', '-')}` must be a multiple of {multiple}, got {getattr(arguments, name)}.")
    if arguments.tile_overlap >= arguments.tile_size:
        raise UsageError(f"`--tile-overlap` must be smaller than --tile-size {arguments.tile_size}, got {arguments.tile_overlap}.")
    if arguments.steps == 0 and not pipeline.unet.config.latent_residual:
        raise UsageError("`--steps` must be at least 1 with this checkpoint, which has no fast estimate; got 0.")
    if pipeline.text_encoder is None and pipeline.text_encoder_2 is None:
        text = {"--prompt": arguments.prompt, "--negative-prompt": arguments.negative_prompt, "--guidance": (arguments.guidance or 0) > 1}
        text |= {f"--{name.replace('_', '-')}": getattr(arguments, name, None) for name in ("captions", "caption_model")}
        if given := [name for name, value in text.items() if value]:
            raise UsageError(f"`{given[0]}` needs a checkpoint with text encoders.")
    if arguments.tone == "always" and pipeline.tone is None:
        raise UsageError("`--tone` must be auto or off with this checkpoint, which has no tone curves; got always.")


def load(arguments: argparse.Namespace):
    """The pipeline that `--checkpoint` and `--device` name, with the adapters of `--adapter`, if the verb has it."""
    adapters = [split_weight(text) for text in getattr(arguments, "adapter", [])]
    device = pick_device(arguments.device)
    quiet_libraries()
    from ..hub import load_pipeline

    try:
        pipeline = load_pipeline(arguments.checkpoint, device=device)
        if adapters:
            from ..adapters.files import load_adapter

            names = [load_adapter(pipeline, source, f"adapter_{number}") for number, (source, _) in enumerate(adapters)]
            pipeline.set_adapters(names, [weight for _, weight in adapters])
        return pipeline
    except (ValueError, OSError) as error:
        raise UsageError(str(error).splitlines()[0]) from error


def load_captioner(arguments: argparse.Namespace, device: torch.device) -> Captioner | None:
    """The model that `--caption-model` names, if it names one."""
    if not arguments.caption_model:
        return None
    from ..captioning import Captioner

    try:
        return Captioner(arguments.caption_model, device)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def split_weight(text: str) -> tuple[str, float]:
    """`DIR:WEIGHT` -> both; an existing path wins, colons and all, and so does `C:\\DIR`, whose end is no number."""
    source, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return text, 1.0
    try:
        value = float(weight)
    except ValueError:
        return text, 1.0
    if not source or not math.isfinite(value):
        raise UsageError(f"`--adapter` must be DIR or DIR:WEIGHT with a finite weight, got {text!r}.")
    return source, value


def checkpoint_folder(arguments: argparse.Namespace) -> Path:
    """Where the files of `--checkpoint` are."""
    from ..hub import resolve_checkpoint

    try:
        return resolve_checkpoint(arguments.checkpoint)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def weight_hashes(arguments: argparse.Namespace, known: dict[str, tuple[Path, dict[str, str]]] | None = None) -> dict[str, str]:
    """SHA-256 of the weight files that `--checkpoint` and `--adapter` name; those of an adapter with its weight. What is `known` of one of
    these, its folder and the hashes of its files, is not looked for again, and what is found is known afterwards."""
    from ..hub import checkpoint_hashes

    known = {} if known is None else known

    def look(name: str, folder_of: Callable[[], Path]) -> tuple[Path, dict[str, str]]:
        if name not in known:
            folder = folder_of()
            known[name] = folder, checkpoint_hashes(folder)
        return known[name]

    hashes = dict(look(arguments.checkpoint, partial(checkpoint_folder, arguments))[1])
    for source, weight in map(split_weight, arguments.adapter):
        folder, of_adapter = look(source, partial(_adapter_folder, source))
        hashes |= {f"{folder.name}:{weight:g}/{file}": digest for file, digest in of_adapter.items()}
    return hashes


def _adapter_folder(source: str) -> Path:
    from ..pipelines.lora_foundir import find_adapter  # not for whoever has no adapters: it imports torch

    return find_adapter(source)


def restoration_record(checkpoint: str, weights: Mapping[str, str], options: Mapping[str, Any], seed: int) -> dict[str, str]:
    """What a restored photograph's XMP says of how it was made; `weights` are those of [`weight_hashes`], `options` the pipeline's."""
    return {
        "software": f"foundir_hf {__version__}",
        "checkpoint": checkpoint,
        "weights": ", ".join(f"{name} {digest[:16]}" for name, digest in weights.items()),
        "settings": json.dumps(options, sort_keys=True),
        "seed": str(seed),
    }


def generator(arguments: argparse.Namespace):
    """Random numbers from `--seed`, on the CPU."""
    import torch

    return torch.Generator().manual_seed(arguments.seed)


def pick_device(name: str) -> str:
    """A device that works here; `auto` prefers CUDA, then MPS."""
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


def some_path(text: str) -> Path:
    """An argparse type: a path that is not empty, which `Path` would take for the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def some_place(text: str) -> Path | str:
    """An argparse type: [`some_path`], or a URL as text."""
    return text if is_url(text) else some_path(text)


def told(error: Exception) -> str:
    """What an exception says to a person: of one of the system, the file and what is the matter with it."""
    return f"{error.filename}: {error.strerror}." if isinstance(error, OSError) and error.filename else str(error)


def one_line(text: str) -> str:
    """Text with escapes for what would break a line or cannot be spelt: control characters and bytes of names that are no text."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda found: found[0].encode("unicode_escape").decode(), text)


def quiet_libraries() -> None:
    """Keeps the libraries' advice off the screen; their errors arrive as exceptions and are told in one line."""
    import logging

    logging.getLogger("xformers").setLevel(logging.ERROR)  # a page of warnings where it was built for another PyTorch
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity(logging.CRITICAL)
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def memory_size(text: str) -> int:
    """An argparse type: bytes, from `8GB`, `7.5GiB` or a number."""
    from ..pipelines.memory_foundir import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def number(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number in [low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # NaN fails too
            raise argparse.ArgumentTypeError(f"must be a number in [{low}, {high}], got {text!r}")
        return value

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number in [low, high]."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in [{low}, {high}], got {text!r}")
        return value

    return parse
