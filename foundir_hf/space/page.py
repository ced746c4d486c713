"""The page: its header and its tabs."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import gradio as gr

from ..io.limits import Limits
from .about import REPOSITORY, for_page, pictures_of, sections
from .api import Api
from .batch_tab import BatchTab
from .desk import Desk
from .engine import Engine
from .form import Form
from .limits import PAGE_LIMITS
from .restore_tab import RestoreTab
from .visitors import Visitors

_HERE = Path(__file__).parent


class Page:
    """The Gradio app.

    Args:
        engine: That restores.
        visitors: Who is there.
        card: File of the model card; none if there is none.
        limits: See [`Desk`].
    """

    def __init__(self, engine: Engine, visitors: Visitors, card: Path | None, limits: Limits = PAGE_LIMITS):
        self.engine, self.visitors, self.desk = engine, visitors, Desk(engine, visitors, limits)
        form = Form(engine.adapter_names, card.read_text(encoding="utf-8") if card else "")
        with gr.Blocks(title="foundir: restore a photo", analytics_enabled=False) as self.app:
            _header()
            with gr.Tabs():
                with gr.Tab("Restore", id="restore"):
                    restore = RestoreTab(self.desk, form)
                with gr.Tab("Batch", id="batch"):
                    batch = BatchTab(self.desk, form)
                with gr.Tab("Adapters", id="adapters"):
                    _adapters(engine)
                with gr.Tab("About", id="about"):
                    _about(card)
            Api(self.desk, form, restore.photo)
            quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
            for part in (form, restore, batch):
                part.events(**quiet)
            self.app.unload(self._leave)

    def _leave(self, request: gr.Request) -> None:
        self.visitors.leave(request.session_hash)


def _header() -> None:
    picture = base64.b64encode((_HERE / "header.jpg").read_bytes()).decode()
    gr.HTML(
        '<header id="header"><div><h1>Restore a damaged photo</h1>'
        "<p>One model finds out what is wrong (grain, blur, rain, haze, darkness, compression) and mends what it can.</p></div>"
        f'<img src="data:image/jpeg;base64,{picture}" alt="A photo full of grain, left, and what the model made of it, right"></header>'
    )


def _about(card: Path | None) -> None:
    if card is None:
        gr.Markdown(f"The model card is at [{REPOSITORY.removeprefix('https://')}]({REPOSITORY}).", elem_id="about")
        return
    gr.set_static_paths([card.parent / picture for picture in pictures_of(card)])
    # A chapter at a time: all of it is longer than fifteen screens.
    (_, intro), *chapters = sections(for_page(card))
    with gr.Column(elem_id="about"):
        gr.Markdown(re.sub(r"\]\(#", "](#about-", intro))
        for title, text in chapters:
            with gr.Accordion(title, open=False, elem_id=f"about-{re.sub(r'[^a-z0-9]+', '-', title.lower())}"):
                gr.Markdown(re.sub(r"\]\(#", "](#about-", text))


def _adapters(engine: Engine) -> None:
    gr.HTML("<p>An adapter is a small addition to the model, trained for one kind of photo, such as scans.</p>")
    if not engine.adapter_names:
        gr.HTML(
            "<p>This server offers no adapters. Whoever runs it can: <code>foundir serve --adapters FOLDER</code>, a folder with one "
            "sub-folder for each, as <code>foundir adapt</code> writes them.</p>"
        )
        return
    gr.HTML("<p>Choose them on the first tab, under More settings. They come from a folder of this server; none is taken from a link.</p>")
    for name in engine.adapter_names:
        card = Path(engine.adapters or "") / name / "README.md"
        with gr.Accordion(name, open=False):
            gr.Markdown(for_page(card) if card.is_file() else "It has no card.")
