"""Photographs and manifests at URLs, without Ray: names, what services raise, what a kill leaves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from foundir_hf.io.reading import decode_photo
from foundir_hf.restoration.batch import Batch
from foundir_hf.restoration.manifest import MANIFEST, read_records
from foundir_hf.restoration.plan import Plan
from foundir_hf.restoration.remote import RemoteManifest, Transfer, plan_transfers
from foundir_hf.restoration.scale import Worker, check_existing

SETTINGS = {"seed": 0}


def test_a_name_at_a_url_that_leads_elsewhere_is_passed_over(photo):
    """Keys of an object store may be anything; a worker would write where they lead."""
    store, encoded = fsspec.filesystem("memory"), io.BytesIO()
    photo.save(encoded, "PNG")
    for name in ("a.png", "../b.png", "deep/../../c.png"):
        store.pipe_file(f"/photos/{name}", encoded.getvalue())
    found = plan_transfers(["memory://photos"], "out")
    assert [item.output for item in found.items] == ["a.png"]
    assert found.passed_over == {"name that leads elsewhere": [Path("../b.png"), Path("deep/../../c.png")]}


def test_an_object_store_gets_what_a_worker_made_and_the_next_skips_it(photo):
    """As at S3: objects, which cannot be appended to, and nothing that is local."""
    store, encoded = fsspec.filesystem("memory"), io.BytesIO()
    photo.save(encoded, "PNG")
    for name in ("ü #1?.png", "deep/50%25.png"):
        store.pipe_file(f"/source/{name}", encoded.getvalue())
    store.pipe_file("/source/bad.png", b"no picture")
    items = plan_transfers(["memory://source"], "memory://made").items
    batch = Batch(Plan([], Path()), lambda: lambda photo: photo.changed(pixels=photo.pixels[::-1]), SETTINGS, records={})

    def run() -> dict[str, str]:
        with RemoteManifest("memory://made") as ledger, batch.decoder:
            check_existing(batch, items, "memory://made", ledger.records)
            known = [ledger.records.get(item.output, {"output": item.output, "status": "writing"}) for item in items]
            rows = {"transfer": [json.dumps([item.source, item.target, item.output]) for item in items], "record": map(json.dumps, known)}
            records = [json.loads(record) for record in Worker(batch, "memory://made")(rows)["record"]]
            ledger.append(*(record for record in records if record["status"] != "skipped"))
        return {record["output"]: record["status"] for record in records}

    assert run() == {"bad.png": "failed", "ü #1?.png": "restored", "deep/50%25.png": "restored"}
    made = store.find("/made")
    assert made == ["/made/deep/50%25.png", f"/made/{MANIFEST}", "/made/ü #1?.png"]
    assert np.array_equal(decode_photo(store.cat_file(made[0]), "x").pixels, np.asarray(photo)[::-1])
    assert run() == {"bad.png": "failed", "ü #1?.png": "skipped", "deep/50%25.png": "skipped"}
    store.pipe_file("/other/a.png", b"precious")
    with pytest.raises(ValueError, match=r"a\.png: exists; pass --overwrite"):
        check_existing(batch, [Transfer("x", "memory://other/a.png", "a.png")], "memory://other", {})


def test_a_service_that_fails_is_told_with_the_place(monkeypatch):
    def fails(*_: object) -> None:
        raise RuntimeError("credentials\nexpired")  # such as botocore's, which are of no type that others know

    ledger = RemoteManifest("memory://ledger")
    ledger.append({"output": "a.png", "status": "restored"})
    for name in ("pipe_file", "find"):
        monkeypatch.setattr(MemoryFileSystem, name, fails)
    for call in (ledger.flush, lambda: RemoteManifest("memory://ledger"), lambda: plan_transfers(["memory://source"], "out")):
        with pytest.raises(ValueError, match=r"^memory://\w+: credentials expired$"):
            call()


def test_a_remote_manifest_survives_a_kill_between_its_parts(tmp_path):
    out = tmp_path / "out"
    url = f"file://{out}"
    manifest = RemoteManifest(url)
    manifest.append({"output": "a.png", "status": "restored"})
    manifest.flush()
    manifest.append({"output": "b.png", "status": "restored"})  # never written: killed here
    assert sorted(path.name for path in out.iterdir()) == ["foundir-00000000.jsonl"]
    with RemoteManifest(url) as again:
        assert set(again.records) == {"a.png"}
        again.append({"output": "c.png", "status": "restored"})
    (out / "foundir-00000001.jsonl").write_bytes(b"")  # of a kill between the removals of parts
    with RemoteManifest(url) as again:
        again.append({"output": "c.png", "status": "restored"})
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST]
    assert set(read_records(out)) == {"a.png", "c.png"}
