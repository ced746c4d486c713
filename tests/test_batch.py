"""Many photographs: what is skipped, what is told, and that a kill or a second process costs nothing but time."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from processes import Command

from foundir_hf.cli import main
from foundir_hf.io.decoder import Decoder
from foundir_hf.io.files import file_sha256
from foundir_hf.io.limits import DEFAULT_LIMITS
from foundir_hf.io.photograph import Photo
from foundir_hf.restoration.batch import Batch, Result
from foundir_hf.restoration.manifest import MANIFEST, Manifest, read_records
from foundir_hf.restoration.plan import plan_photos

SETTINGS = {"seed": 0}


def turn(photo: Photo) -> Photo:
    """Stands where the model stands: the engine takes any function of photographs."""
    return photo.changed(pixels=photo.pixels[::-1, ::-1])


@pytest.fixture
def photos(tmp_path, photo) -> Path:
    """`photos/`: one.png, two.jpg, deep/three.png."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    photo.save(folder / "one.png")
    photo.rotate(180).save(folder / "two.jpg", quality=95)
    ImageOps.mirror(photo).save(folder / "deep" / "three.png")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(capsysbinary):
    """Runs the command line in this process -> exit code, stdout as bytes, lines of stderr."""

    def run_command(*arguments) -> tuple[int | str | None, bytes, list[str]]:
        capsysbinary.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsysbinary.readouterr()
        return code, captured.out, captured.err.decode().splitlines()

    return run_command


def restore(photos: Path, out: Path, function=turn, settings=SETTINGS, *, overwrite: bool = False) -> dict[str, Result]:
    """Runs a batch over a folder -> results by output."""
    batch = Batch(plan_photos([photos], out, overwrite=overwrite), lambda: function, settings, overwrite=overwrite)
    return {result.record["output"]: result for result in batch.run()}


