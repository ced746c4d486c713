"""Suites: which photographs, which damage, measured how. A suite is a YAML file; some ship with the package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.samples import is_smaller_copy
from ..data.tasks import TASKS
from ..io.decoder import read_rgb
from ..io.files import hash_files
from ..io.folder import list_photos
from ..io.reading import photo_size
from ..io.yaml_files import parse_yaml
from . import baselines
from .degradation import Degradation, select_degradations

SAMPLES = Path(__file__).parents[1] / "samples"
SUITES = Path(__file__).parent / "suites"
TRUTHS = ("GT", "HQ")  # names of the folder beside LQ
KINDS = ("clean", "paired", "unpaired")


@dataclass(frozen=True)
class Case:
    """One image to restore.

    Args:
        set, family, task: Where it belongs; of a set with inputs of its own, the task is the set's name.
        image: Path of the file within its set.
        degraded: `(height, width, 3)`, `uint8`, or floating point on the scale of 8 bits where the protocol does not round; of the
            truth's size.
        truth: The same shape, `uint8`; `None` if there is none.
        small: The input before it was enlarged to the truth's size, for super-resolution.
        baselines: Names of the classical methods to compare with.
        defects: What is to be removed, as `removes` of the task table names it.
        channel, crop: How to measure, see [`~foundir_hf.evaluation.metrics.Meter.measure`].
    """

    set: str
    family: str
    task: str
    image: str
    degraded: np.ndarray
    truth: np.ndarray | None
    small: np.ndarray | None = None
    baselines: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    channel: str = "rgb"
    crop: int = 0

    @property
    def stem(self) -> str:
        """Where its input and foreign outputs lie, below a folder and without suffix: `SET/TASK/NAME`, or `SET/NAME`."""
        return _stem(self.set, None if self.task == self.set else self.task, self.image)


@dataclass(frozen=True)
class ImageSet:
    """One entry of a suite.

    Args:
        kind: `"clean"` (photographs to damage), `"paired"` (`GT/` or `HQ/` beside `LQ/`, files share their stems) or `"unpaired"`
            (degraded photographs without ground truth).
        folder: Where they are.
        name: As tables spell it.
        damages: Of a clean set.
        limit: At most so many photographs: the first by name.
        channel: `"rgb"`, or `"y"` for luma, as super-resolution is measured.
        crop: Pixels left out on every side when measuring.
        baselines: Of sets with inputs of their own; clean sets have those of their damage.
        defects: The same, what is to be removed.
        family: What tables group it under; by default the damage's family, or the name of a set with inputs of its own.
    """

    kind: str
    folder: Path
    name: str
    damages: tuple[Degradation, ...] = ()
    limit: int | None = None
    channel: str = "rgb"
    crop: int = 0
    baselines: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    family: str | None = None

    @cached_property
    def files(self) -> list[tuple[Path | None, Path | None]]:
        """`(truth, input)` of every image; a clean set has no input, an unpaired one no truth. Raises `ValueError` for what is missing."""
        return self._pairs() if self.kind == "paired" else self._singles()

    def _singles(self) -> list[tuple[Path | None, Path | None]]:
        photos = list_photos(self.folder)[: self.limit]
        _by_stem(photos, self.folder, str(self.folder))
        return [(photo, None) if self.kind == "clean" else (None, photo) for photo in photos]

    def _pairs(self) -> list[tuple[Path | None, Path | None]]:
        truths = next((self.folder / name for name in TRUTHS if (self.folder / name).is_dir()), None)
        inputs = self.folder / "LQ"
        if truths is None or not inputs.is_dir():
            raise ValueError(f"`{self.folder}` must hold LQ/ and GT/ (or HQ/), whose files share their stems.")
        partners = _by_stem(list_photos(inputs), inputs, f"{self.folder}: LQ/")
        pairs: list[tuple[Path | None, Path | None]] = []
        for stem, path in _by_stem(list_photos(truths)[: self.limit], truths, f"{self.folder}: {truths.name}/").items():
            if stem not in partners:
                raise ValueError(f"`{self.folder}`: {truths.name}/{path.name} has no partner in LQ/.")
            pairs.append((path, partners[stem]))
        return pairs

    def __len__(self) -> int:
        return len(self.files) * max(1, len(self.damages))

    def check(self) -> None:
        """Raises `ValueError` for what is missing, or too small for `crop`; of photographs it reads the headers at most."""
        for pair in self.files:
            if not self.crop:
                continue
            path = next(path for path in pair if path is not None)
            side = min(photo_size(path))
            for multiple in {damage.multiple for damage in self.damages} or {1}:
                if 2 * self.crop >= side // multiple * multiple:
                    raise ValueError(f"{path}: `crop` must leave something of its shorter side of {side} pixels, got {self.crop}.")

    def stems(self) -> Iterator[str]:
        """[`Case.stem`] of every case, in their order, without reading any."""
        for damage in self.damages or (None,):
            for truth, degraded in self.files:
                path = truth or degraded
                assert path is not None
                yield _stem(self.name, None if damage is None else damage.name, self._image_name(path))

    def _image_name(self, path: Path) -> str:
        """A file's path within its set; of a pair, within its half."""
        parts = path.relative_to(self.folder).parts
        return Path(*parts[1:] if self.kind == "paired" else parts).as_posix()

    def data_hash(self) -> str:
        """SHA-256 over names and contents of the files in use."""
        return hash_files(self.folder, [path for pair in self.files for path in pair if path is not None])

    def cases(self, seed: int) -> Iterator[Case]:
        """Every image, task by task; read and damaged when its turn comes."""
        make = partial(Case, set=self.name, channel=self.channel, crop=self.crop)
        for damage in self.damages:
            for path, _ in self.files:
                assert path is not None
                truth = read_rgb(path)
                height, width = (side // damage.multiple * damage.multiple for side in truth.shape[:2])
                if not height or not width:
                    raise ValueError(f"{path}: must have at least {damage.multiple} pixels a side for {damage.name}.")
                truth = truth[:height, :width]
                degraded, small = _at_size(damage.apply(truth, path.name, seed), truth, path)
                yield make(
                    family=self.family or damage.family,
                    task=damage.name,
                    image=self._image_name(path),
                    degraded=degraded,
                    truth=truth,
                    small=small,
                    baselines=baselines.for_defects(damage.defects),
                    defects=damage.defects,
                )
        if self.kind != "clean":
            for truth_path, input_path in self.files:
                assert input_path is not None
                degraded, small, truth = read_rgb(input_path), None, None
                if truth_path is not None:
                    truth = read_rgb(truth_path)
                    degraded, small = _at_size(degraded, truth, input_path)
                yield make(
                    family=self.family or self.name,
                    task=self.name,
                    image=self._image_name(truth_path or input_path),
                    degraded=degraded,
                    truth=truth,
                    small=small,
                    baselines=self.baselines,
                    defects=self.defects,
                )


def _stem(set_name: str, task: str | None, image: str) -> str:
    name = Path(image).with_suffix("").as_posix()
    return f"{set_name}/{name}" if task is None else f"{set_name}/{task}/{name}"


def _by_stem(photos: Sequence[Path], root: Path, where: str) -> dict[str, Path]:
    """Photographs by their paths below `root` without suffixes. Raises `ValueError`, which says `where`, if two share one."""
    by_stem: dict[str, Path] = {}
    for path in photos:
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in by_stem:
            raise ValueError(f"{where} holds {by_stem[stem].name} and {path.name}, which share a stem.")
        by_stem[stem] = path
    return by_stem


def _at_size(degraded: np.ndarray, truth: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The input at its truth's size, and as it was if that is smaller."""
    if degraded.shape == truth.shape:
        return degraded, None
    (height, width), (full_height, full_width) = degraded.shape[:2], truth.shape[:2]
    if height > full_height or width > full_width:
        raise ValueError(f"{path}: {width}x{height} pixels are more than its truth's {full_width}x{full_height}.")
    if not is_smaller_copy((width, height), (full_width, full_height)):
        raise ValueError(f"{path}: {width}x{height} pixels are no smaller copy of its truth's {full_width}x{full_height}.")
    return baselines.enlarge(degraded, (full_height, full_width), Image.Resampling.BICUBIC), degraded


@dataclass(frozen=True)
class Suite:
    """Sets that are measured together.

    Args:
        name: Of the file.
        sets: In the order of the tables.
        definition: What the report repeats of it.
    """

    name: str
    sets: tuple[ImageSet, ...]
    definition: Any = None

    def __post_init__(self):
        tasks = [(s.name, task) for s in self.sets for task in ([d.name for d in s.damages] or [s.name])]
        twice = next((task for task in tasks if tasks.count(task) > 1), None)
        if twice:
            raise ValueError(f"suite {self.name!r} measures {'/'.join(dict.fromkeys(twice))} twice; give one of the sets another `name`.")

    def check(self) -> None:
        """Raises `ValueError` if photographs are missing or too small for `crop`, before anything is measured."""
        for image_set in self.sets:
            image_set.check()

    def folder_around(self, path: Path) -> Path | None:
        """The folder of photographs that `path` is or lies in, if there is one: nothing may be written there."""
        return next((s.folder for s in self.sets if path.resolve().is_relative_to(s.folder.resolve())), None)

    def __len__(self) -> int:
        return sum(len(image_set) for image_set in self.sets)


def bundled_suites() -> list[str]:
    """Names of the suites that ship with the package."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(suite: str | Path, data: str | Path = ".", limit: int | None = None) -> Suite:
    """A suite by name or from a file.

    Args:
        suite: One of [`bundled_suites`], or the path of a YAML file.
        data: Folder that the suite's paths are relative to.
        limit: At most so many photographs of each set, also where the suite allows more.

    Raises:
        ValueError: In one line, for an unknown suite, a file that is none, or photographs that are not there.
    """
    path = SUITES / f"{suite}.yaml"
    if not path.is_file():
        path = Path(suite)
    if not path.is_file():
        raise ValueError(f"`suite` must be one of {', '.join(bundled_suites())}, or a YAML file; got {str(suite)!r}.")
    content = parse_yaml(path)
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("sets"), list)
        or not content["sets"]
        or set(content) - {"sets", "needs"}
    ):
        raise ValueError(f"{path}: must hold a list `sets`, and at most a line `needs` that says where its data comes from.")
    sets = []
    for index, entry in enumerate(content["sets"]):
        try:
            sets.append(_parse_set(entry, Path(data), limit))
        except ValueError as error:
            raise ValueError(f"{path}: sets[{index}]: {error}") from error
    missing = [str(s.folder) for s in sets if not s.folder.is_dir()]
    if missing:
        needs = content.get("needs", "these folders; `--data` names where they are")
        raise ValueError(f"suite {path.stem!r} needs {needs}: not found: {', '.join(dict.fromkeys(missing))}.")
    return Suite(path.stem, tuple(sets), content["sets"])


def _parse_set(entry: Any, data: Path, limit: int | None) -> ImageSet:
    kinds = [kind for kind in KINDS if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        raise ValueError(f"must name one folder as {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {entry!r}.")
    kind = kinds[0]
    accepted = {kind, "name", "family", "limit", "channel", "crop", *(("tasks",) if kind == "clean" else ("defects", "baselines"))}
    if set(entry) - accepted:
        raise ValueError(f"takes {', '.join(sorted(accepted))}; got {', '.join(sorted(map(str, set(entry) - accepted)))}.")
    folder = SAMPLES if entry[kind] == "samples" and kind == "clean" else data / str(entry[kind])
    for key, low in (("limit", 1), ("crop", 0)):
        value = entry.get(key, low)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"`{key}` must be a whole number from {low}, got {value!r}.")
    if entry.get("channel", "rgb") not in ("rgb", "y"):
        raise ValueError(f"`channel` must be 'rgb' or 'y', got {entry['channel']!r}.")
    for key in ("tasks", "defects", "baselines"):
        if not isinstance(entry.get(key, []), list):
            raise ValueError(f"`{key}` must be a list, got {entry[key]!r}.")
    for key in ("defects", "baselines"):
        if not all(isinstance(name, str) for name in entry.get(key, [])):
            raise ValueError(f"`{key}` must be a list of names, got {entry[key]!r}.")
    defects = entry.get("defects", [])
    known = sorted({defect for task in TASKS.values() for defect in task.removes})
    if not set(defects) <= set(known):
        raise ValueError(f"`defects` must be among {', '.join(known)}; got {', '.join(map(str, sorted(set(defects) - set(known))))}.")
    name = _set_name(folder) if entry.get("name") is None else str(entry["name"])
    # It becomes a folder, part of the names of pictures, and a cell of tables.
    if entry.get("name") is not None and (name.strip(" .") == "" or ".." in name or set(name) & set("/\\|") or not name.isprintable()):
        raise ValueError(f"`name` must be a name without '/', '\\', '|' and '..', got {entry['name']!r}.")
    limits = [value for value in (entry.get("limit"), limit) if value is not None]
    return ImageSet(
        kind=kind,
        folder=folder,
        name=name,
        damages=select_degradations(entry.get("tasks", ["all"])) if kind == "clean" else (),
        limit=min(limits, default=None),
        channel=entry.get("channel", "rgb"),
        crop=entry.get("crop", 0),
        baselines=baselines.choose(entry["baselines"]) if "baselines" in entry else baselines.for_defects(defects),
        defects=tuple(defects),
        family=None if entry.get("family") is None else str(entry["family"]),
    )


def folder_suite(
    clean: list[Path] | None = None, paired: list[Path] | None = None, unpaired: list[Path] | None = None, limit: int | None = None
) -> Suite:
    """A suite of folders: every task on clean photographs, pairs as they are; see [`ImageSet`]."""
    sets = [
        ImageSet(kind, folder, _set_name(folder), select_degradations(["all"]) if kind == "clean" else (), limit)
        for kind, folders in zip(KINDS, (clean, paired, unpaired), strict=True)
        for folder in folders or []
    ]
    return Suite("folders", tuple(sets), [{s.kind: s.name} for s in sets])


def _set_name(folder: Path) -> str:
    """The folder's name, or its parent's where it is called as half of a pair."""
    folder = folder.resolve()
    return folder.parent.name if folder.name in (*TRUTHS, "LQ") else folder.name
