"""What happens on the page, without its layout: from what a visitor sent to what they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..io.decoder import Decoder
from ..io.limits import Limits
from ..io.photograph import Photo, PhotoError
from . import markup, pictures
from .engine import Engine, Restored, is_zero_gpu
from .examples import EXAMPLES
from .job import Job
from .limits import PAGE_LIMITS, check_result
from .line import LineFullError
from .settings import Settings
from .visitors import Visitor, Visitors

if TYPE_CHECKING:  # brings torch
    from .batch import BatchWork


@dataclass(frozen=True)
class Finished:
    """A restoration, as files and facts for the page.

    Args:
        photo: What was restored.
        restored: From the engine.
        file: The download.
        notes: What could not be kept, one line each.
        before, after: Previews of one size, for the slider.
        size: Width and height of the result.
        kept: Whether it was there already: an example.
    """

    photo: Photo
    restored: Restored
    file: Path
    notes: tuple[str, ...]
    before: str
    after: str
    size: tuple[int, int]
    kept: bool


class Desk:
    """Serves visitors.

    Args:
        engine: That restores.
        visitors: Who is there.
        limits: What a photograph may take; pixels of the result too, seconds for reading it.
    """

    def __init__(self, engine: Engine, visitors: Visitors, limits: Limits = PAGE_LIMITS):
        self.engine, self.visitors, self.limits = engine, visitors, limits
        self._kept: dict[tuple[str, Settings], Restored] = {}  # of the examples
        self._decoder = Decoder()

    def open(self) -> None:
        """Starts the process that decodes, before the first photograph needs it."""
        self._decoder.start()

    def close(self) -> None:
        """Ends the process that decodes."""
        self._decoder.close()

    def warm_up(self) -> None:
        """Restores the examples while nobody is waiting: they are shown at once then, and how long a photograph takes is known."""
        if is_zero_gpu():  # a GPU is lent to visitors, and is not for this
            return
        for example in EXAMPLES:
            if self.engine.is_closing:
                return
            photo = self.read(str(example.path))
            try:
                job = Job(self.engine, 1.0, lambda job, photo=photo: self.engine.restore(photo, Settings(), job.step))
            except LineFullError:
                return
            job.wait()
            if job.error is None:
                self._kept[example.task, Settings()] = job.result

    def read(self, path: str) -> Photo:
        """A photograph, decoded in a process of its own, one after the other: what strangers send may hang or crash the libraries.

        The model need not be there yet. Raises [`PhotoError`], for what is too large before it is decoded, and `TimeoutError`.
        """
        if not Path(path).exists():
            raise PhotoError("This photo is no longer here: files are deleted after an hour. Please choose it again.")
        return self._decoder.read(path, self.limits)

    def photo(self, path: str, visitor: Visitor) -> Photo:
        """The same of a visitor's photograph, which is decoded already unless others' have taken the memory. Raises what [`read`] does."""
        known = visitor.decoded
        return known[1] if known is not None and known[0] == path else self.read(path)

    def accept(self, path: str, visitor: Visitor) -> None:
        """Reads a photograph that was put on the page. Raises what [`read`] does."""
        visitor.uploads.add(path)
        photo = self.read(path)
        self.visitors.remember(visitor, path, photo)
        visitor.source, visitor.shown, visitor.size = path, path, photo.size
        if Path(path).suffix.lower() not in pictures.SHOWN_AS_THEY_ARE:
            visitor.shown = pictures.preview(photo, visitor.room(is_result=False), Path(path).stem)

    def diagnose(self, path: str, visitor: Visitor) -> tuple[dict[str, float], tuple[int, int]]:
        """Probabilities of defects, the likeliest first, and the photograph's size. Raises what [`read`] does."""
        photo = self.photo(path, visitor)
        self.engine.wait_until_ready()  # its thread imports libraries, and two threads at once would find them half done
        from ..diagnosis import diagnose

        return diagnose(photo.image.convert("RGB")), photo.size

    def begin(self, path: str, settings: Settings, visitor: Visitor) -> Job:
        """Puts a photograph into the line. Raises what [`read`] does, [`SettingError`], [`LineFullError`]."""
        visitor.uploads.add(path)
        photo = self.photo(path, visitor)
        check_result(photo.size, settings.upscale(photo.size), self.limits)
        room, example = visitor.room(), visitor.example if path == visitor.source else None

        def work(job: Job) -> Finished:
            from ..io.writing import write_photo

            kept = self._kept.get((example, settings)) if example else None
            restored = kept or self.engine.restore(photo, settings, job.step)
            if example and settings == Settings():
                self._kept[example, settings] = restored
            job.label = "writing"
            file = room / settings.name_of(path)
            notes = write_photo(restored.photo, file, quality=settings.quality)
            job.step()
            size = restored.photo.size
            before, after = pictures.preview(photo, room, "before", size), pictures.preview(restored.photo, room, "after")
            return Finished(photo, restored, file, notes, before, after, size, kept is not None)

        return Job(self.engine, self.engine.expected_seconds(photo.size, settings) or 1.0, work)

    def begin_batch(self, files: list[str] | None, settings: Settings, visitor: Visitor) -> tuple[BatchWork, list[str]]:
        """Begins a batch; also the names of what was left out. Raises [`PhotoError`]."""
        if not files:
            raise PhotoError("Drop photos or a zip first.")
        self.engine.wait_until_ready()
        from .batch import BatchWork
        from .gather import gather

        visitor.uploads.update(files)
        room = visitor.room()
        left_out = gather(files, room / "in", self.limits)
        return BatchWork(self.engine, room, settings, self.limits), left_out

    def expectation(self, size: tuple[int, int], settings: Settings) -> str:
        """What a visitor is told before they start."""
        try:
            upscale = settings.upscale(size)
            check_result(size, upscale, self.limits)
        except ValueError as error:
            return markup.note(str(error), "bad")
        seconds = self.engine.expected_seconds(size, settings)
        result = " x ".join(str(round(side * upscale)) for side in size)
        if seconds is None:
            told = "How long it takes is known after the first photo here."
        else:
            told = f"Takes about {markup.duration(seconds)} here"
            waiting = self.engine.line.seconds
            told += f", after about {markup.duration(waiting)} of other visitors' photos." if waiting >= 1 else "."
        return markup.note(f"Result: {result} pixels. {told}")

    def how_far(self, job: Job) -> tuple[float, str]:
        """The share that is done, and words for it."""
        if job.elapsed is None:
            ahead, seconds = self.engine.line.ahead(job.ticket)
            others = "1 photo is" if ahead == 1 else f"{ahead} photos are"
            return (
                0.0,
                f"Waiting: {others} before yours. It starts in about {markup.duration(seconds)} and takes {markup.duration(job.seconds)}.",
            )
        if not self.engine.is_ready:
            return 0.0, "The server has just started: your photo is next, once the model is loaded…"
        if job.label == "writing":
            return 0.98, "Writing the file at full quality…"
        by_time = min(job.elapsed / max(job.seconds, 0.1), 0.95)
        if not job.total:
            return by_time, "Starting…"
        share = max(job.done / job.total, by_time) if job.seconds > 1.5 else job.done / job.total
        # As fast as it has been so far; before the second tile, as fast as photographs were before it.
        left = job.elapsed / job.done * (job.total - job.done) if job.done > 1 else job.seconds - job.elapsed
        return min(share, 0.97), f"Restoring: {job.done} of {job.total} steps done, about {markup.duration(left)} left."

    def changes(self, finished: Finished) -> str:
        """The path of a picture of where a photograph changed."""
        return _kept(pictures.changes(finished.photo, finished.restored.photo), finished, "changes.png")

    def account(self, finished: Finished) -> dict[str, Any]:
        """What was done, for the page: paths of the pictures `changes` and `experts`, of the pair `estimate`, and HTML, `crops`,
        `legend` and `curves`; none where there is nothing to show."""
        from ..interpret import EXPERTS

        photo, account, after = finished.photo, finished.restored.account, finished.restored.photo
        estimate = experts = pair = None
        if account.estimate is not None:
            estimate = account.estimate[:, : finished.size[1], : finished.size[0]].permute(1, 2, 0).numpy()
            first = _kept(pictures.small(Image.fromarray(estimate)), finished, "estimate.jpg")
            pair = first, _kept(pictures.small(after.image.convert("RGB")), finished, "finished.jpg")
        weights = account.expert_map()
        if weights is None or account.grid is None or account.estimate is None:
            legend = markup.note("The denoiser did not run: the fast preset is the first estimate alone.")
        else:
            scale = round(account.estimate.shape[2] / account.grid.width)
            width, height = (-(-side // scale) for side in finished.size)
            picture, shares = pictures.experts(weights, (width, height))
            experts, legend = _kept(picture, finished, "experts.png"), markup.legend(EXPERTS, shares)
        if account.curves is None:
            curves = markup.note("The tone curves were off.")
        elif not account.curves.any():
            curves = markup.note("The tone curves looked, and left exposure, haze and colour as they were.")
        else:
            curves = markup.curves(self.engine.tone_curves(account.curves))
        crops, columns = pictures.crops(photo, estimate, after)
        return {
            "changes": self.changes(finished),
            "experts": experts,
            "legend": legend,
            "curves": curves,
            "estimate": pair,
            "crops": markup.full_size(
                _kept(crops, finished, "crops.png"), "Where it changed most, pixel by pixel", columns, "Up to three places, one a row"
            ),
        }

    def summary(self, finished: Finished) -> str:
        """What a visitor is told of a finished photograph."""
        photo = finished.restored.photo
        depth = "floating point" if photo.pixels.dtype.kind == "f" else f"{8 * photo.pixels.dtype.itemsize} bits a channel"
        when = " (when the server started: it is one of our examples)" if finished.kept else ""
        text = f"Done in {finished.restored.seconds:.1f} s{when}. {finished.size[0]} x {finished.size[1]} pixels, {depth}."
        return markup.note(text, "good") + "".join(markup.note(f"{line}.") for line in finished.notes)


def _kept(picture: Image.Image, finished: Finished, name: str) -> str:
    """The path of a picture beside the download."""
    path = finished.file.parent / name
    picture.save(path, quality=92)
    return str(path)
