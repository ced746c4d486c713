"""Suites: what YAML may say, which images it stands for, and what is told where something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from pictures import pixels, save
from PIL import Image

from foundir_hf.data.tasks import TASKS
from foundir_hf.evaluation.suites import SUITES, ImageSet, Suite, bundled_suites, folder_suite, load_suite
from foundir_hf.io.files import hash_files


def write(tmp_path: Path, *entries: object, **more: object) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"sets": list(entries), **more}))
    return path


def test_pairs_share_stems_and_small_inputs_are_enlarged(tmp_path):
    truth, small = pixels(32, 48), pixels(16, 24, seed=1)
    save(tmp_path / "GT" / "b.png", truth)
    save(tmp_path / "GT" / "a.png", truth[::-1])
    save(tmp_path / "LQ" / "a.bmp", truth)
    save(tmp_path / "LQ" / "b.png", small)
    save(tmp_path / "LQ" / "unused.png", small)
    pairs = ImageSet("paired", tmp_path, "real", baselines=("nlm",))
    first, second = pairs.cases(0)
    assert (first.set, first.family, first.task, first.image, first.stem) == ("real", "real", "real", "a.png", "real/a")
    assert np.array_equal(first.degraded, truth)
    assert np.array_equal(first.truth, truth[::-1])
    assert first.small is None
    assert first.baselines == ("nlm",)
    assert second.degraded.shape == truth.shape
    assert np.array_equal(second.small, small)
    assert np.array_equal(second.degraded, np.asarray(Image.fromarray(small).resize((48, 32), Image.Resampling.BICUBIC)))
    assert len(pairs) == 2
    assert len(ImageSet("paired", tmp_path, "real", limit=1)) == 1


def test_truths_may_be_called_hq_and_lie_in_sub_folders(tmp_path):
    save(tmp_path / "HQ" / "deep" / "a.png", pixels())
    save(tmp_path / "LQ" / "deep" / "a.png", pixels(seed=1))
    (case,) = ImageSet("paired", tmp_path, "real").cases(0)
    assert (case.image, case.stem) == ("deep/a.png", "real/deep/a")
    assert np.array_equal(case.truth, pixels())


def test_photographs_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for side in ("GT", "LQ"):
        save(tmp_path / side / "a.png", pixels(20, 30))
        Image.fromarray(pixels(20, 30)).save(tmp_path / side / "a.png", exif=exif)
    (case,) = ImageSet("paired", tmp_path, "real").cases(0)
    assert case.truth is not None
    assert case.truth.shape == case.degraded.shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"GT/a.png": 8, "LQ/b.png": 8}, r"GT/a.png has no partner in LQ/"),
        ({"GT/a.png": 8}, r"must hold LQ/ and GT/ \(or HQ/\)"),
        ({"LQ/a.png": 8}, r"must hold LQ/ and GT/ \(or HQ/\)"),
        ({"GT/a.png": 8, "LQ/a.png": 8, "LQ/a.bmp": 8}, r"a.bmp and a.png, which share a stem"),
        ({"GT/a.png": 8, "GT/a.bmp": 8, "LQ/a.png": 8}, r"GT/ holds a.bmp and a.png, which share a stem"),
        ({"GT/a.png": 8, "LQ/a.png": 16}, r"a.png: 16x16 pixels are more than its truth's 8x8"),
    ],
)
def test_pairs_that_are_none_are_refused_by_name(tmp_path, files, message):
    for name, side in files.items():
        save(tmp_path / name, pixels(side, side))
    with pytest.raises(ValueError, match=message):
        list(ImageSet("paired", tmp_path, "real").cases(0))


@pytest.mark.parametrize(
    ("truth", "degraded", "fits"),
    [
        ((112, 160), (112, 100), False),  # width alone
        ((160, 112), (56, 80), False),  # lies on its side
        ((120, 160), (50, 80), False),
        ((259, 130), (64, 32), True),  # x4, rounded down
        ((259, 130), (65, 33), True),  # x4, rounded up
        ((96, 144), (64, 96), True),  # x1.5
    ],
)
def test_inputs_of_other_proportions_are_refused_and_not_stretched(tmp_path, truth, degraded, fits):
    save(tmp_path / "GT" / "a.png", pixels(*truth))
    save(tmp_path / "LQ" / "a.png", pixels(*degraded))
    cases = ImageSet("paired", tmp_path, "real").cases(0)
    if fits:
        assert next(cases).degraded.shape == (*truth, 3)
        return
    sizes = f"{degraded[1]}x{degraded[0]} pixels are no smaller copy of its truth's {truth[1]}x{truth[0]}"
    with pytest.raises(ValueError, match=f"a.png: {sizes}"):
        next(cases)


@pytest.mark.parametrize("kind", ["clean", "unpaired"])
def test_photographs_that_share_a_stem_are_refused_because_their_outputs_would_share_a_name(tmp_path, kind):
    for name in ("a/x.png", "b/x.png"):
        save(tmp_path / name, pixels())
    assert len(ImageSet(kind, tmp_path, "real").files) == 2
    save(tmp_path / "b" / "x.bmp", pixels())
    with pytest.raises(ValueError, match=r"holds x.bmp and x.png, which share a stem"):
        _ = ImageSet(kind, tmp_path, "real").files


def test_a_border_larger_than_a_photograph_is_told_before_any_is_measured(tmp_path):
    save(tmp_path / "photos" / "a.png", pixels())
    save(tmp_path / "photos" / "b.png", pixels(19, 40))
    entry = {"clean": "photos", "tasks": [{"protocol": "bicubic", "factor": 4}]}
    load_suite(write(tmp_path, entry | {"crop": 7}), tmp_path).check()
    with pytest.raises(ValueError, match=r"b.png: `crop` must leave something of its shorter side of 19 pixels, got 8"):
        load_suite(write(tmp_path, entry | {"crop": 8}), tmp_path).check()  # 19 becomes 16
    (tmp_path / "photos" / "b.png").write_text("words")
    with pytest.raises(ValueError, match=r"b.png: cannot be read as a photograph"):
        load_suite(write(tmp_path, entry | {"crop": 1}), tmp_path).check()


def test_stems_are_those_of_the_cases(tmp_path):
    save(tmp_path / "photos" / "deep" / "a.png", pixels())
    for side in ("GT", "LQ"):
        save(tmp_path / "pairs" / side / "deep" / "b.png", pixels())
    entries = ({"clean": "photos", "tasks": ["haze", "rain"]}, {"paired": "pairs"}, {"unpaired": "photos", "name": "real"})
    for image_set in load_suite(write(tmp_path, *entries), tmp_path).sets:
        assert list(image_set.stems()) == [case.stem for case in image_set.cases(0)]


def test_clean_photographs_are_damaged_task_by_task(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "photos" / name, pixels())
    path = write(tmp_path, {"clean": "photos", "tasks": ["haze", {"protocol": "noise", "sigma": 25}], "limit": 2})
    suite = load_suite(path, tmp_path)
    cases = list(suite.sets[0].cases(0))
    assert [(c.task, c.image) for c in cases] == [(t, i) for t in ("haze", "noise_sigma_25") for i in ("a.png", "b.png")]
    assert len(suite) == 4
    assert cases[0].family == TASKS["haze"].family
    assert cases[0].baselines == ("dark_channel",)
    assert cases[0].stem == "photos/haze/a"
    assert cases[2].degraded.dtype == np.float64
    assert len(load_suite(path, tmp_path, limit=1)) == 2
    assert not np.array_equal(cases[0].degraded, next(suite.sets[0].cases(1)).degraded)


def test_super_resolution_crops_its_truth_to_multiples_of_the_factor(tmp_path):
    save(tmp_path / "photos" / "a.png", pixels(34, 47))
    path = write(tmp_path, {"clean": "photos", "tasks": [{"protocol": "bicubic", "factor": 4}], "channel": "y", "crop": 4})
    (case,) = load_suite(path, tmp_path).sets[0].cases(0)
    assert case.truth is not None
    assert case.small is not None
    assert (case.truth.shape, case.small.shape, case.degraded.shape) == ((32, 44, 3), (8, 11, 3), (32, 44, 3))
    assert (case.channel, case.crop) == ("y", 4)
    save(tmp_path / "photos" / "a.png", pixels(3, 3))
    with pytest.raises(ValueError, match="at least 4 pixels a side"):
        list(load_suite(path, tmp_path).sets[0].cases(0))


def test_sets_without_a_truth_have_inputs_only(tmp_path):
    save(tmp_path / "real" / "a.png", pixels())
    (case,) = load_suite(write(tmp_path, {"unpaired": "real", "defects": ["haze"]}), tmp_path).sets[0].cases(0)
    assert case.truth is None
    assert (case.image, case.baselines, case.defects) == ("a.png", ("dark_channel",), ("haze",))


def test_a_set_is_called_as_its_folder_unless_the_suite_says_otherwise(tmp_path):
    save(tmp_path / "CBSD68" / "GT" / "a.png", pixels())
    entries = ({"clean": "CBSD68/GT", "tasks": ["haze"]}, {"clean": "CBSD68/GT", "name": "again", "family": "fog", "tasks": ["haze"]})
    suite = load_suite(write(tmp_path, *entries), tmp_path)
    assert [s.name for s in suite.sets] == ["CBSD68", "again"]
    assert next(suite.sets[1].cases(0)).family == "fog"
    twice = write(tmp_path, entries[0], entries[0])
    with pytest.raises(ValueError, match=r"measures CBSD68/haze twice"):
        load_suite(twice, tmp_path)


def test_folders_of_one_s_own_make_a_suite(tmp_path):
    save(tmp_path / "photos" / "a.png", pixels())
    save(tmp_path / "real" / "a.png", pixels())
    suite = folder_suite([tmp_path / "photos"], None, [tmp_path / "real"])
    assert [(s.kind, s.name) for s in suite.sets] == [("clean", "photos"), ("unpaired", "real")]
    assert len(suite) == len(TASKS) + 1
    suite.check()
    with pytest.raises(ValueError, match="nowhere"):
        folder_suite([tmp_path / "nowhere"]).check()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"clean": "x", "paired": "y"}, "must name one folder"),
        ("photos", "must name one folder"),
        ({"clean": "x", "baselines": []}, "takes .*; got baselines"),
        ({"paired": "x", "tasks": ["all"]}, "takes .*; got tasks"),
        ({"clean": "x", "limit": 0}, "`limit` must be a whole number from 1, got 0"),
        ({"clean": "x", "crop": True}, "`crop` must be a whole number from 0, got True"),
        ({"clean": "x", "channel": "luma"}, "`channel` must be 'rgb' or 'y', got 'luma'"),
        ({"clean": "x", "tasks": "all"}, "`tasks` must be a list, got 'all'"),
        ({"clean": "x", "tasks": ["hail"]}, "got 'hail'"),
        ({"paired": "x", "baselines": ["bm3d"]}, "got 'bm3d'"),
        ({"paired": "x", "defects": ["fog"]}, "`defects` must be among .*; got fog"),
        ({"paired": "x", "defects": [["a"]]}, r"`defects` must be a list of names, got \[\['a'\]\]"),
        ({"paired": "x", "defects": [1, "x"]}, r"`defects` must be a list of names, got \[1, 'x'\]"),
        ({"paired": "x", "baselines": [["a"]]}, r"`baselines` must be a list of names, got \[\['a'\]\]"),
        ({"clean": "x", "tasks": []}, r"`tasks` must name at least one, got \[\]"),
        ({"clean": "x", "tasks": [{"protocol": ["a"]}]}, "`protocol` must be one of"),
        ({"paired": "x", "name": "../../escape"}, "`name` must be a name without .*, got '../../escape'"),
        ({"paired": "x", "name": ".."}, "`name` must be a name without"),
        ({"paired": "x", "name": "."}, "`name` must be a name without"),
        ({"paired": "x", "name": "a/b"}, "`name` must be a name without"),
        ({"paired": "x", "name": "a\\b"}, "`name` must be a name without"),
        ({"paired": "x", "name": "a|b"}, "`name` must be a name without"),
        ({"paired": "x", "name": "a\nb"}, "`name` must be a name without"),
        ({"paired": "x", "name": ""}, "`name` must be a name without .*, got ''"),
    ],
)
def test_entries_that_say_what_they_cannot_are_refused_by_file_and_number(tmp_path, entry, message):
    with pytest.raises(ValueError, match=rf"mine.yaml: sets\[0\]: .*{message}"):
        load_suite(write(tmp_path, entry), tmp_path)


def test_files_that_are_no_suites_are_refused_in_one_line(tmp_path):
    for text in ("sets: []", "- clean: x", "sets: {a: 1}", "sets: [x]\nseed: 1", "sets: [", "a: b: c"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.yaml: ") as caught:
            load_suite(tmp_path / "bad.yaml")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"`suite` must be one of dev, families, foundir20, peers, quick, or a YAML file; got 'slow'"):
        load_suite("slow")


@pytest.mark.parametrize("name", sorted(path.stem for path in SUITES.glob("*.yaml")))
def test_bundled_suites_say_what_they_need(name, tmp_path):
    assert name in bundled_suites()
    if name == "quick":
        assert 20 <= len(load_suite(name, tmp_path)) <= 30
        return
    with pytest.raises(ValueError, match=rf"suite '{name}' needs CBSD68/GT .* below --data: not found: .*CBSD68/GT") as caught:
        load_suite(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_foundir20_is_the_twenty(tmp_path):
    save(tmp_path / "CBSD68" / "GT" / "a.png", pixels())
    assert [damage.name[:10] for damage in load_suite("foundir20", tmp_path).sets[0].damages] == [f"foundir_{i:02}" for i in range(1, 21)]


def test_data_hashes_follow_names_and_contents(tmp_path):
    a, b = save(tmp_path / "a.png", pixels()), save(tmp_path / "b.png", pixels(seed=1))
    first = hash_files(tmp_path, [a, b])
    assert first == hash_files(tmp_path, [b, a])
    assert first != hash_files(tmp_path, [a])
    assert first != hash_files(tmp_path.parent, [a, b])
    save(b, pixels(seed=2))
    assert first != hash_files(tmp_path, [a, b])
    assert Suite("s", (ImageSet("clean", tmp_path, "x", limit=1),)).sets[0].data_hash() == hash_files(tmp_path, [a])
