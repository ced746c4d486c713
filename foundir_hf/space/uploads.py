"""Inputs that take what was uploaded, as it came, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

_NO_LINKS = "Please upload the photo itself; this server fetches nothing from elsewhere."


def as_uploaded(component: Any) -> None:
    """Makes an input take only what was uploaded, as it came: gradio would fetch what a link leads to, and open a photograph first, without
    a word for the visitor on a file that is none. Not a subclass: gradio writes a file beside the source of every one."""
    fetch = component.async_move_resource_to_block_cache

    async def keep(path: Any) -> str | None:
        if isinstance(path, str) and re.match(r"https?:", path, re.I):
            raise gr.Error(_NO_LINKS, title="PhotoError", print_exception=False)
        return await fetch(path)

    component.async_move_resource_to_block_cache = keep
    if isinstance(component, gr.Image):
        component.preprocess = lambda payload: payload and payload.path
