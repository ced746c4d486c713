"""The batch engine on many workers, of this machine or of a cluster: Ray Data hands out photographs, and again what a lost worker had."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..io.files import is_url
from .batch import Batch, Record, Result
from .plan import Job, Plan
from .remote import Transfer, existing, fetch, store

# Photographs that a worker gets at a time, at most: decoded beside the model, and done again if the worker is lost.
_BLOCK = 8
# It reports its use to its makers, makes way for every other process (so that a busy machine starves it), and talks.
_QUIETLY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Ledger(Protocol):
    """A manifest that this process alone writes."""

    records: dict[str, Record]

    def append(self, *records: Record) -> None:
        """Adds records."""


def check_existing(batch: Batch, transfers: list[Transfer], output: str, records: Mapping[str, Record]) -> None:
    """Raises `ValueError` if an output is there that would be lost; arguments are those of [`restore_on_ray`], `records` the ledger's."""
    if batch.overwrite:
        return
    there = existing(output) if is_url(output) else None
    for transfer in transfers:
        if transfer.output in there if there is not None else Path(transfer.target).exists():
            record = records.get(transfer.output, {})
            if record.get("status") not in ("writing", "restored"):
                raise ValueError(f"{transfer.target}: exists; pass --overwrite to replace it.")
            if record["status"] == "restored" and record.get("settings") != batch.settings_of(transfer.source):
                raise ValueError(f"{transfer.target}: exists, made with other settings; pass --overwrite to replace it.")


def restore_on_ray(batch: Batch, transfers: list[Transfer], output: str, ledger: Ledger, *, workers: int | None = None) -> Iterator[Result]:
    """Restores on workers; yields each photograph's result once the ledger has it.

    Args:
        batch: With an empty plan, see [`Batch.part`]; all that it holds is sent to the workers.
        transfers: What to restore.
        output: The folder or URL of the outputs.
        ledger: What is known of them. Workers tell this process what they did, and it alone writes that down.
        workers: How many; left out, one for each GPU, or for every four cores.

    Raises:
        ValueError: If Ray is not installed, or a worker cannot load the model.
    """
    with _ray() as ray:
        count, options = _share(ray.cluster_resources(), workers)
        rows, by_output, begun = [], {}, []
        for transfer in transfers:
            record = ledger.records.get(transfer.output)
            if record is None or record["status"] != "restored":
                # What is found there later is ours, whoever was killed.
                record = {"output": transfer.output, "status": "writing"}
                begun.append(record)
            rows.append({"transfer": json.dumps([transfer.source, transfer.target, transfer.output]), "record": json.dumps(record)})
            by_output[transfer.output] = transfer
        ledger.append(*begun)
        size = max(1, min(_BLOCK, len(rows) // (4 * count)))
        given = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / size))
        results = given.map_batches(
            Worker, fn_constructor_args=(batch, output), batch_size=None, compute=ray.data.ActorPoolStrategy(size=count), **options
        )
        try:
            for row in results.iter_rows():
                record = json.loads(row["record"])
                if record["status"] != "skipped":
                    ledger.append(record)
                transfer = by_output[record["output"]]
                yield Result(Job(Path(transfer.source), Path(transfer.target), transfer.source, transfer.target), record)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise ValueError(f"a worker failed: {str(cause).strip().splitlines()[-1]}") from error


class Worker:
    """Runs in a process of its own, where the model is loaded once.

    Args:
        batch, output: Of [`restore_on_ray`].
    """

    def __init__(self, batch: Batch, output: str):
        self.batch, self.output = batch, output
        _ = batch.restore

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """Restores a block of photographs -> their records."""
        pairs = zip(rows["transfer"], rows["record"], strict=True)
        work = [(Transfer(*json.loads(transfer)), json.loads(record)) for transfer, record in pairs]
        with tempfile.TemporaryDirectory(prefix="foundir-") as staging:
            folder = Path(staging, "out") if is_url(self.output) else Path(self.output)
            jobs, records = {}, []
            for number, (transfer, record) in enumerate(work):
                try:
                    jobs[transfer.output] = self._staged(transfer, record, Path(staging, str(number)), folder)
                except Exception as error:  # of any service
                    records.append(_failed(transfer, error))
            part = self.batch.part(Plan(list(jobs.values()), folder), {transfer.output: record for transfer, record in work})
            targets = {transfer.output: transfer for transfer, _ in work}
            for result in part.run():
                records.append(self._delivered(result, targets[result.record["output"]]))
        return {"record": [json.dumps(record) for record in records]}

    def _staged(self, transfer: Transfer, record: Record, staging: Path, folder: Path) -> Job:
        """With a source that is a file here, and a target that is as it is there."""
        source, target = Path(transfer.source), folder / transfer.output
        if is_url(transfer.source):
            source = staging / transfer.source.rsplit("/", 1)[-1]
            source.parent.mkdir(parents=True)
            source.write_bytes(fetch(transfer.source, self.batch.limits))
        if is_url(self.output) and record["status"] == "restored":
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # removed since; it is made again
                target.write_bytes(fetch(transfer.target, self.batch.limits))
        return Job(source, target, transfer.source)

    def _delivered(self, result: Result, transfer: Transfer) -> Record:
        if result.status == "restored" and is_url(transfer.target):
            try:
                store(transfer.target, result.job.target.read_bytes())
            except Exception as error:  # of any service
                return _failed(transfer, error)
        return result.record


def _failed(transfer: Transfer, error: Exception) -> Record:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    reason = " ".join(text.split())
    return {"input": transfer.source, "output": transfer.output, "status": "failed", "error": f"{transfer.source}: {reason}"}


@contextlib.contextmanager
def _ray() -> Iterator[Any]:
    """Ray, joined to the cluster of `RAY_ADDRESS` or started on this machine, without advice on the screen."""
    for name, value in _QUIETLY.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError("`--engine` ray needs Ray; pip install 'foundir_hf[scale]' adds it.") from error
    ours = not ray.is_initialized()
    if ours:
        # What goes through Ray's store are names and records.
        here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 2**28, "_node_ip_address": "127.0.0.1"}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **({} if os.environ.get("RAY_ADDRESS") else here))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _share(resources: dict[str, float], workers: int | None) -> tuple[int, dict[str, Any]]:
    """How many workers, and what each gets of a cluster."""
    cores, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    workers = workers or int(gpus) or max(1, int(cores) // 4)
    shares = {"num_cpus": cores / workers, "num_gpus": gpus / workers}
    # Ray takes fractions below one only.
    return workers, {name: int(share) if share >= 1 else share for name, share in shares.items() if share}
