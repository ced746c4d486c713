"""The model card, for the page: without the Hub's metadata, with the pictures that are beside it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

REPOSITORY = "https://github.com/foundir-hf/foundir_hf"
_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def model_card() -> Path | None:
    """Of the bundled checkpoint: beside the package in a checkout and in a Space; none elsewhere."""
    card = Path(__file__).parents[2] / "model_card.md"
    return card if card.is_file() else None


def pictures_of(card: Path) -> list[Path]:
    """The pictures that a card shows and that are beside it, relative to it."""
    named = {Path(target) for _, target in _PICTURE.findall(card.read_text(encoding="utf-8"))}
    return sorted(path for path in named if not path.is_absolute() and ".." not in path.parts and (card.parent / path).is_file())


def sections(text: str) -> list[tuple[str, str]]:
    """Markdown, divided at its headings of the second level: those and what is below each; what comes before has an empty one."""
    parts = [("", "")]
    is_code = False
    for line in text.splitlines(keepends=True):
        is_code ^= line.startswith("```")
        if line.startswith("## ") and not is_code:
            parts.append((line[3:].strip(), ""))
        else:
            parts[-1] = parts[-1][0], parts[-1][1] + line
    return parts


def for_page(card: Path) -> str:
    """Markdown whose pictures the page can show, if gradio may serve them; one that is not there is its words, links lead to the
    repository."""
    there = set(pictures_of(card))

    def picture(match: re.Match) -> str:
        words, target = match.groups()
        served = f"gradio_api/file={quote((card.parent / target).resolve().as_posix())}"
        return f"![{words}]({served})" if Path(target) in there else f"*{words}*" if words else ""

    text = re.sub(r"\A---\n.*?\n---\n", "", card.read_text(encoding="utf-8"), flags=re.S)
    return _LINK.sub(rf"[\1]({REPOSITORY}/blob/main/\2)", _PICTURE.sub(picture, text))
