"""Files that were damaged at random, by hypothesis: each is read or refused in one line, and what is read can be written.

2,000 of them, the same every time; `FOUNDIR_FUZZ=10000 pytest tests/test_photo_fuzz.py` tries as many as it says, others every time.
"""

from __future__ import annotations

import io
import os
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from foundir_hf.io.deadline import within
from foundir_hf.io.formats.png import SIGNATURE
from foundir_hf.io.names import WRITERS
from foundir_hf.io.photograph import Metadata, Photo, PhotoError
from foundir_hf.io.reading import read_photo
from foundir_hf.io.writing import encode_photo, write_photo

TOTAL = int(os.environ.get("FOUNDIR_FUZZ", "2000"))
PARTS = 8
# Seconds for a file of some hundred pixels, which takes milliseconds: longer is a hang.
HANG = 60


def originals() -> list[bytes]:
    """A file of every format and depth, with all the metadata that it holds."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera works"
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.125
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (51.0, 2.0, 30.0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    metadata = Metadata(
        exif=exif.tobytes().removeprefix(b"Exif\0\0"),
        icc_profile=profile,
        xmp=b"<x:xmpmeta/>",
        iptc=b"8BIM\x04\x04\0\0\0\0\0\0",
        dpi=(300.0, 300.0),
        comment=b"words",
        chunks=((b"tEXt", b"a\0b"),),
        segments=((0xE3, b"Meta\0\0words"),),
    )
    draw = np.random.default_rng(0)
    files = []
    for dtype in (np.uint8, np.uint16):
        for shape in ((17, 23), (17, 23, 3)):
            pixels, alpha = (draw.integers(0, np.iinfo(dtype).max, size).astype(dtype) for size in (shape, shape[:2]))
            photo = Photo(pixels, alpha, metadata)
            files += [encode_photo(photo, kind)[0] for kind in sorted(set(WRITERS.values()))]
    files.append(encode_photo(Photo(draw.random((17, 23, 3), np.float32)), "TIFF")[0])
    files += [kind_of_tiff(pixels, **options) for options in KINDS_OF_TIFF]
    for mode in ("1", "P", "CMYK"):
        encoded = io.BytesIO()
        picture = Image.fromarray((pixels >> 8).astype(np.uint8)).convert(mode)
        picture.save(encoded, "JPEG" if mode == "CMYK" else "PNG", **({"icc_profile": profile} if mode == "CMYK" else {}))
        files.append(encoded.getvalue())
    files.append(imagecodecs.avif_encode(pixels[..., :3] >> 6, bitspersample=10))
    shallow = io.BytesIO()
    Image.fromarray((pixels >> 8).astype(np.uint8)).save(shallow, "AVIF", exif=exif.tobytes(), icc_profile=profile)
    return [*files, shallow.getvalue(), *with_extras((pixels >> 8).astype(np.uint8), exif.tobytes())]


KINDS_OF_TIFF = (
    {"photometric": "rgb", "compression": "lzw", "predictor": True},
    {"photometric": "rgb", "tile": (16, 16), "bigtiff": True, "byteorder": ">"},
    {"photometric": "rgb", "planarconfig": "separate"},
    {"photometric": "cielab"},
    {"photometric": "separated"},
    {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 85},
    {"photometric": "ycbcr", "compression": "jpeg"},
    {"photometric": "miniswhite", "compression": "packbits", "bitspersample": 1},
)


def kind_of_tiff(pixels: np.ndarray, **options) -> bytes:
    """16 bits where the kind has them."""
    kind = options["photometric"]
    if kind in ("palette", "ycbcr"):
        pixels = (pixels >> 8).astype(np.uint8)
    if kind in ("palette", "miniswhite"):
        pixels = pixels[..., 0] if kind == "palette" else pixels[..., 0] > 30_000
    if kind == "separated":
        pixels = np.dstack([pixels, pixels[..., 0]])
    if "planarconfig" in options:
        pixels = np.moveaxis(pixels, -1, 0)
    file = io.BytesIO()
    tifffile.imwrite(file, np.ascontiguousarray(pixels), metadata=None, **options)
    return file.getvalue()


def with_extras(pixels: np.ndarray, exif: bytes) -> list[bytes]:
    """HEIC, where it can be made."""
    try:
        import pillow_heif
    except ImportError:
        return []
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, exif=exif)
    return [file.getvalue()]


ORIGINALS = originals()
# Near the beginning for the most part: there is what readers trust.
PLACES = st.one_of(st.integers(0, 63), st.integers(0, 511), st.integers(0, 2**16))
DAMAGE = st.one_of(
    st.tuples(st.just("change"), PLACES, st.binary(min_size=1, max_size=6)),
    st.tuples(st.just("cut"), PLACES, st.just(b"")),
    st.tuples(st.just("blank"), PLACES, st.sampled_from([bytes(40), b"\xff" * 40])),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=40)),
    # What lies about sizes: 32 bits of nearly everything, in both orders.
    st.tuples(st.just("change"), PLACES, st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\1\0", b"\xff\xff\xff\x7f"])),
)


def damaged(data: bytes, damage: list[tuple[str, int, bytes]], mend: bool) -> bytes:
    """A file with every damage done to it."""
    changed = bytearray(data)
    for kind, place, content in damage:
        place %= len(changed) + 1
        if kind == "cut":
            del changed[place:]
        elif kind == "insert":
            changed[place:place] = content
        else:
            changed[place : place + len(content)] = content[: len(changed) - place]
    return mended(bytes(changed)) if mend else bytes(changed)


def mended(data: bytes) -> bytes:
    """A PNG whose chunks have right sums: what is damaged gets to those who read what is in them."""
    if not data.startswith(SIGNATURE):
        return data
    changed, place = bytearray(data), len(SIGNATURE)
    while place + 12 <= len(changed):
        end = place + 8 + int.from_bytes(changed[place : place + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, int]:
    return {"read": 0, "refused": 0}


@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_file_is_read_or_refused_in_one_line(folder, outcomes, part):
    @settings(
        max_examples=max(1, TOTAL // PARTS),
        derandomize=TOTAL == 2000,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(ORIGINALS[part::PARTS]), st.lists(DAMAGE, min_size=1, max_size=4), st.booleans())
    def check(original: bytes, damage: list[tuple[str, int, bytes]], mend: bool) -> None:
        path = folder / "damaged"
        path.write_bytes(damaged(original, damage, mend))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            within(HANG, lambda: read_and_write(path, outcomes), "a damaged file")

    check()
    assert {file.name for file in folder.iterdir()} <= {"damaged", *(f"again{suffix}" for suffix in WRITERS)}  # no half files


def read_and_write(path: Path, outcomes: dict[str, int]) -> None:
    refusal = ""
    try:
        photo = read_photo(path)
    except PhotoError as error:
        refusal = str(error)
    outcomes["refused" if refusal else "read"] += 1
    if refusal:
        assert len(refusal.splitlines()) == 1
        return
    for suffix in (".bmp", ".jpg", ".png", ".tif", ".webp"):
        if max(photo.size) < 16_383:  # the most that a WebP can be wide; damage makes some wider
            write_photo(photo.changed(), path.with_name(f"again{suffix}"))
            assert read_photo(path.with_name(f"again{suffix}")).size == photo.size


def test_both_kinds_of_outcome_were_tried(outcomes):
    assert min(outcomes.values()) > 0