def statuses(results: dict[str, Result]) -> dict[str, str]:
    return {output: result.status for output, result in sorted(results.items())}


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / MANIFEST).read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    """Files by relative path, but for the manifest."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST}


@pytest.mark.parametrize("gone", [False, True])
def test_the_first_photograph_is_read_once_and_decoded_while_the_model_loads(photos, out, gone):
    first, decoded = photos / "one.png", []
    truth, digest = np.asarray(Image.open(first)), file_sha256(first)

    class Counting(Decoder):
        def decode(self, data, path, limits=DEFAULT_LIMITS):
            decoded.append(path)
            ready.set()
            return super().decode(data, path, limits)

    def load():
        assert ready.wait(60)
        if gone:
            first.unlink()
        return turn

    ready = threading.Event()
    with Counting() as decoder:
        results = list(Batch(plan_photos([first, photos / "two.jpg"], out), load, SETTINGS, decoder=decoder).run())
    assert [result.status for result in results] == ["restored"] * 2
    assert decoded == [first, photos / "two.jpg"]
    assert read_records(out)["one.png"]["input_sha256"] == digest
    with Image.open(out / "one.png") as turned:
        assert np.array_equal(truth[::-1, ::-1], np.asarray(turned))


# The manifest


def test_the_manifest_tells_what_became_of_every_photograph(photos, out):
    (photos / "broken.png").write_text("words")
    restore(photos, out)
    records = read_records(out)
    assert set(records) == {"broken.png", "deep/three.png", "one.png", "two.jpg"}
    record = records["one.png"]
    assert record.pop("seconds") >= 0
    assert record == {
        "status": "restored",
        "input": str(photos / "one.png"),
        "input_sha256": file_sha256(photos / "one.png"),
        "output": "one.png",
        "output_sha256": file_sha256(out / "one.png"),
        "megapixels": 72 * 56 / 1e6,
        "settings": SETTINGS,
    }
    assert records["broken.png"]["status"] == "failed"
    assert "not an image of a known format" in records["broken.png"]["error"]


def test_the_command_line_enters_checkpoint_version_and_seed(run, photos, out, checkpoint):
    assert run("restore", photos / "one.png", "-o", out, "--checkpoint", checkpoint, "--seed", 3)[0] == 0
    settings = read_records(out)["one.png"]["settings"]
    weights = sorted(checkpoint.rglob("*.safetensors"))
    assert settings["weights"] == {str(file.relative_to(checkpoint)): file_sha256(file) for file in weights}
    assert (settings["seed"], settings["upscale"], settings["tone"]) == (3, 1.0, "auto")
    assert settings["version"]


def test_half_a_line_is_ignored_and_the_next_starts_anew(out):
    out.mkdir()
    (out / MANIFEST).write_text('{"output": "a.png", "status": "restored"}\n[1]\n{"output": "b.p')
    with Manifest(out) as manifest:
        manifest.append({"output": "c.png", "status": "restored"})
        manifest.refresh()
        assert set(manifest.records) == {"a.png", "c.png"}
    assert set(read_records(out)) == {"a.png", "c.png"}


def test_a_manifest_of_anything_is_read(photos, out):
    lines = [
        "{",
        "[]",
        '"x"',
        "3",
        '{"output": 3, "status": "restored"}',
        '{"output": "a", "status": []}',
        '{"output": ["a"], "status": "x"}',
    ]
    lines += ["[" * 100_000, '{"output": "one.png", "status": "restored", "settings": {"seed": 0}, "megapixels": "x", "seconds": null}']
    out.mkdir()
    (out / MANIFEST).write_text("\n".join(lines))
    assert set(read_records(out)) == {"one.png"}
    batch = Batch(plan_photos([photos], out), lambda: turn, SETTINGS)
    assert batch.seconds_per_megapixel()[1] is False
    assert {result.status for result in batch.run()} == {"restored"}


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_manifest_that_is_no_file_is_told(run, photos, out, checkpoint, make):
    out.mkdir()
    make(out / MANIFEST)
    code, _, err = run("restore", photos, "-o", out, "--checkpoint", checkpoint)
    assert code == 2
    assert len(err) == 1
    assert err[0].startswith(f"foundir: {out / MANIFEST}: ")


def test_what_could_not_be_kept_is_entered_and_told(run, photo, out, checkpoint, tmp_path):
    alpha = Image.new("L", photo.size, 128)
    photo.putalpha(alpha)
    photo.save(tmp_path / "clear.png")
    code, _, told = run("restore", tmp_path / "clear.png", "-o", out, "--format", "jpg", "--checkpoint", checkpoint)
    assert (code, len(told)) == (0, 2)
    (note,) = read_records(out)["clear.png.jpg"]["notes"]
    assert "transparency" in note
    assert told[0] == f"foundir: {tmp_path / 'clear.png'}: {note}."


# Going on


def test_the_same_again_restores_nothing_and_says_so(photos, out):
    restore(photos, out)
    before = contents(out)
    again = {r.record["output"]: r for r in Batch(plan_photos([photos], out), pytest.fail, SETTINGS).run()}  # no model is loaded
    assert statuses(again) == {"deep/three.png": "skipped", "one.png": "skipped", "two.jpg": "skipped"}
    assert contents(out) == before


def test_what_is_missing_or_failed_is_restored(photos, out):
    (photos / "late.png").write_text("words")
    restore(photos, out)
    (out / "two.jpg").unlink()
    shutil.copy(photos / "one.png", photos / "late.png")
    assert statuses(restore(photos, out)) == {
        "deep/three.png": "skipped",
        "late.png": "restored",
        "one.png": "skipped",
        "two.jpg": "restored",
    }


def test_an_output_that_is_not_what_the_manifest_says_is_kept_without_overwrite(photos, photo, out):
    restore(photos, out)
    (out / "one.png").write_bytes(b"retouched by hand")
    photo.rotate(90, expand=True).save(photos / "two.jpg")  # another photograph under the old name
    results = restore(photos, out)
    assert statuses(results) == {"deep/three.png": "skipped", "one.png": "failed", "two.jpg": "failed"}
    assert "pass --overwrite" in results["one.png"].record["error"]
    assert (out / "one.png").read_bytes() == b"retouched by hand"
    assert statuses(restore(photos, out, overwrite=True)) == {"deep/three.png": "skipped", "one.png": "restored", "two.jpg": "restored"}
    assert Image.open(out / "two.jpg").size == (56, 72)


def test_a_failure_does_not_make_an_output_unknown(photos, out):
    restore(photos, out)
    original = (photos / "one.png").read_bytes()
    (photos / "one.png").write_text("for a moment unreadable")
    assert statuses(restore(photos, out))["one.png"] == "failed"
    (photos / "one.png").write_bytes(original)
    assert set(statuses(restore(photos, out)).values()) == {"skipped"}


def test_other_settings_are_refused_before_any_work(photos, out):
    restore(photos, out)
    before = contents(out)
    with pytest.raises(ValueError, match="made with other settings; pass --overwrite"):
        restore(photos, out, settings={"seed": 1})
    assert contents(out) == before
    assert set(statuses(restore(photos, out, settings={"seed": 1}, overwrite=True)).values()) == {"restored"}


def test_a_file_that_was_being_written_is_written_again(photos, out):
    """Killed between the file and its record."""
    restore(photos, out)
    whole = contents(out)
    entered = (out / MANIFEST).read_text().splitlines(keepends=True)
    assert json.loads(entered[-1])["status"] == "restored"
    (out / MANIFEST).write_text("".join(entered[:-1]))
    (out / ".foundir-abc").write_bytes(b"half a photograph")
    results = statuses(restore(photos, out))
    assert sorted(results.values()) == ["restored", "skipped", "skipped"]
    assert contents(out) == whole


def many(folder: Path, photo: Image.Image, count: int) -> None:
    """`count` different photographs in a folder."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.roll(np.asarray(photo), number, axis=1)).resize((288, 224)).save(folder / f"{number:02}.png")


