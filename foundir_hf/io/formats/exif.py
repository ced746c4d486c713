"""EXIF as it is: directories of a TIFF structure, read and edited without understanding their fields, so that none is lost or mended."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

WIDTH, HEIGHT, ORIENTATION = 0x0100, 0x0101, 0x0112
EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003
# Where the picture of a thumbnail is, and how long it is: a JPEG, or plain rows.
_THUMBNAILS = ((0x0201, 0x0202), (0x0111, 0x0117))
_TEXT = 2  # TIFF's type of it
_MARKER = b"Exif\0\0"  # in front of EXIF in a JPEG
# What lies below a directory, by the directory's own tag.
_BELOW = {0: (EXIF, GPS), EXIF: (INTEROPERABILITY,)}
# Fields of a TIFF's first directory that lay out its own file, or that metadata have elsewhere; the rest are EXIF.
_LAYOUT = frozenset(
    {
        *range(254, 260), *range(262, 267), 273, 274, *range(277, 285), *range(288, 294), 296, 300, 301, 317, *range(320, 329), 330,
        *range(332, 348), 351, *range(400, 404), 405, *range(433, 438), *range(512, 522), *range(529, 533), 559, 700,
        *range(32995, 32999), 33421, 33422, 33723, 34377, 34675, 34732, 37724,
        *(tag for tag in range(0xC612, 0xC900) if tag not in (0xC614, 0xC65A)),  # of DNG, whose pixels are others
    }
)  # fmt: skip
_LONGEST_FIELD = 4096  # bytes of what is not text: longer ones are somebody's data, and would fill a JPEG's EXIF
# TIFF's types of whole numbers as `struct` has them, and the most that each holds.
_WHOLE = {1: ("B", 2**8), 3: ("H", 2**16), 4: ("I", 2**32), 6: ("b", 2**7), 8: ("h", 2**15), 9: ("i", 2**31)}
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
        room = 2 * len(self.data)  # or a small file could claim itself thousands of times
        for entry in range(place + head, place + head + count * size, size):
            tag, kind, values = self.number(entry, 2), self.number(entry + 2, 2), self.number(entry + 4, wide)
            length = _BYTES.get(kind, 0) * values
            inside = entry + 4 + wide
            where = inside if length <= wide else self.number(inside, wide)
            if kind in _BYTES and where + length <= len(self.data):  # others are left alone: nobody can read them
                room -= length
                if room < 0:
                    raise ExifError("its fields overlap")
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
    """EXIF as it stands in files that are no JPEG; some of these have the marker of one all the same."""
    return data.removeprefix(_MARKER) or None if data else None


def with_marker(data: bytes) -> bytes:
    """EXIF as a JPEG has it."""
    return _MARKER + data


def orientation(data: bytes) -> int:
    """In [1, 8]; 1, upright, for what is not in that range. Raises [`ExifError`]."""
    structure = parse(data)
    directory, _ = structure.directory(structure.first)
    field = directory.get(ORIENTATION)
    value = structure.value(field) if field and field.kind in _WHOLE else 1
    return value if 1 <= value <= 8 else 1


def damaged_parts(data: bytes) -> int:
    """How many directories below the first cannot be followed. Raises [`ExifError`] if the first cannot."""
    structure = parse(data)
    first, _ = structure.directory(structure.first)
    damaged = 0
    for place in (structure.value(first[tag]) for tag in (EXIF, GPS) if tag in first):
        try:
            structure.directory(place)  # an empty one is none too many
        except ExifError:
            damaged += 1
    return damaged


def edited(data: bytes, size: tuple[int, int], *, keep_gps: bool = True) -> bytes:
    """EXIF that is true of an upright picture of this `(width, height)`: without a thumbnail, and on request without the place.

    Everything stays where it lies, because makers' notes hold offsets of their own. Raises [`ExifError`].
    """
    structure = parse(data)
    if structure.big:
        raise ExifError("it is a BigTIFF")
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
        if field is None or not field.count or field.kind not in _WHOLE:
            continue
        letter, end = _WHOLE[field.kind]  # other types than the standard's and several values are followed too, by their first
        if value < end:
            struct.pack_into(structure.order + letter, result, field.place, value)
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
    edited_structure = parse(bytes(result))
    if edited_structure.first != structure.first:  # what was changed lay over what leads to it
        raise ExifError("its parts overlap")
    edited_structure.directory(structure.first)
    return edited_structure.data


def _thumbnail(structure: Structure, place: int) -> Iterator[Field]:
    """What is to be blanked of the directory of a thumbnail: the picture."""
    try:
        directory, _ = structure.directory(place)
    except ExifError:
        return
    for where, how_long in _THUMBNAILS:
        if where in directory and how_long in directory:
            start, length = structure.value(directory[where]), structure.value(directory[how_long])
            if start + length <= len(structure.data):
                yield Field(7, length, bytes(length), directory[where].entry, start)


def describes(tag: int, field: Field) -> bool:
    """Whether a field of a TIFF's first directory says something about the photograph, and not how its own file is laid out."""
    return tag not in _LAYOUT and field.count > 0


