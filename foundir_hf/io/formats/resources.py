"""Photoshop's resources, in which JPEGs and TIFFs have their IPTC: a list of numbered blocks, each behind `8BIM`."""

from __future__ import annotations

from collections.abc import Iterator

IPTC = 0x0404
_THUMBNAILS = frozenset({0x0409, 0x040C})
_SIGNATURE = b"8BIM"


def blocks(resources: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """`(number, content, the whole block)` of each; the last, numbered -1, is what cannot be followed, if there is such."""
    place = 0
    while place < len(resources):
        name = place + 6
        size_at = name + 1 + resources[name] if name < len(resources) else len(resources)
        size_at += (size_at - name) % 2
        start = size_at + 4
        size = int.from_bytes(resources[size_at:start], "big")
        if resources[place : place + 4] != _SIGNATURE or start + size > len(resources):
            yield -1, b"", resources[place:]
            return
        end = start + size + size % 2
        yield int.from_bytes(resources[place + 4 : place + 6], "big"), resources[start : start + size], resources[place:end]
        place = end


def block(number: int, content: bytes) -> bytes:
    """A resource without a name."""
    return _SIGNATURE + number.to_bytes(2, "big") + b"\0\0" + len(content).to_bytes(4, "big") + content + bytes(len(content) % 2)


def without_thumbnails(resources: bytes) -> bytes:
    """All but small copies of the picture, which would be stale."""
    return b"".join(whole for number, _, whole in blocks(resources) if number not in _THUMBNAILS)


def divided(resources: bytes) -> tuple[bytes | None, bytes | None]:
    """IPTC alone, and the resources without it: a TIFF has a field for each."""
    parts = list(blocks(resources))
    iptc = [content for number, content, _ in parts if number == IPTC and content]
    rest = b"".join(whole for number, _, whole in parts if number != IPTC)
    return (iptc[0] if iptc else None), rest or None


def joined(iptc: bytes | None, resources: bytes | None) -> bytes | None:
    """Resources with this IPTC, unless they have their own."""
    resources = resources or b""
    if iptc and not any(number == IPTC for number, _, _ in blocks(resources)):
        resources = block(IPTC, iptc) + resources
    return resources or None
