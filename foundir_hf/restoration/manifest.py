"""The manifest of a folder of restorations: what became of which photograph, and who works on which now."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: processes do not share a folder there
    fcntl = None

MANIFEST = "foundir.jsonl"
# Bytes of the manifest that nobody writes, only locks: one for the folder, and one for each output, by its hash.
_FOLDER_BYTE = 2**61


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """What the manifest of a folder says of every output, see [`Manifest`]; nothing if there is none. Raises `OSError`."""
    try:
        with open(folder / MANIFEST, "rb", opener=_regular) as file:
            return enter_lines({}, file.read())
    except FileNotFoundError:
        return {}


def enter_lines(records: dict[str, dict[str, Any]], lines: bytes) -> dict[str, dict[str, Any]]:
    """Adds lines to records by output. A line that is no record, such as half a line before a power cut, is ignored."""
    for line in lines.split(b"\n"):
        try:
            record = json.loads(line)
            output, status = record["output"], record["status"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if not isinstance(output, str) or not isinstance(status, str):
            continue
        failed = status == "failed"
        if not failed or output not in records:  # a failure says nothing of the file that is there
            records[output] = record
    return records


class Manifest:
    """`foundir.jsonl` in a folder, open: a JSON object a line, appended to by any number of processes at once.

    `records` has the last line of every output; one of a failure only if nothing else is known.

    Claims are POSIX locks, so that those of a killed process are gone with it. They hold between processes: have one `Manifest` of a folder
    open in a process, since closing another would drop its claims.

    Args:
        folder: Made if need be. Raises `OSError` if it cannot be written. Without one, nothing is kept and nobody else is asked.
        records: What is known in this case.
    """

    def __init__(self, folder: Path | None, records: Mapping[str, dict[str, Any]] | None = None):
        self.records: dict[str, dict[str, Any]] = dict(records or {})
        if folder is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / MANIFEST, "ab+", buffering=0, opener=_regular)  # noqa: SIM115
        self._read, self._lock = 0, threading.Lock()
        size = self._file.seek(0, 2)
        if size:
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def refresh(self) -> None:
        """Reads what processes have appended since the last time into `records`."""
        with self._lock:
            self._file.seek(self._read)
            lines = self._file.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        self._read += len(lines)
        enter_lines(self.records, lines)

    def append(self, *records: dict[str, Any]) -> None:
        """Adds records, which have an `output` and a `status`."""
        lines = memoryview(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        with self._lock:
            while lines:  # a disk that is nearly full takes a part
                lines = lines[self._file.write(lines) :]

    def claim(self, output: str) -> bool:
        """Takes an output for this process until [`release`] or its end; false if another process has it."""
        return self._try_lock(_byte(output))

    def release(self, output: str) -> None:
        """Gives an output back."""
        if fcntl:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(output))

    def join(self) -> bool:
        """Says until [`share`] or the end of this process that it works here; false if others do already."""
        return self._try_lock(_FOLDER_BYTE)

    def share(self) -> None:
        """Lets others work here too; waits while one of them is alone after its [`join`]."""
        if fcntl:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_SH, 1, _FOLDER_BYTE)

    def _try_lock(self, byte: int) -> bool:
        if fcntl:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):
                return False
            except OSError:  # a file system without locks: nobody is kept out
                pass
        return True


def _regular(path: str, flags: int) -> int:
    """An opener that waits for nobody: at the other end of a FIFO there is perhaps none."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no file", path)


def _byte(output: str) -> int:
    digest = hashlib.sha256(output.encode("utf-8", "surrogatepass")).digest()
    return 2**60 + int.from_bytes(digest[:7], "big")
