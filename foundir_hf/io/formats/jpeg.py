"""JPEG's segments: all in its file that is not the picture."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

from ..photograph import Metadata
from . import xmp

_SCAN, _END, _COMMENT = 0xDA, 0xD9, 0xFE
_EXIF, _XMP, _EXTENSION = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_PROFILE, _RESOURCES, _SECOND, _SEAL = b"ICC_PROFILE\0", b"Photoshop 3.0\0", b"MPF\0", b"JP"
_LONGEST = 65533  # bytes of a segment behind its length
LONGEST_PACKET = _LONGEST - len(_XMP)  # of EXIF or XMP in one segment, behind the name in front of it
_LONGEST_PART = 65000  # of an extension of XMP, behind names and numbers
_NEXT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in compressed data: a marker that does not belong to them
_ANYTHING = bytes(range(1, 255, 3))  # compressed data of no picture in particular


@dataclass
class Segments:
    """What is in a JPEG.

    Args:
        found: `(marker, content)` in front of the picture, in order.
        ends: Where the compressed data of each scan end.
        behind: Where the picture ends; none if it does not.
    """

    found: list[tuple[int, bytes]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    behind: int | None = None


def segments(data: bytes) -> Segments:
    """The segments of a JPEG. Ends where it cannot be followed, as decoders do."""
    result, place, scanned, in_scan = Segments(), 2, False, False
    while place + 2 <= len(data):
        if scanned:
            found = _NEXT.search(data, place)
            if found is None:
                return result
            place = found.start()
            if in_scan:
                result.ends.append(place)
                in_scan = False
        if data[place] != 0xFF:  # garbage, which decoders pass by
            place = data.find(b"\xff", place)
            if place < 0:
                return result
            continue
        marker = data[place + 1] if place + 1 < len(data) else 0
        if marker == 0xFF or marker == 0x00:
            place += 1
        elif marker == _END:
            result.behind = place + 2
            return result
        elif 0xD0 <= marker <= 0xD8 or marker == 0x01:  # without content
            place += 2
        else:
            length = int.from_bytes(data[place + 2 : place + 4], "big")
            if length < 2:
                return result
            if not scanned:
                result.found.append((marker, data[place + 4 : place + 2 + length]))
            in_scan = marker == _SCAN
            scanned |= in_scan
            place += 2 + length
    return result


def with_more(data: bytes) -> bytes:
    """A JPEG with more compressed data behind each of its scans: decoders use them only for what the scan lacks."""
    parts, place = [], 0
    for end in segments(data).ends:
        restarts = [data.rfind(bytes([0xFF, 0xD0 + number]), place, end) for number in range(8)]
        following = restarts.index(max(restarts)) + 1 if max(restarts) >= 0 else 0
        more = (_ANYTHING + bytes([0xFF, 0xD0 + (following + number) % 8]) for number in range(8))
        parts += [data[place:end], *more]
        place = end
    return b"".join([*parts, data[place:]])


def read_metadata(data: bytes) -> tuple[Metadata, tuple[str, ...]]:
    """All that is not the picture, and what of it cannot be kept, one line each."""
    parts = segments(data)
    parts_of_exif, packet, pieces, profile, photoshop, comment, dpi, others, notes = [], None, {}, {}, [], None, None, [], []
    second = sealed = False
    for marker, content in parts.found:
        if marker == 0xE0 and content.startswith((b"JFIF\0", b"JFXX\0")):
            dpi = _density(content) or dpi
        elif marker == 0xE1 and content.startswith(_EXIF):
            parts_of_exif.append(content.removeprefix(_EXIF))
        elif marker == 0xE1 and content.startswith(_XMP):
            packet = packet or content.removeprefix(_XMP)
        elif marker == 0xE1 and content.startswith(_EXTENSION):
            _add_piece(pieces, content.removeprefix(_EXTENSION))
        elif marker == 0xE2 and content.startswith(_PROFILE) and len(content) >= 14:
            profile.setdefault((content[13], content[12]), content[14:])
        elif marker == 0xED and content.startswith(_RESOURCES):
            photoshop.append(content.removeprefix(_RESOURCES))
        elif marker == 0xE2 and content.startswith(_SECOND):
            second = True
        elif marker == 0xEB and content.startswith(_SEAL):
            sealed = True
        elif marker == _COMMENT and comment is None:
            comment = content
        elif (0xE0 <= marker <= 0xEF and not (marker == 0xEE and content.startswith(b"Adobe"))) or marker == _COMMENT:
            others.append((marker, content))
    if second:
        notes.append("a second picture in it, a gain map (Ultra HDR) or a preview, cannot be kept")
    elif parts.behind is not None and len(data[parts.behind :].strip(b"\0\xff\r\n ")) > 0:
        notes.append(f"{len(data) - parts.behind} bytes behind its picture (a film, say) cannot be kept")
    if notes and packet:
        packet = xmp.alone(packet)
    if sealed:
        notes.append("its content credentials (C2PA) are of the picture as it was and cannot be kept")
    if packet and (guid := xmp.extension_named(packet)):
        packet, note = _whole_packet(packet, pieces.get(guid))
        notes += note
    icc = _whole_profile(profile)
    if profile and icc is None:
        notes.append("its colour profile is damaged and was dropped")
    return (
        Metadata(
            exif=_whole_exif(parts_of_exif),
            icc_profile=icc,
            xmp=packet,
            iptc=b"".join(photoshop) or None,
            dpi=dpi,
            comment=comment or None,
            segments=tuple(others),
        ),
        tuple(notes),
    )


def _density(content: bytes) -> tuple[float, float] | None:
    if not content.startswith(b"JFIF\0") or len(content) < 12:
        return None
    unit, across, down = struct.unpack_from(">BHH", content, 7)
    scale = {1: 1.0, 2: 2.54}.get(unit)  # an inch; a centimetre
    return None if scale is None or not across or not down else (across * scale, down * scale)


def _whole_exif(parts: list[bytes]) -> bytes | None:
    """The first; with those behind it as long as a segment was full."""
    whole = b""
    for part in parts:
        whole += part
        if len(part) < _LONGEST - len(_EXIF) - 1:
            break
    return whole or None


def _whole_profile(parts: dict[tuple[int, int], bytes]) -> bytes | None:
    counts = {count for count, _ in parts}
    if len(counts) != 1 or {number for _, number in parts} != set(range(1, max(counts) + 1)):
        return None
    return b"".join(parts[key] for key in sorted(parts)) or None


def _add_piece(pieces: dict[bytes, tuple[int, dict[int, bytes]]], content: bytes) -> None:
    if len(content) >= 40:
        guid, (total, start) = content[:32].upper(), struct.unpack_from(">II", content, 32)
        pieces.setdefault(guid, (total, {}))[1][start] = content[40:]


def _whole_packet(packet: bytes, pieces: tuple[int, dict[int, bytes]] | None) -> tuple[bytes, list[str]]:
    """XMP with its extension, or without it and with a note."""
    try:
        total, parts = pieces or (0, {})
        extension = b"".join(parts[start] for start in sorted(parts))
        if not extension or len(extension) != total:
            raise ValueError("a part is missing")
        return xmp.joined(packet, extension), []
    except ValueError as error:
        return packet, [f"the extension of its XMP was dropped: {error}"]


def fits(exif: bytes) -> bool:
    """Whether EXIF is short enough."""
    return len(exif) <= _LONGEST - len(_EXIF)


def written(metadata: Metadata) -> bytes:
    """The segments of XMP, IPTC, comments and what only a JPEG has; EXIF, profile and dpi are written by Pillow."""
    parts: list[tuple[int, bytes]] = []
    if metadata.xmp:
        packet, guid, extension = xmp.divided(metadata.xmp, LONGEST_PACKET)
        parts.append((0xE1, _XMP + packet))
        for start in range(0, len(extension), _LONGEST_PART):
            head = _EXTENSION + guid + struct.pack(">II", len(extension), start)
            parts.append((0xE1, head + extension[start : start + _LONGEST_PART]))
    room = _LONGEST - len(_RESOURCES)
    photoshop = metadata.iptc or b""
    parts += [(0xED, _RESOURCES + photoshop[start : start + room]) for start in range(0, len(photoshop), room)]
    parts += [(_COMMENT, metadata.comment)] if metadata.comment else []
    parts += metadata.segments
    return b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in parts)
