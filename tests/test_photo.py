"""Photographs as files: what goes in comes out, what is broken is told in one line, what exists stays whole."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, PngImagePlugin

from foundir_hf.io.formats import resources
from foundir_hf.io.formats.exif import parse
from foundir_hf.io.formats.xmp import edited
from foundir_hf.io.limits import Limits
from foundir_hf.io.names import WRITERS
from foundir_hf.io.photograph import Metadata, Photo, PhotoError
from foundir_hf.io.reading import decode_photo, read_photo
from foundir_hf.io.record import read_record, with_record
from foundir_hf.io.writing import write_photo
from foundir_hf.restoration.photo import restore_photo

LOSSLESS = [".png", ".tif", ".tiff", ".bmp", ".webp"]
WITH_ALPHA = [".png", ".tif", ".webp"]
WITH_EXIF = [".png", ".tif", ".webp", ".jpg"]
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def same_pixels(a: Image.Image, b: Image.Image) -> bool:
    return a.mode == b.mode and np.array_equal(np.asarray(a), np.asarray(b))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def make_exif(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera works"
    exif[ExifTags.Base.DateTime] = "2019:08:07 06:05:04"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.125
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (51.0, 2.0, 30.0)})
    return exif.tobytes()


def assert_exif_is_whole(path: Path) -> None:
    with Image.open(path) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == "Camera works"
        assert exif[ExifTags.Base.DateTime] == "2019:08:07 06:05:04"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 0.125
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        assert gps[ExifTags.GPS.GPSLatitudeRef] == "N"
        assert gps[ExifTags.GPS.GPSLatitude] == (51.0, 2.0, 30.0)


def one_line(error: pytest.ExceptionInfo, path: Path) -> str:
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


# Pixels


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossless_formats_return_the_pixels_that_were_written(tmp_path, photo, suffix, mode):
    picture = photo.convert(mode)
    write_photo(Photo.of(picture), tmp_path / f"photo{suffix}")
    read = read_photo(tmp_path / f"photo{suffix}")
    assert same_pixels(read.image.convert("RGB"), picture.convert("RGB"))
    assert (read.alpha, read.metadata.exif, read.metadata.icc_profile) == (None, None, None)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg"])
def test_a_grey_photograph_stays_grey(tmp_path, photo, suffix):
    write_photo(Photo.of(photo.convert("L")), tmp_path / f"grey{suffix}")
    with Image.open(tmp_path / f"grey{suffix}") as image:
        assert image.mode == "L"
    assert read_photo(tmp_path / f"grey{suffix}").image.mode == "L"


def test_suffixes_are_read_without_regard_to_case(tmp_path, photo):
    write_photo(Photo.of(photo), tmp_path / "PHOTO.PNG")
    assert same_pixels(read_photo(tmp_path / "PHOTO.PNG").image, photo)


def test_jpeg_is_written_at_full_chroma_resolution(tmp_path, photo):
    for name in ("a.jpg", "a.jpeg"):
        write_photo(Photo.of(photo), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == "JPEG"
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_come_back_to_the_last(tmp_path, suffix, channels):
    numbers = np.random.default_rng(0).integers(0, 2**16, (31, 45, channels), dtype=np.uint16)
    pixels, alpha = (numbers[..., :-1], numbers[..., -1]) if channels in (2, 4) else (numbers, None)
    pixels = pixels[..., 0] if channels < 3 else pixels
    assert write_photo(Photo(pixels, alpha), tmp_path / f"deep{suffix}") == ()
    read = read_photo(tmp_path / f"deep{suffix}")
    assert read.pixels.dtype == np.uint16
    assert np.array_equal(read.pixels, pixels)
    assert alpha is None or np.array_equal(read.alpha, alpha)
    assert np.array_equal(np.asarray(read.image), np.round(pixels / 257).astype(np.uint8))


def test_floating_point_comes_back_with_what_is_above_white(tmp_path):
    numbers = np.random.default_rng(0).normal(0.5, 2, (31, 45, 3)).astype(np.float32)
    write_photo(Photo(numbers), tmp_path / "float.tif")
    assert np.array_equal(read_photo(tmp_path / "float.tif").pixels, numbers)


def test_what_a_format_cannot_hold_is_told(tmp_path, photo):
    deep = Photo(np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8), np.uint16), Metadata(iptc=b"8BIM"))
    assert write_photo(deep, tmp_path / "a.jpg") == ("JPEG cannot hold its transparency", "JPEG holds 8 bits of its 16")
    assert write_photo(deep, tmp_path / "a.webp") == ("WEBP cannot hold its IPTC", "WEBP holds 8 bits of its 16")


def test_a_photograph_that_is_unchanged_is_written_as_its_own_bytes(tmp_path, photo):
    photo.save(tmp_path / "in.jpg", quality=40)
    write_photo(read_photo(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == (tmp_path / "in.jpg").read_bytes()


@pytest.mark.parametrize(("quality", "expected"), [(99, 99), (60, 95)])
def test_a_jpeg_is_written_at_least_as_finely_as_it_came(tmp_path, photo, quality, expected):
    photo.save(tmp_path / "in.jpg", quality=quality, subsampling=2)
    photo.save(tmp_path / "like.jpg", quality=expected)
    write_photo(read_photo(tmp_path / "in.jpg").changed(), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as written, Image.open(tmp_path / "like.jpg") as like:
        assert written.quantization == like.quantization
        assert JpegImagePlugin.get_sampling(written) == 0


# Kinds of TIFF


def tiff(path: Path, numbers: np.ndarray, **options) -> Photo:
    tifffile.imwrite(path, numbers, metadata=None, **options)
    return read_photo(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_negative_tiff_is_turned(tmp_path, dtype):
    numbers = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (31, 45)).astype(dtype)
    assert np.array_equal(tiff(tmp_path / "a.tif", numbers, photometric="miniswhite").pixels, np.iinfo(dtype).max - numbers)


def test_planes_big_files_and_whole_numbers_of_32_bits(tmp_path):
    numbers = noise(3, 31, 45)
    planar = tiff(tmp_path / "a.tif", numbers, photometric="rgb", planarconfig="separate", bigtiff=True)
    assert np.array_equal(planar.pixels, np.moveaxis(numbers, 0, -1))
    wide = np.random.default_rng(0).integers(0, 2**32, (31, 45), dtype=np.uint32)
    deep = tiff(tmp_path / "b.tif", wide, photometric="minisblack")
    assert np.array_equal(deep.pixels, (wide >> 16).astype(np.uint16))
    assert deep.notes == ("its 32-bit integers became 16-bit ones",)


def test_colours_that_were_multiplied_with_their_alpha_are_divided_by_it(tmp_path):
    colours, alpha = noise(31, 45, 3), np.full((31, 45), 128, np.uint8)
    alpha[:5] = 0
    multiplied = (colours * (alpha[..., None] / 255)).round().astype(np.uint8)
    read = tiff(tmp_path / "a.tif", np.concatenate([multiplied, alpha[..., None]], axis=2), photometric="rgb", extrasamples=["assocalpha"])
    assert np.array_equal(read.alpha, alpha)
    assert np.abs(read.pixels[5:].astype(int) - colours[5:]).max() <= 1


def test_lab_and_palettes_become_rgb(tmp_path, photo):
    lab = np.zeros((8, 8, 3), np.uint8)
    lab[..., 0], lab[..., 1] = 137, 70  # a strong red: a* is signed
    red = tiff(tmp_path / "lab.tif", lab, photometric="cielab")
    assert red.alpha is None
    assert red.pixels[..., 0].min() > red.pixels[..., 1:].max() + 80
    colours = np.random.default_rng(0).integers(0, 2**16, (3, 256), dtype=np.uint16)
    palette = tiff(tmp_path / "palette.tif", noise(31, 45), photometric="palette", colormap=colours)
    assert np.array_equal(palette.pixels, colours.T[noise(31, 45)])


@pytest.mark.parametrize("dtype", ["int16", "uint64", "complex64"])
def test_numbers_that_are_no_light_are_refused(tmp_path, dtype):
    with pytest.raises(PhotoError) as error:
        tiff(tmp_path / "a.tif", np.zeros((8, 8), dtype), photometric="minisblack")
    one_line(error, tmp_path / "a.tif")


def test_a_bilevel_scan_becomes_grey(tmp_path, photo):
    photo.convert("1").save(tmp_path / "scan.png")
    image = read_photo(tmp_path / "scan.png").image
    assert image.mode == "L"
    assert set(np.unique(image)) == {0, 255}


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb_without_its_profile(tmp_path, photo, suffix):
    photo.convert("CMYK").save(tmp_path / f"print{suffix}", icc_profile=b"a profile for four inks" * 10)
    read = read_photo(tmp_path / f"print{suffix}")
    assert read.image.mode == "RGB"
    assert read.metadata.icc_profile is None
    write_photo(read, tmp_path / "screen.png")
    with Image.open(tmp_path / "screen.png") as image:
        assert "icc_profile" not in image.info


# Transparency


@pytest.mark.parametrize("suffix", WITH_ALPHA)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparency_comes_back_and_colours_below_it_too(tmp_path, photo, suffix, mode):
    alpha = noise(photo.height, photo.width)
    alpha[:10] = 0  # wholly transparent: some writers blacken what is there
    written = Photo.of(photo.convert(mode), Image.fromarray(alpha))
    write_photo(written, tmp_path / f"cut{suffix}")
    read = read_photo(tmp_path / f"cut{suffix}")
    assert np.array_equal(read.alpha, alpha)
    assert same_pixels(read.image.convert("RGB"), written.image.convert("RGB"))
    if suffix != ".webp":  # WEBP has no grey
        assert read.image.mode == mode


def test_a_palette_with_transparency_is_read_as_colour_and_alpha(tmp_path, photo):
    palette = photo.quantize(8)
    palette.save(tmp_path / "p.png", transparency=bytes([0, 128] + [255] * 6))
    read = read_photo(tmp_path / "p.png")
    indices = np.asarray(palette)
    assert same_pixels(read.image, palette.convert("RGB"))
    assert np.array_equal(np.asarray(read.alpha), np.where(indices == 0, 0, np.where(indices == 1, 128, 255)))


@pytest.mark.parametrize(("mode", "hole"), [("RGB", (0, 128, 255)), ("L", 77)])
def test_a_colour_that_stands_for_nothing_becomes_alpha(tmp_path, photo, mode, hole):
    picture = photo.convert(mode)
    picture.paste(hole, (0, 0, 9, 5))
    picture.save(tmp_path / "hole.png", transparency=hole)
    read = read_photo(tmp_path / "hole.png")
    assert read.image.mode == mode
    expected = np.asarray(picture).reshape(photo.height, photo.width, -1) != np.asarray(hole)
    assert np.array_equal(np.asarray(read.alpha), expected.any(axis=-1) * 255)


def test_formats_without_transparency_are_written_without_it(tmp_path, photo):
    assert write_photo(Photo.of(photo, Image.new("L", photo.size, 9)), tmp_path / "cut.jpg") == ("JPEG cannot hold its transparency",)
    assert read_photo(tmp_path / "cut.jpg").alpha is None


def test_a_bmp_holds_transparency_as_others_read_it(tmp_path, photo):
    alpha = Image.fromarray(noise(56, 72))
    write_photo(Photo.of(photo, alpha, dpi=(300.0, 300.0)), tmp_path / "cut.bmp")
    with Image.open(tmp_path / "cut.bmp") as image:
        assert image.mode == "RGBA"
        assert round(image.info["dpi"][0]) == 300
        assert np.array_equal(np.asarray(image)[..., :3], np.asarray(photo))
        assert np.array_equal(np.asarray(image)[..., 3], np.asarray(alpha))
    read = read_photo(tmp_path / "cut.bmp")
    assert same_pixels(read.image, photo)
    assert np.array_equal(read.alpha, np.asarray(alpha))


def test_the_fourth_channel_of_an_old_bmp_is_alpha_unless_it_says_nothing(tmp_path, photo):
    """Its header does not tell transparency from padding (Pillow writes such ones)."""
    for level, expected in ((0, None), (255, None), (9, 9)):
        picture = photo.copy()
        alpha = Image.new("L", photo.size, level)
        alpha.paste(level, (0, 0, 30, 30))
        picture.putalpha(alpha)
        picture.save(tmp_path / "old.bmp")
        read = read_photo(tmp_path / "old.bmp")
        assert (read.alpha is None) == (expected is None)
        assert same_pixels(read.image, photo)
        if expected is not None:
            assert np.array_equal(read.alpha, np.asarray(alpha))


# Metadata


@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", WITH_EXIF)
def test_exif_and_colour_profile_survive_a_change_of_format(tmp_path, photo, source, target):
    photo.save(tmp_path / f"in{source}", exif=make_exif(), icc_profile=ICC)
    read = read_photo(tmp_path / f"in{source}")
    assert read.metadata.icc_profile == ICC
    write_photo(read, tmp_path / f"out{target}")
    assert_exif_is_whole(tmp_path / f"out{target}")
    with Image.open(tmp_path / f"out{target}") as image:
        assert image.info["icc_profile"] == ICC


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_applied_and_removed(tmp_path, photo, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo if orientation == 1 else photo.transpose(undo[orientation])
    for suffix in (".png", ".tif", ".webp"):
        stored.save(tmp_path / f"in{suffix}", exif=make_exif(orientation), **({"lossless": True} if suffix == ".webp" else {}))
        read = read_photo(tmp_path / f"in{suffix}")
        assert same_pixels(read.image, photo)
        write_photo(read.changed(), tmp_path / f"out{suffix}")
        assert_exif_is_whole(tmp_path / f"out{suffix}")
        assert same_pixels(read_photo(tmp_path / f"out{suffix}").image, photo)


def test_no_metadata_is_invented(tmp_path, photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera works"
    photo.save(tmp_path / "in.png", exif=exif)
    write_photo(read_photo(tmp_path / "in.png"), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert dict(image.getexif()) == {ExifTags.Base.Make: "Camera works"}


def test_an_enlarged_tiff_does_not_carry_its_old_size(tmp_path, photo):
    photo.save(tmp_path / "small.tif", exif=make_exif())
    read = read_photo(tmp_path / "small.tif")
    write_photo(Photo.of(read.image.resize((144, 112)), exif=read.metadata.exif), tmp_path / "large.tif")
    assert read_photo(tmp_path / "large.tif").image.size == (144, 112)


def exiftool(path: Path, *tags: str) -> dict[str, Any]:
    """What an independent reader says; its warnings too."""
    command = ["exiftool", "-j", "-n", "-G1", *(f"-{tag}" for tag in tags), str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]


# CI asks for it: there its absence is a failure.
needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None and not os.environ.get("FOUNDIR_REQUIRE_EXIFTOOL"), reason="exiftool is not installed"
)


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_text_types_and_places_go_through_as_they_are(tmp_path, photo, target):
    """UTF-8 text, a type that is not the standard's, makers' notes, the place: what exiftool saw before it sees after."""
    photo.save(tmp_path / "in.jpg", exif=make_exif(), dpi=(300, 300))
    write = ["-IFD0:Artist=Müller", "-ExifIFD:UserComment=grüß", "-IFD0:XPTitle=Ørsted", "-GPS:GPSAltitude=12", "-XMP-dc:Title=Fjord"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *write, str(tmp_path / "in.jpg")], check=True)
    data = (tmp_path / "in.jpg").read_bytes()
    (tmp_path / "in.jpg").write_bytes(data.replace(b"Camera works", b"Cam\xc3\xa9ra okay"))
    write_photo(read_photo(tmp_path / "in.jpg").changed(), tmp_path / f"out{target}")
    groups = ("IFD0:all", "ExifIFD:all", "GPS:all", "XMP-dc:all")
    before, after = exiftool(tmp_path / "in.jpg", *groups), exiftool(tmp_path / f"out{target}", *groups)
    own = {
        key for key in before if key.split(":")[-1] in ("YCbCrPositioning", "XResolution", "YResolution", "ResolutionUnit", "SourceFile")
    }
    lost = {key: before[key] for key in before if key not in own and after.get(key) != before[key]}
    assert lost == {}
    assert "ExifTool:Warning" not in exiftool(tmp_path / f"out{target}")


@needs_exiftool
def test_sizes_follow_and_the_old_thumbnail_goes(tmp_path, photo):
    photo.save(tmp_path / "in.jpg", exif=make_exif())
    photo.resize((36, 28)).save(tmp_path / "small.jpg")
    write = [f"-ThumbnailImage<={tmp_path / 'small.jpg'}", "-ExifIFD:ExifImageWidth=72", "-ExifIFD:ExifImageHeight=56"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *write, str(tmp_path / "in.jpg")], check=True)
    assert "IFD1:ThumbnailImage" in exiftool(tmp_path / "in.jpg")
    read = read_photo(tmp_path / "in.jpg")
    write_photo(read.changed(pixels=np.repeat(np.repeat(read.pixels, 2, 0), 2, 1)), tmp_path / "out.jpg")
    after = exiftool(tmp_path / "out.jpg")
    assert "IFD1:ThumbnailImage" not in after
    assert (after["ExifIFD:ExifImageWidth"], after["ExifIFD:ExifImageHeight"]) == (144, 112)
    assert (tmp_path / "small.jpg").read_bytes()[20:] not in (tmp_path / "out.jpg").read_bytes()


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_the_place_goes_on_request_and_so_does_all_else(tmp_path, photo, target):
    photo.save(tmp_path / "in.jpg", exif=make_exif(), icc_profile=ICC)
    read = read_photo(tmp_path / "in.jpg")
    write_photo(read, tmp_path / f"a{target}", metadata="strip-gps")
    after = exiftool(tmp_path / f"a{target}")
    assert not [key for key in after if "GPS" in key]
    assert after["IFD0:Make"] == "Camera works"
    assert after["ExifIFD:ExposureTime"] == 0.125
    assert "ExifTool:Warning" not in after
    write_photo(read, tmp_path / f"b{target}", metadata="none")
    after = exiftool(tmp_path / f"b{target}")
    assert not [key for key in after if key.startswith(("IFD0:Make", "ExifIFD", "GPS", "XMP"))]
    assert read_photo(tmp_path / f"b{target}").metadata.icc_profile == ICC


def test_what_only_a_png_says_stays_in_a_png(tmp_path, photo):
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A fjord")
    info.add_itxt("Comment", "Ørsted", zip=True)
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))
    photo.save(tmp_path / "in.png", pnginfo=info, dpi=(300, 300))
    read = read_photo(tmp_path / "in.png")
    assert write_photo(read.changed(), tmp_path / "out.png") == ()
    with Image.open(tmp_path / "out.png") as image:
        image.load()
        assert (image.info["Title"], image.info["Comment"], image.info["gamma"]) == ("A fjord", "Ørsted", 1.0)
        assert round(image.info["dpi"][0]) == 300
    assert write_photo(read, tmp_path / "out.jpg") == ("JPEG cannot hold its PNG's text and gamma",)


def test_damaged_exif_is_dropped_with_a_line_and_the_photograph_is_not(tmp_path, photo):
    photo.save(tmp_path / "in.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    read = read_photo(tmp_path / "in.jpg")
    assert read.notes == ("its EXIF is damaged (it points beyond its end) and was dropped",)
    assert read.metadata.exif is None


@pytest.mark.parametrize(("place", "notes"), [(38, ()), (9999, ("a part of its EXIF is damaged",))])
def test_a_damaged_directory_below_is_told_and_an_empty_one_is_not(tmp_path, photo, place, notes):
    directories = struct.pack("<HHHIIHHIII", 2, 0x8769, 4, 1, 38, 0x8825, 4, 1, place, 0) + bytes(6)
    photo.save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0" + directories)
    read = read_photo(tmp_path / "in.jpg")
    assert read.notes == notes
    assert read.metadata.exif == b"II*\0\x08\0\0\0" + directories


@needs_exiftool
@pytest.mark.parametrize("target", WITH_EXIF)
def test_what_was_done_is_written_beside_what_was_there(tmp_path, photo, target):
    photo.save(tmp_path / "in.jpg")
    subprocess.run(["exiftool", "-q", "-overwrite_original", "-XMP-dc:Title=Fjord & <sea>", str(tmp_path / "in.jpg")], check=True)
    read = read_photo(tmp_path / "in.jpg")
    assert read_record(read.metadata) == {}
    record = {"version": "0.2", "settings": '{"tone": "<auto> & \'more\'"}'}
    metadata = with_record(with_record(read.metadata, {"version": "0.1"}), record)  # the last one counts
    write_photo(read.changed(metadata=metadata), tmp_path / f"out{target}")
    assert read_record(read_photo(tmp_path / f"out{target}").metadata) == record
    after = exiftool(tmp_path / f"out{target}")
    assert after["XMP-dc:Title"] == "Fjord & <sea>"
    assert after["XMP-foundir:Version"] == 0.2
    assert read_record(with_record(Metadata(), record)) == record  # without a packet before


# Kinds of files that went wrong once


def exif_of(*fields: tuple[int, int, int, bytes]) -> bytes:
    """EXIF of fields `(tag, type, count, four bytes)`."""
    entries = b"".join(struct.pack("<HHI4s", *field) for field in fields)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + bytes(4)


@pytest.mark.parametrize(("kind", "count"), [(1, 1), (3, 1), (3, 2), (4, 1), (8, 1)])
def test_an_orientation_of_any_type_that_is_followed_is_reset(tmp_path, photo, kind, count):
    photo.save(tmp_path / "in.png", exif=b"Exif\0\0" + exif_of((274, kind, count, b"\6\0\0\0")))
    read = read_photo(tmp_path / "in.png")
    assert read.size == (56, 72)
    write_photo(read.changed(), tmp_path / "out.png")
    again = read_photo(tmp_path / "out.png")
    assert np.array_equal(again.pixels, read.pixels)  # not turned a second time


def test_exif_whose_parts_overlap_is_dropped_with_a_line(tmp_path, photo):
    """To take its thumbnail out would have changed where its first directory is; found by hypothesis."""
    photo.save(tmp_path / "in.png", exif=b"Exif\0\0MM\0*\0\0\0\4\0\4" + bytes(90))
    read = read_photo(tmp_path / "in.png")
    assert read.notes == ("its EXIF is damaged (its parts overlap) and was dropped",)
    write_photo(read.changed(), tmp_path / "out.tif")


def test_an_orientation_that_is_text_is_not_followed(tmp_path, photo):
    photo.save(tmp_path / "in.png", exif=b"Exif\0\0" + exif_of((274, 2, 2, b"\6\0\0\0")))
    assert read_photo(tmp_path / "in.png").size == photo.size


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    b' xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6" exif:PixelXDimension=\'9\' exif:GPSLatitude="51,2N" dc:format="x">'
    b"<exif:PixelYDimension>8</exif:PixelYDimension><exif:GPSLongitude>7,1E</exif:GPSLongitude>"
    b"<xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_xmp_is_true_of_the_picture_that_is_written(tmp_path, photo):
    photo.save(tmp_path / "in.webp", lossless=True, xmp=XMP)
    read = read_photo(tmp_path / "in.webp")
    write_photo(read.changed(), tmp_path / "out.webp")
    packet = read_photo(tmp_path / "out.webp").metadata.xmp
    assert b'tiff:Orientation="1"' in packet
    assert b"exif:PixelXDimension='72'" in packet
    assert b"<exif:PixelYDimension>56</exif:PixelYDimension>" in packet
    assert b"Thumbnails" not in packet
    assert b'exif:GPSLatitude="51,2N"' in packet
    write_photo(read, tmp_path / "nowhere.webp", metadata="strip-gps")
    packet = read_photo(tmp_path / "nowhere.webp").metadata.xmp
    assert b"GPS" not in packet
    assert b'dc:format="x"' in packet


def test_xmp_that_is_made_to_take_long_does_not(tmp_path):
    """Minutes and more by expressions that try again from every place."""
    for part in (b"<rdf:Description xmlns:foundir=", b"<xmp:Thumbnails>", b" \n\t", b"<exif:GPSx>", b"<!", b' tiff:Orientation="'):
        packet = XMP + part * (2**21 // len(part))
        written = edited(packet, (3, 2), keep_gps=False)
        assert read_record(with_record(Metadata(xmp=written or packet), {"seed": "0"})) == {"seed": "0"}


@needs_exiftool
def test_xmp_longer_than_a_segment_of_a_jpeg_goes_through(tmp_path, photo):
    subjects = b"".join(b"<rdf:li>%032d</rdf:li>" % number for number in range(3000))
    long = XMP.replace(b"<xmp:Thumbnails>", b"<dc:subject><rdf:Bag>" + subjects + b"</rdf:Bag></dc:subject><xmp:Thumbnails>")
    photo.save(tmp_path / "in.webp", lossless=True, xmp=long)
    assert write_photo(read_photo(tmp_path / "in.webp"), tmp_path / "out.jpg") == ()
    seen = subprocess.run(["exiftool", "-m", "-s3", "-XMP-dc:Subject", str(tmp_path / "out.jpg")], capture_output=True, check=True)
    assert len(seen.stdout.split(b",")) == 3000
    read = read_photo(tmp_path / "out.jpg")
    assert read.notes == ()
    assert read.metadata.xmp.count(b"<rdf:li>") == 3000
    write_photo(read, tmp_path / "again.webp", metadata="none")
    data = (tmp_path / "out.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data.replace(b"http://ns.adobe.com/xmp/extension/", b"http://ns.adobe.com/xmp/extensioX/", 1))
    assert read_photo(tmp_path / "cut.jpg").notes == ("the extension of its XMP was dropped: a part is missing",)


def jpeg_with(photo: Image.Image, *segments: tuple[int, bytes], behind: bytes = b"") -> bytes:
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG")
    parts = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments)
    return encoded.getvalue()[:2] + parts + encoded.getvalue()[2:] + behind


def test_segments_of_a_jpeg_are_kept_or_told(tmp_path, photo):
    own = ((0xE3, b"Meta\0\0of a camera"), (0xE1, b"FLIR\0heat"), (0xFE, b"one"), (0xFE, b"two"))
    (tmp_path / "in.jpg").write_bytes(jpeg_with(photo, *own, (0xEB, b"JP\0\1sealed"), behind=b"\0\0\0\x18ftypmp42" * 9))
    read = read_photo(tmp_path / "in.jpg")
    assert read.notes == (
        "108 bytes behind its picture (a film, say) cannot be kept",
        "its content credentials (C2PA) are of the picture as it was and cannot be kept",
    )
    assert write_photo(read, tmp_path / "same.jpg") == ()  # to the byte: there all of it is kept
    assert write_photo(read.changed(), tmp_path / "out.jpg") == read.notes
    again = read_photo(tmp_path / "out.jpg")
    assert set(again.metadata.segments) == {*own[:2], own[3]}
    assert again.metadata.comment == b"one"
    assert write_photo(read, tmp_path / "out.png") == (*read.notes, "PNG cannot hold its comment, cameras' own segments")
    write_photo(read, tmp_path / "nowhere.jpg", metadata="strip-gps")
    assert read_photo(tmp_path / "nowhere.jpg").metadata.segments == ()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 2, "restart_marker_blocks": 5}])
def test_a_jpeg_that_claims_more_rows_than_it_has_is_refused(photo, mode, options):
    """What lacks would be grey; what is grey may be so."""
    for picture in (photo, Image.new("RGB", (203, 151), (128, 128, 128))):
        encoded = io.BytesIO()
        picture.convert(mode).save(encoded, "JPEG", **options)
        data = encoded.getvalue()
        assert decode_photo(data, "x").size == picture.size
        place = data.index(b"\xff\xc2" if "progressive" in options else b"\xff\xc0") + 5
        for height in (picture.height + 16, 4 * picture.height):
            with pytest.raises(PhotoError, match=rf"it is truncated: it claims {picture.width} x {height} pixels and holds \d+ of"):
                decode_photo(data[:place] + struct.pack(">H", height) + data[place + 2 :], "x")


def changed_field(data: bytes, tag: int, values: list[int]) -> bytes:
    """A little-endian TIFF with other numbers in a field that has as many."""
    changed, structure = bytearray(data), parse(data)
    found = structure.directory(structure.first)[0][tag]
    packed = struct.pack(f"<{len(values)}{'H' if found.kind == 3 else 'I'}", *values)
    assert len(packed) == len(found.data)
    changed[found.place : found.place + len(packed)] = packed
    return bytes(changed)


@pytest.mark.parametrize(
    ("options", "tag", "values", "said"),
    [
        ({"tile": (32, 32), "compression": "zlib"}, 257, [224], "6 of the 21 tiles"),  # the height
        ({"tile": (32, 32)}, 257, [224], "6 of the 21 tiles"),
        ({"compression": "lzw"}, 257, [224], "1 of the 4 strips"),
        ({"rowsperstrip": 28, "compression": "zlib"}, 279, [9, 0], "1 of the 2 strips"),  # how long they are
        ({"rowsperstrip": 28}, 273, [8, 0], "1 of the 2 strips"),  # where they are
    ],
)
def test_a_tiff_that_lacks_strips_or_tiles_is_refused(photo, options, tag, values, said):
    """What lacks would be black."""
    file = io.BytesIO()
    tifffile.imwrite(file, np.asarray(photo), photometric="rgb", metadata=None, **options)
    assert np.array_equal(decode_photo(file.getvalue(), "x").pixels, np.asarray(photo))
    with pytest.raises(PhotoError, match=f"it is truncated: it has {said} of its picture"):
        decode_photo(changed_field(file.getvalue(), tag, values), "x")


def test_a_jpeg_without_dpi_is_given_none(tmp_path, photo):
    photo.save(tmp_path / "in.jpg", exif=make_exif())
    write_photo(read_photo(tmp_path / "in.jpg").changed(), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as image:
        assert (image.info["jfif_unit"], image.info["jfif_density"]) == (0, (1, 1))


def test_thumbnails_of_photoshop_go_and_its_other_resources_stay(tmp_path, photo):
    iptc, small = resources.block(resources.IPTC, b"\x1c\x02\x19\0\5words"), resources.block(0x040C, b"a small picture")
    (tmp_path / "in.jpg").write_bytes(jpeg_with(photo, (0xED, b"Photoshop 3.0\0" + small + iptc + b"8BIMrest")))
    write_photo(read_photo(tmp_path / "in.jpg").changed(), tmp_path / "out.jpg")
    assert read_photo(tmp_path / "out.jpg").metadata.iptc == iptc + b"8BIMrest"


def png_with(photo: Image.Image, *chunks: tuple[bytes, bytes], height: int | None = None) -> bytes:
    encoded = io.BytesIO()
    photo.save(encoded, "PNG")
    data = encoded.getvalue()
    header = data[16:20] + struct.pack(">I", height or photo.height) + data[24:29]
    parts = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in ((b"IHDR", header), *chunks))
    return data[:8] + parts + data[33:]


def test_a_png_that_claims_more_than_it_has_is_refused(tmp_path, photo):
    (tmp_path / "tall.png").write_bytes(png_with(photo, height=200))
    with pytest.raises(PhotoError, match="Not enough image data"):
        read_photo(tmp_path / "tall.png")


def test_chunks_of_a_png_are_kept_or_told(tmp_path, photo):
    kept = ((b"tIME", bytes(7)), (b"prvt", b"anybody's"))
    marked = b"Exif\0\0" + exif_of((274, 3, 1, b"\6\0\0\0"))
    (tmp_path / "in.png").write_bytes(png_with(photo, *kept, (b"eXIf", marked), (b"iCCP", b"name\0\0no profile"), (b"prVT", b"nobody's")))
    read = read_photo(tmp_path / "in.png")
    assert read.size == (56, 72)
    assert read.notes == ("its colour profile is damaged and was dropped",)
    write_photo(read.changed(), tmp_path / "out.png")
    assert read_photo(tmp_path / "out.png").metadata.chunks == kept
    raw = (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 1\n00\n"))  # as ImageMagick writes it
    (tmp_path / "raw.png").write_bytes(png_with(photo, raw))
    for metadata, left in (("keep", (raw,)), ("strip-gps", ())):
        write_photo(read_photo(tmp_path / "raw.png").changed(), tmp_path / "out.png", metadata=metadata)
        assert read_photo(tmp_path / "out.png").metadata.chunks == left


@needs_exiftool
def test_fields_of_a_tiff_go_through(tmp_path, photo):
    """Those of the photograph, whatever they are; IPTC beside Photoshop's other resources; a directory below that of the camera."""
    photo.save(tmp_path / "in.tif")
    write = ["-PageName=front", "-WhitePoint=0.3127 0.329", "-IPTC:Keywords=Bergen", "-Photoshop:URL=http://a.b", "-InteropIndex=R98"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *write, "-LensModel=L50", str(tmp_path / "in.tif")], check=True)
    tags = ("IFD0:PageName", "IFD0:WhitePoint", "IPTC:Keywords", "Photoshop:URL", "InteropIFD:InteropIndex", "ExifIFD:LensModel")
    before = exiftool(tmp_path / "in.tif", *tags)
    assert len(before) == len(tags) + 1
    write_photo(read_photo(tmp_path / "in.tif").changed(), tmp_path / "out.tif")
    after = exiftool(tmp_path / "out.tif", *tags)
    assert {**after, "SourceFile": ""} == {**before, "SourceFile": ""}


