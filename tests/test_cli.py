"""The command line: what it writes, and that every mistake a person can make is one line, exit code 2 and nothing written.

What `foundir restore` does with many photographs is in test_batch.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf import __version__
from foundir_hf.cli import main
from foundir_hf.cli.common import UsageError, check_writable
from foundir_hf.restoration.manifest import MANIFEST

COMMANDS = ["restore", "demo", "evaluate", "info", "export", "adapt", "tasks", "degrade", "diagnose", "clean", "pack", "convert"]


@pytest.fixture
def photos(tmp_path, photo) -> Path:
    """`photos/`: one.png, deep/er/two.jpg, and a text that is none of the command's business."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    photo.save(folder / "one.png")
    photo.rotate(180).save(folder / "deep" / "er" / "two.jpg", quality=95)
    (folder / "notes.txt").write_text("not a photograph")
    return folder


@pytest.fixture
def run(capsys):
    """Runs the command line in this process -> exit code, stdout, stderr."""

    def run_command(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run_command


@pytest.fixture
def refused(run, tmp_path):
    """Runs a command that must fail as usage does: exit code 2, one line, nothing printed, nothing written. Returns the line."""

    def snapshot() -> dict[str, bytes | None]:
        return {str(p): p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}

    def run_refused(*arguments) -> str:
        before = snapshot()
        code, out, err = run(*arguments)
        assert code == 2
        assert err.startswith("foundir: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert "Traceback" not in err
        assert out == ""
        assert snapshot() == before
        return err.strip()

    return run_refused


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# restore


def test_one_photograph_is_restored_to_a_file_name(run, photos, checkpoint, tmp_path):
    target = tmp_path / "new" / "restored.png"
    code, out, err = run("restore", photos / "one.png", "-o", target, "--checkpoint", checkpoint)
    assert code == 0
    assert re.fullmatch(r"foundir: 1 of 1 restored, 0 before, 0 failed, in \d\d:\d\d\.\n", err)
    assert out == f"{photos / 'one.png'} -> {target}\n"
    assert pixels(target).shape == (56, 72, 3)
    assert not np.array_equal(pixels(target), pixels(photos / "one.png"))


def test_one_photograph_is_restored_into_a_folder_under_its_own_name(run, photos, checkpoint, tmp_path):
    code, _, _ = run("restore", photos / "one.png", "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MANIFEST, "one.png"]


def test_a_folder_is_searched_recursively_and_mirrored(run, photos, checkpoint, tmp_path):
    # Lists of other programs among the photographs decide nothing.
    (photos / "manifest.csv").write_text("name,price\none,1\n")
    code, out, _ = run("restore", photos, "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert code == 0
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == ["deep/er/two.jpg", MANIFEST, "one.png"]
    assert out.count(" -> ") == 2


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(run, photos, checkpoint, tmp_path):
    written = []
    for name, seed in (("a.png", 3), ("b.png", 3), ("c.png", 4)):
        options = ("--seed", seed, "--checkpoint", checkpoint)
        assert run("restore", photos / "one.png", "-o", tmp_path / name, *options)[0] == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    assert written[0] != written[2]


def test_a_photograph_gives_the_same_bytes_alone_and_among_others(run, photos, checkpoint, tmp_path):
    assert run("restore", photos, "-o", tmp_path / "all", "--checkpoint", checkpoint)[0] == 0
    assert run("restore", photos / "one.png", "-o", tmp_path / "alone.png", "--checkpoint", checkpoint)[0] == 0
    assert (tmp_path / "all" / "one.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


@pytest.mark.parametrize(("upscale", "size"), [(2, (144, 112)), (1.51, (109, 85))])
def test_upscale_enlarges_to_the_rounded_size(run, photos, checkpoint, tmp_path, upscale, size):
    arguments = ("--upscale", upscale, "--tile-size", 64, "--tile-overlap", 32, "--checkpoint", checkpoint)
    assert run("restore", photos / "one.png", "-o", tmp_path / "large.png", *arguments)[0] == 0
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == size


def test_strength_zero_returns_the_photograph(run, photos, checkpoint, tmp_path):
    assert run("restore", photos / "one.png", "-o", tmp_path / "same.png", "--strength", 0, "--checkpoint", checkpoint)[0] == 0
    assert np.array_equal(pixels(tmp_path / "same.png"), pixels(photos / "one.png"))


def test_every_option_of_the_pipeline_reaches_it(run, photos, checkpoint, tmp_path):
    results = {}
    options = (("--fidelity", 0.5), ("--strength", 0.5), ("--color-fix", "wavelet"), ("--steps", 2), ("--steps", 0), ("--tone", "off"))
    for option in ((), *options):
        target = tmp_path / f"{'-'.join(map(str, option))}.png" if option else tmp_path / "plain.png"
        assert run("restore", photos / "one.png", "-o", target, *option, "--checkpoint", checkpoint)[0] == 0
        results[target.name] = target.read_bytes()
    assert len(set(results.values())) == len(results)


def test_an_existing_file_is_replaced_only_with_overwrite(run, refused, photos, checkpoint, tmp_path):
    target = tmp_path / "there.png"
    target.write_bytes(b"precious")
    arguments = ("restore", photos / "one.png", "-o", target, "--checkpoint", checkpoint)
    assert f"{target}: exists" in refused(*arguments)
    assert run(*arguments, "--overwrite")[0] == 0
    assert pixels(target).shape == (56, 72, 3)


@pytest.mark.parametrize("source", ["photos", "photos/one.png"])
def test_an_input_is_never_overwritten(refused, photos, checkpoint, source):
    line = refused("restore", photos.parent / source, "-o", photos, "--overwrite", "--checkpoint", checkpoint)
    assert "originals are never overwritten" in line


def test_an_input_is_recognised_behind_a_link(refused, photos, checkpoint, tmp_path):
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    line = refused("restore", photos / "one.png", "-o", tmp_path / "link", "--overwrite", "--checkpoint", checkpoint)
    assert "originals are never overwritten" in line


def test_two_inputs_to_one_file_are_refused(refused, photos, photo, checkpoint, tmp_path):
    (tmp_path / "other").mkdir()
    photo.save(tmp_path / "other" / "one.png")
    line = refused("restore", photos, tmp_path / "other" / "one.png", "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert "would both be written" in line


def test_broken_photographs_do_not_stop_the_others(run, photos, checkpoint, tmp_path):
    (photos / "a_text.png").write_text("words")
    (photos / "z_half.png").write_bytes((photos / "one.png").read_bytes()[:200])
    code, out, err = run("restore", photos, "-o", tmp_path / "out", "--checkpoint", checkpoint)
    assert code == 1
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.*")) == [MANIFEST, "one.png", "two.jpg"]
    assert out.count(" -> ") == 2
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"foundir: {photos / 'a_text.png'}: ")
    assert lines[1].startswith(f"foundir: {photos / 'z_half.png'}: ")
    assert lines[2] == f"foundir: passed over 1 x .txt: {photos / 'notes.txt'}"
    assert lines[3].startswith("foundir: 2 of 4 restored, 0 before, 2 failed, in ")


def test_a_photograph_too_large_for_the_memory_is_told_in_one_line(checkpoint, tmp_path):
    Image.new("RGB", (900, 900)).save(tmp_path / "large.png")
    script = (
        "import resource, sys, torch\n"
        "from foundir_hf import cli, load_pipeline\n"
        "load_pipeline(sys.argv[2])\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, -1))\n"
        "raise SystemExit(cli.main(['restore', sys.argv[1], '-o', sys.argv[3], '--upscale', '8', '--checkpoint', sys.argv[2]]))\n"
    )
    arguments = [str(tmp_path / "large.png"), str(checkpoint), str(tmp_path / "out.png")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"foundir: {tmp_path / 'large.png'}: out of memory; try a smaller --tile-size."
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.png").exists()


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--upscale", "nan"), "--upscale"),
        (("--upscale", "0.5"), "--upscale"),
        (("--upscale", "inf"), "--upscale"),
        (("--strength", "1.01"), "--strength"),
        (("--strength", "NaN"), "--strength"),
        (("--fidelity", "-0.1"), "--fidelity"),
        (("--fidelity", "much"), "--fidelity"),
        (("--steps", "-1"), "--steps"),
        (("--steps", "1.5"), "--steps"),
        (("--seed", "-1"), "--seed"),
        (("--seed", str(2**63)), "--seed"),
        (("--tile-size", "112"), "`--tile-size` must be a multiple of 32, got 112"),
        (("--tile-size", "0"), "--tile-size"),
        (("--tile-overlap", "48"), "`--tile-overlap` must be a multiple of 32, got 48"),
        (("--tile-size", "64", "--tile-overlap", "64"), "smaller than --tile-size"),
        (("--tone", "sepia"), "--tone"),
        (("--start-from", "middle"), "--start-from"),
        (("--color-fix", "sepia"), "--color-fix"),
        (("--device", "abacus"), "abacus"),
        (("--device", "meta"), "meta"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--checkpoint", "no/such-checkpoint"), "checkpoint"),
        (("--frobnicate",), "--frobnicate"),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, tuple) else "",
)
def test_an_option_out_of_range_is_refused_by_name(refused, photos, checkpoint, tmp_path, arguments, word):
    line = refused("restore", photos / "one.png", "-o", tmp_path / "x.png", "--checkpoint", checkpoint, *arguments)
    assert word in line


def test_options_that_a_checkpoint_cannot_take_are_refused_before_a_photograph_is_read(refused, photos, checkpoint, sdxl, tmp_path):
    sdxl.save_pretrained(tmp_path / "sdxl")
    (photos / "words.png").write_text("words")
    rest = ("restore", photos / "words.png", "-o", tmp_path / "x.png", "--checkpoint")
    assert "`--tile-size` must be a multiple of 32" in refused(*rest, checkpoint, "--tile-size", 48, "--tile-overlap", 0)
    assert "`--steps` must be at least 1 with this checkpoint" in refused(*rest, tmp_path / "sdxl", "--steps", 0)
    assert "`--tone` must be auto or off with this checkpoint" in refused(*rest, tmp_path / "sdxl", "--tone", "always")


def test_a_wrong_path_is_named(refused, tmp_path, checkpoint):
    assert f"{tmp_path / 'nowhere'}: no such" in refused("restore", tmp_path / "nowhere", "-o", tmp_path / "o", "--checkpoint", checkpoint)


def test_a_file_that_is_no_photograph_by_its_name_is_refused(refused, photos, tmp_path, checkpoint):
    assert "notes.txt" in refused("restore", photos / "notes.txt", "-o", tmp_path / "out", "--checkpoint", checkpoint)


def test_a_file_that_is_no_photograph_by_its_content_fails_in_one_line(run, tmp_path, checkpoint):
    (tmp_path / "words.png").write_text("words")
    code, out, err = run("restore", tmp_path / "words.png", "-o", tmp_path / "out.png", "--checkpoint", checkpoint)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "not an image of a known format" in err
    assert not (tmp_path / "out.png").exists()


def test_a_folder_without_photographs_is_named(refused, tmp_path, checkpoint):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refused("restore", tmp_path / "empty", "-o", tmp_path / "out", "--checkpoint", checkpoint)


def test_a_file_name_for_several_photographs_is_refused(refused, photos, tmp_path, checkpoint):
    assert "need a folder" in refused("restore", photos, "-o", tmp_path / "one.png", "--checkpoint", checkpoint)


@pytest.mark.parametrize("command", ["restore", "demo", "export", "evaluate"])
def test_an_output_below_a_file_is_refused(refused, photos, tmp_path, checkpoint, command):
    (tmp_path / "file").write_text("in the way")
    source = {"restore": [photos], "evaluate": ["--clean", photos]}.get(command, [])
    line = refused(command, *source, "-o", tmp_path / "file" / "sub" / "out", "--checkpoint", checkpoint)
    assert f"{tmp_path / 'file'} is a file" in line


@pytest.mark.parametrize("command", ["restore", "demo", "export", "evaluate", "info"])
def test_every_command_refuses_an_unknown_checkpoint_and_device(refused, run, photos, tmp_path, checkpoint, command):
    (tmp_path / "no-model").mkdir()
    rest = {"restore": [photos, "-o", tmp_path / "o"], "evaluate": ["--clean", photos], "info": []}.get(command, ["-o", tmp_path / "o"])
    assert "no-model" in refused(command, *rest, "--checkpoint", tmp_path / "no-model")
    code, _, err = run(command, *rest, "--checkpoint", "no/such", "--device", "cpu")
    assert (code, err.count("\n")) == (2, 1)
    assert "abacus" in refused(command, *rest, "--checkpoint", checkpoint, "--device", "abacus")


def test_a_damaged_checkpoint_is_named_in_one_line(run, pipeline, photos, tmp_path):
    pipeline.save_pretrained(tmp_path / "damaged")
    weights = next((tmp_path / "damaged" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    code, _, err = run("restore", photos, "-o", tmp_path / "o", "--checkpoint", tmp_path / "damaged")
    assert (code, err.count("\n")) == (2, 1)
    assert "unet" in err
    weights.unlink()
    code, _, err = run("restore", photos, "-o", tmp_path / "o", "--checkpoint", tmp_path / "damaged")
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "o").exists()


def test_no_command_and_an_unknown_command_are_refused(refused):
    assert "COMMAND" in refused()
    assert "repair" in refused("repair")


# What the verbs share


def test_check_writable_looks_at_the_nearest_folder_that_exists(tmp_path):
    check_writable(tmp_path / "not" / "yet" / "there")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="is a file"):
            check_writable(folder)


def test_what_was_done_is_recorded_unless_it_is_not_wanted(run, checkpoint, photos, tmp_path):
    options = ("restore", photos / "one.png", "--checkpoint", checkpoint)
    assert run(*options, "--tone", "off", "--seed", "3", "-o", tmp_path / "a.png")[0] == 0
    code, out, _ = run("info", tmp_path / "a.png")
    assert code == 0
    assert re.search(r"^software +foundir_hf \d", out, re.MULTILINE)
    assert re.search(r"^seed +3$", out, re.MULTILINE)
    assert '"tone": "off"' in out
    assert re.search(r"^weights +lq_encoder/\S+ [0-9a-f]{16}, ", out, re.MULTILINE)
    for name, more in (("b.png", "--no-record"), ("c.png", "--metadata=none")):
        assert run(*options, "-o", tmp_path / name, more)[0] == 0
        assert "no record" in run("info", tmp_path / name)[1]
    code, _, err = run(*options, "-o", tmp_path / "d.bmp")  # which has no room for it, and nothing of the photograph's own was lost
    assert code == 0
    assert "cannot hold" not in err


def test_quality_and_the_map_of_what_changed(run, checkpoint, photos, tmp_path):
    options = ("restore", photos / "one.png", "--checkpoint", checkpoint)
    sizes = []
    for quality in ("30", "90"):
        assert (
            run(*options, "-o", tmp_path / f"{quality}.jpg", "--quality", quality, "--change-map", tmp_path / f"map{quality}.png")[0] == 0
        )
        sizes.append((tmp_path / f"{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2
    with Image.open(photos / "one.png") as photo, Image.open(tmp_path / "map30.png") as drawn:
        assert drawn.size == (max(240, photo.width), photo.height + 24)
    code, _, err = run("restore", photos, "--checkpoint", checkpoint, "-o", tmp_path / "all", "--change-map", tmp_path / "map.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "`--change-map` is of a single photograph" in err


# info, export, help


def test_info_prints_totals_hashes_and_device(run, pipeline, checkpoint):
    code, out, _ = run("info", "--checkpoint", checkpoint, "--device", "cpu")
    assert code == 0
    models = [component for component in pipeline.components.values() if isinstance(component, torch.nn.Module)]
    total = sum(p.numel() for model in models for p in model.parameters())
    assert re.search(rf"^total +{total:,} parameters", out, re.MULTILINE)
    assert re.search(r"^device +cpu$", out, re.MULTILINE)
    assert __version__ in out
    weights = sorted(checkpoint.rglob("*.safetensors"))
    assert len(weights) == len(models) == 4
    for file in weights:
        assert f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(checkpoint)}" in out


def test_info_of_a_photograph_tells_what_its_file_holds(run, photos):
    code, out, _ = run("info", photos / "one.png")
    assert code == 0
    assert re.search(r"^picture +\d+ x \d+ pixels, RGB, 8 bits \(PNG\)$", out, re.MULTILINE)
    assert "no record" in out
    code, _, err = run("info", photos / "nowhere.png")
    assert (code, err) == (2, f"foundir: {photos / 'nowhere.png'}: no such file.\n")
    code, out, err = run("info", photos / "nowhere.png", photos / "one.png")  # the others are shown
    assert (code, err) == (1, f"foundir: {photos / 'nowhere.png'}: no such file.\nfoundir: 1 of 2 photographs could not be read.\n")
    assert "RGB, 8 bits" in out


def test_export_writes_weights_and_the_code_that_loads_them(run, checkpoint, tmp_path):
    code, out, _ = run("export", "--checkpoint", checkpoint, "-o", tmp_path / "exported")
    assert code == 0
    assert str(tmp_path / "exported") in out
    index = json.loads((tmp_path / "exported" / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline_foundir", "FoundIRPipeline"]
    assert "Apache License" in (tmp_path / "exported" / "LICENSE").read_text()
    assert "license: apache-2.0" in (tmp_path / "exported" / "README.md").read_text()
    files = {str(p.relative_to(tmp_path / "exported")) for p in (tmp_path / "exported").rglob("*") if p.is_file()}
    assert {"pipeline_foundir.py", "unet/unet_foundir.py", "vae/cosine_autoencoder_foundir.py", "tone/tone_curves_foundir.py"} <= files
    for file in checkpoint.rglob("*.safetensors"):
        assert (tmp_path / "exported" / file.relative_to(checkpoint)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_its_options(run, command):
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"usage: foundir {command}" in out
    assert ("--checkpoint" in out) == (command in COMMANDS[:6])


def test_help_lists_every_command_and_version_prints_the_version(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(re.search(rf"^ +{command} ", out, re.MULTILINE) for command in COMMANDS)
    assert run("--version")[:2] == (0, f"foundir_hf {__version__}\n")


# As a process of its own


def test_a_process_of_its_own_restores_and_writes_the_same_bytes(run, photos, checkpoint, tmp_path):
    arguments = ["restore", str(photos / "one.png"), "--checkpoint", str(checkpoint), "-o"]
    command = [sys.executable, "-m", "foundir_hf.cli", *arguments, str(tmp_path / "process.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{photos / 'one.png'} -> {tmp_path / 'process.png'}\n"
    assert run(*arguments, tmp_path / "here.png")[0] == 0
    assert (tmp_path / "process.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def test_a_process_of_its_own_fails_with_one_line(photos, tmp_path):
    command = [sys.executable, "-m", "foundir_hf.cli", "restore", str(photos / "one.png"), "-o", str(tmp_path), "--checkpoint", "no/such"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"foundir: .+\n", done.stderr)
