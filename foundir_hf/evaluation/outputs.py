"""Outputs of other methods: written elsewhere, for inputs that we wrote, and measured beside ours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..io.decoder import read_rgb
from ..io.files import IMAGE_SUFFIXES, write_whole
from .suites import Case, Suite


def write_inputs(suite: Suite, folder: Path, seed: int) -> int:
    """Writes every degraded input, without loss, as `SET/TASK/NAME.png` (sets with inputs of their own: `SET/NAME.png`).

    Inputs for super-resolution are written small, as they are. Inputs that were never rounded cannot be images: they become
    `.npy`, `(height, width, 3)`, `float32` on the scale of 8 bits. Returns how many files were written.

    Raises:
        ValueError: Before anything is written, if a file is there already, lies among the suite's photographs, or stands for two images.
    """
    stems: set[str] = set()
    for stem in (stem for image_set in suite.sets for stem in image_set.stems()):
        if stem in stems:
            raise ValueError(f"suite {suite.name!r} has two images whose input would be {stem}; give one of the sets another `name`.")
        stems.add(stem)
        # Which of the two it becomes is known only once the image is damaged.
        targets = [folder / f"{stem}{suffix}" for suffix in (".png", ".npy")]
        around = suite.folder_around(targets[0])
        if around is not None:
            raise ValueError(f"{targets[0]}: inputs must not be written among the suite's photographs in {around}.")
        for target in targets:
            if target.exists():
                raise ValueError(f"{target}: is there already; inputs are never written over a file.")
    count = 0
    for image_set in suite.sets:
        for case in image_set.cases(seed):
            pixels = case.degraded if case.small is None else case.small
            buffer = io.BytesIO()
            if pixels.dtype == np.uint8:
                Image.fromarray(pixels).save(buffer, "PNG")
            else:
                np.save(buffer, pixels.astype(np.float32), allow_pickle=False)
            suffix = ".png" if pixels.dtype == np.uint8 else ".npy"
            write_whole(folder / f"{case.stem}{suffix}", buffer.getvalue())
            count += 1
    return count


class Outputs:
    """A folder of restored images, in the layout of [`write_inputs`]; a suite with one set and one task may also lie flat.

    Args:
        name: Of the method, as tables spell it.
        folder: Whole sets or tasks may be missing; single images may not.
        suite: What was restored.
    """

    def __init__(self, name: str, folder: Path, suite: Suite):
        if not folder.is_dir():
            raise ValueError(f"`outputs` {name!r} must be a folder, got {str(folder)!r}.")
        self.name, self.folder = name, folder
        self._files: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                stem = path.relative_to(folder).with_suffix("").as_posix()
                if stem in self._files:
                    raise ValueError(f"{folder}: holds {self._files[stem].name} and {path.name}, which share a stem.")
                self._files[stem] = path
        groups = [f"{s.name}/{d.name}" for s in suite.sets for d in s.damages] + [s.name for s in suite.sets if not s.damages]
        self._groups = {group for group in groups if any(stem.startswith(f"{group}/") for stem in self._files)}
        self._flat = groups[0] + "/" if len(groups) == 1 and not self._groups and self._files else None
        if not self._groups and self._flat is None:
            raise ValueError(f"`outputs` {name!r}: {folder} holds none of {', '.join(groups[:3])}{', ...' if len(groups) > 3 else ''}.")

    def read(self, case: Case) -> np.ndarray | None:
        """The restored image of a case, of its truth's size; `None` if the method did not do this task. Raises `ValueError`."""
        group = case.set if case.task == case.set else f"{case.set}/{case.task}"
        if self._flat is None and group not in self._groups:
            return None
        stem = case.stem if self._flat is None else case.stem.removeprefix(self._flat)
        if stem not in self._files:
            raise ValueError(f"`outputs` {self.name!r}: {self.folder} holds no image called {stem}.")
        image = read_rgb(self._files[stem])
        if image.shape != case.degraded.shape:
            height, width = case.degraded.shape[:2]
            raise ValueError(f"{self._files[stem]}: must have {width}x{height} pixels, got {image.shape[1]}x{image.shape[0]}.")
        return image
