"""The first tab: one photo, what is wrong with it, its restoration, and what was done."""

from __future__ import annotations

import html
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from . import markup
from .desk import Desk, Finished
from .errors import explain
from .examples import EXAMPLES
from .form import Form
from .limits import AT_ONCE, in_words
from .uploads import as_uploaded
from .visitors import Visitor

# To where the work is shown, on pages that are too narrow to have it beside the button.
_SCROLL = """(...values) => {
  const scroll = () => {
    const status = document.getElementById('status');
    const isLow = status && status.getBoundingClientRect().top > window.innerHeight * 0.5;
    if (isLow) status.scrollIntoView({behavior: 'smooth', block: 'start'});
  };
  scroll();
  setTimeout(scroll, 600);  // what is below it by then makes the page long enough
  return values;
}"""

_HINT = '<p class="fine">Left of the bar is your photo, right of it the result. Scroll or pinch to look closer.</p>'
_LOOKING = "Looking for what is wrong with it…"
_LOADING = (
    "The server has just started and is loading its model. Then it looks for what is wrong with your photo; you need not wait for that."
)
_NEXT = markup.waiting("Press Restore: your photo before and after will be here.")
_FIRST = markup.note("Choose a photo, or one of the examples, to begin.")


class RestoreTab:
    """Its layout and its events.

    Args:
        desk: That serves.
        form: Laid out here.
    """

    def __init__(self, desk: Desk, form: Form):
        self.desk, self.visitors, self.form = desk, desk.visitors, form
        self._limits = f'<p class="fine">{html.escape(in_words(desk.limits))}</p>'
        with gr.Row(equal_height=False, elem_id="workbench"):
            with gr.Column(scale=2, min_width=320):
                self._inputs()
            with gr.Column(scale=3, min_width=320, elem_id="result"):
                self._result()
        as_uploaded(self.photo)

    # Layout

    def _inputs(self) -> None:
        self.photo = gr.Image(
            type="filepath",
            image_mode=None,
            label="Your photo",
            elem_id="photo",
            sources=["upload", "clipboard", "webcam"],
            height=270,
            buttons=["fullscreen"],
            placeholder="Drop a photo here\n- or -\nclick to choose one",
        )
        self.notice = gr.HTML(self._limits, elem_id="notice")
        with gr.Column(elem_id="controls"):
            self.form.quality()
            self.expectation = gr.HTML(_FIRST, elem_id="expectation")
            self.restore_button = gr.Button("Restore", variant="primary", size="lg", elem_id="restore", interactive=False)
            self.form.details()

    def _result(self) -> None:
        self.examples = gr.Gallery(
            [(str(example.path), example.title) for example in EXAMPLES],
            label="Or try one of ours",
            elem_id="examples",
            columns=3,
            height="auto",
            allow_preview=False,
            object_fit="cover",
            buttons=[],
        )
        self.status = gr.HTML(elem_id="status")
        self.cancel_button = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
        self.slider = gr.ImageSlider(
            label="Before | after",
            format="png",
            type="filepath",
            elem_id="slider",
            interactive=False,
            max_height=600,
            visible=False,
            buttons=["fullscreen"],
        )
        self.hint = gr.HTML(_HINT, elem_id="hint", visible=False)
        self.download = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="download")
        self.diagnosis = gr.HTML(elem_id="diagnosis", visible=False)
        self.next = gr.HTML(_NEXT, elem_id="next", visible=False)
        with gr.Accordion("What it did", open=False, visible=False, elem_id="account") as self.account:
            picture: dict[str, Any] = {"type": "filepath", "interactive": False, "buttons": ["fullscreen"]}
            self.crops = gr.HTML(elem_id="crops")
            with gr.Row():
                with gr.Column(min_width=260):
                    self.changes = gr.Image(label="Where and how much it changed", elem_id="changes", **picture)
                    gr.HTML('<p class="fine">Dark stayed as it was, bright changed most; the scale is in levels of 255.</p>')
                with gr.Column(min_width=260):
                    self.experts = gr.Image(label="Which expert worked where", elem_id="experts", **picture)
                    self.legend = gr.HTML(elem_id="legend")
            with gr.Row():
                with gr.Column(min_width=260):
                    self.estimate = gr.ImageSlider(
                        label="First estimate | finished",
                        type="filepath",
                        interactive=False,
                        elem_id="estimate",
                        max_height=480,
                        buttons=["fullscreen"],
                    )
                    gr.HTML('<p class="fine">Left what the first stage made of it, right after the denoiser and the tone curves.</p>')
                with gr.Column(min_width=260):
                    self.curves = gr.HTML(elem_id="curves")

    # Events

    def events(self, **quiet: Any) -> None:
        """Which event calls what; `quiet` keeps it out of the API."""
        form = self.form
        inputs = [self.photo, *form.components]
        account = [self.changes, self.crops, self.estimate, self.curves, self.experts, self.legend]
        shown = [self.photo, self.notice, self.examples, self.diagnosis, self.expectation, self.restore_button, self.cancel_button]
        outputs = [*shown, self.next, self.status, self.slider, self.hint, self.download, self.account, *account]
        self.photo.change(self._photo_changed, inputs, outputs, concurrency_limit=8, **quiet)
        self.examples.select(self._example_chosen, None, self.photo, **quiet)
        restored = self.restore_button.click(
            self._restore, inputs, outputs, js=_SCROLL, concurrency_limit=AT_ONCE, concurrency_id="work", **quiet
        )
        restored.then(None, None, None, js=_SCROLL)
        # Beside the queue: it must not wait behind what it is to stop.
        self.cancel_button.click(self._cancel, None, None, queue=False, **quiet)
        resized = [form.preset.change, form.size.change, form.factor.release, form.width.blur]
        gr.on(resized, self._expect, form.components, self.expectation, **quiet)

    def _cleared(self) -> dict[Any, Any]:
        """No result, no work."""
        return {
            self.restore_button: gr.update(value="Restore", variant="primary", interactive=True),
            self.cancel_button: gr.update(visible=False),
            self.slider: gr.update(visible=False, value=None),
            self.hint: gr.update(visible=False),
            self.download: gr.update(visible=False, value=None),
            self.account: gr.update(visible=False),
            **dict.fromkeys((self.changes, self.crops, self.estimate, self.curves, self.experts, self.legend)),
        }

    def _photo_changed(self, request: gr.Request, path: str | None, *settings: Any) -> Iterator[dict[Any, Any]]:
        visitor = self.visitors.of(request.session_hash)
        if path is not None and path == visitor.shown:
            yield {self.next: gr.skip()}  # what we put there ourselves
            return
        visitor.stop()
        if visitor.source is not None:
            self.visitors.forget(visitor, visitor.source)
        visitor.source = visitor.shown = visitor.example = visitor.size = None
        nothing = {
            **self._cleared(),
            self.restore_button: gr.update(value="Restore", variant="primary", interactive=False),
            self.diagnosis: gr.update(visible=False, value=""),
            self.examples: gr.update(visible=True),
            self.next: gr.update(visible=False),
            self.expectation: _FIRST,
            self.status: "",
        }
        if path is None:  # what was told of the last one stays: it may be why there is none
            yield nothing
            return
        # Restore not before it has been read: a click would find no photograph.
        yield {**nothing, self.notice: gr.update(visible=False)}
        try:
            self.desk.accept(path, visitor)
        except Exception as error:
            bad = markup.note(explain(error, [path])[1], "bad") + self._limits
            yield {self.photo: None, self.diagnosis: gr.update(visible=False), self.notice: gr.update(visible=True, value=bad)}
            return
        here = {self.photo: visitor.shown} if visitor.shown != path else {}  # of what browsers cannot show, a picture
        yield {
            **here,
            self.examples: gr.update(visible=False),
            self.next: gr.update(visible=True),
            self.restore_button: gr.update(interactive=True),
            self.diagnosis: gr.update(visible=True, value=markup.note(_LOOKING if self.desk.engine.is_ready else _LOADING)),
            self.expectation: self._expect(request, *settings),
        }
        if (example := next((e for e in EXAMPLES if e.path.name == Path(path).name and _same(e.path, path)), None)) is not None:
            visitor.example = example.task
        try:
            told_of = markup.diagnosis(*self.desk.diagnose(path, visitor))
        except Exception as error:
            told_of = markup.note(explain(error, [path])[1], "bad")
        if visitor.source == path:  # or another photograph has come meanwhile
            yield {
                self.diagnosis: gr.update(visible=True, value=told_of),
                self.expectation: self._expect(request, *settings),
            }

    def _example_chosen(self, request: gr.Request, event: gr.SelectData) -> str:
        # A copy: what a visitor leaves is deleted, and gradio would serve all of them the same file.
        return str(shutil.copy(EXAMPLES[event.index].path, self.visitors.of(request.session_hash).room(is_result=False)))

    def _expect(self, request: gr.Request, *settings: Any) -> str:
        visitor = self.visitors.of(request.session_hash)
        if visitor.size is None:
            return _FIRST
        try:
            return self.desk.expectation(visitor.size, self.form.read(*settings))
        except Exception as error:
            return markup.note(explain(error)[1], "bad")

    def _restore(self, request: gr.Request, path: str | None, *values: Any) -> Iterator[dict[Any, Any]]:
        visitor = self.visitors.of(request.session_hash)
        visitor.stop()
        source = visitor.source if path in (visitor.shown, visitor.source) else path
        if source is None:
            yield {self.status: markup.note("Drop a photo first.", "bad")}
            return
        try:
            settings = self.form.read(*values)
            job = self.desk.begin(source, settings, visitor)
        except Exception as error:
            yield self._failed(error, source)
            return
        with visitor.follows(job):
            yield {
                **self._cleared(),
                self.restore_button: gr.update(value="Restore", variant="primary", interactive=False),
                self.cancel_button: gr.update(visible=True),
                self.next: gr.update(visible=False),
                self.status: markup.progress(*self.desk.how_far(job)),
            }
            before = ""
            for _ in job.watch():
                now = markup.progress(*self.desk.how_far(job))
                if now != before:
                    yield {self.status: now}
                before = now
        if job.is_cancelled or visitor.source != source:
            # Of another photograph by now, whose own events say what is shown.
            if visitor.source == source and visitor.job in (None, job):
                yield {**self._cleared(), self.status: markup.note("Cancelled. Nothing was kept."), self.next: gr.update(visible=True)}
            return
        if job.error is not None:
            yield self._failed(job.error, source)
            return
        yield from self._finished(job.result, settings, visitor)

    def _finished(self, finished: Finished, settings: Any, visitor: Visitor) -> Iterator[dict[Any, Any]]:
        yield {
            **self._cleared(),
            self.status: self.desk.summary(finished),
            self.restore_button: gr.update(value="Restore again", variant="secondary", interactive=True),  # the download comes first now
            self.slider: gr.update(visible=True, value=(finished.before, finished.after)),
            self.hint: gr.update(visible=True),
            self.download: gr.update(
                visible=True,
                value=str(finished.file),
                label=f"Download {finished.file.suffix[1:].upper()} ({markup.file_size(finished.file)})",
            ),
            self.expectation: self.desk.expectation(visitor.size, settings) if visitor.size else "",
        }
        try:
            shown = self.desk.account(finished)
        except FileNotFoundError:
            if finished.file.exists():
                raise
            return  # the visitor has left, and took the files along
        yield {
            self.account: gr.update(visible=True),
            self.changes: shown["changes"],
            self.crops: shown["crops"],
            self.estimate: shown["estimate"],
            self.curves: shown["curves"],
            self.experts: gr.update(value=shown["experts"], visible=shown["experts"] is not None),
            self.legend: shown["legend"],
        }

    def _failed(self, error: BaseException, path: str) -> dict[Any, Any]:
        return {**self._cleared(), self.status: markup.note(explain(error, [path])[1], "bad"), self.next: gr.update(visible=False)}

    def _cancel(self, request: gr.Request) -> None:
        self.visitors.of(request.session_hash).stop()


def _same(one: Path, other: str) -> bool:
    return one.read_bytes() == Path(other).read_bytes()
