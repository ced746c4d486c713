"""Many photographs, one after another: decoding and encoding beside the model, and the same again goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..io.deadline import within
from ..io.decoder import Decoder
from ..io.files import file_sha256, remove_unfinished
from ..io.formats.raster import open_picture
from ..io.limits import DEFAULT_LIMITS, Limits
from ..io.photograph import Photo, PhotoError
from ..io.reading import read_file
from ..io.writing import write_photo
from .manifest import Manifest, read_records
from .plan import Job, Plan

# Seconds between looks at photographs that another process works on.
_POLL = 0.1
# Pixels of a side of the picture that is restored to learn how long a megapixel takes.
_SYNTHETIC = 512

Record = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What became of a photograph.

    Args:
        job: The photograph.
        record: Its line of the manifest: `status` (`restored`, `skipped`, `failed`; of a preview `pending` too), `input` (absolute),
            `output` (below the manifest's folder), `input_sha256`, `output_sha256`, `settings`, `megapixels` of the output, `seconds`
            of the model, `notes` of what could not be kept, `error`; what is not known is left out.
    """

    job: Job
    record: Record

    @property
    def status(self) -> str:
        """The record's."""
        return self.record["status"]


@dataclass(frozen=True)
class _Work:
    """A photograph on its way, and what is known for its record."""

    job: Job
    record: Record
    photo: Photo


