"""The batch engine as the options of `foundir restore` set it up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import __version__
from .common import (
    UsageError,
    check_options,
    check_writable,
    generator,
    limits,
    load,
    load_captioner,
    pipeline_options,
    quiet_libraries,
    restoration_record,
    weight_hashes,
)

if TYPE_CHECKING:
    from ..io.photograph import Photo
    from ..pipelines.pipeline_foundir import FoundIRPipeline
    from ..restoration.batch import Batch, Record
    from ..restoration.plan import Plan


def make_batch(arguments: argparse.Namespace, plan: Plan, records: Mapping[str, Record] | None, photos: Iterable[str]) -> Batch:
    """The engine; it loads the model when there is something to do. Raises `ValueError`.

    Args:
        arguments: Of `foundir restore`.
        plan, records: See [`Batch`].
        photos: Names of all that will be restored, where the plan does not have them yet too.
    """
    from ..io.captions import read_captions
    from ..io.writing import write_photo
    from ..restoration.batch import Batch

    options = {**pipeline_options(arguments), "upscale": arguments.upscale}
    if sum(map(bool, (arguments.prompt, arguments.captions, arguments.caption_model))) > 1:
        raise ValueError("`--prompt`, --captions and --caption-model each write the prompt; give one.")
    captions = read_captions(arguments.captions, photos) if arguments.captions else {}
    if arguments.caption_model:
        options["caption_model"] = arguments.caption_model
    if arguments.memory:
        options["memory"] = arguments.memory
    facts = {"version": __version__, "weights": weight_hashes(arguments), "seed": arguments.seed}
    writing = {"metadata": arguments.metadata, "quality": arguments.quality}
    allowed, single = limits(arguments), len(plan.jobs) == 1
    drawn = arguments.change_map and arguments.change_map.absolute()  # a worker may be in another folder

    def load_model() -> Callable[..., Photo]:
        quiet_libraries()  # before anything imports them, which takes seconds
        from ..io.deadline import stops_after
        from ..io.pictures import change_map, write_picture
        from ..io.record import with_record
        from ..restoration.photo import restore_photo

        pipeline = load(arguments)
        check_options(arguments, pipeline)
        calling = {name: value for name, value in options.items() if name not in ("caption_model", "memory")}
        captioner = load_captioner(arguments, pipeline.device)
        # On terminals only (`None`): a bar over the tiles of a single photograph, or that over the photographs.
        pipeline.set_progress_bar_config(disable=None if single else True, leave=False, desc="restoring")
        modules = [part for part in pipeline.components.values() if hasattr(part, "register_forward_pre_hook")]

        def restored(photo: Photo, **own: str) -> Photo:
            with stops_after(allowed.seconds, modules, "restoring it"):
                if captioner is not None:
                    own["prompt"] = captioner(photo.image)
                tiles = tiles_that_fit(pipeline, photo, arguments) if arguments.memory else {}
                result = restore_photo(pipeline, photo, generator=generator(arguments), **{**calling, **own, **tiles})
            if drawn:
                write_picture(change_map(photo.image, result.image), drawn, quality=90)
            if result is photo or arguments.no_record or arguments.metadata == "none":
                return result
            done = {**options, **own, **pipeline.tiling}
            record = restoration_record(str(arguments.checkpoint), facts["weights"], done, arguments.seed)
            return result.changed(metadata=with_record(result.metadata, record))

        return restored

    return Batch(
        plan,
        load_model,
        {**facts, **options, **writing, "record": not arguments.no_record},
        options={name: {"prompt": caption} for name, caption in captions.items()},
        write=partial(write_photo, **writing),
        overwrite=arguments.overwrite,
        limits=allowed,
        records=records,
    )


def tiles_that_fit(pipeline: FoundIRPipeline, photo: Photo, arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the pipeline's call that keep a photograph within `--memory`. Raises `ValueError` if none does."""
    width, height = (max(1, round(side * arguments.upscale)) for side in photo.size)
    held = 0
    if pipeline.device.type == "cpu":  # beside what the plan counts: the file, and copies in single precision of what is no plain RGB
        as_it_is = photo.alpha is None and photo.pixels.ndim == 3 and photo.pixels.dtype.itemsize <= 2 and arguments.upscale == 1
        held = (len(photo.encoded[1]) if photo.encoded else 0) + (photo.pixels.nbytes if as_it_is else 3 * 12 * width * height)
    if held >= arguments.memory:
        raise ValueError(f"`--memory` {arguments.memory} bytes are too little for {width} x {height} pixels.")
    plan = pipeline.plan(
        width,
        height,
        arguments.memory - held,
        num_inference_steps=arguments.steps,
        guidance_scale=arguments.guidance or 1.0,
        fidelity=arguments.fidelity,
        tile_overlap=arguments.tile_overlap,
        kinds=("",),
    )
    return plan.options


def check_map(arguments: argparse.Namespace, count: int) -> None:
    """Raises [`UsageError`] unless `--change-map` names a picture that can be written, of a single photograph; there are `count`."""
    from ..io.pictures import PICTURE_SUFFIXES

    path = arguments.change_map
    if path is None:
        return
    if count > 1:
        raise UsageError(f"`--change-map` is of a single photograph; there are {count}.")
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"`--change-map` {path}: must end in one of {', '.join(PICTURE_SUFFIXES)}.")
    if path.exists() and not arguments.overwrite:
        raise UsageError(f"{path}: exists; pass --overwrite to replace it.")
    check_writable(path.parent)
