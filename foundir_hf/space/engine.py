"""The model behind the page: loaded while the page is up already, one photograph at a time, watched and stopped between tiles."""

from __future__ import annotations

import importlib.util
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .limits import WAITING
from .line import Line
from .settings import SEED, Settings

if TYPE_CHECKING:  # the libraries take seconds to import, and the page is to be up before
    from ..interpret import Account
    from ..io.photograph import Photo
    from ..pipelines.pipeline_foundir import FoundIRPipeline

# Pipelines by checkpoint, where a process that ZeroGPU forks finds them.
_HELD: dict[str, FoundIRPipeline] = {}
_PATIENCE = 10.0  # seconds at the end, for a tile or for the libraries' import


@dataclass(frozen=True)
class Restored:
    """A restoration.

    Args:
        photo: The result, with the record of what was done in its XMP.
        seconds: That the model took.
        account: What its stages did.
    """

    photo: Photo
    seconds: float
    account: Account


class Engine:
    """Restores photographs by one checkpoint.

    Args:
        checkpoint: Bundled name, folder or Hub repository.
        device: As torch calls it, or `auto`.
        adapters: Folder of the server whose sub-folders are adapters; none offers none.
    """

    def __init__(self, checkpoint: str = "tiny", device: str = "auto", adapters: Path | None = None):
        self.checkpoint, self.device, self.adapters = checkpoint, device, adapters
        self.line = Line(WAITING)
        self.failure: Exception | None = None
        self.is_closing = False
        self._loading: threading.Thread | None = None
        self._ready, self._seconds = threading.Event(), {}
        self._hashes: dict[str, tuple[Path, dict[str, str]]] = {}  # see `weight_hashes`

    def start(self, then: Callable[[], None] = lambda: None, otherwise: Callable[[], None] = lambda: None) -> None:
        """Loads the model in a thread of its own, and then does `then`, or `otherwise` if it cannot be loaded: `failure` says why."""

        def run() -> None:
            if not self._ready.is_set():
                self.load()
            (then if self.failure is None else otherwise)()

        self._loading = threading.Thread(target=run, daemon=True, name="foundir-load")
        self._loading.start()

    def load(self) -> None:
        """Loads the model; what goes wrong is in `failure`."""
        try:
            self._load()
        except Exception as error:
            self.failure = error
        self._ready.set()

    def close(self) -> None:
        """Stops all work, and waits for its end: a process that ends while a thread is inside torch is aborted."""
        self.is_closing = True
        deadline = time.monotonic() + _PATIENCE
        if self._loading is not None:
            self._loading.join(_PATIENCE)
        while not self.line.is_empty and time.monotonic() < deadline:
            time.sleep(0.05)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._ready.is_set() and self.failure is None

    def wait_until_ready(self, step: Callable[[], None] = lambda: None) -> None:
        """Waits for the model. Raises what loading it raised."""
        while not self._ready.wait(0.2):
            step()
        if self.failure is not None:
            raise self.failure

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Those that the server offers."""
        if self.adapters is None or not self.adapters.is_dir():
            return ()
        return tuple(sorted(folder.name for folder in self.adapters.iterdir() if (folder / "foundir_adapter.json").is_file()))

    def expected_seconds(self, size: tuple[int, int], settings: Settings) -> float | None:
        """How long a photograph of this size will take, by those before it; none if there was none yet."""
        if not self._seconds:
            return None
        # Of another number of steps: the nearest, and every step costs about half of an estimate.
        known = min(self._seconds, key=lambda steps: abs(steps - settings.steps))
        ratio = (2 + settings.steps) / (2 + known)
        return self._seconds[known] * ratio * _megapixels(size) * settings.upscale(size) ** 2

    def restore(self, photo: Photo, settings: Settings, step: Callable[[int, int], None]) -> Restored:
        """Restores a photograph as the command line does, byte for byte; called by one job at a time.

        Args:
            photo: From the package's reader.
            settings: Checked.
            step: Called with tiles done and in all; what it raises ends the work.
        """
        from ..cli.common import pipeline_options, restoration_record, weight_hashes
        from ..io.record import with_record

        arguments = settings.arguments(self.checkpoint, self.adapters, photo.size)
        options = {**pipeline_options(arguments), "upscale": arguments.upscale}
        adapters = [(str(Path(self.adapters or "") / name), weight) for name, weight in settings.adapters]
        start = time.perf_counter()
        result, account, tiling = _compute(self.checkpoint, photo, options, adapters, None if is_zero_gpu() else step)
        seconds = time.perf_counter() - start
        if result is not photo:
            if photo.pixels.size >= 1000:  # of next to nothing a time says nothing
                rate = seconds / _megapixels(result.size)
                before = self._seconds.get(settings.steps, rate)
                self._seconds[settings.steps] = (before + rate) / 2
            record = restoration_record(self.checkpoint, weight_hashes(arguments, self._hashes), {**options, **tiling}, SEED)
            result = result.changed(metadata=with_record(result.metadata, record))
        return Restored(result, seconds, account)

    def tone_curves(self, curves: Any, points: int = 64) -> Any:
        """What the curves of one image make of light in [0, 1]: `(9, 3, points)`, for a raster of 3 x 3 places and for red, green, blue."""
        import torch
        import torch.nn.functional as F

        tone: Any = _HELD[self.checkpoint].tone
        places = F.adaptive_avg_pool2d(curves.float(), 3)[0].flatten(1).T[:, :, None, None]  # (9, 9, 1, 1)
        ramp = torch.linspace(-1, 1, points).expand(9, 3, 1, points)
        with torch.no_grad():
            return ((tone.apply_curves(ramp, places) + 1) / 2)[:, :, 0].clamp(0, 1).numpy()

    def _load(self) -> None:
        from ..cli.common import pick_device, quiet_libraries

        quiet_libraries()  # before what is imported next has something to say
        from ..diagnosis import load_classifier
        from ..hub import load_pipeline

        device = "cuda" if is_zero_gpu() else pick_device(self.device)
        # One after the other: two threads that load at once leave torch making weights without memory, for good (accelerate's context
        # for empty weights patches a class, and each thread restores what it found).
        load_classifier()
        _HELD[self.checkpoint] = load_pipeline(self.checkpoint, device=device)


def _megapixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / 1e6


def is_zero_gpu() -> bool:
    """Whether this is a Space whose GPU is lent for a call at a time."""
    if importlib.util.find_spec("spaces") is None:
        return False
    import spaces  # pyright: ignore[reportMissingImports]

    return bool(spaces.config.Config.zero_gpu)


def _on_gpu(function: Callable) -> Callable:
    """With a GPU lent for the call, where Hugging Face lends them; elsewhere the function itself."""
    if importlib.util.find_spec("spaces") is None:
        return function
    import spaces  # pyright: ignore[reportMissingImports]

    return spaces.GPU(duration=_seconds_on_gpu)(function)


def _seconds_on_gpu(held: str, photo: Photo, options: dict[str, Any], *rest: Any) -> int:
    """How long `_compute` borrows a GPU, by the same arguments. What is asked for must be left of the minutes that a visitor has for a day,
    and what takes longer may be ended: so it is what two cores take, 120 s for 24 megapixels, and 15 s for the start."""
    megapixels = _megapixels(photo.size) * options["upscale"] ** 2
    return min(120, round(15 + 5 * megapixels * (2 + options["num_inference_steps"]) / 3))


@_on_gpu
def _compute(
    held: str, photo: Photo, options: dict[str, Any], adapters: list[tuple[str, float]], step: Callable[[int, int], None] | None
) -> tuple[Photo, Account, dict[str, int | None]]:
    """The restoration itself, and the tiles that it took. Under ZeroGPU it runs in a process that was forked at some time, so it loads
    adapters itself, and there is no `step`, which cannot go there."""
    import torch

    from ..interpret import record_stages
    from ..restoration.photo import restore_photo

    pipeline = _HELD[held]
    _use_adapters(pipeline, adapters)
    pipeline.progress_bar = partial(_Bar, step)
    try:
        with record_stages(pipeline) as account:
            result = restore_photo(pipeline, photo, generator=torch.Generator().manual_seed(SEED), **options)
    finally:
        del pipeline.progress_bar  # which knows the job, and so its pictures
        pipeline.maybe_free_model_hooks()
    account.routing = [weights.cpu() for weights in account.routing]  # for where there is no GPU
    return result, account, pipeline.tiling


def _use_adapters(pipeline: FoundIRPipeline, adapters: list[tuple[str, float]]) -> None:
    """These, with these weights, and no others."""
    from ..adapters.files import load_adapter

    loaded = {name for names in pipeline.get_list_adapters().values() for name in names}
    weights = {}
    for folder, weight in adapters:
        # A dot would divide the name in two; and no two folders have one name, such as `a.b` and `a_b`.
        name = "page_" + re.sub(r"[\W_]", lambda found: f"_{ord(found[0]):x}_", Path(folder).name)
        weights[name] = weight
        if name not in loaded:
            load_adapter(pipeline, folder, name)
    loaded = sorted({name for names in pipeline.get_list_adapters().values() for name in names})
    if loaded:
        pipeline.set_adapters(loaded, [weights.get(name, 0.0) for name in loaded])


class _Bar(AbstractContextManager):
    """The pipeline's progress bar. Stopping here, between tiles of any stage, leaves nothing half done: `interrupt` would first finish
    the picture, encoder and decoder over all tiles, which nobody waits for any more."""

    def __init__(self, step: Callable[[int, int], None] | None, total: int):
        self.step, self.done, self.total = step, 0, total
        self._tell()

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self) -> None:
        self.done += 1
        self._tell()

    def _tell(self) -> None:
        if self.step is not None:
            self.step(self.done, self.total)
