"""Labelled photographs: labels say what the rows of the task table did, and defects come evenly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from foundir_hf.data.labelled import LabelledSource
from foundir_hf.data.memory import InMemoryPhotographs
from foundir_hf.data.tasks import TASKS

DEFECTS = tuple(dict.fromkeys(defect for task in TASKS.values() for defect in task.removes))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> InMemoryPhotographs:
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:60, 0:80]
    for i in range(3):
        picture = np.stack([40 + x * 2, 200 - y * (i + 1), 128 + 90 * np.sin(x / (3 + i)) * np.cos(y / 5)], axis=-1)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return InMemoryPhotographs(sorted(folder.iterdir()))


def source(photos: InMemoryPhotographs, **options) -> LabelledSource:
    return LabelledSource(photos, DEFECTS, **{"batch_size": 6, "sizes": (24, 32), **options})


def test_a_batch_holds_photographs_of_a_file_s_levels_and_a_label_a_defect(photos):
    stream = source(photos)
    batch = stream.batch(stream.generator(0))
    assert batch.images.shape[:2] == (6, 3)
    assert batch.images.shape[2] == batch.images.shape[3]
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1
    torch.testing.assert_close(batch.images * 255, (batch.images * 255).round(), atol=1e-4, rtol=0)
    assert batch.labels.shape == (6, len(DEFECTS))


def test_labels_are_the_union_of_what_the_rows_remove(photos):
    stream, several = source(photos, rows_shares=(0.1, 0.2, 0.3, 0.4)), 0
    for step in range(4):
        batch = stream.batch(stream.generator(step))
        for names, labels in zip(batch.rows, batch.labels, strict=True):
            removed = {defect for name in names for defect in TASKS[name].removes}
            assert {defect for defect, label in zip(DEFECTS, labels.tolist(), strict=True) if label} == removed
            assert sum(len(TASKS[name].removes) for name in names) == len(removed)  # no damage comes twice
            several += len(names) > 1
    assert several > 3


def test_a_step_is_drawn_from_its_number_and_the_seed_alone(photos):
    stream, again, other = source(photos, seed=1), source(photos, seed=1), source(photos, seed=2)
    again.batch(again.generator(0))
    first, second = stream.batch(stream.generator(5)), again.batch(again.generator(5))
    assert torch.equal(first.images, second.images)
    assert first.rows == second.rows
    assert first.rows != other.batch(other.generator(5)).rows


def test_every_size_comes(photos):
    stream = source(photos, batch_size=1, rows_shares=(1.0,))
    assert {stream.batch(stream.generator(step)).images.shape[2] for step in range(12)} == {24, 32}


def test_clean_photographs_have_no_label_and_only_a_camera_s_compression(photos):
    stream = source(photos, rows_shares=(1.0,), camera_share=0.0)
    saved = source(photos, rows_shares=(1.0,), camera_share=1.0)
    batch, compressed = stream.batch(stream.generator(0)), saved.batch(saved.generator(0))
    assert not batch.labels.any()
    assert not compressed.labels.any()
    assert batch.rows == [()] * 6
    difference = (batch.images - compressed.images).abs()
    assert difference.amax(dim=(1, 2, 3)).min() > 0
    assert difference.mean() < 0.02


def test_defects_are_drawn_evenly_however_many_rows_have_them(photos):
    stream = source(photos, batch_size=1, rows_shares=(0.0, 1.0))
    rows = [stream._draw_rows(1, stream.generator(step))[0] for step in range(900)]
    singles = {d for d in DEFECTS if all(task.removes == (d,) for task in stream.rows[d])}
    expected = 900 / len(DEFECTS)
    for defect in singles:  # others come along with them too
        count = sum(defect in row.removes for row in rows)
        assert 0.5 * expected < count < 1.6 * expected, defect


def test_a_defect_that_no_row_has_is_refused(photos):
    with pytest.raises(ValueError, match="`defects` must be named in `removes` of a row of the task table; boredom are not"):
        LabelledSource(photos, (*DEFECTS, "boredom"), 2, (24,))


def test_leaving_a_defect_of_the_table_out_is_refused(photos):
    with pytest.raises(ValueError, match="would be mislabelled; noise miss"):
        LabelledSource(photos, tuple(d for d in DEFECTS if d != "noise"), 2, (24,))
