"""Six damaged photographs to try the page with: samples of the package, damaged by its own sub-tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "examples"
SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass(frozen=True)
class Example:
    """A damaged sample photograph.

    Args:
        title: For visitors.
        task: Sub-task that damaged it, with seed 0.
        sample: File of the photograph it was.
    """

    title: str
    task: str
    sample: str

    @property
    def path(self) -> Path:
        """The file that ships."""
        return FOLDER / f"{self.task}.jpg"

    def make(self) -> None:
        """Writes it anew."""
        import numpy as np
        from PIL import Image

        from ..data.tasks import get_task
        from ..evaluation.degradation import degrade_image
        from ..io.pictures import write_picture

        with Image.open(SAMPLES / self.sample) as image:
            truth = np.asarray(image.convert("RGB"))
        write_picture(Image.fromarray(degrade_image(truth, get_task(self.task), self.sample, 0)), self.path, quality=85)


EXAMPLES = (
    Example("Grain", "gaussian_noise", "chelsea.jpg"),
    Example("Rain", "rain", "rocket.jpg"),
    Example("Haze", "haze", "coffee.jpg"),
    Example("Darkness", "low_light", "astronaut.jpg"),
    Example("Compression", "jpeg", "chelsea.jpg"),
    Example("Several at once", "mixture", "coffee.jpg"),
)
