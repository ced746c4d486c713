from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import coordinates, save
from PIL import Image

from foundir_hf.data.memory import InMemoryPhotographs
from foundir_hf.data.samples import Sample, cut
from foundir_hf.io.folder import list_photos


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


# --- Finding photographs ---


def test_photographs_are_found_recursively_by_their_suffix_and_sorted(tmp_path):
    for name in ("b.png", "a/deep/c.JPG", "a/d.webp", "e.tiff"):
        save(tmp_path / name, coordinates(4, 4))
    (tmp_path / "notes.txt").write_text("no photograph")
    assert [p.relative_to(tmp_path).as_posix() for p in list_photos(tmp_path)] == ["a/d.webp", "a/deep/c.JPG", "b.png", "e.tiff"]
    assert list_photos(str(tmp_path), split="train") == list_photos(tmp_path)  # no manifest, no splits


def test_a_manifest_decides_which_photographs_belong_to_a_split(tmp_path):
    for name in ("one.png", "sub/two.png", "three.png", "unlisted.png"):
        save(tmp_path / name, coordinates(4, 4))
    (tmp_path / "manifest.csv").write_text("file,split\nthree.png,train\none.png,train\nsub/two.png,val\n")
    assert list_photos(tmp_path, split="train") == [tmp_path / "one.png", tmp_path / "three.png"]
    assert list_photos(tmp_path, split="val") == [tmp_path / "sub/two.png"]
    assert len(list_photos(tmp_path)) == 3
    with pytest.raises(ValueError, match="no photographs of split 'test'"):
        list_photos(tmp_path, split="test")


def test_a_manifest_without_splits_lists_the_files_of_every_split(tmp_path):
    save(tmp_path / "one.png", coordinates(4, 4))
    (tmp_path / "manifest.csv").write_text("file,source\none.png,somewhere\n")
    assert list_photos(tmp_path, split="val") == [tmp_path / "one.png"]


@pytest.mark.parametrize("foreign", [b"image,label\none.png,3\n", b"", b"\xff\xfe\x00 no text"])
def test_a_manifest_of_somebody_else_is_ignored_and_named(tmp_path, caplog, foreign):
    save(tmp_path / "one.png", coordinates(4, 4))
    (tmp_path / "manifest.csv").write_bytes(foreign)
    assert list_photos(tmp_path, split="train") == [tmp_path / "one.png"]
    assert "no column `file`" in caplog.text


def test_a_missing_or_empty_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        list_photos(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no photographs"):
        list_photos(tmp_path)


# --- Decoding ---


def corrupt_files(folder: Path) -> list[Path]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    text = folder / "text.png"
    text.write_text("this is not a picture")
    cut = save(folder / "cut.jpg", noise)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    flipped = save(folder / "flipped.png", noise)
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 0xFF
    flipped.write_bytes(bytes(data))
    renamed = save(folder / "header.png", noise)
    data = bytearray(renamed.read_bytes())
    at = data.index(b"IDAT")
    data[at : at + 4] = b"\x00\x01\x02\x03"  # a chunk that no PNG has
    renamed.write_bytes(bytes(data))
    return [text, cut, flipped, renamed, folder / "absent.png"]


def test_files_that_cannot_be_decoded_are_skipped_and_named_in_the_log(tmp_path, caplog):
    good = save(tmp_path / "good.png", coordinates(19, 21))
    corrupt = [*corrupt_files(tmp_path), save(tmp_path / "tiny.png", coordinates(15, 400))]
    with caplog.at_level(logging.WARNING):
        bank = InMemoryPhotographs([*corrupt, good])
    assert len(bank) == 1
    assert bank.samples[0].hq.shape == (3, 19, 21)
    assert all(any(path.name in record.getMessage() for record in caplog.records) for path in corrupt)
    assert set(bank.skipped) == {path.as_posix() for path in corrupt}
    assert "no such file" in bank.skipped[(tmp_path / "absent.png").as_posix()]
    assert "400x15 pixels" in bank.skipped[(tmp_path / "tiny.png").as_posix()]
    assert "good.png" not in caplog.text


def test_a_bank_without_a_single_photograph_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="None of the 5 photographs"):
        InMemoryPhotographs(corrupt_files(tmp_path))


