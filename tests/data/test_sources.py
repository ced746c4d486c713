from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from picture_files import break_file, coordinates, save, save_numbered
from PIL import Image

from foundir_hf.data.hub_datasets import HubDataset, HubStream
from foundir_hf.data.samples import Sample, SampleError, seed_of
from foundir_hf.data.shards import ShardSource, pack
from foundir_hf.data.sources import CleanFiles, PairedFolder, find_targets, open_source


def pixels(tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).numpy()


def by_name(source) -> dict[str, Sample]:
    return {source.name(i): source[i] for i in range(len(source))}


def pair(folder, stem: str, *, lq: str, hq: str = "HQ", blue: int = 7) -> None:
    save(folder / hq / f"{stem}.png", coordinates(20, 30, blue))
    save(folder / lq / f"{stem}.png", 255 - coordinates(20, 30, blue))


# --- Clean photographs ---


def test_a_folder_of_photographs_is_clean_and_named_by_relative_paths(tmp_path):
    save(tmp_path / "b.png", coordinates(20, 30, blue=1))
    save(tmp_path / "deep" / "a.png", coordinates(20, 30, blue=2))
    source = open_source(tmp_path)
    assert isinstance(source, CleanFiles)
    samples = by_name(source)
    assert {name: int(sample.hq[2, 0, 0]) for name, sample in samples.items()} == {"b.png": 1, "deep/a.png": 2}
    assert all(sample.lq is None and sample.task is None for sample in samples.values())
    assert np.array_equal(pixels(samples["b.png"].hq), coordinates(20, 30, blue=1))


def test_a_split_is_chosen_by_the_manifest_or_by_a_sub_folder(tmp_path):
    save_numbered(tmp_path / "split" / "train", 3)
    save_numbered(tmp_path / "split" / "val", 2)
    assert len(open_source(tmp_path / "split", "train")) == 3
    assert len(open_source(tmp_path / "split", "val")) == 2
    save_numbered(tmp_path / "listed", 4)
    (tmp_path / "listed" / "manifest.csv").write_text("file,split\n00.png,train\n01.png,val\n")
    assert by_name(open_source(tmp_path / "listed", "val")).keys() == {"01.png"}
    save_numbered(tmp_path / "plain", 4)
    assert len(open_source(tmp_path / "plain", "val")) == 4


def test_what_cannot_be_opened_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no photographs"):
        open_source(tmp_path)
    with pytest.raises(ValueError, match="holds no pairs"):
        PairedFolder(tmp_path)


def test_a_broken_or_tiny_photograph_raises_an_error_that_names_it(tmp_path):
    paths = save_numbered(tmp_path, 3)
    break_file(paths[1])
    save(paths[2], coordinates(300, 15))
    source = open_source(tmp_path)
    assert source[0].name == "00.png"
    with pytest.raises(SampleError, match=r"01\.png: cannot be read") as caught:
        source[1]
    assert (caught.value.name, caught.value.reason[:6]) == ("01.png", "cannot")
    with pytest.raises(SampleError, match=r"02\.png: 15x300 pixels, at least 16"):
        source[2]


def test_a_split_sub_folder_keeps_the_names_relative_to_the_folder_that_was_given(tmp_path):
    save_numbered(tmp_path / "photos" / "train", 2)
    assert by_name(open_source(tmp_path / "photos", "train")).keys() == {"train/00.png", "train/01.png"}
    pair(tmp_path / "pairs" / "train" / "rain", "a", lq="LQ")
    [(name, sample)] = by_name(open_source(tmp_path / "pairs", "train")).items()
    assert (name, sample.task) == ("train/rain/HQ/a.png", "rain")


def test_a_photograph_outside_the_folder_is_refused(tmp_path):
    save_numbered(tmp_path / "photos", 1)
    (tmp_path / "photos" / "manifest.csv").write_text(f"file\n{tmp_path / 'b.png'}\n")
    with pytest.raises(ValueError, match=r"`paths` must lie in .*photos', got .*b\.png'"):
        open_source(tmp_path / "photos")


# --- Pairs ---


def test_targets_are_named_as_samples_are_whatever_the_split_and_no_lq_is_among_them(tmp_path):
    pair(tmp_path / "train" / "rain", "a", lq="LQ")
    save_numbered(tmp_path / "val", 1)
    targets, paired = find_targets(tmp_path)
    assert paired
    assert by_name(targets).keys() == {"train/rain/HQ/a.png", "val/00.png"}
    assert {source.name(0) for source in (open_source(tmp_path, "train"), open_source(tmp_path, "val"))} == set(by_name(targets))
    plain, paired = find_targets(tmp_path / "val")
    assert not paired
    assert by_name(plain).keys() == {"00.png"}
    (tmp_path / "empty" / "HQ").mkdir(parents=True)
    (tmp_path / "empty" / "LQ").mkdir()
    with pytest.raises(ValueError, match="holds no photographs"):
        find_targets(tmp_path / "empty")