def wait_for_lines(path: Path, count: int, alive) -> None:
    while alive() and (not path.exists() or path.read_bytes().count(b"\n") < count):
        time.sleep(0.001)


def check_nothing_twice(out: Path, kills: int) -> None:
    """Nothing is restored twice; beyond that, what was in flight at a kill is begun again. No half files, and none left over."""
    restored = [line["output"] for line in lines(out) if line["status"] == "restored"]
    assert sorted(restored) == sorted(contents(out))
    assert sum(line["status"] == "writing" for line in lines(out)) <= len(restored) + kills


def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(photo, tmp_path, out):
    many(tmp_path / "many", photo, 30)
    restore(tmp_path / "many", tmp_path / "whole")
    moments, kills = random.Random(0), 0
    for count in sorted(moments.sample(range(1, 55), int(os.environ.get("FOUNDIR_KILLS", "10")))):
        process = multiprocessing.get_context("fork").Process(target=restore, args=(tmp_path / "many", out))
        process.start()
        wait_for_lines(out / MANIFEST, count, process.is_alive)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        for path in out.glob("*.png"):
            assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    assert kills
    restore(tmp_path / "many", out)
    assert contents(out) == contents(tmp_path / "whole")
    check_nothing_twice(out, kills)


def test_the_command_line_killed_goes_on_to_the_same_bytes(run, photo, tmp_path, checkpoint, out):
    many(tmp_path / "many", photo, 8)
    arguments = ("restore", tmp_path / "many", "--checkpoint", checkpoint, "-o")
    assert run(*arguments, tmp_path / "whole")[0] == 0
    process = Command("foundir_hf.cli", *arguments, out)
    wait_for_lines(out / MANIFEST, 3, lambda: process.poll() is None)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    code, stdout, _ = run(*arguments, out)
    assert (code, stdout.count(b" -> ")) == (0, 8)
    assert b"(restored before)" in stdout
    assert contents(out) == contents(tmp_path / "whole")
    check_nothing_twice(out, 1)


def test_two_processes_share_a_folder(photo, tmp_path, checkpoint, out):
    many(tmp_path / "many", photo, 12)
    arguments = ("restore", tmp_path / "many", "-o", out, "--checkpoint", checkpoint)
    processes = [Command("foundir_hf.cli", *arguments) for _ in range(2)]
    told = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    restored = [line["output"] for line in lines(out) if line["status"] == "restored"]
    assert sorted(restored) == sorted(contents(out)) == [f"{number:02}.png" for number in range(12)]
    assert sum(stdout.count("(restored before)") for stdout, _ in told) == 12
    assert all(stdout.count(" -> ") == 12 for stdout, _ in told)


HOLD = """
import sys, time
from pathlib import Path
from foundir_hf.restoration.manifest import Manifest
manifest = Manifest(Path(sys.argv[1]))
assert manifest.claim("one.png")
manifest.share()
print("held", flush=True)
time.sleep(600)
"""


def test_a_photograph_of_another_process_is_left_to_it_until_it_dies(photos, out):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        results: dict[str, Result] = {}
        worker = threading.Thread(target=lambda: results.update(restore(photos, out)))
        worker.start()
        while read_records(out).keys() != {"two.jpg", "deep/three.png"}:
            assert worker.is_alive()
            time.sleep(0.01)
        assert not (out / "one.png").exists()
    finally:
        holder.kill()
        holder.communicate()
    worker.join()
    assert statuses(results) == {"deep/three.png": "restored", "one.png": "restored", "two.jpg": "restored"}


# Failures


@pytest.mark.parametrize(
    "error", [KeyError("no key"), RecursionError(), MemoryError(), AssertionError("two\nlines"), ZeroDivisionError("z")]
)
def test_any_exception_is_one_photographs_failure(photos, out, error):
    truth = np.asarray(Image.open(photos / "one.png"))

    def fail(photo: Photo) -> Photo:
        if np.array_equal(photo.pixels, truth):
            raise error
        return turn(photo)

    results = restore(photos, out, fail)
    assert statuses(results) == {"deep/three.png": "restored", "one.png": "failed", "two.jpg": "restored"}
    assert results["one.png"].record["error"].startswith(f"{photos / 'one.png'}: ")
    assert read_records(out)["one.png"]["status"] == "failed"


