"""Where training data come from, by what a path holds: clean photographs, pairs in folders, tar shards, data sets of the Hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..io.files import IMAGE_SUFFIXES
from ..io.folder import list_photos
from .hub_datasets import HubDataset, HubStream, open_hub_dataset
from .samples import SampleError, Source, sample_file
from .shards import ShardSource, list_shards

# Folder of clean photographs -> its neighbour with the degraded ones. The first is the layout of FoundIR-v2's authors.
PAIR_FOLDERS = {"HQ_folder": "LQ_folder", "HQ": "LQ", "GT": "LQ"}
HUB, HUB_STREAM = "hf://", "hf+stream://"


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


class PairedFolder(Source):
    """Pairs in neighbouring folders: `HQ_folder`/`LQ_folder`, `HQ`/`LQ` or `GT`/`LQ`, anywhere below `root`.

    Files belong together if their paths within the two folders agree up to the suffix. The task of a pair is the folder that holds both
    (`Task1/HQ_folder/a.png` -> `Task1`, the authors' layout); where that is `root` itself, the first folder within
    (`HQ_folder/Task1/a.png` -> `Task1`), and if there is none, the name of `root`.

    Args:
        root: Searched recursively. A photograph without a partner raises [`SampleError`] when it is asked for.
        base: Samples are called by the paths of their HQ files relative to it; left out, to `root`.
    """

    def __init__(self, root: str | Path, base: Path | None = None):
        root = Path(root)
        self.base = root if base is None else base
        self.pairs: list[tuple[Path, Path | None, str]] = []
        for clean_folder, degraded_folder in find_pair_folders(root):
            partners = {p.relative_to(degraded_folder).with_suffix(""): p for p in _pictures(degraded_folder)}
            holder = clean_folder.parent
            for path in _pictures(clean_folder):
                inner = path.relative_to(clean_folder)
                if holder != root:
                    task = holder.relative_to(root).as_posix()
                else:
                    task = inner.parts[0] if len(inner.parts) > 1 else root.resolve().name
                self.pairs.append((path, partners.get(inner.with_suffix("")), task))
        if not self.pairs:
            raise ValueError(f"`root` {str(root)!r} holds no pairs; they lie in {_spelled_pairs()}.")

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        return self.pairs[index][0].relative_to(self.base).as_posix()

    def task(self, index: int) -> str | None:
        return self.pairs[index][2]

    def encoded(self, index: int) -> tuple[bytes, bytes | None]:
        clean, degraded, _ = self.pairs[index]
        name = self.name(index)
        if degraded is None:
            raise SampleError(name, "has no partner of the same name among the LQ files")
        return sample_file(name, clean), sample_file(name, degraded)


def find_pair_folders(root: Path) -> list[tuple[Path, Path]]:
    """Folders of clean photographs below `root` and their degraded neighbours, sorted."""
    found = []
    for folder, inside, _ in os.walk(root, followlinks=True):
        found += [
            (Path(folder, clean), Path(folder, degraded)) for clean, degraded in PAIR_FOLDERS.items() if {clean, degraded} <= {*inside}
        ]
        inside[:] = [name for name in inside if name not in PAIR_FOLDERS and name not in PAIR_FOLDERS.values()]
    return sorted(found)


def open_source(spec: str | Path, split: str | None = None) -> Source | HubStream:
    """The source that `spec` names.

    Args:
        spec: `hf://NAME[:SPLIT]` or `hf+stream://NAME[:SPLIT]` for a data set of the Hub (or a folder that `datasets` can load), at random
            access or streamed. Otherwise a path: a `.tar` file or a folder of them; a folder written by `Dataset.save_to_disk`; a folder
            with `HQ_folder`/`LQ_folder`, `HQ`/`LQ` or `GT`/`LQ` anywhere in it; or else a folder of clean photographs.
        split: `"train"` or `"val"`. Chosen by a photograph folder's `manifest.csv`, or else by a sub-folder of that name; without either,
            ignored. The Hub's splits are named in `spec`. Files keep their names relative to `spec`, the sub-folder included: those that a
            cleaning manifest of `spec` has.
    """
    text = str(spec)
    for prefix in (HUB, HUB_STREAM):
        if text.startswith(prefix):
            name = text.removeprefix(prefix)
            if not name.partition(":")[0]:
                raise ValueError(f"`{spec}` must name a data set: {prefix}NAME[:SPLIT].")
            return open_hub_dataset(name, streaming=prefix == HUB_STREAM)
    path = given = Path(spec)
    if path.is_file() and path.suffix == ".tar":
        return ShardSource([path])
    if not path.is_dir():
        raise ValueError(f"`{spec}` must be a folder, a tar file or {HUB}NAME[:SPLIT]; there is no such folder.")
    if split is not None and not (path / "manifest.csv").is_file() and (path / split).is_dir():
        path = path / split
    if shards := list_shards(path):
        return ShardSource(shards)
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return HubDataset.from_disk(path)
    if find_pair_folders(path):
        return PairedFolder(path, given)
    return CleanFiles(list_photos(path, split), given)


def find_targets(folder: Path) -> tuple[CleanFiles, bool]:
    """The photographs of a folder that training may take as targets, whatever the split, and whether there are pairs among them.

    Of pairs the HQ files: an LQ is never a target. They are called as the samples of [`open_source`] are.

    Raises:
        ValueError: `folder` is none or holds no photographs.
    """
    pairs = find_pair_folders(folder)
    if not pairs:
        return CleanFiles(list_photos(folder), folder), False
    paired = [path for clean, _ in pairs for path in _pictures(clean)]
    others = [path for path in _pictures(folder) if not any(path.is_relative_to(part) for pair in pairs for part in pair)]
    if not paired and not others:
        raise ValueError(f"`folder` {str(folder)!r} holds no photographs.")
    return CleanFiles(sorted({*paired, *others}), folder), True


def _pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def _spelled_pairs() -> str:
    return " or ".join(f"{clean}/ beside {degraded}/" for clean, degraded in PAIR_FOLDERS.items())
