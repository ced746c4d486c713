"""What the site is made of beside documents: the command line's help, and references in docstrings as links."""

from __future__ import annotations

import argparse
import re
from typing import Any

import griffe

_REFERENCE = re.compile(r"\[`(~?)([A-Za-z_][\w.]*)`\](?!\()")


class References(griffe.Extension):
    """Docstrings refer to others as those of diffusers do, [`name`] or [`~full.name`]; what is not on the site stays text."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = _REFERENCE.sub(lambda match: _link(obj, match), obj.docstring.value)


def _link(obj: griffe.Object, match: re.Match[str]) -> str:
    short, name = match.groups()
    try:
        target = obj.resolve(name)
    except griffe.NameResolutionError:
        target = name
    shown = (name.rsplit(".", 1)[-1] if short else name).replace("_", "&#95;")  # or Markdown takes `__call__` for bold
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Puts the help of every command into the page that asks for it."""
    return markdown.replace("<!-- commands -->", _commands()) if page.file.src_uri == "docs/commands.md" else markdown


def _commands() -> str:
    from foundir_hf.cli import build_parser

    (choices,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in choices._choices_actions}
    sections = []
    for name, parser in choices.choices.items():
        parser.formatter_class = lambda prog, made=parser.formatter_class: made(prog, width=86)
        summary = summaries.get(name, "")
        sections.append(f"## foundir {name}\n\n{summary[:1].upper()}{summary[1:]}\n\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(sections)
