"""Processes of their own without five seconds of imports each: forked from one that has imported the libraries and done nothing else."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path
from subprocess import TimeoutExpired

START_METHOD = "forkserver"
multiprocessing.set_forkserver_preload(["pytest", "foundir_hf.training.loop", "foundir_hf.restoration.batch", "foundir_hf.cli.engine"])


def _run(program: str, arguments: list[str], streams: list[str]) -> None:
    os.setsid()  # whoever kills its group reaches its workers too
    for descriptor, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


class Command:
    """A script or module with arguments, in a process and session of its own; used as `subprocess.Popen` is.

    Interpreter and imports are not what this tests: `python -m foundir_hf.cli` itself is tested in test_cli.py, `training/train.py` in
    test_recipes.py.
    """

    def __init__(self, program: str | Path, *arguments: object):
        self._streams = [tempfile.NamedTemporaryFile("r", errors="replace") for _ in range(2)]  # noqa: SIM115 (read when it has ended)
        paths = [stream.name for stream in self._streams]
        context = multiprocessing.get_context(START_METHOD)
        self._process = context.Process(target=_run, args=(str(program), [str(a) for a in arguments], paths))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`."""
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 120) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutExpired(self._process.name, timeout)
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """What it wrote to stdout and stderr until it ended."""
        self.wait(timeout)
        out, error = (stream.read() for stream in self._streams)
        return out, error
