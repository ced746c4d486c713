"""Many photographs at once, by the engine of `foundir restore`: a folder in, a zip with the manifest out."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..io.limits import Limits
from ..io.photograph import Photo, PhotoError
from ..io.writing import write_photo
from ..restoration.batch import Batch, Result
from ..restoration.manifest import MANIFEST
from ..restoration.plan import Plan, plan_photos
from .engine import Engine
from .errors import without_options
from .job import Job
from .limits import PAGE_LIMITS, check_result
from .line import LineFullError
from .settings import SEED, Settings
from .work import StoppedError, Work


@dataclass(frozen=True)
class State:
    """Of one photograph of a batch; `status` is `waiting`, `working`, `restored` or `failed`, `note` what there is to say."""

    name: str
    status: str = "waiting"
    note: str = ""


class BatchWork(Work):
    """A batch, whose result is the path of the zip; between its photographs other visitors have their turn. Making one starts it.

    Args:
        engine: That restores.
        folder: Of the inputs, in `in` (see [`gather`]), which go one by one, and of the zip.
        settings: For all of them.
        limits: What a photograph may take.

    Raises:
        PhotoError: If two photographs would get the same name.
    """

    def __init__(self, engine: Engine, folder: Path, settings: Settings, limits: Limits = PAGE_LIMITS):
        super().__init__()
        self.engine, self.settings, self.folder, self.limits = engine, settings, folder, limits
        self.plan = self._plan()
        self.results: list[Result] = []
        self.current: Job | None = None
        self.start()

    @property
    def states(self) -> list[State]:
        """Of every photograph, in their order."""
        done = {result.job.name: result for result in self.results}
        states, is_next = [], not self.is_finished
        for job in self.plan.jobs:
            if (result := done.get(job.name)) is not None:
                note = result.record.get("error") or "; ".join(result.record.get("notes", []))
                states.append(State(job.name, result.status, without_options(note.removeprefix(f"{job.name}: "))))
            else:
                states.append(State(job.name, "working" if is_next else "waiting"))
                is_next = False
        return states

    def cancel(self) -> None:
        """Stops it at the next tile."""
        super().cancel()
        if self.current is not None:
            self.current.cancel()

    def do(self) -> Path:
        """Restores all of them into the zip; of a photograph nothing else stays, and of a batch that ends in another way nothing at all."""
        settings = {**asdict(self.settings), "seed": SEED}
        batch = Batch(self.plan, lambda: self._restored, settings, write=self._write, limits=self.limits)
        target = self.folder / "restored.zip"
        try:
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # photographs are compressed already
                for result in batch.run():
                    self.check()
                    if result.status == "restored":
                        archive.write(result.job.target, self.plan.output(result.job))
                        result.job.target.unlink()
                    result.job.source.unlink(missing_ok=True)
                    self.results.append(result)
                archive.write(self.plan.folder / MANIFEST, MANIFEST)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            for folder in (self.folder / "in", self.plan.folder):
                shutil.rmtree(folder, ignore_errors=True)
        return target

    def _plan(self) -> Plan:
        inputs, outputs = self.folder / "in", self.folder / "out"
        plan = plan_photos([inputs], outputs)
        jobs = []
        for job in plan.jobs:
            target = job.target.with_suffix(self.settings.suffix) if self.settings.suffix else job.target
            # The name that the visitor knows: where the server keeps a file is nobody's business, and the manifest says what it is told.
            jobs.append(replace(job, target=target, name=job.source.relative_to(inputs).as_posix()))
        if len({job.target for job in jobs}) < len(jobs):
            raise PhotoError("Two of the photos would get the same name in that format; keep `format` as it came, or rename one.")
        return replace(plan, jobs=jobs)

    def _restored(self, photo: Photo) -> Photo:
        self.check()
        check_result(photo.size, self.settings.upscale(photo.size), self.limits)
        self.current = self._queued(photo, self.engine.expected_seconds(photo.size, self.settings) or 1.0)
        if self.is_cancelled:  # since the check: then `cancel` stopped the one before
            self.current.cancel()
        self.current.wait()
        return self.current.outcome().photo

    def _queued(self, photo: Photo, seconds: float) -> Job:
        """Waits for a place in the line too: a batch has been taken in already."""
        while True:
            try:
                return Job(self.engine, seconds, lambda job: self.engine.restore(photo, self.settings, job.step))
            except LineFullError:
                if self._stop.wait(0.5):
                    raise StoppedError("Cancelled.") from None

    def _write(self, photo: Photo, path: Path) -> tuple[str, ...]:
        return write_photo(photo, path, quality=self.settings.quality)
