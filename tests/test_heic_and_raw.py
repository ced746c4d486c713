"""HEIC, AVIF and camera raws: read at their depth, upright, with what belongs to them; never written in their own formats."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from foundir_hf.cli import main
from foundir_hf.io.formats.heif import brands, is_avif, is_heic
from foundir_hf.io.formats.raw import is_raw
from foundir_hf.io.limits import Limits
from foundir_hf.io.photograph import PhotoError
from foundir_hf.io.reading import read_photo
from foundir_hf.io.writing import write_photo

pillow_heif = pytest.importorskip("pillow_heif")
pytest.importorskip("rawpy")

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 1) -> bytes:
    fields = Image.Exif()
    fields[ExifTags.Base.Make] = "Camera works"
    fields[ExifTags.Base.Orientation] = orientation
    return fields.tobytes()


@pytest.fixture
def gradient() -> np.ndarray:
    """`uint16` (56, 72, 3), smooth, as codecs like it."""
    y, x = np.mgrid[0:56, 0:72]
    return np.stack([x * 900, y * 1100, (x + y) * 500], axis=-1).astype(np.uint16)


def levels(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference in levels of 255."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean()) * 255 / np.iinfo(a.dtype).max


# HEIC


def test_a_heic_is_read_at_its_depth_with_what_belongs_to_it(tmp_path, gradient):
    path = tmp_path / "deep.heic"
    facts = {"exif": exif(), "xmp": b"<x:xmpmeta/>", "icc_profile": PROFILE}
    pillow_heif.encode("RGB;16", (72, 56), gradient.tobytes(), str(path), quality=-1, **facts)
    photo = read_photo(path)
    assert photo.pixels.dtype == np.uint16
    assert levels(photo.pixels, gradient) < 1.5  # chroma is halved
    assert len(np.unique(photo.pixels)) > 256  # or it were 8 bits
    assert (photo.metadata.xmp, photo.metadata.icc_profile) == (b"<x:xmpmeta/>", PROFILE)
    assert b"Camera works" in photo.metadata.exif
    assert photo.notes == ()
    assert write_photo(photo, tmp_path / "deep.png") == ()
    assert np.array_equal(read_photo(tmp_path / "deep.png").pixels, photo.pixels)


def test_white_is_white_at_ten_bits(tmp_path):
    white = np.full((56, 72, 3), 65535, np.uint16)
    pillow_heif.encode("RGB;16", (72, 56), white.tobytes(), str(tmp_path / "white.heic"), quality=-1)
    assert read_photo(tmp_path / "white.heic").pixels.min() > 65400
    imagecodecs.imwrite(tmp_path / "white.avif", white >> 6, codec="avif", bitspersample=10, level=100)
    assert read_photo(tmp_path / "white.avif").pixels.min() > 65400


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once(tmp_path, gradient, orientation):
    """By its own box; the copy in its EXIF is reset."""
    picture = Image.fromarray((gradient >> 8).astype(np.uint8))
    stored = pillow_heif.from_pillow(picture)
    stored.save(tmp_path / "turned.heic", quality=100, exif=exif(orientation))
    turned = read_photo(tmp_path / "turned.heic")
    transposed = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = picture.transpose(transposed[orientation]) if orientation > 1 else picture
    assert turned.size == expected.size
    assert levels(turned.pixels, np.asarray(expected)) < 3  # a wrong turn differs by more than 30
    write_photo(turned, tmp_path / "upright.jpg")
    with Image.open(tmp_path / "upright.jpg") as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparency_of_a_heic_come_through(tmp_path, photo, mode):
    picture = photo.convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(photo.size))
    pillow_heif.from_pillow(picture).save(tmp_path / "x.heic", quality=100)
    read = read_photo(tmp_path / "x.heic")
    assert read.pixels.ndim == (2 if mode == "L" else 3)
    assert (read.alpha is None) == (mode == "L")
    if mode == "RGBA":
        assert levels(read.alpha, np.asarray(picture.getchannel("A"))) < 1


def test_further_pictures_of_a_heic_are_told(tmp_path, photo):
    several = pillow_heif.from_pillow(photo)
    several.add_from_pillow(photo.rotate(180))
    several.save(tmp_path / "two.heic")
    assert read_photo(tmp_path / "two.heic").notes == ("1 more of its pictures cannot be kept",)


def test_a_heic_under_another_name_is_known_by_its_content(tmp_path, photo):
    pillow_heif.from_pillow(photo).save(tmp_path / "x.heic")
    (tmp_path / "x.heic").rename(tmp_path / "x.jpg")
    assert read_photo(tmp_path / "x.jpg").size == photo.size


def test_what_a_file_says_that_it_is():
    assert brands(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == [b"heic", b"mif1", b"heic"]
    assert is_heic(b"\0\0\0\x18ftypmif1\0\0\0\0heic")
    assert is_avif(b"\0\0\0\x18ftypmif1\0\0\0\0avif")
    assert not is_heic(b"\0\0\0\x18ftypmif1\0\0\0\0avif")
    assert brands(b"\xff\xd8\xff\xe0") == []


# AVIF


def test_an_avif_of_ten_bits_keeps_them_and_its_metadata(tmp_path, gradient, photo):
    imagecodecs.imwrite(tmp_path / "deep.avif", gradient >> 6, codec="avif", bitspersample=10, level=100)
    deep = read_photo(tmp_path / "deep.avif")
    assert deep.pixels.dtype == np.uint16
    assert levels(deep.pixels, gradient) < 1
    photo.save(tmp_path / "shallow.avif", quality=95, exif=exif(6), xmp=b"<x:xmpmeta/>", icc_profile=PROFILE)
    shallow = read_photo(tmp_path / "shallow.avif")
    assert shallow.pixels.dtype == np.uint8
    assert shallow.size == photo.size[::-1]
    assert (shallow.metadata.xmp, shallow.metadata.icc_profile) == (b"<x:xmpmeta/>", PROFILE)
    assert b"Camera works" in shallow.metadata.exif


# Camera raws


def dng(path: Path, *, below: bool = False) -> np.ndarray:
    """A DNG with an RGGB filter array over a grey ramp, 14 bits; `below` puts it behind a small preview, as cameras do."""
    ramp = np.broadcast_to(np.linspace(512, 16000, 96, dtype=np.uint16), (64, 96))
    camera = [
        (50706, 1, 4, (1, 4, 0, 0), True),  # DNGVersion
        (50708, 2, 0, "Camera works One", True),
        (50721, 10, 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),  # ColorMatrix1
        (50728, 5, 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
        (50778, 3, 1, 21, True),
        (271, 2, 0, "Camera works", True),
    ]
    sensor = [
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, (0, 1, 1, 2), True),
        (50714, 3, 1, 512, True),
        (50717, 4, 1, 16383, True),
    ]
    with tifffile.TiffWriter(path) as file:
        if below:
            preview = np.zeros((8, 12, 3), np.uint8)
            file.write(preview, photometric="rgb", subifds=1, subfiletype=1, extratags=camera, metadata=None, software=False)
            file.write(ramp, photometric=32803, extratags=sensor, metadata=None, software=False)
        else:
            file.write(ramp, photometric=32803, extratags=camera + sensor, metadata=None, software=False)
    return ramp


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("name", ["x.dng", "x.tif"])
def test_a_raw_is_developed_to_sixteen_bits(tmp_path, below, name):
    ramp = dng(tmp_path / name, below=below)
    photo = read_photo(tmp_path / name)
    assert photo.size == (96, 64)
    assert photo.pixels.dtype == np.uint16
    grey = photo.pixels[8:-8, 8:-8].mean(axis=(0, 2)) / 65535
    linear = (ramp[0, 8:-8] - 512) / (16383 - 512)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # sRGB's
    assert np.abs(grey - curve).max() < 0.02
    assert b"Camera works" in photo.metadata.exif
    assert write_photo(photo, tmp_path / "out.tif") == ()
    assert np.array_equal(read_photo(tmp_path / "out.tif").pixels, photo.pixels)


def test_a_tiff_is_no_raw(tmp_path, photo):
    photo.save(tmp_path / "x.tif")
    assert not is_raw((tmp_path / "x.tif").read_bytes())
    for beginning in (b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx \0\0\0\1", b"II*\0\x10\0\0\0CR\2\0"):
        assert is_raw(beginning)


@pytest.mark.parametrize("name", ["x.heic", "x.avif", "x.dng"])
def test_damage_and_size_are_told_in_one_line(tmp_path, photo, name):
    path = tmp_path / name
    if name == "x.dng":
        dng(path)
    elif name == "x.heic":
        pillow_heif.from_pillow(photo).save(path)
    else:
        photo.save(path)
    with pytest.raises(PhotoError, match=r"x\.\w+: cannot be read: it has \d+ x \d+ pixels, the limit is 0.001 megapixels"):
        read_photo(path, Limits(megapixels=0.001))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PhotoError, match=r"x\.\w+: cannot be read: ") as error:
        read_photo(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("module", "extra"), [("pillow_heif", "heic"), ("rawpy", "raw")])
def test_without_the_extra_the_file_says_which(tmp_path, photo, monkeypatch, module, extra):
    path = tmp_path / "x.jpg"  # by its content, whatever its name
    if extra == "raw":
        dng(path)
    else:
        pillow_heif.from_pillow(photo).save(tmp_path / "x.heic")
        (tmp_path / "x.heic").rename(path)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(PhotoError, match=rf"pip install 'foundir_hf\[{extra}\]'"):
        read_photo(path)


def test_restored_they_are_png_and_tiff_and_the_originals_stay(tmp_path, photo, checkpoint, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    pillow_heif.from_pillow(photo).save(folder / "a.heic")
    photo.save(folder / "b.avif")
    dng(folder / "c.dng")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["restore", str(folder), "-o", str(tmp_path / "out"), "--checkpoint", str(checkpoint), "--strength", "0"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.heic.png", "b.avif.png", "c.dng.tiff", "foundir.jsonl"]
    assert np.array_equal(read_photo(tmp_path / "out" / "c.dng.tiff").pixels, read_photo(folder / "c.dng").pixels)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    capsys.readouterr()


def test_only_dng_version_makes_a_plain_tiff_structure_a_raw():
    entry = struct.pack("<HHII", 0xC612, 1, 4, 0x0401)
    assert is_raw(b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4))
    assert not is_raw(b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x0100, 3, 1, 9) + bytes(4))
