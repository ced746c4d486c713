"""Clean photographs: files of a folder, and samples decoded once and kept in memory, on the device that trains."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..files import IMAGE_SUFFIXES
from .samples import Sample, SampleError, Source, cut, sample_file

logger = logging.getLogger(__name__)


def list_photos(folder: str | Path, split: str | None = None) -> list[Path]:
    """The photographs of a folder, sorted by path.

    Args:
        folder: Searched recursively. If it holds a `manifest.csv` with a column `file`, its rows decide instead; any other `manifest.csv`
            is somebody else's and ignored.
        split: Keep only the rows whose column `split` says so. Ignored without such a manifest or without that column.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"`folder` must be an existing directory of photographs, got {str(folder)!r}.")
    rows = _manifest_rows(folder / "manifest.csv")
    if rows is not None:
        # A row that ends early has None in its last columns.
        paths = sorted(folder / row["file"] for row in rows if row["file"] and (split is None or row.get("split", split) == split))
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"`folder` {str(folder)!r} holds no photographs" + (f" of split {split!r}." if split else "."))
    return paths


def _manifest_rows(path: Path) -> list[dict[str, str]] | None:
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "file" in (reader.fieldnames or ()):
                return list(reader)
    except (UnicodeDecodeError, csv.Error):
        pass
    logger.warning("Ignored %s: it has no column `file`.", path)
    return None


class CleanFiles(Source):
    """Clean photographs as files.

    Args:
        paths: The files.
        root: Samples are called by their paths relative to it; left out, by the paths as given. A path elsewhere raises `ValueError`.
    """

    def __init__(self, paths: Sequence[Path], root: Path | None = None):
        self.paths, self.root = list(paths), root
        if root is not None and (elsewhere := next((path for path in self.paths if not path.is_relative_to(root)), None)):
            raise ValueError(f"`paths` must lie in {str(root)!r}, got {str(elsewhere)!r}; a manifest.csv names files below it.")

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        path = self.paths[index]
        return (path.relative_to(self.root) if self.root else path).as_posix()

    def encoded(self, index: int) -> tuple[bytes, bytes | None]:
        return sample_file(self.name(index), self.paths[index]), None


class PhotoBank:
    """Samples on one device, and random crops of them: for sets that fit into its memory.

    Args:
        source: What to decode, or paths of clean photographs. What cannot be used is named in the log, skipped, and kept in `skipped` with
            the reason.
        device: Where the pixels live: 468 megapixels take 1.4 GB, pairs twice as much.
        numbers: Take these samples only.
    """

    def __init__(self, source: Source | Sequence[Path], device: torch.device | str = "cpu", numbers: Sequence[int] | None = None):
        samples = source if isinstance(source, Source) else CleanFiles(source)
        numbers = range(len(samples)) if numbers is None else numbers
        self.skipped: dict[str, str] = {}

        def decode(index: int) -> Sample | SampleError:
            try:
                sample = samples[index]
            except SampleError as error:
                return error
            lq = None if sample.lq is None else sample.lq.contiguous().to(device)
            return replace(sample, hq=sample.hq.contiguous().to(device), lq=lq)

        self.samples: list[Sample] = []
        with ThreadPoolExecutor(4) as pool:
            for decoded in tqdm(pool.map(decode, numbers), total=len(numbers), desc="decoding photographs", mininterval=5):
                if isinstance(decoded, SampleError):
                    self.skipped[decoded.name] = decoded.reason
                    logger.warning("Skipped %s", decoded)
                else:
                    self.samples.append(decoded)
        self.device = torch.device(device)
        if not self.samples:
            raise ValueError(f"None of the {len(numbers)} photographs could be decoded.")

    def __len__(self) -> int:
        return len(self.samples)

    def crops(
        self, which: Sequence[int], size: int, generator: torch.Generator, max_shrink: float = 6.0
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Random `uint8` crops of the samples numbered `which`, see [`cut`]: of their HQ, `(len(which), 3, size, size)`, and of each LQ."""
        draws = torch.rand(len(which), 4, generator=generator, device=generator.device).tolist()
        crops = [cut(self.samples[index], size, draw, max_shrink) for index, draw in zip(which, draws, strict=True)]
        return torch.stack([hq for hq, _ in crops]), [lq for _, lq in crops]
