"""The folder of a Space: the page, the package as source, its weights, the card; nothing has to be published first."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from .about import pictures_of

PACKAGE = Path(__file__).parents[1]
REPOSITORY = PACKAGE.parent


def requirements() -> list[str]:
    """What the package and its page need, by `pyproject.toml`: not the package itself, which is beside as source.

    Hugging Face installs them before it copies the repository, so a path to a wheel would lead nowhere.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["space"]]


def build_space(folder: Path) -> list[Path]:
    """Writes the folder, which must be new or empty.

    Returns:
        Its files, relative to it, sorted.

    Raises:
        ValueError: If there is something in the folder, or this is no checkout of the repository.
    """
    source = REPOSITORY / "space"
    if not (source / "app.py").is_file():
        raise ValueError(f"`push-space` needs a checkout of the repository; {REPOSITORY} is none.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: must be a new or an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("app.py", "README.md"):
        shutil.copyfile(source / name, folder / name)
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    for name in ("LICENSE", "model_card.md"):
        shutil.copyfile(REPOSITORY / name, folder / name)
    for picture in pictures_of(REPOSITORY / "model_card.md"):
        (folder / picture).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / picture, folder / picture)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
