"""XMP as it is: a packet of XML, edited where it speaks of what changed, the rest to the byte.

Everything here takes time in proportion to the packet, whatever is in it.
"""

from __future__ import annotations

import hashlib
import re
from xml.etree import ElementTree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="'
    + RDF.encode()
    + b'">\n</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
)
_BEGINNING = re.compile(rb"<(?:[A-Za-z_][\w.-]*:)?RDF\b[^<>]*+>")
_END = re.compile(rb"</(?:[A-Za-z_][\w.-]*:)?RDF\s*+>")
_WRAPPER = re.compile(rb"<\?xpacket[^<>]*+>")
_VALUE = rb"""(?:"[^"<>]*+"|'[^'<>]*+')"""
_EXTENDED = rb"xmpNote:HasExtendedXMP"
_GUID = re.compile(_EXTENDED + rb"""(?:\s*+=\s*+["']|\s*+>\s*+)([0-9A-Fa-f]{32})""")
# What speaks of a second picture or a film in the same file.
_COMPANY = re.compile(rb"\s(?:hdrgm:Version|GCamera:(?:MotionPhoto|MicroVideo)\w*+)=" + _VALUE)


def with_description(packet: bytes, description: bytes) -> bytes | None:
    """A packet with one more `rdf:Description` at its end; none if it cannot be found, as in one that is not UTF-8."""
    ends = list(_END.finditer(packet))
    return None if not ends else packet[: ends[-1].start()] + description + packet[ends[-1].start() :]


def edited(packet: bytes, size: tuple[int, int], *, keep_gps: bool = True) -> bytes | None:
    """XMP that is true of an upright picture of this `(width, height)`: without thumbnails, and on request without the place.

    Nothing is left of a packet that says the place in a way that is not known.
    """
    width, height = size
    for name, value in (
        (b"tiff:Orientation", 1),
        (b"tiff:ImageWidth", width),
        (b"tiff:ImageLength", height),
        (b"exif:PixelXDimension", width),
        (b"exif:PixelYDimension", height),
    ):
        number = str(value).encode()
        packet = re.sub(rb"(\s" + name + rb"=[\"'])\d++(?=[\"'])", rb"\g<1>" + number, packet)
        packet = re.sub(rb"(<" + name + rb">)\d++(?=</)", rb"\g<1>" + number, packet)
    for name in (b"xmp:Thumbnails", b"xap:Thumbnails"):
        packet = _without_element(packet, name)
    if keep_gps:
        return packet
    packet = re.sub(rb"\sexif:GPS\w++=" + _VALUE, b"", packet)
    for name in {found[1] for found in re.finditer(rb"<(exif:GPS\w++)", packet)} if packet.count(b"<exif:GPS") < 100 else ():
        packet = _without_element(packet, name)
    return None if b"GPS" in packet or b"G\0P\0S" in packet else packet


def alone(packet: bytes) -> bytes:
    """XMP of a picture that was left by the gain map or the film that was in its file."""
    for name in (b"Container:Directory", b"GContainer:Directory"):
        packet = _without_element(packet, name)
    return _COMPANY.sub(b"", packet)


def _without_element(packet: bytes, name: bytes) -> bytes:
    """Without the elements of a name; one that does not end stays."""
    kept, place = [], 0
    for found in re.finditer(rb"<" + name + rb"(?=[\s>])", packet):
        if found.start() < place:
            continue
        end = packet.find(b"</" + name + b">", found.end())
        if end < 0:
            break
        kept.append(packet[place : found.start()])
        place = end + len(name) + 3
    return b"".join(kept) + packet[place:]


def extension_named(packet: bytes) -> bytes | None:
    """Which extension a JPEG's packet says that it has: the MD5 of its content."""
    found = _GUID.search(packet)
    return found[1].upper() if found else None


def joined(packet: bytes, extension: bytes) -> bytes:
    """A packet with what was in its extension. Raises `ValueError` if that cannot be put together."""
    begin, ends = _BEGINNING.search(extension), list(_END.finditer(extension))
    if begin is None or not ends:
        raise ValueError("it has no content")
    packet = re.sub(rb"\s" + _EXTENDED + rb"=" + _VALUE, b"", packet)
    packet = _without_element(packet, _EXTENDED)
    whole = with_description(packet, extension[begin.end() : ends[-1].start()])
    if whole is None or b"<!" in whole:
        raise ValueError("it is damaged")
    try:
        ElementTree.fromstring(_WRAPPER.sub(b"", whole).strip())
    except ElementTree.ParseError as error:
        raise ValueError(f"it is damaged ({error})") from None
    return whole


def divided(packet: bytes, longest: int) -> tuple[bytes, bytes, bytes]:
    """`(packet, guid, extension)` as a JPEG has what is longer than `longest` bytes; of shorter ones, the extension is empty."""
    if len(packet) <= longest:
        return packet, b"", b""
    extension = _WRAPPER.sub(b"", packet).strip()
    guid = hashlib.md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    note = (
        b'<rdf:Description rdf:about="" xmlns:rdf="' + RDF.encode() + b'" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" '
        b'xmpNote:HasExtendedXMP="' + guid + b'"/>\n'
    )
    main = with_description(EMPTY, note)
    assert main is not None
    return main, guid, extension
