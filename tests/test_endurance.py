"""What wears programs out: kills at any moment, hundreds of photographs, full disks, files that are none or go away, names of every script.

`FOUNDIR_KILLS=30 FOUNDIR_PHOTOS=500 FOUNDIR_CHECKPOINT=tiny pytest tests/test_endurance.py` does as much as that, with the weights that are
shipped; without, less, as CI can bear, with random ones.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import Command

from foundir_hf.cli import main
from foundir_hf.io.files import file_sha256
from foundir_hf.io.photograph import Photo
from foundir_hf.restoration.batch import Batch
from foundir_hf.restoration.manifest import MANIFEST, read_records
from foundir_hf.restoration.photo import restore_photo
from foundir_hf.restoration.plan import plan_photos

KILLS = int(os.environ.get("FOUNDIR_KILLS", "2"))
CHECKPOINT = os.environ.get("FOUNDIR_CHECKPOINT")
PHOTOS = int(os.environ.get("FOUNDIR_PHOTOS", "120"))
SETTINGS = {"seed": 0}


def turn(photo: Photo) -> Photo:
    return photo.changed(pixels=photo.pixels[::-1, ::-1])


def many(folder: Path, photo: Image.Image, count: int, size: tuple[int, int] = (72, 56), suffixes=("png", "jpg", "tif", "webp")) -> Path:
    """`count` different photographs in a folder, of several formats."""
    folder.mkdir()
    for number in range(count):
        picture = Image.fromarray(np.roll(np.asarray(photo), number, axis=1)).resize(size)
        picture.save(folder / f"{number:03}.{suffixes[number % len(suffixes)]}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Files by relative path, but for the manifest."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST}


def test_the_command_killed_at_random_moments_ends_with_the_same_bytes(photo, tmp_path, checkpoint):
    """From its start to its end: before the model is loaded, while a file is written, when all is done."""
    source, out = many(tmp_path / "many", photo, 30), tmp_path / "out"
    arguments = ("restore", source, "--checkpoint", CHECKPOINT or checkpoint, "-o")
    assert Command("foundir_hf.cli", "--version").wait() == 0  # what all are forked from has imported its libraries now
    start = time.monotonic()
    assert Command("foundir_hf.cli", *arguments, tmp_path / "whole").wait() == 0
    whole, lasted = contents(tmp_path / "whole"), time.monotonic() - start
    moments, killed = random.Random(1), 0
    for _ in range(KILLS):
        process = Command("foundir_hf.cli", *arguments, out)
        time.sleep(moments.uniform(0.3, 1) * lasted)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        for name, data in contents(out).items() if out.exists() else ():
            assert ".foundir-" in name or data == whole[name]
        if len(contents(out)) == len(whole) if out.exists() else False:
            shutil.rmtree(out)  # all was done: kill it on the way again
    done = Command("foundir_hf.cli", *arguments, out)
    assert done.communicate()[0].count(" -> ") == 30
    assert done.returncode == 0
    assert killed
    assert contents(out) == whole  # and nothing half written beside it
    restored = [record for record in map(str.strip, (out / MANIFEST).read_text().splitlines()) if '"status": "restored"' in record]
    assert len(restored) == 30  # nothing twice


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Megabytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


@pytest.mark.parametrize("by", ["engine", "model"])
def test_hundreds_of_photographs_take_no_more_memory_than_some_and_leave_no_file_open(photo, tmp_path, pipeline, by):
    # Large ones for the engine alone, in formats that are quick: each that were kept would show.
    size, suffixes = ((480, 360), ("bmp", "jpg")) if by == "engine" else ((96, 64), ("png", "jpg", "tif", "webp"))
    source = many(tmp_path / "many", photo, PHOTOS, size, suffixes)
    function = turn if by == "engine" else lambda photo: restore_photo(pipeline, photo)
    batch = Batch(plan_photos([source], tmp_path / "out"), lambda: function, SETTINGS)
    before, memory = open_files(), []
    for number, result in enumerate(batch.run()):
        assert result.status == "restored"
        if number % 10 == 9:
            gc.collect()
            memory.append(resident())
    assert open_files() == before
    settled = memory[len(memory) // 3 :]
    half = len(settled) // 2
    # 0.5 MB a photograph of the engine's: were each kept, the later half of 80 would have 20 MB more.
    assert max(settled[half:]) - max(settled[:half]) < 10, memory
    assert len(read_records(tmp_path / "out")) == PHOTOS


SCRIPTS = ["Überflug", "фото", "φωτογραφία", "写真", "사진", "صورة", "תמונה", "छवि", "a\u0301 and á", "🌧 rain", " spaces  ", "-o", "%s{0}"]


def test_names_of_many_scripts_come_through(photo, tmp_path, checkpoint):
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(SCRIPTS):
        Image.fromarray(np.roll(np.asarray(photo), number, axis=1)).save(tmp_path / "photos" / f"{name}.png")
    arguments = ["restore", tmp_path / "photos", "-o", tmp_path / "out", "--checkpoint", checkpoint, "--strength", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "foundir_hf.cli", *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "photos")
    assert len(done.stdout.splitlines()) == len(SCRIPTS)


def statuses(photos: Path, out: Path, function=turn) -> dict[str, tuple[str, str]]:
    """Output -> status and error."""
    results = Batch(plan_photos([photos], out), lambda: function, SETTINGS).run()
    return {result.record["output"]: (result.status, result.record.get("error", "")) for result in results}


def test_what_vanishes_or_changes_its_kind_after_the_plan_is_told(photo, tmp_path):
    source = many(tmp_path / "many", photo, 6)
    plan = plan_photos([source], tmp_path / "out")
    (source / "000.png").unlink()
    (source / "001.jpg").unlink()
    os.mkfifo(source / "001.jpg")  # nobody ever writes into it
    (source / "002.tif").unlink()
    (source / "002.tif").symlink_to("002.tif")
    (source / "003.webp").unlink()
    (source / "003.webp").mkdir()
    results = list(Batch(plan, lambda: turn, SETTINGS).run())
    said = {result.record["output"]: result.record.get("error") for result in results}
    assert said == {
        "000.png": f"{source / '000.png'}: no such file.",
        "001.jpg": f"{source / '001.jpg'}: cannot be read: is no file",
        "002.tif": f"{source / '002.tif'}: cannot be read: Too many levels of symbolic links",
        "003.webp": f"{source / '003.webp'}: cannot be read: Is a directory",
        "004.png": None,
        "005.jpg": None,
    }


def small_disk(folder: Path) -> bool:
    """A file system of 256 kB in a folder, if that may be mounted here."""
    folder.mkdir()
    return (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )


def test_a_full_disk_leaves_whole_files_only_and_the_same_again_goes_on(photo, tmp_path):
    source, disk = many(tmp_path / "many", photo, 60, (96, 96)), tmp_path / "disk"
    whole = statuses(source, tmp_path / "whole")
    assert {status for status, _ in whole.values()} == {"restored"}
    if not small_disk(disk):
        pytest.skip("needs a file system that may be mounted; see the test below")
    try:
        first = statuses(source, disk / "out")
        failed = {name: error for name, (status, error) in first.items() if status == "failed"}
        assert failed
        assert any(status == "restored" for status, _ in first.values())
        assert all("No space left on device" in error for error in failed.values())
        check_whole(disk / "out", tmp_path / "whole")
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        again = statuses(source, disk / "out")
        assert {name for name, (status, _) in again.items() if status == "restored"} >= set(failed)
        assert {status for status, _ in again.values()} <= {"restored", "skipped"}
        assert contents(disk / "out") == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def check_whole(out: Path, whole: Path) -> None:
    for name, data in contents(out).items():
        assert data == (whole / name).read_bytes(), name


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
from foundir_hf.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def test_files_that_may_not_grow_fail_one_by_one_and_leave_nothing(photo, tmp_path, checkpoint):
    """Whether or not a small disk may be mounted: the system refuses what is longer than 9 kB."""
    source, out = tmp_path / "photos", tmp_path / "out"
    source.mkdir()
    photo.save(source / "long.png")
    photo.resize((24, 24)).save(source / "short.png")
    arguments = ["restore", str(source), "-o", str(out), "--checkpoint", str(checkpoint)]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{out / 'long.png'}: cannot be written: File too large" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == [MANIFEST, "short.png"]
    assert read_records(out)["short.png"]["output_sha256"] == file_sha256(out / "short.png")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-megapixels", "0.001"), "0.001 megapixels (--max-megapixels)"),
        (("--max-megabytes", "0.0001"), "the limit is 0.0001 (--max-megabytes)"),
        (("--max-seconds", "0"), "(--max-seconds)"),
    ],
)
def test_limits_are_options_and_told_in_one_line(photo, tmp_path, checkpoint, capsys, options, said):
    photo.save(tmp_path / "one.png")
    assert main(["restore", str(tmp_path / "one.png"), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.startswith(f"foundir: {tmp_path / 'one.png'}: ")


def test_a_single_file_leaves_no_manifest_but_enters_one_that_is_there(photo, tmp_path, checkpoint):
    photo.save(tmp_path / "one.png")
    arguments = ["restore", str(tmp_path / "one.png"), "--checkpoint", str(checkpoint), "-o"]
    assert main([*arguments, str(tmp_path / "alone" / "x.png")]) == 0
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["x.png"]
    assert main([*arguments, str(tmp_path / "folder")]) == 0
    assert main([*arguments, str(tmp_path / "folder" / "x.png")]) == 0
    assert set(read_records(tmp_path / "folder")) == {"one.png", "x.png"}


def test_what_is_done_already_loads_no_model(photo, tmp_path, checkpoint, monkeypatch):
    photo.save(tmp_path / "one.png")
    arguments = ["restore", str(tmp_path / "one.png"), "--checkpoint", str(checkpoint), "-o", str(tmp_path / "out")]
    assert main(arguments) == 0
    monkeypatch.setattr("foundir_hf.hub.load_pipeline", pytest.fail)
    assert main(arguments) == 0
