"""Camera raws, developed to 16 bits by LibRaw (rawpy, an extra)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from ..limits import Limits
from ..names import how_to_install
from ..photograph import Metadata, Photo, PhotoError
from . import exif

_BEGINNINGS = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"\0MRM")
_DNG_VERSION, _SUB_DIRECTORIES, _PHOTOMETRIC, _XMP = 0xC612, 0x014A, 0x0106, 700
_SENSOR = frozenset({32803, 34892})  # a filter array; light as the sensor measured it
# LibRaw's sRGB curve. Its own brightening would clip what is bright.
_DEVELOPMENT = {"output_bps": 16, "use_camera_wb": True, "no_auto_bright": True, "gamma": (2.4, 12.92)}


def is_raw(data: bytes) -> bool:
    """Whether a file holds what a sensor measured, whatever its name is: most raws are TIFFs to a reader that does not look closely."""
    if data.startswith(_BEGINNINGS) or data[4:12] == b"ftypcrx " or data[8:10] == b"CR":
        return True
    try:
        structure = exif.parse(data)
        first, _ = structure.directory(structure.first)
        directories = [first, *_below(structure, first)]
    except (exif.ExifError, struct.error):
        return False
    photometric = (structure.value(part[_PHOTOMETRIC]) for part in directories if _PHOTOMETRIC in part)
    return _DNG_VERSION in first or any(value in _SENSOR for value in photometric)


def _below(structure: exif.Structure, first: exif.Directory) -> Iterator[exif.Directory]:
    field = first.get(_SUB_DIRECTORIES)
    for start in range(0, min(len(field.data), 64), 4) if field and field.kind in (4, 13) else ():
        place = int.from_bytes(field.data[start : start + 4], "little" if structure.order == "<" else "big") if field else 0
        try:
            yield structure.directory(place)[0]
        except exif.ExifError:
            continue


def read(data: bytes, limits: Limits) -> Photo:
    """The photograph as LibRaw develops it: upright, 16 bits, sRGB, the camera's white balance.

    Raises [`PhotoError`], and whatever rawpy does.
    """
    try:
        import rawpy
    except ImportError:
        raise PhotoError(f"it is a camera raw; {how_to_install('raw')}") from None
    with rawpy.imread(io.BytesIO(data)) as raw:
        limits.check_pixels(raw.sizes.iwidth, raw.sizes.iheight)
        pixels = raw.postprocess(output_color=rawpy.ColorSpace.sRGB, **_DEVELOPMENT)  # pyright: ignore[reportArgumentType]
    notes, metadata = [], Metadata()
    try:
        structure = exif.parse(data)
        packet = structure.directory(structure.first)[0].get(_XMP)
        said, notes = exif.of_tiff(data)
        metadata = Metadata(exif=said, xmp=packet.data if packet and packet.data else None)
    except (exif.ExifError, struct.error):
        notes.append("its EXIF is kept in a way that is not known and was dropped")
    return Photo(pixels, None, metadata, ("RAW", data), notes=tuple(notes))