def test_an_output_that_cannot_be_written_is_one_photographs_failure(photos, out):
    (out / "two.jpg").mkdir(parents=True)
    assert statuses(restore(photos, out, overwrite=True)) == {"deep/three.png": "restored", "one.png": "restored", "two.jpg": "failed"}


def test_leaving_a_batch_early_keeps_what_is_whole(photos, out):
    batch = Batch(plan_photos([photos], out), lambda: turn, SETTINGS)
    first = next(iter(batch.run()))
    assert first.status == "restored"
    assert file_sha256(out / first.record["output"]) == first.record["output_sha256"]


# The command line


def test_one_failed_of_several_is_exit_code_1_and_told(run, photos, out, checkpoint):
    (photos / "broken.png").write_text("words")
    code, stdout, told = run("restore", photos, "-o", out, "--checkpoint", checkpoint)
    assert code == 1
    assert stdout.count(b" -> ") == 3
    assert len(told) == 2
    assert told[0].startswith(f"foundir: {photos / 'broken.png'}: ")
    assert told[1].startswith("foundir: 3 of 4 restored, 0 before, 1 failed, in ")


def test_the_same_command_again_says_what_it_skips(run, photos, out, checkpoint):
    arguments = ("restore", photos, "-o", out, "--checkpoint", checkpoint)
    assert run(*arguments)[0] == 0
    (out / "one.png").unlink()
    code, stdout, told = run(*arguments)
    assert code == 0
    assert stdout.count(b"(restored before)") == 2
    assert told[-1].startswith("foundir: 1 of 3 restored, 2 before, 0 failed")


def test_what_is_passed_over_is_a_line_a_kind(run, photos, out, checkpoint):
    for name in ("a.gif", "b.GIF", "._one.png"):
        (photos / name).write_text("")
    code, _, told = run("restore", photos, "-o", out, "--checkpoint", checkpoint)
    assert code == 0
    assert told[:-1] == [
        f"foundir: passed over 1 x ._*: {photos / '._one.png'}",
        f"foundir: passed over 2 x .gif: {photos / 'a.gif'}, ...",
    ]


def test_json_prints_an_object_a_photograph_and_nothing_else(run, photos, out, checkpoint):
    (photos / "broken.png").write_text("words")
    code, stdout, _ = run("restore", photos, "-o", out, "--checkpoint", checkpoint, "--json")
    assert code == 1
    told = {record["input"]: record for record in map(json.loads, stdout.splitlines())}
    assert len(told) == 4
    assert told[str(photos / "broken.png")]["status"] == "failed"
    assert told[str(photos / "one.png")]["output"] == str(out / "one.png")


def test_a_dry_run_writes_nothing_and_estimates(run, photos, out, checkpoint):
    arguments = ("restore", photos, "-o", out, "--checkpoint", checkpoint)
    code, stdout, told = run(*arguments, "--dry-run")
    assert (code, stdout.count(b" -> ")) == (0, 3)
    assert "3 to restore, 0 restored before, 0 would fail; 0.0 megapixels, about" in told[-1]
    assert "by a small picture" in told[-1]
    assert not out.exists()
    assert run(*arguments)[0] == 0
    (out / "one.png").unlink()
    before = contents(out)
    code, stdout, told = run(*arguments, "--dry-run")
    assert "1 to restore, 2 restored before" in told[-1]
    assert "by earlier photographs" in told[-1]
    assert contents(out) == before


def test_an_estimate_is_the_mean_of_earlier_photographs(photos, out):
    with Manifest(out) as manifest:
        for output, megapixels, seconds, seed in (("a.png", 1, 2, 0), ("b.png", 3, 10, 0), ("c.png", 1, 99, 7)):
            measured = {"settings": {"seed": seed}, "megapixels": megapixels, "seconds": seconds}
            manifest.append({"output": output, "status": "restored", **measured})
    assert Batch(plan_photos([photos], out), lambda: turn, SETTINGS).seconds_per_megapixel() == (3.0, True)


