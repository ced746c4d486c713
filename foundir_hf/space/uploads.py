"""Inputs that take what was uploaded, as it came, and nothing else."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gradio as gr
from gradio.utils import get_upload_folder

_NO_LINKS = "Please upload the photo itself; this server fetches nothing from elsewhere."
_NOT_HERE = "`{}` is not on this server: it was never uploaded, or has been deleted meanwhile. Please upload it."


def as_uploaded(component: Any) -> None:
    """Makes an input take only what was uploaded, as it came: gradio would fetch what a link leads to, and open a photograph first, without
    a word for the visitor on a file that is none. Not a subclass: gradio writes a file beside the source of every one."""
    take = component.async_move_resource_to_block_cache

    async def take_uploaded(path: str) -> str | None:
        file = Path(_behind(path) if re.match(r"https?:", path, re.I) else path)
        if not file.is_file():
            raise gr.Error(html.escape(_NOT_HERE.format(file.name)), title="PhotoError", print_exception=False)
        return await take(str(file))

    component.async_move_resource_to_block_cache = take_uploaded
    if isinstance(component, gr.Image):
        component.preprocess = lambda payload: payload and payload.path


def _behind(link: str) -> str:
    """The file that was uploaded and that a link names, as language models name it; nothing is fetched. Raises `gr.Error`."""
    _, _, name = link.partition("/gradio_api/file=")
    path = Path(unquote(name)).resolve()
    if not name or not path.is_relative_to(Path(get_upload_folder()).resolve()) or not path.is_file():
        raise gr.Error(_NO_LINKS, title="PhotoError", print_exception=False)
    return str(path)