@pytest.mark.parametrize(("hq", "lq"), [("HQ_folder", "LQ_folder"), ("HQ", "LQ"), ("GT", "LQ")])
def test_pairs_lie_in_neighbouring_folders(tmp_path, hq, lq):
    pair(tmp_path / "rain", "x", hq=hq, lq=lq, blue=3)
    (sample,) = by_name(open_source(tmp_path / "rain")).values()
    assert sample.name == f"{hq}/x.png"
    assert sample.task == "rain"
    assert np.array_equal(pixels(sample.hq), coordinates(20, 30, 3))
    assert np.array_equal(pixels(sample.lq), 255 - coordinates(20, 30, 3))


def test_the_authors_layout_has_a_folder_a_task_and_nested_files_of_either_format(tmp_path):
    pair(tmp_path / "Task1", "a", hq="HQ_folder", lq="LQ_folder", blue=1)
    pair(tmp_path / "Task1", "scene/a", hq="HQ_folder", lq="LQ_folder", blue=2)
    pair(tmp_path / "more" / "Task2", "a", hq="HQ_folder", lq="LQ_folder", blue=3)
    other = tmp_path / "Task1" / "LQ_folder" / "scene" / "a.png"
    Image.open(other).save(other.with_suffix(".jpg"), quality=98)  # the authors look for .jpg where there is no .png
    other.unlink()
    source = open_source(tmp_path)
    assert isinstance(source, PairedFolder)
    found = {name: (sample.task, int(sample.hq[2, 0, 0])) for name, sample in by_name(source).items()}
    assert found == {
        "Task1/HQ_folder/a.png": ("Task1", 1),
        "Task1/HQ_folder/scene/a.png": ("Task1", 2),
        "more/Task2/HQ_folder/a.png": ("more/Task2", 3),
    }
    nested = by_name(source)["Task1/HQ_folder/scene/a.png"]
    assert (nested.lq.int() - (255 - nested.hq.int())).abs().float().mean() < 3  # a JPEG of the right partner


def test_tasks_may_lie_within_the_two_folders(tmp_path):
    pair(tmp_path, "Task1/a", hq="HQ_folder", lq="LQ_folder")
    pair(tmp_path, "Task2/b", hq="HQ_folder", lq="LQ_folder")
    assert [sample.task for sample in by_name(open_source(tmp_path)).values()] == ["Task1", "Task2"]


def test_a_smaller_lq_is_enlarged_bicubically_and_a_foreign_one_refused(tmp_path):
    truth = Image.fromarray(coordinates(40, 60))
    small = truth.resize((15, 10), Image.Resampling.BOX)
    odd = truth.resize((20, 13), Image.Resampling.BOX)  # 40 / 3 = 13.3 rows
    for name, lq in {"x4": small, "x3": odd, "turned": small.rotate(90, expand=True), "larger": truth.resize((90, 60))}.items():
        save(tmp_path / "GT" / f"{name}.png", np.asarray(truth))
        save(tmp_path / "LQ" / f"{name}.png", np.asarray(lq))
    source = PairedFolder(tmp_path)
    names = [source.name(i) for i in range(len(source))]
    sample = source[names.index("GT/x4.png")]
    assert np.array_equal(pixels(sample.lq), np.asarray(small.resize((60, 40), Image.Resampling.BICUBIC)))
    assert source[names.index("GT/x3.png")].lq.shape == (3, 40, 60)
    with pytest.raises(SampleError, match="LQ is 10x15, no smaller copy of the 60x40 HQ"):
        source[names.index("GT/turned.png")]
    with pytest.raises(SampleError, match="LQ is 90x60"):
        source[names.index("GT/larger.png")]


def test_a_photograph_without_a_partner_is_an_error_of_that_sample_alone(tmp_path):
    pair(tmp_path, "a", lq="LQ")
    save(tmp_path / "HQ" / "lonely.png", coordinates(20, 30))
    source = open_source(tmp_path)
    assert source[0].lq is not None
    with pytest.raises(SampleError, match=r"HQ/lonely\.png: has no partner"):
        source[1]


# --- Data sets of the Hub ---

datasets = pytest.importorskip("datasets")


@pytest.fixture
def clean_dataset(tmp_path):
    paths = save_numbered(tmp_path / "numbered", 11)
    data = datasets.Dataset.from_dict({"image": [str(p) for p in paths], "name": [p.name for p in paths]})
    return data.cast_column("image", datasets.Image())


