"""Many photographs at once: files or a zip in, a zip with the manifest out, by the engine of `foundir restore`."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from ..batch import Batch, Result
from ..files import IMAGE_SUFFIXES
from ..manifest import MANIFEST
from ..photo import Photo, PhotoError, write_photo
from ..plan import Plan, plan_photos
from .engine import Engine, Job, StoppedError
from .limits import BATCH_MEGABYTES, BATCH_PHOTOS, UPLOAD_MEGABYTES, check_result
from .line import LineFullError
from .settings import SEED, Settings


@dataclass(frozen=True)
class State:
    """Of one photograph of a batch; `status` is `waiting`, `working`, `restored` or `failed`, `note` what there is to say."""

    name: str
    status: str = "waiting"
    note: str = ""


def gather(files: Sequence[str], folder: Path) -> list[str]:
    """Copies photographs, and those in zips, into `folder`, under names of their own.

    Args:
        files: As they were uploaded.
        folder: New.

    Returns:
        Names of what was left out: no photographs by their names.

    Raises:
        PhotoError: If it is too much, or a zip is damaged or encrypted.
    """
    folder.mkdir(parents=True)
    left_out, total, count = [], 0, 0

    def admit(name: str, size: int) -> Path | None:
        nonlocal total, count
        path = PurePosixPath(name.replace("\\", "/"))
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("._"):
            left_out.append(name)
            return None
        total, count = total + size, count + 1
        if count > BATCH_PHOTOS:
            raise PhotoError(f"These are more than {BATCH_PHOTOS} photos; the page takes that many at a time.")
        if size > UPLOAD_MEGABYTES * 1e6 or total > BATCH_MEGABYTES * 1e6:
            raise PhotoError(f"Photos may have {UPLOAD_MEGABYTES} MB each and {BATCH_MEGABYTES} MB together, unpacked.")
        # Never a path that leads elsewhere: only plain names of it are kept.
        parts = [part for part in path.parts if part not in ("/", ".", "..") and ":" not in part]
        target = folder.joinpath(*parts)
        for number in range(2, 10_000):
            if not target.exists():
                break
            target = folder.joinpath(*parts).with_stem(f"{path.stem}-{number}")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    for file in files:
        if not zipfile.is_zipfile(file) or Path(file).suffix.lower() != ".zip":
            target = admit(Path(file).name, Path(file).stat().st_size)
            if target is not None:
                shutil.copyfile(file, target)
            continue
        try:
            with zipfile.ZipFile(file) as archive:
                for entry in archive.infolist():
                    if entry.is_dir() or entry.filename.startswith("__MACOSX/"):
                        continue
                    target = admit(entry.filename, entry.file_size)
                    if target is None:
                        continue
                    with archive.open(entry) as source, target.open("wb") as sink:
                        # What the archive says of a size may be a lie.
                        _copy(source, sink, entry.file_size)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError) as error:
            if isinstance(error, PhotoError):
                raise
            raise PhotoError(f"{Path(file).name}: cannot be unpacked: {' '.join(str(error).split())}") from error
    if not count:
        raise PhotoError(f"There are no photos in it; known are {', '.join(sorted(IMAGE_SUFFIXES))}.")
    return left_out


def _copy(source, sink, size: int) -> None:
    left = size
    while block := source.read(1 << 20):
        left -= len(block)
        if left < 0:
            raise PhotoError("A file in the zip is larger than the zip says.")
        sink.write(block)


class BatchWork:
    """A batch in a thread of its own; between its photographs other visitors have their turn.

    Args:
        engine: That restores.
        folder: New: of the inputs (see [`gather`]), the outputs and the zip.
        settings: For all of them.
    """

    def __init__(self, engine: Engine, folder: Path, settings: Settings):
        self.engine, self.settings, self.folder = engine, settings, folder
        self.plan = self._plan()
        self.states = {job.name: State(job.name) for job in self.plan.jobs}
        self.results: list[Result] = []
        self.archive: Path | None = None
        self.error: BaseException | None = None
        self.current: Job | None = None
        self._stop, self._finished = threading.Event(), threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, at most `timeout` seconds; whether it has come."""
        return self._finished.wait(timeout)

    def cancel(self) -> None:
        """Stops it at the next tile."""
        self._stop.set()
        if self.current is not None:
            self.current.cancel()

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
        if self._stop.is_set():
            raise StoppedError("Cancelled.")
        check_result(photo.size, self.settings.upscale(photo.size))
        seconds = self.engine.expected_seconds(photo.size, self.settings) or 1.0
        self.current = self._queued(photo, seconds)
        self.current.wait()
        if self.current.error is not None:
            raise self.current.error
        return self.current.result.photo

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

    def _run(self) -> None:
        try:
            settings = {**asdict(self.settings), "seed": SEED}
            batch = Batch(self.plan, lambda: self._restored, settings, write=self._write)
            for result in batch.run():
                if self._stop.is_set():
                    raise StoppedError("Cancelled.")
                self.results.append(result)
                notes = result.record.get("error") or "; ".join(result.record.get("notes", []))
                self.states[result.job.name] = State(result.job.name, result.status, notes.removeprefix(f"{result.job.name}: "))
            self.archive = self.folder / "restored.zip"
            with zipfile.ZipFile(self.archive, "w", zipfile.ZIP_STORED) as archive:  # photographs are compressed already
                for result in self.results:
                    if result.status == "restored":
                        archive.write(result.job.target, self.plan.output(result.job))
                archive.write(self.plan.folder / MANIFEST, MANIFEST)
        except BaseException as error:
            self.error = error
        finally:
            self._finished.set()
