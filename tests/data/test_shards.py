from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from picture_files import break_file, coordinates, save, save_numbered
from PIL import Image

from foundir_hf.data.samples import SampleError
from foundir_hf.data.shards import PackReport, ShardSource, list_shards, pack
from foundir_hf.data.sources import CleanFiles, open_source


def packed(source, folder, **options) -> PackReport:
    *_, report = pack(source, folder, **options)
    return report


def by_name(source) -> dict:
    return {source.name(i): source[i] for i in range(len(source))}


def assert_same_samples(one, other) -> None:
    one, other = by_name(one), by_name(other)
    assert one.keys() == other.keys()
    for name, sample in one.items():
        assert sample.hq.equal(other[name].hq), name
        assert sample.task == other[name].task
        assert (sample.lq is None) == (other[name].lq is None)
        if sample.lq is not None:
            assert sample.lq.equal(other[name].lq), name


def test_photographs_are_read_back_equal_from_several_shards(tmp_path):
    save_numbered(tmp_path / "photos", 7)
    save(tmp_path / "photos" / "deep.er" / "a.b.png", coordinates(40, 50))  # dots end the key of a WebDataset
    source = open_source(tmp_path / "photos")
    size = len(source.encoded(0)[0])
    report = packed(source, tmp_path / "shards", shard_bytes=3 * size)
    assert (report.written, report.reencoded, report.skipped) == (8, 0, {})
    assert report.shards == len(list_shards(tmp_path / "shards")) > 1
    shards = open_source(tmp_path / "shards")
    assert isinstance(shards, ShardSource)
    assert_same_samples(source, shards)
    assert sorted(shards.encoded(i)[0] for i in range(8)) == sorted(source.encoded(i)[0] for i in range(8))  # byte for byte
    assert [shards.name(i) for i in range(8)] != sorted(shards.name(i) for i in range(8))  # shuffled


def test_pairs_are_read_back_equal_and_a_small_lq_stays_small_in_the_shard(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / "set" / "x4" / "GT" / f"{name}.png", coordinates(32, 48))
        save(tmp_path / "set" / "x4" / "LQ" / f"{name}.png", coordinates(8, 12))
    source = open_source(tmp_path / "set")
    packed(source, tmp_path / "shards")
    (shard,) = list_shards(tmp_path / "shards")
    assert_same_samples(source, open_source(shard))
    assert open_source(shard).task(0) == "x4"
    with tarfile.open(shard) as tar:
        assert tar.getnames()[:3] == ["000000000.hq.png", "000000000.lq.png", "000000000.json"]
        assert Image.open(tar.extractfile("000000000.lq.png")).size == (12, 8)


def test_the_same_source_gives_the_same_bytes(tmp_path):
    save_numbered(tmp_path / "photos", 5)
    for name in ("one", "two"):
        packed(open_source(tmp_path / "photos"), tmp_path / name)
    assert (tmp_path / "one" / "shard-000000.tar").read_bytes() == (tmp_path / "two" / "shard-000000.tar").read_bytes()


def test_different_formats_become_png_and_the_pixels_stay(tmp_path):
    save(tmp_path / "photos" / "a.jpg", coordinates(32, 48), quality=90)
    save(tmp_path / "photos" / "b.bmp", coordinates(32, 48, blue=90))
    source = open_source(tmp_path / "photos")
    assert packed(source, tmp_path / "shards").reencoded == 2
    assert_same_samples(source, open_source(tmp_path / "shards"))
    assert packed(source, tmp_path / "jpg", image_format="jpg", quality=100).reencoded == 1  # the JPEG is copied
    jpegs = by_name(open_source(tmp_path / "jpg"))
    assert jpegs["a.jpg"].hq.equal(by_name(source)["a.jpg"].hq)
    assert (jpegs["b.bmp"].hq.int() - by_name(source)["b.bmp"].hq.int()).abs().max() <= 4
    packed(source, tmp_path / "webp", image_format="webp")
    assert_same_samples(source, open_source(tmp_path / "webp"))


