from __future__ import annotations

from pathlib import Path

import pytest
import torch
from picture_files import break_file, save_numbered

from foundir_hf.curation.cleaning import Verdict, write_manifest
from foundir_hf.data.loading import IN_MEMORY_PIXELS, TrainingData, estimate_pixels
from foundir_hf.data.pairs import PairSource
from foundir_hf.data.shards import pack
from foundir_hf.data.sources import open_source
from foundir_hf.data.stream import PairStream

SHAPE = ({"clean": 1.0}, 2, 16, 16)


@pytest.fixture
def photos(tmp_path) -> Path:
    save_numbered(tmp_path / "photos" / "train", 5)
    save_numbered(tmp_path / "photos" / "val", 4)
    return tmp_path / "photos"


def test_small_sets_stay_in_memory_and_others_are_streamed(photos):
    assert isinstance(TrainingData(photos).batches(*SHAPE, seed=0), PairSource)
    assert isinstance(TrainingData(photos, in_memory="no", workers=0).batches(*SHAPE, seed=0), PairStream)
    with pytest.raises(ValueError, match="`in_memory` must be one of auto, yes, no; got 'maybe'"):
        TrainingData(photos, in_memory="maybe")


def test_the_number_of_pixels_is_estimated_from_readable_files(tmp_path):
    paths = save_numbered(tmp_path / "HQ", 100, size=(20, 30))
    paths[0].write_text("no picture")
    assert estimate_pixels(open_source(tmp_path)) == pytest.approx(100 * 600)
    save_numbered(tmp_path / "LQ", 100, size=(10, 15))
    assert estimate_pixels(open_source(tmp_path)) == pytest.approx(2 * 100 * 600)
    assert estimate_pixels(open_source(tmp_path)) < IN_MEMORY_PIXELS


def test_streams_are_divided_among_processes_and_memory_is_not(photos):
    for in_memory, divided in (("yes", False), ("no", True)):
        first, again, other = (
            TrainingData(photos, in_memory=in_memory, workers=0, process=process, processes=2).batches(*SHAPE, seed=3)
            for process in (0, 0, 1)
        )
        batches = [source.batch(source.generator(0)) for source in (first, again, other)]
        assert torch.equal(batches[0].hq, batches[1].hq)
        assert torch.equal(batches[0].hq, batches[2].hq) != divided


def test_reference_photographs_are_drawn_from_their_split_or_from_data_of_their_own(photos, tmp_path):
    data = TrainingData(photos, reference_samples=1)
    names = [sample.name for sample in data.validation.samples]
    assert len(names) == 3  # three times as many clean photographs as a task wants
    assert all(name.startswith("val/") for name in names)
    assert data.held_out
    assert {task: len(pairs.hq) for task, pairs in data.reference(["haze", "clean"], 16).items()} == {"haze": 1, "clean": 1}
    save_numbered(tmp_path / "other", 2, size=(40, 40))
    other = TrainingData(photos, validation=tmp_path / "other")
    assert [sample.hq.shape for sample in other.validation.samples] == [(3, 40, 40)] * 2
    assert other.held_out
    assert not TrainingData(tmp_path / "other").held_out  # no split: all is used for both


def test_a_streamed_data_set_is_trained_on_and_measured_with_its_first_rows(photos, tmp_path):
    pytest.importorskip("datasets")
    for _ in pack(open_source(photos / "train"), tmp_path / "shards"):
        pass
    data = TrainingData(f"hf+stream://{tmp_path / 'shards'}", workers=0, reference_samples=1)
    assert len(data.validation) == 3
    assert not data.held_out
    source = data.batches(*SHAPE, seed=0)
    assert source.batch(source.generator(0)).hq.shape == (2, 3, 16, 16)
    with pytest.raises(ValueError, match="cannot be kept in memory"):
        TrainingData(f"hf+stream://{tmp_path / 'shards'}", in_memory="yes")


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_a_manifest_of_a_folder_with_splits_is_obeyed_in_them(photos, tmp_path, in_memory):
    rows = {f"{split}/{i:02d}.png": Verdict(split == "train" and i != 3) for split in ("train", "val") for i in range(5)}
    write_manifest(tmp_path / "manifest.json", rows, ())
    data = TrainingData(photos, manifest=tmp_path / "manifest.json", in_memory=in_memory, workers=0)
    source = data.batches({"clean": 1.0}, 8, 16, 16, seed=0)
    assert ((source.batch(source.generator(0)).hq[:, 2] + 1) * 127.5).round().unique().tolist() == [3]


@pytest.mark.parametrize("in_memory", ["yes", "no"])
def test_the_cleaning_manifest_is_obeyed_and_must_be_of_these_data(tmp_path, in_memory):
    save_numbered(tmp_path / "photos", 3)
    write_manifest(tmp_path / "manifest.json", {"00.png": Verdict(True), "01.png": Verdict(True)}, ())
    data = TrainingData(tmp_path / "photos", manifest=tmp_path / "manifest.json", in_memory=in_memory, workers=0)
    source = data.batches({"clean": 1.0}, 8, 16, 16, seed=0)
    assert ((source.batch(source.generator(0)).hq[:, 2] + 1) * 127.5).round().unique().tolist() == [2]
    write_manifest(tmp_path / "foreign.json", {"elsewhere.png": Verdict(False)}, ())
    with pytest.raises(ValueError, match=r"knows none of the samples; it says 'elsewhere\.png', they are called '00\.png'"):
        TrainingData(tmp_path / "photos", manifest=tmp_path / "foreign.json")


def test_a_broken_photograph_is_survived_either_way(photos):
    break_file(photos / "train" / "02.png")
    memory = TrainingData(photos, in_memory="yes")
    assert memory.source.skipped.keys() == {"train/02.png"}
    stream = TrainingData(photos, in_memory="no", workers=0).batches(*SHAPE, seed=0)
    for step in range(3):
        stream.batch(stream.generator(step))
    assert stream.skipped.keys() == {"train/02.png"}
