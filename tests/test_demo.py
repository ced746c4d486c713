"""`foundir demo`: a picture and a row for every task it shows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from foundir_hf.evaluation import demo
from foundir_hf.evaluation.metrics import psnr


@pytest.fixture
def samples(tmp_path, photo, monkeypatch):
    """Two small photographs in place of the shipped ones."""
    folder = tmp_path / "samples"
    folder.mkdir()
    photo.save(folder / "a.png")
    photo.rotate(180).crop((0, 0, 48, 40)).save(folder / "b.png")
    monkeypatch.setattr(demo, "SAMPLES", folder)
    return [folder / "a.png", folder / "b.png"]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_demo_draws_a_picture_and_a_row_for_every_task_and_an_overview_of_two_a_row(pipeline, samples, tmp_path):
    out = tmp_path / "deep" / "demo"
    lines = demo.run_demo(pipeline, out, seed=3).splitlines()
    assert lines[0] == "| task | images | input dB | output dB | gain |"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[0] for row in rows] == list(demo.DEMO_TASKS)
    assert {p.name for p in out.iterdir()} == {f"{name}.png" for name in demo.DEMO_TASKS} | {"overview.jpg"}
    for index, row in enumerate(rows):
        truth = pixels(samples[index % 2])
        height, width = truth.shape[:2]
        strip = pixels(out / f"{row[0]}.png")
        assert strip.shape == (height + 20, 3 * width, 3)
        damaged, restored, original = (strip[20:, i * width : (i + 1) * width] for i in range(3))
        assert np.array_equal(original, truth)
        assert row[3] == f"{psnr(restored, truth):.2f}"
        if row[0] == "clean":
            assert np.array_equal(damaged, truth)
            assert row[2] == "-"
        else:
            assert row[2] == f"{psnr(damaged, truth):.2f}"
            assert not np.array_equal(damaged, truth)
    heights = [round(height * 260 / width) for width, height in ((72, 56), (48, 40))]  # the samples take turns
    rows = (len(demo.DEMO_TASKS) + 1) // 2
    overview = pixels(out / "overview.jpg")
    assert overview.shape == (rows * (20 + max(heights)), 1560, 3)
    for row in range(rows):
        top = row * (20 + max(heights)) + 20
        for column in range(6):
            assert overview[top : top + 100, column * 260 : (column + 1) * 260].std() > 10  # a picture, not the empty sheet


def test_the_same_seed_draws_the_same_pictures_and_another_draws_others(pipeline, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DEMO_TASKS", ("gaussian_noise",))  # one is enough
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        demo.run_demo(pipeline, tmp_path / name, seed=seed)
    first, second, third = (pixels(tmp_path / name / "gaussian_noise.png") for name in "abc")
    assert np.array_equal(first, second)
    assert not np.array_equal(first[20:], third[20:])


def test_the_shipped_samples_can_be_read_and_name_their_authors():
    from foundir_hf.io.folder import list_photos

    readme = (demo.SAMPLES / "README.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in readme.splitlines() if line.startswith("|")][2:]
    shipped = list_photos(demo.SAMPLES)
    assert sorted(row[0] for row in rows) == [path.name for path in shipped]
    assert all(author and terms in ("CC0", "public domain") for _, author, terms in rows)
    for path in shipped:
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"
            assert min(image.size) >= 128  # room for the damage to show