def test_photographs_are_shrunk_to_the_longer_side_and_pairs_are_not(tmp_path):
    save(tmp_path / "photos" / "large.png", coordinates(60, 90))
    save(tmp_path / "photos" / "small.png", coordinates(20, 30))
    packed(open_source(tmp_path / "photos"), tmp_path / "shards", max_side=45)
    shapes = {name: tuple(sample.hq.shape) for name, sample in by_name(open_source(tmp_path / "shards")).items()}
    assert shapes == {"large.png": (3, 30, 45), "small.png": (3, 20, 30)}
    for folder in ("HQ", "LQ"):
        save(tmp_path / "pairs" / folder / "a.png", coordinates(60, 90))
    with pytest.raises(ValueError, match="`max_side` shrinks the damage of pairs away"):
        packed(open_source(tmp_path / "pairs"), tmp_path / "no", max_side=45)


def test_what_cannot_be_decoded_is_left_out_and_named(tmp_path):
    paths = save_numbered(tmp_path / "photos", 4)
    break_file(paths[2])
    (tmp_path / "photos" / "text.png").write_text("no picture")
    report = packed(open_source(tmp_path / "photos"), tmp_path / "shards")
    assert report.written == 3
    assert report.skipped.keys() == {"02.png", "text.png"}
    assert by_name(open_source(tmp_path / "shards")).keys() == {"00.png", "01.png", "03.png"}


def test_nothing_is_written_over_anything_and_nothing_stays_of_an_interrupted_run(tmp_path):
    source = CleanFiles(save_numbered(tmp_path / "photos", 3))
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        packed(source, tmp_path / "there")
    reports = pack(source, tmp_path / "shards")
    next(reports)
    reports.close()  # as Ctrl-C does
    broken = CleanFiles([break_file(path) for path in save_numbered(tmp_path / "broken", 2)])
    with pytest.raises(ValueError, match="None of the 2 samples can be decoded"):
        packed(broken, tmp_path / "shards")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "photos", "there"]


def test_a_damaged_shard_gives_what_comes_before_the_damage(tmp_path, caplog):
    source = CleanFiles(save_numbered(tmp_path / "photos", 6, size=(64, 64)), tmp_path / "photos")
    packed(source, tmp_path / "shards", shard_bytes=1)
    shards = list_shards(tmp_path / "shards")
    assert len(shards) == 6
    shards[0].write_bytes(b"no tar" * 400)
    packed(source, tmp_path / "one")
    (whole,) = list_shards(tmp_path / "one")
    whole.write_bytes(whole.read_bytes()[:3000])
    damaged = ShardSource([*shards, whole])
    assert "shard-000000.tar" in caplog.text
    good, failed = 0, 0
    for index in range(len(damaged)):
        try:
            damaged[index]
            good += 1
        except SampleError:
            failed += 1
    assert good >= 6  # five whole shards, and the beginning of the one that was cut
    assert failed <= 1  # the sample that was cut
    with pytest.raises(ValueError, match="None of the 1 tar files"):
        ShardSource([shards[0]])


def test_a_plain_webdataset_of_pictures_can_be_read(tmp_path):
    paths = save_numbered(tmp_path, 2)
    (tmp_path / "a.json").write_text(json.dumps({"caption": "nothing of ours", "name": 3}))
    (tmp_path / "b.json").write_text("{broken")
    (tmp_path / "a.txt").write_text("a caption")
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        for key, path in zip("ab", paths, strict=True):
            tar.add(path, f"data/{key}.png")
            tar.add(tmp_path / f"{key}.json", f"data/{key}.json")
        tar.add(tmp_path / "a.txt", "data/a.txt")
    source = open_source(tmp_path / "foreign.tar")
    assert [source.name(i) for i in range(len(source))] == ["foreign.tar/data/a.png", "foreign.tar/data/b.png"]
    assert [source.task(i) for i in range(2)] == [None, None]
    assert np.array_equal(source[1].hq.permute(1, 2, 0).numpy(), coordinates(24, 30, blue=1))
