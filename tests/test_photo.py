"""Photographs as files: what goes in comes out, what is broken is told in one line, what exists stays whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

from foundir_hf.photo import WRITERS, Photo, PhotoError, read_photo, restore_photo, write_photo

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
    write_photo(Photo(picture), tmp_path / f"photo{suffix}")
    read = read_photo(tmp_path / f"photo{suffix}")
    assert same_pixels(read.image.convert("RGB"), picture.convert("RGB"))
    assert (read.alpha, read.exif, read.icc_profile) == (None, None, None)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jpg"])
def test_a_grey_photograph_stays_grey(tmp_path, photo, suffix):
    write_photo(Photo(photo.convert("L")), tmp_path / f"grey{suffix}")
    with Image.open(tmp_path / f"grey{suffix}") as image:
        assert image.mode == "L"
    assert read_photo(tmp_path / f"grey{suffix}").image.mode == "L"


def test_suffixes_are_read_without_regard_to_case(tmp_path, photo):
    write_photo(Photo(photo), tmp_path / "PHOTO.PNG")
    assert same_pixels(read_photo(tmp_path / "PHOTO.PNG").image, photo)


def test_jpeg_is_written_at_full_chroma_resolution(tmp_path, photo):
    for name in ("a.jpg", "a.jpeg"):
        write_photo(Photo(photo), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == "JPEG"
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 48 * 32).astype(np.uint16).reshape(32, 48)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        image = read_photo(tmp_path / name).image
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), np.round(ramp / 257).astype(np.uint8))


def test_floating_point_grey_in_the_unit_range_is_scaled(tmp_path):
    ramp = np.linspace(0, 1, 48 * 32, dtype=np.float32).reshape(32, 48)
    Image.fromarray(ramp).save(tmp_path / "float.tif")
    assert np.abs(np.asarray(read_photo(tmp_path / "float.tif").image) / 255 - ramp).max() <= 0.5 / 255 + 1e-6


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
    assert read.icc_profile is None
    write_photo(read, tmp_path / "screen.png")
    with Image.open(tmp_path / "screen.png") as image:
        assert "icc_profile" not in image.info


# Transparency


@pytest.mark.parametrize("suffix", WITH_ALPHA)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparency_comes_back_and_colours_below_it_too(tmp_path, photo, suffix, mode):
    alpha = noise(photo.height, photo.width)
    alpha[:10] = 0  # wholly transparent: some writers blacken what is there
    written = Photo(photo.convert(mode), Image.fromarray(alpha))
    write_photo(written, tmp_path / f"cut{suffix}")
    read = read_photo(tmp_path / f"cut{suffix}")
    assert same_pixels(read.alpha, written.alpha)
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
    for name in ("cut.bmp", "cut.jpg"):
        write_photo(Photo(photo, Image.new("L", photo.size, 9)), tmp_path / name)
        assert read_photo(tmp_path / name).alpha is None


# Metadata


@pytest.mark.parametrize("target", WITH_EXIF)
@pytest.mark.parametrize("source", WITH_EXIF)
def test_exif_and_colour_profile_survive_a_change_of_format(tmp_path, photo, source, target):
    photo.save(tmp_path / f"in{source}", exif=make_exif(), icc_profile=ICC)
    read = read_photo(tmp_path / f"in{source}")
    assert read.icc_profile == ICC
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
        write_photo(read, tmp_path / f"out{suffix}")
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
    write_photo(Photo(read.image.resize((144, 112)), None, read.exif), tmp_path / "large.tif")
    assert read_photo(tmp_path / "large.tif").image.size == (144, 112)


# What cannot be read


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_an_animation_is_refused_in_one_line(tmp_path, photo, suffix):
    path = tmp_path / f"film{suffix}"
    photo.save(path, save_all=True, append_images=[photo.rotate(90), photo.rotate(180)])
    with pytest.raises(PhotoError) as error:
        read_photo(path)
    assert "3 frames" in one_line(error, path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PhotoError) as error:
        read_photo(tmp_path / "nowhere.png")
    assert "no such file" in one_line(error, tmp_path / "nowhere.png")


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"half{suffix}"
    write_photo(Photo(Image.fromarray(noise(64, 64, 3))), path)
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


def test_a_picture_larger_than_pillow_allows_is_refused(tmp_path, photo, monkeypatch):
    photo.save(tmp_path / "bomb.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(PhotoError) as error:
        read_photo(tmp_path / "bomb.png")
    assert "cannot be read" in one_line(error, tmp_path / "bomb.png")


# What cannot be written


@pytest.mark.parametrize("name", ["photo.gif", "photo"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, photo, name):
    with pytest.raises(PhotoError) as error:
        write_photo(Photo(photo), tmp_path / name)
    assert ".bmp, .jpeg, .jpg, .png" in one_line(error, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_no_temporary_file_and_the_old_one_intact(tmp_path, photo):
    target = tmp_path / "photo.jpg"
    target.write_bytes(b"what was here before")
    too_long = Photo(photo, exif=b"Exif\0\0" + bytes(70_000))  # a JPEG segment holds 64 KiB
    with pytest.raises(PhotoError) as error:
        write_photo(too_long, target)
    assert "cannot be written" in one_line(error, target)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]
    assert target.read_bytes() == b"what was here before"


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    class Interrupted(Image.Image):
        def save(self, fp, *args, **kwargs):
            fp.write(b"half of the file")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_photo(Photo(Interrupted()), tmp_path / "photo.png")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_named(tmp_path, photo):
    (tmp_path / "photo.png").mkdir()
    with pytest.raises(PhotoError) as error:
        write_photo(Photo(photo), tmp_path / "photo.png")
    one_line(error, tmp_path / "photo.png")
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path, photo):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(PhotoError) as error:
        write_photo(Photo(photo), tmp_path / "folder" / "photo.png")
    one_line(error, tmp_path / "folder" / "photo.png")
    assert (tmp_path / "folder").read_text() == "a file"


def test_missing_folders_are_made_and_the_longest_names_fit(tmp_path, photo):
    path = tmp_path / "a" / "b" / ("n" * 251 + ".png")
    write_photo(Photo(photo), path)
    assert same_pixels(read_photo(path).image, photo)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_file_may_be_read_by_whom_the_umask_says(tmp_path, photo, umask):
    before = os.umask(umask)
    try:
        write_photo(Photo(photo), tmp_path / "photo.png")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "photo.png").stat().st_mode) == 0o666 & ~umask


# Restoration


def test_restoration_changes_the_picture_and_keeps_what_belongs_to_it(pipeline, photo, generator):
    alpha = Image.fromarray(noise(photo.height, photo.width))
    restored = restore_photo(pipeline, Photo(photo, alpha, make_exif(), ICC), generator=generator)
    assert restored.image.size == photo.size
    assert not same_pixels(restored.image, photo)
    assert same_pixels(restored.alpha, alpha)
    assert (restored.exif, restored.icc_profile) == (make_exif(), ICC)


def test_transparency_is_enlarged_with_the_picture(pipeline, photo, generator):
    alpha = Image.new("L", photo.size, 0)
    alpha.paste(255, (photo.width // 2, 0, photo.width, photo.height))
    restored = restore_photo(pipeline, Photo(photo, alpha), upscale=1.5, generator=generator)
    assert restored.image.size == restored.alpha.size == (108, 84)
    enlarged = np.asarray(restored.alpha)
    assert (enlarged[:, :50] == 0).all()
    assert (enlarged[:, 58:] == 255).all()


def test_a_restored_grey_photograph_is_grey(pipeline, photo, generator):
    assert restore_photo(pipeline, Photo(photo.convert("L")), generator=generator).image.mode == "L"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA"])
def test_strength_zero_returns_a_png_bit_for_bit(pipeline, photo, tmp_path, mode):
    picture = photo.convert(mode)
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(noise(photo.height, photo.width)))
    picture.save(tmp_path / "in.png")
    write_photo(restore_photo(pipeline, read_photo(tmp_path / "in.png"), strength=0.0), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert same_pixels(image, picture)