@dataclass(frozen=True)
class Tree:
    """A directory, and those below it by the tags that point to them."""

    fields: Directory
    below: dict[int, Tree]


def tree(structure: Structure, directory: Directory, tag: int = 0) -> Tree:
    """A directory, which the tag of that name points to (none to the first), with all below it that can be followed."""
    below = {t: structure.below(directory, t) for t in _BELOW.get(tag, ())}
    fields = {t: field for t, field in directory.items() if t not in (EXIF, GPS, INTEROPERABILITY)}
    return Tree(fields, {t: tree(structure, part, t) for t, part in below.items() if part})


def of_tiff(data: bytes, without: frozenset[int] = frozenset()) -> tuple[bytes | None, list[str]]:
    """The EXIF of a TIFF file, and what of it cannot be kept: what its first directory says about the photograph, and those below it.

    Raises [`ExifError`].

    Args:
        data: The file.
        without: Fields of the first directory that do not hold any more.
    """
    structure = parse(data)
    first, _ = structure.directory(structure.first)
    whole = tree(structure, {tag: field for tag, field in first.items() if describes(tag, field) and tag not in without})
    long = {tag: field for tag, field in whole.fields.items() if len(field.data) > _LONGEST_FIELD and field.kind != _TEXT}
    kept = Tree({tag: field for tag, field in whole.fields.items() if tag not in long}, whole.below)
    notes = [f"its field {tag} of {len(field.data)} bytes cannot be kept" for tag, field in long.items()]
    if not kept.fields and not kept.below:
        return None, notes
    head = (b"II*\0" if structure.order == "<" else b"MM\0*") + struct.pack(f"{structure.order}I", 8)
    return head + written(kept, structure.order, 8), notes


def written(directory: Tree, order: str, place: int) -> bytes:
    """A directory as bytes that begin at `place` of their file, with those below it behind it."""
    tags = sorted({*directory.fields, *directory.below})
    entries, behind = bytearray(), bytearray()
    start = place + 2 + 12 * len(tags) + 4
    for tag in tags:
        if len(behind) % 2:
            behind += b"\0"
        if tag in directory.below:
            field, value = Field(4, 1, b"", 0, 0), struct.pack(f"{order}I", start + len(behind))
            behind += written(directory.below[tag], order, start + len(behind))
        else:
            field = directory.fields[tag]
            value = field.data.ljust(4, b"\0")
            if len(field.data) > 4:
                value = struct.pack(f"{order}I", start + len(behind))
                behind += field.data
        entries += struct.pack(f"{order}HHI", tag, field.kind, field.count) + value
    return struct.pack(f"{order}H", len(tags)) + bytes(entries) + bytes(4) + bytes(behind)
