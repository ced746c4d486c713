"""Photographs are decoded in a process of their own: it can be stopped when it hangs, and its crash is one photograph's failure."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from . import wire
from .deadline import within
from .limits import DEFAULT_LIMITS, Limits
from .photograph import Photo, PhotoError

try:
    import resource
except ImportError:  # Windows, where memory has no limit of a process
    resource = None

# Memory that a decoder may take: that of its libraries, and bytes for each pixel that is allowed and each byte of the file.
_LIBRARIES, _A_PIXEL, _A_BYTE = 2 * 2**30, 48, 8
_GRACE = 10.0  # seconds after which a decoder ends itself, if nobody stopped it in time
_LONGEST = 10**7  # seconds that a timer takes


class Decoder:
    """Decodes photographs, one at a time, in a process that starts with the first and ends with [`close`] or with this one.

    Threads may share it: one waits for the other.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._asking = threading.RLock()

    def __reduce__(self) -> tuple[type[Decoder], tuple[()]]:
        return Decoder, ()  # another process starts its own

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> subprocess.Popen:
        """The process; if it is not there yet, it starts, and imports its libraries while this one goes on."""
        with self._asking:
            if self._process is None:
                code = f"import sys; sys.path[:] = {sys.path!r}; from foundir_hf.io.decoder import serve; serve()"
                self._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            return self._process

    def close(self) -> None:
        """Ends the process; whoever waits for a photograph is told that it crashed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not written yet has nobody to read it
                    pipe.close()  # pyright: ignore[reportOptionalMemberAccess]

    def read(self, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Photo:
        """A photograph from its file, which is read here. Raises what [`decode`] does."""
        from .reading import read_file

        self.start()  # it imports its libraries meanwhile
        return self.decode(read_file(path, limits), path, limits)

    def decode(self, data: bytes, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Photo:
        """A photograph from the bytes of its file, which messages call `path`.

        Raises [`PhotoError`] for whatever is wrong with them, a crash of the decoder too, `TimeoutError` after `limits.seconds`, and
        `MemoryError`.
        """
        with self._asking:
            return self._answer(data, path, limits)

    def _answer(self, data: bytes, path: str | Path, limits: Limits) -> Photo:
        process = self.start()
        try:
            answer = within(limits.seconds, partial(_asked, process, data, str(path), limits), "reading it")
        except TimeoutError:
            self.close()
            raise
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
            self.close()
            raise PhotoError(f"{path}: cannot be read: its decoder crashed ({_name(process.returncode)})") from None
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer


def _asked(process: subprocess.Popen, data: bytes, path: str, limits: Limits) -> Photo | Exception:
    assert process.stdin is not None
    assert process.stdout is not None
    wire.send(process.stdin, {"path": path, "limits": asdict(limits)}, [data])
    head, parts = wire.receive(process.stdout)
    if head.get("out_of_memory"):
        return MemoryError()
    return PhotoError(head["error"]) if "error" in head else wire.photo_of(head, parts, data)


def _name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def serve() -> None:
    """What the process does: answers until nobody asks. What libraries print goes nowhere."""
    from .reading import decode_photo

    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which then ends this one
    with contextlib.suppress(EOFError):
        while True:
            head, (data,) = wire.receive(questions)
            path, limits = head["path"], Limits(**head["limits"])
            _limit(limits, len(data))
            try:
                photo = decode_photo(bytes(data), path, limits)
                _time(0)
                wire.send_photo(answers, photo)
                del photo, data  # megabytes, until the next question
                gc.collect()  # tifffile's objects hold one another, and with them the file
            except PhotoError as error:
                wire.send(answers, {"error": str(error)})
            except MemoryError:
                wire.send(answers, {"out_of_memory": True})
            _time(0)


def _limit(limits: Limits, size: int) -> None:
    """Lets the system end this process when it takes too long, even if nobody is left to stop it, and refuse it too much memory."""
    _time(min(limits.seconds + _GRACE, _LONGEST))
    if resource is not None:
        most = _LIBRARIES + int(min(limits.megapixels, 1e9) * 1e6) * _A_PIXEL + size * _A_BYTE
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = min(most, 2**62) if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _time(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


_DECODER = Decoder()


def read_rgb(path: Path) -> np.ndarray:
    """`(height, width, 3)`, `uint8`, upright, decoded in a process of its own. Raises [`PhotoError`], `TimeoutError`."""
    try:
        return np.asarray(_DECODER.read(path).image.convert("RGB"))
    except MemoryError:
        raise PhotoError(f"{path}: cannot be read: out of memory") from None
