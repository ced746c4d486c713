"""Inputs for other methods, and their outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from pictures import pixels, save
from PIL import Image

from foundir_hf.evaluation.outputs import Outputs, write_inputs
from foundir_hf.evaluation.suites import ImageSet, Suite, folder_suite, load_suite


@pytest.fixture
def suite(tmp_path) -> Suite:
    save(tmp_path / "clean" / "deep" / "a.jpg", pixels())
    save(tmp_path / "small" / "GT" / "x.png", pixels(40, 48))
    save(tmp_path / "small" / "LQ" / "x.png", pixels(20, 24))
    entries = [{"clean": "clean", "tasks": ["haze", {"protocol": "noise", "sigma": 50}]}, {"paired": "small"}]
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"sets": entries}))
    return load_suite(tmp_path / "suite.yaml", tmp_path)


def test_inputs_are_written_without_loss(suite, tmp_path):
    assert write_inputs(suite, tmp_path / "in", seed=3) == 3
    written = sorted(p.relative_to(tmp_path / "in").as_posix() for p in (tmp_path / "in").rglob("*") if p.is_file())
    assert written == ["clean/haze/deep/a.png", "clean/noise_sigma_50/deep/a.npy", "small/x.png"]
    haze, noise = suite.sets[0].cases(3)
    (small,) = suite.sets[1].cases(3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "in" / written[0])), haze.degraded)
    assert np.array_equal(np.load(tmp_path / "in" / written[1], allow_pickle=False), noise.degraded.astype(np.float32))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "in" / written[2])), small.small)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["real/p.png", "real/p.jpg"])
def test_inputs_are_never_written_among_the_suite_s_photographs(tmp_path, name):
    save(tmp_path / name, pixels())
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"p.png: inputs must not be written among the suite's photographs in .*real"):
        write_inputs(folder_suite(None, None, [tmp_path / "real"]), tmp_path, seed=0)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["small/x.png", "clean/noise_sigma_50/deep/a.npy"])
def test_inputs_are_never_written_over_a_file(suite, tmp_path, name):
    target = tmp_path / "in" / name
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=rf"{target.name}: is there already"):
        write_inputs(suite, tmp_path / "in", seed=3)
    assert files_of(tmp_path) == before


def test_two_images_whose_inputs_would_be_one_file_are_refused(suite, tmp_path):
    save(tmp_path / "real" / "haze" / "deep" / "a.png", pixels())
    both = Suite("both", (*suite.sets, ImageSet("unpaired", tmp_path / "real", "clean")))
    with pytest.raises(ValueError, match=r"has two images whose input would be clean/haze/deep/a"):
        write_inputs(both, tmp_path / "in", seed=3)
    assert not (tmp_path / "in").exists()


def test_written_inputs_come_back_as_outputs(suite, tmp_path):
    write_inputs(suite, tmp_path / "in", seed=3)
    (tmp_path / "in" / "small" / "x.png").unlink()
    outputs = Outputs("nothing", tmp_path / "in", suite)
    haze, noise = suite.sets[0].cases(3)
    image = outputs.read(haze)
    assert image is not None
    assert np.array_equal(image, haze.degraded)
    assert outputs.read(noise) is None  # no image there: a task this method did not do
    assert outputs.read(next(suite.sets[1].cases(3))) is None


def test_outputs_of_a_single_set_may_lie_flat_in_any_format(suite, tmp_path):
    single = Suite("one", suite.sets[1:])
    save(tmp_path / "flat" / "x.bmp", pixels(40, 48, seed=5))
    image = Outputs("SPAN", tmp_path / "flat", single).read(next(single.sets[0].cases(0)))
    assert image is not None
    assert np.array_equal(image, pixels(40, 48, seed=5))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"`outputs` 'SPAN': .*out holds none of small"),
        ({"small/y.png": (40, 48)}, r"out holds no image called small/x"),
        ({"small/x.png": (20, 24)}, r"x.png: must have 48x40 pixels, got 24x20"),
        ({"small/x.png": (40, 48), "small/x.bmp": (40, 48)}, r"x.bmp and x.png, which share a stem"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(suite, tmp_path, files, message):
    (tmp_path / "out").mkdir()
    for name, size in files.items():
        save(tmp_path / "out" / name, pixels(*size))
    single = Suite("one", suite.sets[1:])
    with pytest.raises(ValueError, match=message):
        Outputs("SPAN", tmp_path / "out", single).read(next(single.sets[0].cases(0)))


def test_a_folder_that_is_none_is_refused(suite, tmp_path):
    with pytest.raises(ValueError, match=r"`outputs` 'SPAN' must be a folder"):
        Outputs("SPAN", tmp_path / "nowhere", suite)
