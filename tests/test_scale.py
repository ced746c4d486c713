"""The batch engine on Ray's workers: the same files and the same manifest as without, whatever becomes of a worker."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.io.files import file_sha256
from foundir_hf.io.photograph import Photo
from foundir_hf.restoration.batch import Batch
from foundir_hf.restoration.manifest import MANIFEST, Manifest, read_records
from foundir_hf.restoration.plan import Plan, plan_photos
from foundir_hf.restoration.remote import RemoteManifest, plan_transfers
from foundir_hf.restoration.scale import check_existing, restore_on_ray

ray = pytest.importorskip("ray")

SETTINGS = {"seed": 0}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two cores, whatever the machine has: Ray hands them out, it does not enforce them."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", RAY_BACKEND_LOG_LEVEL="fatal")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    yield
    ray.shutdown()


@pytest.fixture
def photos(tmp_path, photo) -> Path:
    """Twenty different photographs, half of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number in range(20):
        Image.fromarray(np.roll(np.asarray(photo), number, axis=1)).save(folder / ("deep" if number % 2 else "") / f"{number:02}.png")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def turning(pids: Path, seconds: float = 0.0):
    """Stands where the loading of the model stands; tells which processes loaded it."""

    def load():
        (pids / str(os.getpid())).touch()

        def turn(photo: Photo) -> Photo:
            time.sleep(seconds)
            return photo.changed(pixels=photo.pixels[::-1, ::-1])

        return turn

    return load


