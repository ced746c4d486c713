"""Data sets of the Hub, through the library `datasets`: at random access or streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .samples import SampleError, Source, seed_of
from .shards import PAIRED

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

HQ_COLUMNS, LQ_COLUMNS = ("hq", "gt", "target", "clean"), ("lq", "input", "degraded")
NAME_COLUMNS = ("name", "file", "file_name", "__key__")


@dataclass(frozen=True)
class Columns:
    """Where a data set keeps what a sample needs. Where several hold the HQ or LQ (`hq.jpg`, `hq.png`), the first filled one counts."""

    hq: tuple[str, ...]
    lq: tuple[str, ...]
    name: str | None
    task: str | None
    description: str | None

    @classmethod
    def of(cls, features: Mapping[str, Any]) -> Columns:
        """By their names up to the first dot; the only column of pictures is the HQ, whatever it is called. Raises `ValueError`."""
        import datasets

        pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        hq, lq = (tuple(p for p in pictures if p.split(".")[0].lower() in known) for known in (HQ_COLUMNS, LQ_COLUMNS))
        if not hq and len(pictures) == 1:
            hq, lq = tuple(pictures), ()
        if not hq:
            raise ValueError(
                f"the data set needs a column of pictures called {', '.join(HQ_COLUMNS)}, or a single one; "
                f"its columns are {', '.join(features)}, of which {', '.join(pictures) or 'none'} hold pictures."
            )
        named = next((name for name in NAME_COLUMNS if name in features), None)
        return cls(hq, lq, named, "task" if "task" in features else None, "json" if "json" in features else None)

    def read(self, row: Mapping[str, Any], fallback: str) -> tuple[str, str | None]:
        """A row's name (`fallback` if it has none) and task."""
        description = row.get(self.description) if self.description else None
        if isinstance(description, str | bytes):
            description = json.loads(description)
        said = description if isinstance(description, dict) else {}
        name = said.get("name") or (str(row[self.name]) if self.name and row[self.name] is not None else fallback)
        task = said.get("task") or (row[self.task] if self.task else None)
        return name, str(task or PAIRED) if self.lq else None

    def files(self, row: Mapping[str, Any], name: str) -> tuple[bytes, bytes | None]:
        """The bytes of a row's pictures. Raises [`SampleError`] or `OSError`."""
        hq, lq = (next((row[column] for column in columns if row.get(column) is not None), None) for columns in (self.hq, self.lq))
        if hq is None:
            raise SampleError(name, "its row holds no HQ picture")
        return _bytes_of(hq), None if lq is None else _bytes_of(lq)


class HubDataset(Source):
    """A `datasets.Dataset`.

    Args:
        dataset: Anything with a column of pictures, see [`Columns.of`].
    """

    def __init__(self, dataset: Dataset):
        self.columns = Columns.of(dataset.features)
        self.dataset = _undecoded(dataset, self.columns)
        # Names and tasks are asked for without a wish for the pictures.
        said = [c for c in (self.columns.name, self.columns.task, self.columns.description) if c]
        self.labels = self.dataset.select_columns(said) if said else None

    @classmethod
    def from_disk(cls, folder: Path) -> HubDataset:
        """A folder written by `Dataset.save_to_disk`."""
        datasets = require_datasets()
        return cls(datasets.Dataset.load_from_disk(str(folder)))

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self._label(index)[0]

    def task(self, index: int) -> str | None:
        return self._label(index)[1]

    def _label(self, index: int) -> tuple[str, str | None]:
        return self.columns.read(self.labels[index] if self.labels is not None else {}, str(index))

    def encoded(self, index: int) -> tuple[bytes, bytes | None]:
        return self.columns.files(self.dataset[index], self.name(index))


class HubStream:
    """A `datasets.IterableDataset`: samples come as they are read, nobody knows how many.

    Args:
        dataset: Anything with a column of pictures, see [`Columns.of`].
        shuffle_buffer: Samples that are held back to be shuffled, in every reading process.
    """

    def __init__(self, dataset: IterableDataset, shuffle_buffer: int = 256):
        if dataset.features is None:  # some builders say what they hold only when their first rows are read
            dataset = dataset._resolve_features()
        self.columns = Columns.of(dataset.features or {})
        self.dataset, self.shuffle_buffer = _undecoded(dataset, self.columns), shuffle_buffer

    def read(self, seed: int, epoch: int, slot: int, slots: int) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        """The share of reader `slot` of `slots` in one epoch: name, task and row; together the readers see every row once.

        Whole shards are dealt out where their number allows, otherwise every reader reads all and keeps its own.
        """
        import fsspec.asyn
        from datasets.distributed import split_dataset_by_node

        fsspec.asyn.reset_lock()  # a lock that was held when the process forked is never released in it
        shuffled = self.dataset.shuffle(seed=seed_of(seed, epoch) % 2**32, buffer_size=self.shuffle_buffer)
        share = split_dataset_by_node(shuffled, rank=slot, world_size=slots)
        # By `iter`, because iterating over it within a DataLoader's worker would divide the share once more.
        for number, columns in enumerate(share.iter(batch_size=1)):
            row = {name: values[0] for name, values in columns.items()}
            name, task = self.columns.read(row, f"{slot}/{number}")
            yield name, task, row

    def first(self, count: int) -> HubDataset:
        """Its first `count` rows, at random access."""
        from datasets import Dataset

        return HubDataset(Dataset.from_list(list(self.dataset.take(count)), features=self.dataset.features))


def open_hub_dataset(spec: str, *, streaming: bool) -> HubDataset | HubStream:
    """`NAME[:SPLIT]` of the Hub, or of a folder that `datasets` can load; the split is `train` unless given.

    Raises `ValueError` in one line if it cannot be had.
    """
    datasets = require_datasets()
    name, _, split = spec.partition(":")
    try:
        loaded: Any = datasets.load_dataset(name, split=split or "train", streaming=streaming)
        return HubStream(loaded) if streaming else HubDataset(loaded)
    except Exception as error:  # builders of data sets raise whatever they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Cannot load the data set {spec!r}: {reason}") from error


def require_datasets():
    """The library `datasets`, or an `ImportError` that says how to get it."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError("Data sets of the Hub need the library `datasets`: pip install 'foundir_hf[data]'") from error
    return datasets


def _undecoded(dataset: Any, columns: Columns) -> Any:
    import datasets

    for column in (*columns.hq, *columns.lq):
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


def _bytes_of(cell: Mapping[str, Any]) -> bytes:
    return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
