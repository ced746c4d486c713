"""The second tab: several photos, or a zip of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..io.files import IMAGE_SUFFIXES
from . import markup
from .desk import Desk
from .errors import explain
from .form import Form
from .limits import AT_ONCE, BATCH_PHOTOS, batch_megabytes
from .uploads import as_uploaded
from .work import StoppedError

if TYPE_CHECKING:
    from .batch import BatchWork


_NEXT = markup.waiting("What becomes of each photo will be here, and then the zip.")


class BatchTab:
    """Its layout and its events.

    Args:
        desk: That serves.
        form: Of the first tab, whose settings are used.
    """

    def __init__(self, desk: Desk, form: Form):
        self.desk, self.form = desk, form
        gr.HTML(
            f'<p class="fine">Up to {BATCH_PHOTOS} photos or a zip of them, {batch_megabytes(desk.limits):g} MB together. They are '
            "restored with the settings of the first tab; a photo that fails does not stop the rest. "
            "You get a zip with a list of what was done.</p>"
        )
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                self.files = gr.File(
                    file_count="multiple",
                    file_types=[*sorted(IMAGE_SUFFIXES), ".zip"],
                    label="Photos, or a zip",
                    elem_id="files",
                    height=220,
                )
                self.restore_button = gr.Button("Restore all", variant="primary", size="lg", elem_id="restore-all", interactive=False)
            with gr.Column(scale=3, min_width=320, elem_id="batch-result"):
                self.status = gr.HTML(_NEXT, elem_id="batch-status")
                self.cancel_button = gr.Button("Cancel", variant="stop", visible=False, elem_id="batch-cancel")
                self.download = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="batch-download")
        as_uploaded(self.files)

    def events(self, **quiet: Any) -> None:
        """Which event calls what; `quiet` keeps it out of the API."""
        outputs = [self.status, self.restore_button, self.cancel_button, self.download]
        self.restore_button.click(
            self._restore,
            [self.files, *self.form.components],
            outputs,
            concurrency_limit=AT_ONCE,
            concurrency_id="work",
            **quiet,
        )
        self.files.change(self._files_changed, self.files, outputs, queue=False, **quiet)
        self.cancel_button.click(self._cancel, None, None, queue=False, **quiet)

    def _files_changed(self, request: gr.Request, files: list[str] | None) -> dict[Any, Any]:
        visitor = self.desk.visitors.of(request.session_hash)
        before, visitor.files = visitor.files, tuple(files or ())
        visitor.uploads.update(visitor.files)
        for upload in set(before) - set(visitor.files):
            self.desk.visitors.forget(visitor, upload)
        return {
            self.status: _NEXT,
            self.restore_button: gr.update(interactive=bool(files)),
            self.download: gr.update(visible=False, value=None),
        }

    def _restore(self, request: gr.Request, files: list[str] | None, *values: Any) -> Iterator[dict[Any, Any]]:
        visitor = self.desk.visitors.of(request.session_hash)
        visitor.stop()
        idle = {
            self.restore_button: gr.update(interactive=True),
            self.cancel_button: gr.update(visible=False),
            self.download: gr.update(visible=False, value=None),
        }
        try:
            work, left_out = self.desk.begin_batch(files, self.form.read(*values), visitor)
        except Exception as error:
            yield {**idle, self.status: markup.note(explain(error, files or [])[1], "bad")}
            return
        with visitor.follows(work):
            before = self._told(work)
            yield {
                **idle,
                self.restore_button: gr.update(interactive=False),
                self.cancel_button: gr.update(visible=True),
                self.status: before,
            }
            for _ in work.watch():
                now = self._told(work)
                if now != before:
                    yield {self.status: now}
                before = now
        if work.error is not None:
            kind = "plain" if isinstance(work.error, StoppedError) else "bad"
            yield {**idle, self.status: markup.note(explain(work.error)[1], kind)}
            return
        told_of = self._told(work)
        if left_out:
            told_of += markup.note(f"Left out, no photos by their names: {', '.join(left_out[:5])}{', …' if len(left_out) > 5 else ''}.")
        label = f"Download restored.zip ({markup.file_size(work.result)})"
        yield {**idle, self.status: told_of, self.download: gr.update(visible=True, value=str(work.result), label=label)}

    def _told(self, work: BatchWork) -> str:
        """How far a batch is, and what became of each photo."""
        states, done, all_of_them = work.states, len(work.results), len(work.plan.jobs)
        if work.is_finished:
            failed = sum(state.status == "failed" for state in states)
            text = f"{done - failed} of {all_of_them} restored" + (f", {failed} failed." if failed else ".")
            head = markup.note(text, "bad" if failed == all_of_them else "good")
        else:
            share, text, job = done / all_of_them, f"{done} of {all_of_them} photos", work.current
            if job is not None and not job.is_finished:
                within, now = self.desk.how_far(job)
                share, text = (done + within) / all_of_them, f"{text}. {now}"
            head = markup.progress(share, text)
        rows = [(state.name, state.status, state.note) for state in states]
        return head + markup.table(("Photo", "Result", "Note"), rows, "What became of each photo")

    def _cancel(self, request: gr.Request) -> None:
        self.desk.visitors.of(request.session_hash).stop()