def contents(folder: Path) -> dict[str, bytes]:
    """Files by relative path, but for the manifest."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST}


def whole(photos: Path, folder: Path, pids: Path) -> dict[str, bytes]:
    """What the engine makes of the photographs in this process."""
    list(Batch(plan_photos([photos], folder), turning(pids), SETTINGS).run())
    return contents(folder)


def test_a_killed_worker_s_photographs_are_restored_by_the_others(photos, out, tmp_path):
    (tmp_path / "pids").mkdir()
    transfers = plan_transfers([photos], out).items
    batch = Batch(Plan([], Path()), turning(tmp_path / "pids", 0.1), SETTINGS, records={})
    statuses, killed = {}, None
    with Manifest(out) as ledger:
        for result in restore_on_ray(batch, transfers, str(out), ledger, workers=2):
            assert result.record["output"] not in statuses
            statuses[result.record["output"]] = result.status
            if killed is None:
                killed = int(next((tmp_path / "pids").iterdir()).name)
                os.kill(killed, signal.SIGKILL)
    assert killed is not None
    assert set(statuses.values()) == {"restored"}
    assert len(list((tmp_path / "pids").iterdir())) > 2  # another has taken its place
    expected = whole(photos, tmp_path / "whole", tmp_path / "pids")
    assert contents(out) == expected
    records = read_records(out)
    assert {name: record["output_sha256"] for name, record in records.items()} == {
        name: file_sha256(tmp_path / "whole" / name) for name in expected
    }


def test_urls_are_read_and_written_and_the_manifest_is_that_of_paths(photos, out, tmp_path):
    (tmp_path / "pids").mkdir()
    expected = whole(photos, tmp_path / "whole", tmp_path / "pids")
    transfers = plan_transfers([f"file://{photos}"], f"file://{out}").items
    batch = Batch(Plan([], Path()), turning(tmp_path / "pids"), SETTINGS, records={})

    def run() -> list[str]:
        with RemoteManifest(f"file://{out}") as ledger:
            check_existing(batch, transfers, f"file://{out}", ledger.records)
            return sorted(result.status for result in restore_on_ray(batch, transfers, f"file://{out}", ledger, workers=2))

    (photos / "00.png").rename(photos / "gone")
    assert run() == ["failed"] + ["restored"] * 19
    told = [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]
    assert [record["error"] for record in told if record["status"] == "failed"] == [f"file://{photos}/00.png: No such file or directory"]
    (photos / "gone").rename(photos / "00.png")
    (out / "deep" / "01.png").unlink()
    assert run() == ["restored"] * 2 + ["skipped"] * 18
    assert contents(out) == expected  # no parts of the manifest either
    # And the engine of one process goes on from there.
    again = Batch(plan_photos([photos], out), pytest.fail, SETTINGS)
    assert {result.status for result in again.run()} == {"skipped"}


def test_what_would_be_lost_is_refused_before_any_work(photos, out, tmp_path):
    out.mkdir()
    (out / "00.png").write_bytes(b"precious")
    batch = Batch(Plan([], Path()), pytest.fail, SETTINGS, records={})
    for source, target in ((photos, out), (f"file://{photos}", f"file://{out}")):
        transfers = plan_transfers([source], target).items
        with pytest.raises(ValueError, match=r"00\.png: exists; pass --overwrite"):
            check_existing(batch, transfers, str(target), {})
        record = {"status": "restored", "settings": {"seed": 1}}
        with pytest.raises(ValueError, match="made with other settings"):
            check_existing(batch, transfers, str(target), {"00.png": record})
        check_existing(batch, transfers, str(target), {"00.png": {"status": "writing"}})
        with pytest.raises(ValueError, match="is an input"):
            plan_transfers([source], source)


def test_the_command_line_goes_on_where_the_other_engine_stopped(photos, out, checkpoint, capsys):
    arguments = ["restore", str(photos), "-o", str(out), "--checkpoint", str(checkpoint)]
    assert main(["restore", str(photos / "deep"), "-o", str(out / "deep"), *arguments[4:]]) == 0
    capsys.readouterr()
    assert main([*arguments, "--engine", "ray", "--workers", "2", "--overwrite"]) == 0
    ours = contents(out)
    (out / "00.png").unlink()
    assert main([*arguments, "--engine", "ray", "--workers", "1", "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert sorted(record["status"] for record in told) == ["restored"] + ["skipped"] * 19
    assert main(arguments) == 0
    assert "0 of 20 restored, 20 before" in capsys.readouterr().err
    assert {name: data for name, data in contents(out).items() if not name.endswith(".jsonl")} == {
        name: data for name, data in ours.items() if not name.endswith(".jsonl")
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--change-map", "map.png"), "`--change-map` is of a single photograph; there are 20."),
        (("-o", "x.png"), "names a file; --engine ray needs a folder"),
        (("-o", "-"), "`-` is for --engine local"),
        (("--checkpoint", "no/such"), "no/such"),
        (("--tile-size", "48", "--tile-overlap", "0"), "`--tile-size` must be a multiple of 32"),
    ],
)
def test_mistakes_are_one_line(photos, out, checkpoint, capsys, arguments, said):
    code = main(["restore", str(photos), "-o", str(out), "--checkpoint", str(checkpoint), "--engine", "ray", "--workers", "1", *arguments])
    told = capsys.readouterr().err.splitlines()
    assert (code, len(told)) == (2, 1)
    assert said in told[0]


def test_a_dry_run_of_many_workers_starts_none_and_a_map_is_drawn_by_one(photos, out, checkpoint, capsys, monkeypatch, tmp_path):
    arguments = ["restore", str(photos / "00.png"), "-o", str(out), "--checkpoint", str(checkpoint), "--engine", "ray", "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "dry run: 1 to restore, 0 restored before, 0 would fail; 0.0 megapixels, about" in capsys.readouterr().err
    assert not out.exists()
    assert main([*arguments[:3], f"file://{out}", *arguments[4:], "--dry-run"]) == 2
    assert "`--dry-run` is for paths" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--change-map", "map.png"]) == 0
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.width >= 72
    capsys.readouterr()
    assert main([*arguments, "--dry-run", "--change-map", "other.png"]) == 0
    assert "dry run: 0 to restore, 1 restored before" in capsys.readouterr().err


def test_a_url_needs_the_engine_that_knows_it(tmp_path, capsys):
    assert main(["restore", "s3://bucket/photos", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "foundir: s3://bucket/photos: URLs need --engine ray.\n"
    assert main(["restore", f"file://{tmp_path}/nowhere", "-o", str(tmp_path / "out"), "--engine", "ray"]) == 2
    assert "nowhere: no such file or folder." in capsys.readouterr().err


def test_another_process_on_the_folder_is_told(photos, out, checkpoint, capsys):
    import subprocess
    import sys

    hold = "import sys, time; from pathlib import Path; from foundir_hf.restoration.manifest import Manifest\n"
    hold += "manifest = Manifest(Path(sys.argv[1])); manifest.join(); print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen([sys.executable, "-c", hold, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert main(["restore", str(photos), "-o", str(out), "--checkpoint", str(checkpoint), "--engine", "ray"]) == 2
        assert "another foundir works there" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.communicate()


def test_the_page_about_costs_says_what_was_measured():
    root = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("scale_benchmark", root / "benchmarks" / "scale.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    figures = json.loads((root / "docs" / "figures" / "scale.json").read_text())
    page = (root / "docs" / "scale.md").read_text()
    assert benchmark.table(figures) in page
    assert figures["processor"] in page
