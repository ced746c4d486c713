"""Files that were damaged at random: each is read or refused in one line, what is read can be written, and nothing else is raised.

2,000 of them; `FOUNDIR_FUZZ=10000 pytest tests/test_photo_fuzz.py` tries as many as it says.
"""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from foundir_hf.photo import WRITERS, Metadata, Photo, PhotoError, encode_photo, read_photo, write_photo

PARTS = 20
TOTAL = int(os.environ.get("FOUNDIR_FUZZ", "2000"))


@pytest.fixture(scope="module")
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
    )
    draw = np.random.default_rng(0)
    files = []
    for dtype in (np.uint8, np.uint16):
        for shape in ((17, 23), (17, 23, 3)):
            pixels, alpha = (draw.integers(0, np.iinfo(dtype).max, size).astype(dtype) for size in (shape, shape[:2]))
            photo = Photo(pixels, alpha, metadata)
            files += [encode_photo(photo, kind)[0] for kind in sorted(set(WRITERS.values()))]
    return [*files, encode_photo(Photo(draw.random((17, 23, 3), np.float32)), "TIFF")[0]]


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Bytes changed, near the beginning for the most part; an end cut off; a stretch blanked; bytes put in."""
    changed = bytearray(data)
    place = draw.randrange(min(len(changed), draw.choice((64, 512, 2**30))))
    kind = draw.random()
    if kind < 0.6:
        for _ in range(draw.randint(1, 6)):
            changed[draw.randrange(min(len(changed), draw.choice((64, 512, 2**30))))] = draw.randrange(256)
    elif kind < 0.75:
        del changed[place:]
    elif kind < 0.9:
        changed[place : place + 40] = bytes([draw.choice((0, 255))]) * len(changed[place : place + 40])
    else:
        changed[place:place] = draw.randbytes(draw.randint(1, 40))
    return bytes(changed)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_file_is_read_or_refused_in_one_line(originals, tmp_path, part):
    draw = random.Random(part)
    path = Path(tmp_path, "damaged")
    read, refused = 0, []
    for _ in range(TOTAL // PARTS):
        path.write_bytes(damaged(draw.choice(originals), draw))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                photo = read_photo(path)
            except PhotoError as error:
                refused.append(str(error))
                continue
            read += 1
            for suffix in (".bmp", ".jpg", ".png", ".tif", ".webp"):
                if max(photo.size) < 16_383:  # the most that a WebP can be wide; damage makes some wider
                    write_photo(photo.changed(), tmp_path / f"again{suffix}")
    assert read  # or nothing was tried
    assert refused
    assert not [message for message in refused if len(message.splitlines()) != 1]