@pytest.mark.parametrize("zeros", [False, True], ids=["lines", "zeros"])
def test_a_list_names_the_photographs(run, photos, out, checkpoint, tmp_path, monkeypatch, zeros):
    monkeypatch.chdir(photos)
    listed = b"\0".join([b"one.png", b"deep/three.png", b""]) if zeros else b"one.png\r\n\ndeep/three.png"
    (tmp_path / "list").write_bytes(listed)
    assert run("restore", "--files-from", tmp_path / "list", "-o", out, "--checkpoint", checkpoint)[0] == 0
    assert set(contents(out)) == {"one.png", "deep/three.png"}


def stdin_of(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_list_may_come_from_stdin(run, photos, out, checkpoint, monkeypatch):
    stdin_of(monkeypatch, f"{photos / 'one.png'}\n".encode())
    assert run("restore", "--files-from", "-", "-o", out, "--checkpoint", checkpoint)[0] == 0
    assert set(contents(out)) == {"one.png"}


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [("one.png", (), "PNG"), ("two.jpg", (), "JPEG"), ("two.jpg", ("--format", "webp"), "WEBP")],
)
def test_a_photograph_goes_through_pipes(run, photos, checkpoint, tmp_path, monkeypatch, source, options, expected):
    stdin_of(monkeypatch, (photos / source).read_bytes())
    code, stdout, told = run("restore", "-", "-o", "-", *options, "--checkpoint", checkpoint)
    assert (code, len(told)) == (0, 1)
    with Image.open(io.BytesIO(stdout)) as image:
        assert image.format == expected
    if not options:
        assert run("restore", photos / source, "-o", tmp_path / source, "--checkpoint", checkpoint)[0] == 0
        assert stdout == (tmp_path / source).read_bytes()


def test_what_is_piped_in_may_become_a_file_and_is_called_by_its_dash(run, photos, checkpoint, tmp_path, monkeypatch):
    stdin_of(monkeypatch, (photos / "one.png").read_bytes())
    assert run("restore", "-", "-o", tmp_path / "x.png", "--checkpoint", checkpoint)[:2] == (0, f"- -> {tmp_path / 'x.png'}\n".encode())
    assert not (tmp_path / MANIFEST).exists()
    stdin_of(monkeypatch, b"words")
    code, stdout, told = run("restore", "-", "-o", "-", "--checkpoint", checkpoint)
    assert (code, stdout) == (1, b"")
    assert told == ["foundir: -: cannot be read: not an image of a known format"]


WRONG = [
    (("", "-o", "out"), "must not be empty"),
    (("one.png", "-o", ""), "must not be empty"),
    (("-o", "out"), "nothing to restore"),
    (("-", "one.png", "-o", "out"), "single photograph"),
    (("one.png", "two.jpg", "-o", "-"), "single photograph"),
    (("-", "-o", "out"), "has no name"),
    (("one.png", "-o", "x.png", "--format", "png"), "`--format` is for"),
    (("one.png", "-o", "-", "--json"), "--json"),
    (("one.png", "-o", "-", "--format", "heic"), "--format"),
    (("one.png", "-o", "x.heic"), "cannot write .heic"),
    (("--files-from", "nowhere", "-o", "out"), "nowhere"),
    (("nowhere.png", "-o", "out"), "no such file or folder"),
    (("n" * 300, "-o", "out"), "File name too long"),
]


def test_what_needs_no_model_is_refused_before_torch_is_imported(photos):
    """All in one process, which would import torch once for all."""
    code = "import json, os, sys; from foundir_hf.cli import main\n"
    code += "for arguments in json.loads(sys.argv[1]):\n"
    code += " try: code = main(['restore', *arguments])\n except SystemExit as stop: code = stop.code\n"
    code += " print(code, sorted(os.listdir()), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, json.dumps([arguments for arguments, _ in WRONG])]
    done = subprocess.run(command, cwd=photos, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 ['deep', 'one.png', 'two.jpg'] False"] * len(WRONG)
    for (arguments, said), line in zip(WRONG, done.stderr.splitlines(), strict=True):
        assert said in line, arguments


def test_names_that_the_terminal_cannot_spell_are_escaped(photos, out, checkpoint, tmp_path):
    (tmp_path / "names").mkdir()
    for name in (b"caf\xc3\xa9 \xe2\x98\x83.png", b"broken \xff.png", b"two\nlines.png"):
        shutil.copy(photos / "one.png", os.path.join(os.fsencode(tmp_path / "names"), name))
    command = [sys.executable, "-m", "foundir_hf.cli", "restore", str(tmp_path / "names"), "-o", str(out), "--checkpoint", str(checkpoint)]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 3
    for spelling in (b"caf\xe9 \\u2603.png", b"broken \\udcff.png", b"two\\nlines.png"):
        assert sum(spelling in line for line in told) == 1
    assert len(list(out.glob("*.png"))) == 3