def test_a_photograph_that_claims_more_pixels_than_are_allowed_is_skipped(tmp_path, caplog):
    paths = [save(tmp_path / "huge.png", coordinates(50, 50)), save(tmp_path / "small.png", coordinates(16, 20))]
    data = bytearray(paths[0].read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)  # IHDR's width and height
    paths[0].write_bytes(data)
    assert len(InMemoryPhotographs(paths)) == 1
    assert "huge.png" in caplog.text


def test_exif_orientation_is_applied(tmp_path):
    pixels = coordinates(16, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    (sample,) = InMemoryPhotographs([save(tmp_path / "turned.png", pixels, exif=exif)]).samples
    assert np.array_equal(sample.hq.permute(1, 2, 0).numpy(), np.rot90(pixels, k=-1))


# --- Crops ---


def test_crops_have_their_shape_and_follow_the_seed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    bank = InMemoryPhotographs([save(tmp_path / "a.png", noise), save(tmp_path / "b.png", noise[:, ::-1] // 2)])
    which = [0, 1, 0, 1, 1, 0]
    crops, lq = bank.crops(which, 16, seeded(3))
    assert crops.shape == (6, 3, 16, 16)
    assert crops.dtype == torch.uint8
    assert lq == [None] * 6
    assert torch.equal(crops, bank.crops(which, 16, seeded(3))[0])
    assert not torch.equal(crops, bank.crops(which, 16, seeded(4))[0])
    assert all(not torch.equal(crops[i], crops[j]) for i in range(6) for j in range(i))
    assert all(crops[i].max() <= 127 for i in range(6) if which[i] == 1)  # the second photograph is half as bright


def test_crops_are_windows_of_the_photograph_half_of_them_mirrored(tmp_path):
    bank = InMemoryPhotographs([save(tmp_path / "a.png", coordinates(30, 44))])
    crops, _ = bank.crops([0] * 200, 12, seeded(), max_shrink=1.0)
    mirrored, lefts, tops = 0, set(), set()
    for crop in crops:
        if crop[0, 0, 0] > crop[0, 0, -1]:
            crop, mirrored = crop.flip(2), mirrored + 1
        left, top = int(crop[0, 0, 0]), int(crop[1, 0, 0])
        assert torch.equal(crop, bank.samples[0].hq[:, top : top + 12, left : left + 12])
        lefts.add(left)
        tops.add(top)
    assert 70 < mirrored < 130
    assert {0, 32} <= lefts  # both edges can be reached
    assert {0, 18} <= tops


def test_a_shrunk_crop_shows_more_of_the_photograph():
    photo = Sample("a", tensor(coordinates(100, 200)))
    widest, _ = cut(photo, 20, (1.0, 0.0, 0.0, 0.9))
    assert widest.shape == (3, 20, 20)
    assert int(widest[0, 0, -1]) == pytest.approx(97, abs=2)  # 100 columns in 20: the last shows the middle of 95 to 100
    limited, _ = cut(photo, 20, (1.0, 0.0, 0.0, 0.9), max_shrink=2.0)
    assert int(limited[0, 0, -1]) == pytest.approx(39, abs=2)


def test_both_pictures_of_a_pair_are_cut_at_the_same_place_at_full_detail():
    pixels = tensor(coordinates(60, 90))
    pair = Sample("a", pixels, 255 - pixels, "inverted")
    for draws in torch.rand(30, 4, generator=seeded()).tolist():
        hq, lq = cut(pair, 16, draws)
        assert torch.equal(lq, 255 - hq)
        assert (hq[1].int().diff(dim=0) == 1).all()  # neighbours stayed neighbours: nothing was shrunk


@pytest.mark.parametrize("size", [(5, 6), (1, 9), (1, 1), (40, 3)])
def test_photographs_smaller_than_a_crop_are_mirrored_outwards(size):
    photo = Sample("small", tensor(coordinates(*size)))
    crops = torch.stack([cut(photo, 16, draws)[0] for draws in torch.rand(20, 4, generator=seeded()).tolist()]).int()
    assert crops.shape == (20, 3, 16, 16)
    assert crops[:, 0].max() <= size[1] - 1
    assert crops[:, 1].max() <= size[0] - 1
    assert (crops[:, 2] == 7).all()
    # A mirror does not jump: neighbours in the crop were neighbours in the photograph.
    assert (crops[:, 0].diff(dim=2).abs() == (1 if size[1] > 1 else 0)).all()
    assert (crops[:, 1].diff(dim=1).abs() == (1 if size[0] > 1 else 0)).all()