class Batch:
    """Restores what a plan lists.

    A photograph is skipped if the manifest has it with the same input (by SHA-256) and settings, and its output is there with the SHA-256
    that it was written with. Processes with the same output folder share the work: each takes what no other has taken, and what a killed
    one left. Any exception on a photograph is that photograph's failure; the next one goes on.

    Args:
        plan: From [`plan_photos`].
        load: Makes [`restore_photo`] with all but the photograph; the same photograph must give the same bytes. Called once, before
            anything is written, or not at all if nothing is to be restored; what it raises, the batch does.
        settings: All that decides the output beside the input, as JSON.
        options: Further settings of single photographs by [`Job.name`], which what `load` makes is called with: a prompt, say.
        write: [`write_photo`], or with other arguments.
        overwrite: Replace outputs that something else made.
        limits: What a photograph may take.
        records: What is known of the outputs; left out, what the manifest says. Given, there is no manifest.
        decoder: The process that decodes, if it is to go on after this; left out, one is there for as long as [`run`] or [`preview`].

    Raises:
        ValueError: If outputs are there that other settings made, and `overwrite` is false.
    """

    def __init__(
        self,
        plan: Plan,
        load: Callable[[], Callable[..., Photo]],
        settings: Mapping[str, Any],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        write: Callable[[Photo, Path], tuple[str, ...]] = write_photo,
        overwrite: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        records: Mapping[str, Record] | None = None,
        decoder: Decoder | None = None,
    ):
        self.plan, self.write, self.overwrite, self.limits, self.records = plan, write, overwrite, limits, records
        # What was read, with its hash, and decoded while the model was loaded.
        self._early: dict[Job, tuple[Future[tuple[bytes, str]], Future[Photo]]] = {}
        self._load, self.decoder, self._decoder_stays = load, decoder or Decoder(), decoder is not None
        self.settings, self.options = json.loads(json.dumps(settings)), options or {}  # as the manifest reads it back
        known, self._seems_done = self._known(), True
        for job in plan.jobs:
            record = known.get(self.plan.output(job), {})
            there = record.get("status") == "restored" and job.target.exists()
            if there and record.get("settings") != self.settings_of(job.name) and not overwrite:
                raise ValueError(f"{job.target}: exists, made with other settings; pass --overwrite to replace it.")
            self._seems_done &= there and record.get("settings") == self.settings_of(job.name)

    @cached_property
    def restore(self) -> Callable[..., Photo]:
        """What restores a photograph."""
        return self._load()

    def settings_of(self, name: str) -> dict[str, Any]:
        """All settings of a photograph by its [`Job.name`]."""
        return {**self.settings, **self.options.get(name, {})}

    def part(self, plan: Plan, records: Mapping[str, Record]) -> Batch:
        """The same for another plan, of whose outputs this is known; with the same model if it is loaded, and the same decoder."""
        same = {"write": self.write, "overwrite": self.overwrite, "limits": self.limits, "decoder": self.decoder, "options": self.options}
        part = Batch(plan, self._load, self.settings, records=records, **same)
        if "restore" in self.__dict__:
            part.restore = self.restore
        return part

    def _known(self) -> Mapping[str, Record]:
        return read_records(self.plan.folder) if self.records is None else self.records

    def run(self) -> Iterator[Result]:
        """Restores; yields each photograph's result once its file is whole and the manifest has it. Raises `OSError` without a manifest."""
        try:
            if not self._seems_done:  # or else perhaps nothing is to be restored; a manifest is there then
                self._load_beside_decoding()
            yield from self._run()
        finally:  # whatever raises, the model's loading too
            self._end_decoder()

    def _run(self) -> Iterator[Result]:
        todo, stop = deque(self.plan.jobs), threading.Event()
        manifest = Manifest(self.plan.folder) if self.records is None else Manifest(None, self.records)
        with manifest, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            if self.records is None and manifest.join():
                for folder in {job.target.parent for job in self.plan.jobs}:
                    remove_unfinished(folder)
            manifest.share()
            try:
                ahead, behind = reader.submit(self._next, manifest, todo, stop), []
                while True:
                    if not ahead.done():  # nothing to do but to tell
                        yield from _results(behind)
                    if (work := ahead.result()) is None:
                        break
                    ahead = reader.submit(self._next, manifest, todo, stop)
                    if isinstance(work, _Work):
                        work = self._restore(manifest, work)
                    yield from _results(behind)
                    if isinstance(work, Result):
                        yield work
                    else:
                        behind.append(writer.submit(self._write, manifest, work))
                    del work  # megabytes
                yield from _results(behind)
            finally:
                stop.set()  # the reader may be waiting for another process
                self._end_decoder()  # or for this one

    def preview(self) -> Iterator[Result]:
        """What [`run`] would do now; writes nothing."""
        known = self._known()
        try:
            for job in self.plan.jobs:
                yield self._foreseen(job, known)
        finally:
            self._end_decoder()

    def _foreseen(self, job: Job, known: Mapping[str, Record]) -> Result:
        record = self._record(job)
        try:
            data = read_file(job.source, self.limits)
            if not job.target.exists() or not self._is_done(job, _sha256(data), known):
                record["megapixels"] = _megapixels(self._size(job, data)) * self.settings.get("upscale", 1) ** 2
            return Result(job, {**record, "status": "pending" if "megapixels" in record else "skipped"})
        except Exception as error:
            return Result(job, {**record, "status": "failed", "error": _reason(job, error)})

    def _end_decoder(self) -> None:
        if not self._decoder_stays:
            self.decoder.close()

    def seconds_per_megapixel(self) -> tuple[float, bool]:
        """How long the model takes for a megapixel of output, and whether earlier work says so; if none does, a small picture is tried."""
        own = {name for options in self.options.values() for name in options}
        records = [r for r in self._known().values() if _without(own, r.get("settings")) == self.settings and _is_measured(r)]
        if records:
            return sum(r["seconds"] for r in records) / sum(r["megapixels"] for r in records), True
        noise = np.random.default_rng(0).integers(0, 256, (_SYNTHETIC, _SYNTHETIC, 3), dtype=np.uint8)
        self.restore(Photo(noise))  # the first time takes longer
        start = time.perf_counter()
        restored = self.restore(Photo(noise))
        return (time.perf_counter() - start) / _megapixels(restored.size), False

    def _load_beside_decoding(self) -> None:
        """Loads the model, which takes seconds of imports, and decodes the first photograph meanwhile. Raises what loading does."""
        todo = [job for job in self.plan.jobs if self.overwrite or not job.target.exists()]
        with ThreadPoolExecutor(1) as reader:
            if todo:
                data = reader.submit(self._bytes, todo[0])
                self._early[todo[0]] = data, reader.submit(lambda: self._photo(todo[0], data.result()[0]))
            try:
                _ = self.restore
            except BaseException:
                self._end_decoder()  # nobody waits for what it decodes
                raise

    def _bytes(self, job: Job) -> tuple[bytes, str]:
        """A photograph's file and its hash."""
        data = within(self.limits.seconds, partial(read_file, job.source, self.limits), "reading it")
        return data, _sha256(data)

    def _photo(self, job: Job, data: bytes) -> Photo:
        return self.decoder.decode(data, job.source, self.limits)

    def _next(self, manifest: Manifest, todo: deque[Job], stop: threading.Event) -> _Work | Result | None:
        """The next photograph that no other process has, decoded; or what is known of it already; none when all are seen to."""
        waiting = 0
        while todo and not stop.is_set():
            job = todo.popleft()
            if manifest.claim(self.plan.output(job)):
                return self._read(manifest, job)
            todo.append(job)
            waiting += 1
            if waiting >= len(todo):  # all that is left is in others' hands
                time.sleep(_POLL)
        return None

    def _read(self, manifest: Manifest, job: Job) -> _Work | Result:
        record = self._record(job)
        try:
            read, decoded = self._early.pop(job, (None, None))
            data, record["input_sha256"] = read.result() if read else self._bytes(job)
            manifest.refresh()
            if job.target.exists() and self._is_done(job, record["input_sha256"], manifest.records):
                manifest.release(self.plan.output(job))
                return Result(job, {**manifest.records[self.plan.output(job)], "status": "skipped"})
            return _Work(job, record, decoded.result() if decoded else self._photo(job, data))
        except Exception as error:
            return self._failed(manifest, job, record, error)

    def _restore(self, manifest: Manifest, work: _Work) -> _Work | Result:
        start = time.perf_counter()
        try:
            restored = self.restore(work.photo, **self.options.get(work.job.name, {}))
        except Exception as error:
            return self._failed(manifest, work.job, work.record, error)
        measured = {"megapixels": _megapixels(restored.size), "seconds": round(time.perf_counter() - start, 3)}
        return _Work(work.job, work.record | measured, restored)

    def _write(self, manifest: Manifest, work: _Work) -> Result:
        record = work.record
        try:
            manifest.append({**record, "status": "writing"})  # before the file is there: whoever goes on after a kill knows it
            notes = list(self.write(work.photo, work.job.target))
            settings = self.settings_of(work.job.name)
            record = {**record, "status": "restored", "output_sha256": file_sha256(work.job.target), "settings": settings}
            record |= {"notes": notes} if notes else {}
            manifest.append(record)
        except Exception as error:
            return self._failed(manifest, work.job, work.record, error)
        manifest.release(self.plan.output(work.job))
        return Result(work.job, record)

    def _failed(self, manifest: Manifest, job: Job, record: Record, error: Exception) -> Result:
        record = {**record, "status": "failed", "error": _reason(job, error)}
        with contextlib.suppress(OSError):  # a full disk, perhaps; the result is told all the same
            manifest.append(record)
        manifest.release(self.plan.output(job))
        return Result(job, record)

    def _is_done(self, job: Job, input_sha256: str, known: Mapping[str, Record]) -> bool:
        """Whether the output that is there is what `run` would make. Raises [`PhotoError`] if it is not and must stay."""
        record = known.get(self.plan.output(job), {})
        same = record.get("input_sha256") == input_sha256 and record.get("settings") == self.settings_of(job.name)
        if same and record.get("status") == "restored" and record.get("output_sha256") == file_sha256(job.target):
            return True
        if self.overwrite or record.get("status") == "writing":
            return False
        raise PhotoError(f"{job.target}: exists and is not what these settings made of {job.name}; pass --overwrite to replace it.")

    def _size(self, job: Job, data: bytes) -> tuple[int, int]:
        """Of a photograph, decoding no more than is needed."""
        try:
            with open_picture(io.BytesIO(data), self.limits) as image:
                return image.size
        except Exception:  # a TIFF that Pillow does not know, say, or what will be refused
            return self._photo(job, data).size

    def _record(self, job: Job) -> Record:
        named_by_path = job.name == str(job.source)  # not what came from stdin
        return {"input": os.path.abspath(job.source) if named_by_path else job.name, "output": self.plan.output(job)}


def _without(names: set[str], settings: Any) -> Any:
    return {name: value for name, value in settings.items() if name not in names} if isinstance(settings, dict) else settings


def _is_measured(record: Record) -> bool:
    """Whether a line of a manifest, which anybody may have written, says how long how much took."""
    return all(isinstance(record.get(name), int | float) and record[name] > 0 for name in ("megapixels", "seconds"))


def _results(behind: list[Future[Result]]) -> Iterator[Result]:
    """What the writer has been given, once it is done."""
    while behind:
        yield behind.pop(0).result()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _megapixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / 1e6


def _reason(job: Job, error: Exception) -> str:
    """A line that names the photograph."""
    if isinstance(error, PhotoError):
        return str(error).replace(str(job.source), job.name)
    from ..pipelines.pipeline_foundir import is_out_of_memory  # torch is there already, or this is no hurry

    if is_out_of_memory(error):
        return f"{job.name}: out of memory; try a smaller --tile-size."
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return f"{job.name}: {text or type(error).__name__}"
