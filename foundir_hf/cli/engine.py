"""The batch engine as the options of `foundir restore` set it up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

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
    from ..batch import Batch, Record
    from ..plan import Plan


def make_batch(arguments: argparse.Namespace, plan: Plan, records: Mapping[str, Record] | None) -> Batch:
    """The engine; it loads the model when there is something to do. Raises `ValueError`.

    Args:
        arguments: Of `foundir restore`.
        plan, records: See [`Batch`].
    """
    from ..batch import Batch
    from ..photo import Photo, write_photo

    options = {**pipeline_options(arguments), "upscale": arguments.upscale}
    if arguments.caption_model:
        if arguments.prompt:
            raise ValueError("`--prompt` and --caption-model both write the prompt; give one.")
        options["caption_model"] = arguments.caption_model
    facts = {"version": __version__, "weights": weight_hashes(arguments), "seed": arguments.seed}
    writing = {"metadata": arguments.metadata, "quality": arguments.quality}
    allowed, single = limits(arguments), len(plan.jobs) == 1
    drawn = arguments.change_map and arguments.change_map.absolute()  # a worker may be in another folder
    record = restoration_record(str(arguments.checkpoint), facts["weights"], options, arguments.seed)

    def load_model() -> Callable[[Photo], Photo]:
        quiet_libraries()  # before anything imports them, which takes seconds
        from ..deadline import stops_after
        from ..formats.record import with_record
        from ..photo import restore_photo
        from ..pictures import change_map, write_picture

        pipeline = load(arguments)
        check_options(arguments, pipeline)
        calling = {name: value for name, value in options.items() if name != "caption_model"}
        captioner = load_captioner(arguments, pipeline.device)
        # On terminals only (`None`): a bar over the tiles of a single photograph, or that over the photographs.
        pipeline.set_progress_bar_config(disable=None if single else True, leave=False, desc="restoring")
        modules = [part for part in pipeline.components.values() if hasattr(part, "register_forward_pre_hook")]

        def restored(photo: Photo) -> Photo:
            with stops_after(allowed.seconds, modules, "restoring it"):
                prompt = {} if captioner is None else {"prompt": captioner(photo.image)}
                result = restore_photo(pipeline, photo, generator=generator(arguments), **calling, **prompt)
            if drawn:
                write_picture(change_map(photo.image, result.image), drawn)
            if result is photo or arguments.no_record or arguments.metadata == "none":
                return result
            return result.changed(metadata=with_record(result.metadata, record))

        return restored

    return Batch(
        plan,
        load_model,
        {**facts, **options, **writing, "record": not arguments.no_record},
        write=partial(write_photo, **writing),
        overwrite=arguments.overwrite,
        limits=allowed,
        records=records,
    )


def check_map(arguments: argparse.Namespace, count: int) -> None:
    """Raises [`UsageError`] unless `--change-map` names a picture that can be written, of a single photograph; there are `count`."""
    from ..pictures import PICTURE_SUFFIXES

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