def tiff_of(fields: dict[int, int], following: int = 0) -> bytes:
    """A TIFF of one directory, of numbers, and where the next one is."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(fields)) + entries + struct.pack("<I", following)


SMALL = {256: 1000, 257: 1000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1000, 279: 10}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff_of(SMALL, following=8), "its directories follow each other in a circle"),
        (tiff_of({}, following=8), "its directories follow each other in a circle"),
        (tiff_of({**SMALL, 277: 65535}), "megabytes of numbers for 1000 x 1000 pixels"),
        (tiff_of({**SMALL, 32997: 10**6}), "megabytes of numbers for 1000 x 1000 pixels"),
        (tiff_of({**SMALL, 322: 2**31 - 16, 323: 2**31 - 16, 324: 8, 325: 9}), "the limit is 178 megapixels"),
        (b"II*\0\x08\0\0\0\xff\xff" + b"".join(struct.pack("<HHII", n, 7, 700_000, 8) for n in range(65535)), "its fields overlap"),
    ],
)
def test_a_tiff_that_would_take_all_memory_is_refused(tmp_path, data, said):
    (tmp_path / "in.tif").write_bytes(data)
    with pytest.raises(PhotoError, match=said):
        read_photo(tmp_path / "in.tif")


def test_a_mask_and_a_small_copy_in_a_tiff_are_no_pages(tmp_path, photo):
    with tifffile.TiffWriter(tmp_path / "in.tif") as file:
        file.write(np.asarray(photo), photometric="rgb", metadata=None)
        file.write(np.asarray(photo)[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        file.write(np.asarray(photo)[..., 0] > 9, photometric=4, subfiletype=4, metadata=None)
    read = read_photo(tmp_path / "in.tif")
    assert same_pixels(read.image, photo)
    assert read.notes == ("a mask cannot be kept",)


@pytest.mark.parametrize("writer", ["eps", "ppm", "pcx"])
def test_formats_that_are_not_named_are_not_read(tmp_path, photo, writer):
    """Pillow would hand EPS to Ghostscript, which is a programming language."""
    photo.save(tmp_path / "in.jpg", writer)
    with pytest.raises(PhotoError, match="not an image of a known format"):
        read_photo(tmp_path / "in.jpg")


def magick(path: Path, *arguments: str) -> np.ndarray:
    """What ImageMagick reads, as RGBA of 16 bits in [0, 1]."""
    program = shutil.which("magick") or shutil.which("convert-im6.q16") or shutil.which("convert") or ""
    command = [program, str(path), *arguments, "-depth", "16", "rgba:-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<u2") / 65535


@pytest.mark.skipif(not (shutil.which("magick") or shutil.which("identify")), reason="ImageMagick is not installed")
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("kind", ["8", "16", "grey", "alpha", "lab", "cmyk", "negative", "palette"])
def test_imagemagick_sees_the_same_colours_in_what_is_written(tmp_path, photo, kind, suffix):
    """exiftool does not look at pixels."""
    path, deep = tmp_path / "in.tif", np.asarray(photo).astype(np.uint16) * 257 + 3
    options: dict[str, Any] = {"photometric": "rgb", "metadata": None}
    if kind == "alpha":
        options["extrasamples"] = ["unassalpha"]
    if kind == "negative":
        tifffile.imwrite(path, 65535 - deep[..., 0], photometric="miniswhite", metadata=None)
    elif kind == "lab":
        photo.save(tmp_path / "rgb.png")
        program = shutil.which("magick") or shutil.which("convert-im6.q16") or "convert"
        subprocess.run([program, str(tmp_path / "rgb.png"), "-colorspace", "Lab", "-depth", "16", str(path)], check=True)
    elif kind in ("cmyk", "grey", "palette"):
        {"cmyk": photo.convert("CMYK"), "grey": photo.convert("L"), "palette": photo.quantize(30)}[kind].save(path)
    else:
        picture = np.dstack([deep, deep[..., 1]]) if kind == "alpha" else deep
        tifffile.imwrite(path, (picture >> 8).astype(np.uint8) if kind == "8" else picture, **options)
    write_photo(read_photo(path), tmp_path / f"out{suffix}")
    flat = ("-alpha", "off") if suffix == ".jpg" else ()
    before, after = magick(path, *flat), magick(tmp_path / f"out{suffix}", *flat)
    # A level of 255, or two where colours are converted; and a JPEG's own losses.
    assert np.abs(before - after).mean() < (0.02 if suffix == ".jpg" else 2.1 / 255)
    if kind in ("8", "16", "alpha", "negative") and suffix in (".png", ".tif"):
        assert np.array_equal(before, after)


# What cannot be read


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_an_animation_is_refused_in_one_line(tmp_path, photo, suffix):
    path = tmp_path / f"film{suffix}"
    photo.save(path, save_all=True, append_images=[photo.rotate(90), photo.rotate(180)])
    with pytest.raises(PhotoError) as error:
        read_photo(path)
    assert "frames" in one_line(error, path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PhotoError) as error:
        read_photo(tmp_path / "nowhere.png")
    assert "no such file" in one_line(error, tmp_path / "nowhere.png")


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"half{suffix}"
    write_photo(Photo.of(Image.fromarray(noise(64, 64, 3))), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PhotoError) as error:
        read_photo(path)
    assert "cannot be read" in one_line(error, path)


@pytest.mark.parametrize("content", [b"", b"only words\n", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "signature"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "words.png"
    path.write_bytes(content)
    with pytest.raises(PhotoError) as error:
        read_photo(path)
    assert "not an image of a known format" in one_line(error, path)


def test_a_folder_is_no_photograph(tmp_path):
    with pytest.raises(PhotoError) as error:
        read_photo(tmp_path)
    assert one_line(error, tmp_path).count(str(tmp_path)) == 1


@pytest.mark.parametrize("suffix", [*WRITERS])
@pytest.mark.parametrize(("limits", "option"), [(Limits(megapixels=0.001), "megapixels"), (Limits(megabytes=0.0001), "megabytes")])
def test_what_is_larger_than_allowed_is_refused(tmp_path, photo, suffix, limits, option):
    path = tmp_path / f"large{suffix}"
    photo.save(path)
    with pytest.raises(PhotoError) as error:
        read_photo(path, limits)
    assert f"(--max-{option})" in one_line(error, path)


def test_a_limit_above_pillows_holds_and_pillows_stays(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "large.jpg")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    assert read_photo(tmp_path / "large.jpg", Limits(megapixels=1)).size == photo.size
    assert PIL.Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(PhotoError) as error:
        read_photo(tmp_path / "large.jpg", Limits(megapixels=0.001))
    assert "(--max-megapixels)" in one_line(error, tmp_path / "large.jpg")


# What cannot be written


@pytest.mark.parametrize("name", ["photo.gif", "photo"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, photo, name):
    with pytest.raises(PhotoError) as error:
        write_photo(Photo.of(photo), tmp_path / name)
    assert ".bmp, .jpeg, .jpg, .png" in one_line(error, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_no_temporary_file_and_the_old_one_intact(tmp_path):
    target = tmp_path / "photo.jpg"
    target.write_bytes(b"what was here before")
    too_wide = Photo(np.zeros((1, 70_000), np.uint8))  # a JPEG holds 65,535
    with pytest.raises(PhotoError) as error:
        write_photo(too_wide, target)
    assert "cannot be written" in one_line(error, target)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]
    assert target.read_bytes() == b"what was here before"


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, photo, monkeypatch):
    def interrupted(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_photo(Photo.of(photo), tmp_path / "photo.png")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_named(tmp_path, photo):
    (tmp_path / "photo.png").mkdir()
    with pytest.raises(PhotoError) as error:
        write_photo(Photo.of(photo), tmp_path / "photo.png")
    one_line(error, tmp_path / "photo.png")
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path, photo):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(PhotoError) as error:
        write_photo(Photo.of(photo), tmp_path / "folder" / "photo.png")
    one_line(error, tmp_path / "folder" / "photo.png")
    assert (tmp_path / "folder").read_text() == "a file"


def test_missing_folders_are_made_and_the_longest_names_fit(tmp_path, photo):
    path = tmp_path / "a" / "b" / ("n" * 251 + ".png")
    write_photo(Photo.of(photo), path)
    assert same_pixels(read_photo(path).image, photo)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_file_may_be_read_by_whom_the_umask_says(tmp_path, photo, umask):
    before = os.umask(umask)
    try:
        write_photo(Photo.of(photo), tmp_path / "photo.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "photo.png").stat().st_mode) == 0o666 & ~umask


# Restoration


def test_restoration_changes_the_picture_and_keeps_what_belongs_to_it(pipeline, photo, generator):
    alpha = Image.fromarray(noise(photo.height, photo.width))
    before = Photo.of(photo, alpha, exif=make_exif().removeprefix(b"Exif\0\0"), icc_profile=ICC)
    restored = restore_photo(pipeline, before, generator=generator)
    assert restored.size == photo.size
    assert not same_pixels(restored.image, photo)
    assert np.array_equal(restored.alpha, before.alpha)
    assert restored.metadata == before.metadata
    # What cannot be seen stays what it was.
    assert np.array_equal(restored.pixels[before.alpha == 0], before.pixels[before.alpha == 0])


def test_transparency_is_enlarged_with_the_picture(pipeline, photo, generator):
    alpha = Image.new("L", photo.size, 0)
    alpha.paste(255, (photo.width // 2, 0, photo.width, photo.height))
    restored = restore_photo(pipeline, Photo.of(photo, alpha), upscale=1.5, generator=generator)
    assert restored.size == (108, 84)
    assert restored.alpha.shape == (84, 108)
    assert (restored.alpha[:, :50] == 0).all()
    assert (restored.alpha[:, 58:] == 255).all()


def test_an_enlarged_cut_out_has_no_dark_rim(pipeline, generator):
    y, x = np.mgrid[0:64, 0:64]
    disc = (x - 32) ** 2 + (y - 32) ** 2 < 400
    red = np.where(disc[..., None], np.array([220, 30, 30], np.uint8), 0).astype(np.uint8)
    photo = Photo(red, (disc * 255).astype(np.uint8))
    # A model that changes nothing: what is seen is the enlargement.
    enlarged = restore_photo(pipeline, photo, upscale=2, strength=0.0, generator=generator)
    assert enlarged.pixels[enlarged.alpha > 0][:, 0].min() > 210


def test_a_restored_grey_photograph_is_grey(pipeline, photo, generator):
    assert restore_photo(pipeline, Photo.of(photo.convert("L")), generator=generator).image.mode == "L"


def test_deep_numbers_are_restored_at_their_depth(pipeline, photo, generator):
    shallow = Photo.of(photo)
    deep = Photo(shallow.pixels.astype(np.uint16) * 257 + 100)
    light = Photo((deep.pixels / 65535).astype(np.float32))
    light.pixels[0, 0] = (np.nan, 5.0, -1.0)
    restored = restore_photo(pipeline, deep, generator=generator.manual_seed(0))
    assert restored.pixels.dtype == np.uint16
    assert len(np.unique(restored.pixels)) > 256
    assert np.abs(restored.pixels / 257 - restore_photo(pipeline, shallow, generator=generator.manual_seed(0)).pixels).mean() < 2
    above = restore_photo(pipeline, light, generator=generator.manual_seed(0)).pixels
    assert np.isnan(above[0, 0, 0])
    assert above[0, 0, 1] > 3
    assert above[0, 0, 2] < 0


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_strength_zero_returns_the_file_byte_for_byte(pipeline, photo, tmp_path, mode):
    picture = photo.convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(noise(photo.height, photo.width)))
    picture.save(tmp_path / "in.png")
    write_photo(restore_photo(pipeline, read_photo(tmp_path / "in.png"), strength=0.0), tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "in.png").read_bytes()
