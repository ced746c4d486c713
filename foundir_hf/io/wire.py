"""Photographs between processes: a line of JSON and bytes, nothing that could run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import IO, Any

import numpy as np

from .photograph import Metadata, Photo

_BYTES = ("exif", "icc_profile", "xmp", "iptc", "comment")


def send(stream: IO[bytes], head: dict[str, Any], parts: Sequence[Any] = ()) -> None:
    """Writes a message: what JSON can say, and buffers."""
    views = [memoryview(part).cast("B") for part in parts]
    line = json.dumps([head, [len(view) for view in views]]).encode()
    stream.write(len(line).to_bytes(8, "big"))
    stream.write(line)
    for view in views:
        stream.write(view)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytearray]]:
    """The next message. Raises `EOFError` where there is no whole one."""
    head, lengths = json.loads(_exactly(stream, int.from_bytes(_exactly(stream, 8), "big")))
    return head, [_exactly(stream, length) for length in lengths]


def _exactly(stream: IO[bytes], count: int) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    while view:
        read = stream.readinto(view)  # pyright: ignore[reportAttributeAccessIssue]
        if not read:
            raise EOFError
        view = view[read:]
    return content


def send_photo(stream: IO[bytes], photo: Photo) -> None:
    """Writes a photograph, without the file that it was read from."""
    parts: list[Any] = []

    def part(content: Any) -> int:
        parts.append(content)
        return len(parts) - 1

    def array(numbers: np.ndarray | None) -> Any:
        return None if numbers is None else [part(np.ascontiguousarray(numbers)), numbers.dtype.name, numbers.shape]

    metadata = photo.metadata
    head = {
        "pixels": array(photo.pixels),
        "alpha": array(photo.alpha),
        "kind": photo.encoded[0] if photo.encoded else None,
        "quantization": photo.quantization and list(photo.quantization.items()),
        "notes": photo.notes,
        **{name: part(content) for name in _BYTES if (content := getattr(metadata, name)) is not None},
        "dpi": metadata.dpi,
        "chunks": [[kind.decode("latin-1"), part(content)] for kind, content in metadata.chunks],
        "segments": [[marker, part(content)] for marker, content in metadata.segments],
    }
    send(stream, head, parts)


def photo_of(head: dict[str, Any], parts: list[bytearray], data: bytes) -> Photo:
    """The photograph of a message; it was read from `data`."""

    def array(place: Any) -> np.ndarray | None:
        if place is None:
            return None
        number, dtype, shape = place
        return np.frombuffer(parts[number], np.dtype(dtype), math.prod(shape)).reshape(shape)

    pixels = array(head["pixels"])
    assert pixels is not None
    assert {field.name for field in fields(Metadata)} == {*_BYTES, "dpi", "chunks", "segments"}
    metadata = Metadata(
        **{name: bytes(parts[head[name]]) for name in _BYTES if name in head},
        dpi=head["dpi"] and tuple(head["dpi"]),
        chunks=tuple((kind.encode("latin-1"), bytes(parts[number])) for kind, number in head["chunks"]),
        segments=tuple((marker, bytes(parts[number])) for marker, number in head["segments"]),
    )
    quantization = head["quantization"] and dict(head["quantization"])
    encoded = (head["kind"], data) if head["kind"] is not None else None
    return Photo(pixels, array(head["alpha"]), metadata, encoded, quantization, tuple(head["notes"]))
