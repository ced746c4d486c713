"""EXIF as it is: directories of a TIFF structure, read and edited without understanding their fields, so that none is lost or mended."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

WIDTH, HEIGHT, ORIENTATION = 0x0100, 0x0101, 0x0112
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
THUMBNAIL, THUMBNAIL_BYTES = 0x0201, 0x0202
_MARKER = b"Exif\0\0"  # in front of EXIF in a JPEG
# What a TIFF's first directory says about the photograph; its other fields lay out its own file.
DESCRIPTIVE = frozenset(
    {
        0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x4746, 0x4749, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F,
        0xC4A5, 0xC614, 0xC65A,
    }
)  # fmt: skip
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class ExifError(ValueError):
    """A structure that cannot be followed."""


@dataclass(frozen=True)
class Field:
    """A field of a directory.

    Args:
        kind: TIFF's number of its type.
        count: Of values.
        data: They, in the structure's byte order.
        entry: Where the entry lies.
        place: Where the data lie.
    """

    kind: int
    count: int
    data: bytes
    entry: int
    place: int


Directory = dict[int, Field]


@dataclass(frozen=True)
class Structure:
    """A TIFF structure.

    Args:
        data: All of it.
        order: `"<"` or `">"`.
        big: Whether it is a BigTIFF.
        first: Where its first directory is.
    """

    data: bytes
    order: str
    big: bool
    first: int

    def number(self, place: int, size: int) -> int:
        """An unsigned number of so many bytes. Raises [`ExifError`] beyond the end."""
        if not 0 <= place <= len(self.data) - size:
            raise ExifError("it points beyond its end")
        return int.from_bytes(self.data[place : place + size], "little" if self.order == "<" else "big")

    def directory(self, place: int) -> tuple[Directory, int]:
        """The directory there, and where the pointer to the next one is. Raises [`ExifError`] if it cannot be followed."""
        wide = 8 if self.big else 4
        count, head = self.number(place, wide if self.big else 2), wide if self.big else 2
        size = 4 + 2 * wide
        if count * size > len(self.data):
            raise ExifError(f"it claims {count} fields")
        fields: Directory = {}
        for entry in range(place + head, place + head + count * size, size):
            tag, kind, values = self.number(entry, 2), self.number(entry + 2, 2), self.number(entry + 4, wide)
            length = _BYTES.get(kind, 0) * values
            inside = entry + 4 + wide
            where = inside if length <= wide else self.number(inside, wide)
            if kind in _BYTES and where + length <= len(self.data):  # others are left alone: nobody can read them
                fields.setdefault(tag, Field(kind, values, self.data[where : where + length], entry, where))
        return fields, place + head + count * size

    def value(self, field: Field) -> int:
        """The first value of a field, as a number."""
        return int.from_bytes(field.data[: _BYTES[field.kind]], "little" if self.order == "<" else "big") if field.data else 0

    def below(self, parent: Directory, tag: int) -> Directory:
        """The directory that a field points to; empty if there is none, or none that can be followed."""
        try:
            return self.directory(self.value(parent[tag]))[0] if tag in parent else {}
        except ExifError:
            return {}


def parse(data: bytes) -> Structure:
    """Raises [`ExifError`] if it is no TIFF structure."""
    orders = {b"II": "<", b"MM": ">"}
    order = orders.get(data[:2])
    if order is None or len(data) < 8:
        raise ExifError("it does not begin as one")
    structure = Structure(data, order, False, 0)
    magic = structure.number(2, 2)
    if magic == 42:
        return Structure(data, order, False, structure.number(4, 4))
    if magic == 43:
        return Structure(data, order, True, structure.number(8, 8))
    raise ExifError("it does not begin as one")


def without_marker(data: bytes | None) -> bytes | None:
    """EXIF as it stands in files that are no JPEG."""
    return data.removeprefix(_MARKER) or None if data else None


def with_marker(data: bytes) -> bytes:
    """EXIF as a JPEG has it."""
    return _MARKER + data


def orientation(data: bytes) -> int:
    """In [1, 8]; 1, upright, for what is not in that range. Raises [`ExifError`]."""
    structure = parse(data)
    directory, _ = structure.directory(structure.first)
    value = structure.value(directory[ORIENTATION]) if ORIENTATION in directory else 1
    return value if 1 <= value <= 8 else 1


def damaged_parts(data: bytes) -> int:
    """How many directories below the first cannot be followed. Raises [`ExifError`] if the first cannot."""
    structure = parse(data)
    first, _ = structure.directory(structure.first)
    return sum(tag in first and not structure.below(first, tag) for tag in (EXIF, GPS))


def edited(data: bytes, size: tuple[int, int], *, keep_gps: bool = True) -> bytes:
    """EXIF that is true of an upright picture of this `(width, height)`: without a thumbnail, and on request without the place.

    Everything stays where it lies, because makers' notes hold offsets of their own. Raises [`ExifError`].
    """
    structure = parse(data)
    result = bytearray(data)
    first, next_pointer = structure.directory(structure.first)
    details = structure.below(first, EXIF)
    for directory, tag, value in (
        (first, ORIENTATION, 1),
        (first, WIDTH, size[0]),
        (first, HEIGHT, size[1]),
        (details, PIXEL_WIDTH, size[0]),
        (details, PIXEL_HEIGHT, size[1]),
    ):
        field = directory.get(tag)
        if field is not None and field.count == 1 and field.kind in (3, 4) and value < 256 ** _BYTES[field.kind]:
            result[field.place : field.place + len(field.data)] = struct.pack(structure.order + {3: "H", 4: "I"}[field.kind], value)
    following = structure.number(next_pointer, 4)
    if following:
        for field in _thumbnail(structure, following):
            result[field.place : field.place + len(field.data)] = bytes(len(field.data))
        result[next_pointer : next_pointer + 4] = bytes(4)
    if not keep_gps and GPS in first:
        for field in structure.below(first, GPS).values():
            result[field.place : field.place + len(field.data)] = bytes(len(field.data))
            result[field.entry : field.entry + 12] = bytes(12)
        # Its entry goes, those behind it move up.
        entry = first[GPS].entry
        result[entry : next_pointer - 8] = result[entry + 12 : next_pointer + 4]
        result[next_pointer - 8 : next_pointer + 4] = bytes(12)
        count = structure.number(structure.first, 2) - 1
        result[structure.first : structure.first + 2] = struct.pack(f"{structure.order}H", count)
    return bytes(result)


def _thumbnail(structure: Structure, place: int) -> Iterator[Field]:
    """What is to be blanked of the directory of a thumbnail: the picture."""
    try:
        directory, _ = structure.directory(place)
    except ExifError:
        return
    if THUMBNAIL in directory and THUMBNAIL_BYTES in directory:
        start, length = structure.value(directory[THUMBNAIL]), structure.value(directory[THUMBNAIL_BYTES])
        if start + length <= len(structure.data):
            yield Field(7, length, bytes(length), directory[THUMBNAIL].entry, start)


def of_tiff(data: bytes) -> bytes | None:
    """The EXIF of a TIFF file: what its first directory says about the photograph, and the directories of the camera and of the place.

    Raises [`ExifError`].
    """
    structure = parse(data)
    first, _ = structure.directory(structure.first)
    kept = {tag: field for tag, field in first.items() if tag in DESCRIPTIVE}
    below = {tag: structure.below(first, tag) for tag in (EXIF, GPS)}
    below = {tag: {t: f for t, f in directory.items() if t != INTEROPERABILITY} for tag, directory in below.items() if directory}
    if not kept and not below:
        return None
    head = (b"II*\0" if structure.order == "<" else b"MM\0*") + struct.pack(f"{structure.order}I", 8)
    return head + written(kept, structure.order, 8, below)


def written(directory: Directory, order: str, place: int, below: dict[int, Directory] | None = None) -> bytes:
    """A directory as bytes that begin at `place` of their file, with the directories below it by tag behind it."""
    below = below or {}
    tags = sorted({*directory, *below})
    entries, behind = bytearray(), bytearray()
    start = place + 2 + 12 * len(tags) + 4
    for tag in tags:
        if len(behind) % 2:
            behind += b"\0"
        if tag in below:
            field, value = Field(4, 1, b"", 0, 0), struct.pack(f"{order}I", start + len(behind))
            behind += written(below[tag], order, start + len(behind))
        else:
            field = directory[tag]
            value = field.data.ljust(4, b"\0")
            if len(field.data) > 4:
                value = struct.pack(f"{order}I", start + len(behind))
                behind += field.data
        entries += struct.pack(f"{order}HHI", tag, field.kind, field.count) + value
    return struct.pack(f"{order}H", len(tags)) + bytes(entries) + bytes(4) + bytes(behind)