def test_a_map_style_data_set_is_a_source(clean_dataset, tmp_path):
    source = HubDataset(clean_dataset)
    assert len(source) == 11
    assert [source.name(i) for i in (0, 10)] == ["00.png", "10.png"]
    assert np.array_equal(pixels(source[4].hq), coordinates(24, 30, blue=4))
    assert source[4].lq is None
    clean_dataset.save_to_disk(tmp_path / "saved")
    again = open_source(tmp_path / "saved")
    assert isinstance(again, HubDataset)
    assert np.array_equal(pixels(again[7].hq), coordinates(24, 30, blue=7))


def test_a_data_set_of_pairs_brings_its_lq_and_task():
    hq, lq = Image.fromarray(coordinates(20, 30)), Image.fromarray(255 - coordinates(20, 30))
    features = datasets.Features({"hq": datasets.Image(), "lq": datasets.Image(), "task": datasets.Value("string")})
    source = HubDataset(datasets.Dataset.from_dict({"hq": [hq, hq], "lq": [lq, lq], "task": ["rain", None]}, features=features))
    assert source.name(1) == "1"
    assert (source[0].task, source[1].task) == ("rain", "paired")
    assert np.array_equal(pixels(source[0].lq), 255 - coordinates(20, 30))


def test_a_data_set_without_a_recognised_picture_is_refused_by_its_columns():
    features = datasets.Features({"left": datasets.Image(), "right": datasets.Image(), "text": datasets.Value("string")})
    data = datasets.Dataset.from_dict({"left": [], "right": [], "text": []}, features=features)
    with pytest.raises(ValueError, match="its columns are left, right, text, of which left, right hold pictures"):
        HubDataset(data)


def test_every_reader_of_a_streamed_data_set_gets_its_own_share_in_seeded_order(clean_dataset):
    for shards in (1, 4):  # four shards are dealt out to four readers, one shard is read by all
        stream = HubStream(clean_dataset.to_iterable_dataset(num_shards=shards), shuffle_buffer=4)
        shares = [[name for name, _, _ in stream.read(seed=1, epoch=0, slot=slot, slots=4)] for slot in range(4)]
        assert sorted(name for share in shares for name in share) == [f"{i:02d}.png" for i in range(11)]
        assert shares[2] == [name for name, _, _ in stream.read(seed=1, epoch=0, slot=2, slots=4)]
        orders = [[name for name, _, _ in stream.read(seed, epoch, slot=0, slots=1)] for seed, epoch in ((1, 0), (1, 1), (2, 0))]
        assert orders[0] != orders[1] != orders[2] != orders[0]


def test_shards_are_read_by_datasets_too_at_random_access_and_streamed(tmp_path):
    pair(tmp_path / "rain", "x", hq="GT", lq="LQ", blue=3)
    pair(tmp_path / "rain", "y", hq="GT", lq="LQ", blue=4)
    for _ in pack(open_source(tmp_path / "rain"), tmp_path / "shards"):
        pass
    expected = by_name(ShardSource([tmp_path / "shards" / "shard-000000.tar"]))
    source = open_source(f"hf://{tmp_path / 'shards'}:train")
    assert isinstance(source, HubDataset)
    found = by_name(source)
    assert found.keys() == expected.keys() == {"GT/x.png", "GT/y.png"}
    for name, sample in found.items():
        assert sample.task == expected[name].task == "rain"
        assert sample.hq.equal(expected[name].hq)
        assert sample.lq.equal(expected[name].lq)
    stream = open_source(f"hf+stream://{tmp_path / 'shards'}")
    assert isinstance(stream, HubStream)
    assert {(name, task) for name, task, _ in stream.read(0, 0, 0, 1)} == {("GT/x.png", "rain"), ("GT/y.png", "rain")}
    assert by_name(stream.first(1)).keys() <= found.keys()


def test_a_data_set_that_cannot_be_loaded_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot load the data set 'no/where:test': [^\n]+$"):
        open_source("hf://no/where:test")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'foundir_hf\[data\]'"):
        open_source("hf://some/where")


def test_seeds_of_different_numbers_differ():
    seeds = {seed_of(a, b) for a in range(30) for b in range(30)} | {seed_of(a) for a in range(30)}
    assert len(seeds) == 930
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_sub_folders_called_after_a_split_may_hold_pairs(tmp_path):
    pair(tmp_path / "train", "a", lq="LQ")
    shutil.copytree(tmp_path / "train", tmp_path / "val")
    source = open_source(tmp_path, "val")
    assert isinstance(source, PairedFolder)
    assert len(source) == 1


@pytest.mark.parametrize("spec", ["hf://", "hf+stream://", "hf://:train"])
def test_a_data_set_without_a_name_is_told_so(spec):
    pytest.importorskip("datasets")
    with pytest.raises(ValueError, match=f"`{spec.replace('+', '.')}` must name a data set"):
        open_source(spec)
