"""Tar shards in WebDataset's layout: few large files instead of millions of small ones.

Every sample is two or three neighbouring members, `KEY.hq.EXT`, `KEY.lq.EXT` for pairs, and `KEY.json` with its `name` and `task`.
`datasets` (builder `webdataset`) and the `webdataset` package read them as well, and plain WebDatasets of pictures (`KEY.jpg`) can be read
here.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from ..io.decoder import Decoder
from ..io.files import IMAGE_SUFFIXES
from ..io.limits import DEFAULT_LIMITS, Limits
from .samples import SampleError, Source, check_sides, decode_file

logger = logging.getLogger(__name__)

PAIRED = "paired"  # the task of pairs that do not say theirs
ShardFormat = Literal["jpg", "png", "webp"]
_FORMATS: dict[str, ShardFormat] = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
# What files of photographs begin with, and the format of those that may stay as they are.
_BEGINNINGS: dict[bytes, ShardFormat | None] = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"BM": None,
    b"II": None,
    b"MM": None,
}


def list_shards(folder: Path) -> list[Path]:
    """The tar files of a folder, sorted."""
    return sorted(folder.glob("*.tar"))


@dataclass
class _Member:
    shard: int
    offset: int
    size: int


@dataclass
class _Entry:
    name: str
    task: str | None = None
    files: dict[str, _Member] = field(default_factory=dict)


class ShardSource(Source):
    """Random access to local tar shards: their headers are read once, to learn where every member lies.

    Args:
        shards: Uncompressed tar files. One that ends early or is no tar is named in the log; what comes before the damage is used.
    """

    def __init__(self, shards: Sequence[Path]):
        self.shards = list(shards)
        self.entries: list[_Entry] = []
        for number, path in enumerate(self.shards):
            self.entries += self._scan(number, path)
        if not self.entries:
            raise ValueError(f"None of the {len(self.shards)} tar files holds a picture: {', '.join(map(str, self.shards[:3]))}.")

    def _scan(self, number: int, path: Path) -> list[_Entry]:
        found: dict[str, _Entry] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    folder, _, base = member.name.rpartition("/")
                    stem, _, kind = base.partition(".")  # WebDataset: the key ends at the first dot
                    if not member.isfile() or not stem:
                        continue
                    entry = found.setdefault(f"{folder}/{stem}" if folder else stem, _Entry(f"{path.name}/{member.name}"))
                    role, _, extension = kind.lower().rpartition(".")
                    if kind == "json":
                        description = _description(tar, member)
                        entry.name, entry.task = description.get("name") or entry.name, description.get("task")
                    elif f".{extension}" in IMAGE_SUFFIXES and role in ("", "hq", "lq"):
                        entry.files[role or "hq"] = _Member(number, member.offset_data, member.size)
        except (tarfile.TarError, OSError) as error:
            logger.warning("Shard %s: %s; its first %d samples are used.", path, error, len(found))
        entries = [entry for entry in found.values() if "hq" in entry.files]
        for entry in entries:
            entry.task = (entry.task or PAIRED) if "lq" in entry.files else None
        return entries

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        return self.entries[index].name

    def task(self, index: int) -> str | None:
        return self.entries[index].task

    def encoded(self, index: int) -> tuple[bytes, bytes | None]:
        files = self.entries[index].files
        return self._read(files["hq"]), self._read(files["lq"]) if "lq" in files else None

    def _read(self, member: _Member) -> bytes:
        with self.shards[member.shard].open("rb") as file:
            file.seek(member.offset)
            return file.read(member.size)


def _description(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, str]:
    """`name` and `task` of a sample's JSON, if it has them; others' JSON may say anything."""
    file = tar.extractfile(member)
    try:
        data = json.loads(file.read()) if file else None
    except ValueError:
        return {}
    return {k: v for k, v in data.items() if k in ("name", "task") and isinstance(v, str)} if isinstance(data, dict) else {}


@dataclass
class PackReport:
    """What [`pack`] did so far: samples written, how many of them encoded anew, shards begun, and the skipped by name, with the reason."""

    written: int = 0
    reencoded: int = 0
    shards: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def pack(
    source: Source,
    folder: str | Path,
    *,
    shard_bytes: int = 256 * 2**20,
    image_format: ShardFormat | None = None,
    quality: int = 95,
    max_side: int | None = None,
    seed: int = 0,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[PackReport]:
    """Writes a source as tar shards, shuffled, so that readers who stream them meet all tasks. The same source gives the same bytes.

    Files that have the format already are copied byte for byte. All members get one format, because `datasets` wants the same members in
    every sample. The folder appears when everything is written, or not at all.

    Args:
        source: What to pack. What cannot be decoded is skipped; it is decoded in a process of its own, which may crash.
        folder: Must not exist yet.
        shard_bytes: A shard ends with the sample that reaches this size.
        image_format: Left out: the format that all files have, or PNG if they differ.
        quality: Of JPEG files that are encoded anew; PNG and WebP are lossless.
        max_side: Shrinks clean photographs to this longer side. Refused for pairs: it would shrink their damage away.
        seed: Of the order.
        limits: What a file may take.

    Yields:
        The report, after every sample read.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"`folder` {str(folder)!r} exists already; shards are never written over anything.")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    if max_side is not None and any(source.task(i) is not None for i in order):
        raise ValueError("`max_side` shrinks the damage of pairs away; it is for clean photographs only.")
    image_format = image_format or common_format(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    report, tar, decoder = PackReport(), None, Decoder()
    try:
        for number, index in enumerate(order):
            try:
                files, copied = _encode(source, index, image_format, quality, max_side, decoder, limits)
            except SampleError as error:
                report.skipped[error.name] = error.reason
                yield report
                continue
            if tar is None:
                tar = tarfile.open(unfinished / f"shard-{report.shards:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                report.shards += 1
            for extension, data in files.items():
                member = tarfile.TarInfo(f"{number:09d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            report.written += 1
            report.reencoded += not copied
            if tar.offset >= shard_bytes:
                tar.close()
                tar = None
            yield report
        if tar is not None:
            tar.close()
            tar = None
        if not report.written:
            raise ValueError(f"None of the {len(source)} samples can be decoded; nothing was written.")
        unfinished.chmod(0o755)  # mkdtemp makes folders that only their owner may read
        unfinished.rename(folder)
    finally:
        decoder.close()
        if tar is not None:
            tar.close()
        shutil.rmtree(unfinished, ignore_errors=True)


def common_format(source: Source) -> ShardFormat:
    """The format that all files of a source have, by what they begin with, or PNG if they differ."""
    formats = set()
    for index in range(len(source)):
        try:
            files = source.files(index)
        except SampleError:
            continue  # named when it is packed
        formats |= {kind for data in files if data for beginning, kind in _BEGINNINGS.items() if data.startswith(beginning)}
    return formats.pop() or "png" if len(formats) == 1 else "png"


def _encode(
    source: Source, index: int, image_format: ShardFormat, quality: int, max_side: int | None, decoder: Decoder, limits: Limits
) -> tuple[dict[str, bytes], bool]:
    """A sample's members by what follows the key, and whether its pictures were copied."""
    name, task = source.name(index), source.task(index)
    files, pictures, copied = {}, {}, True
    for role, data in zip(("hq", "lq"), source.files(index), strict=True):
        if data is None:
            continue
        photo = decode_file(name, data, decoder.decode, limits)
        pictures[role] = picture = photo.image.convert("RGB")
        kind = _FORMATS.get(photo.encoded[0]) if photo.encoded else None
        if kind == image_format and (max_side is None or max(picture.size) <= max_side):
            files[f"{role}.{image_format}"] = data
        else:
            files[f"{role}.{image_format}"], copied = _encoded(picture, image_format, quality, max_side), False
    check_sides(name, pictures["hq"], pictures.get("lq"))  # shards hold nothing that training would have to skip
    files["json"] = json.dumps({"name": name, "task": task}).encode()
    return files, copied


def _encoded(picture: Image.Image, image_format: ShardFormat, quality: int, max_side: int | None) -> bytes:
    if max_side is not None:
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)  # which never enlarges
    # JPEG at full chroma resolution: a target must not be damaged by its own file.
    options = {"jpg": {"quality": quality, "subsampling": 0}, "png": {}, "webp": {"lossless": True}}[image_format]
    buffer = io.BytesIO()
    picture.save(buffer, {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[image_format], **options)
    return buffer.getvalue()
