"""The page: its layout, and which event calls what."""

from __future__ import annotations

import base64
import html
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ..files import IMAGE_SUFFIXES
from ..formats.photograph import PhotoError
from . import markup
from .engine import Engine, Job, StoppedError
from .examples import EXAMPLES
from .handlers import Desk, Finished, explain, follow, read_photo, told
from .limits import BATCH_MEGABYTES, BATCH_PHOTOS, IN_WORDS, WAITING
from .settings import FORMATS, PRESETS, SIZES, TONES, Settings, check_settings, measured
from .visitors import Visitors

if TYPE_CHECKING:
    from .batch import BatchWork

_HERE = Path(__file__).parent
# Waiting costs next to nothing; who is really served is for the line to say.
_AT_ONCE = 2 * WAITING
_SOON = 0.25  # seconds between looks at a job

# To where the work is shown, on pages that are too narrow to have it beside the button.
_SCROLL = """(...values) => {
  const result = document.getElementById('result');
  if (result && result.getBoundingClientRect().top > window.innerHeight * 0.5) result.scrollIntoView({behavior: 'smooth', block: 'start'});
  return values;
}"""

_EMPTY = (
    '<div class="empty"><h3>Your photo, before and after, will be here</h3>'
    "<ol><li>Drop a photo, or click one of ours.</li><li>See what is wrong with it, and how long it takes.</li>"
    "<li>Press <b>Restore</b>, compare, download.</li></ol></div>"
)


def _as_uploaded(component: Any) -> None:
    """Makes an input take only what was uploaded, as it came: gradio would fetch what a link leads to, and open a photograph first, without
    a word for the visitor on a file that is none. Not a subclass: gradio writes a file beside the source of every one."""
    fetch = component.async_move_resource_to_block_cache

    async def keep(path: Any) -> str | None:
        if isinstance(path, str) and re.match(r"https?:", path, re.I):
            text = "Please upload the photo itself; this server fetches nothing from elsewhere."
            raise gr.Error(text, title="PhotoError", print_exception=False)
        return await fetch(path)

    component.async_move_resource_to_block_cache = keep
    if isinstance(component, gr.Image):
        component.preprocess = lambda payload: payload and payload.path


class Page:
    """The Gradio app.

    Args:
        engine: That restores.
        visitors: Who is there.
        card: The model card, Markdown.
    """

    def __init__(self, engine: Engine, visitors: Visitors, card: str):
        self.engine, self.visitors, self.desk, self.card = engine, visitors, Desk(engine, visitors), card
        with gr.Blocks(title="foundir: restore a photo", analytics_enabled=False, delete_cache=(600, 3600)) as self.app:
            self._header()
            with gr.Tabs():
                with gr.Tab("Restore", id="restore"):
                    self._restore_tab()
                with gr.Tab("Batch", id="batch"):
                    self._batch_tab()
                with gr.Tab("Adapters", id="adapters"):
                    self._adapters_tab()
                with gr.Tab("About", id="about"):
                    gr.Markdown(_without_head(card), elem_id="about")
            self._api()
            self._events()
            _as_uploaded(self.photo)
            _as_uploaded(self.files)
            self.app.unload(self._leave)

    # Layout

    def _header(self) -> None:
        picture = base64.b64encode((_HERE / "header.jpg").read_bytes()).decode()
        gr.HTML(
            '<header id="header"><div><h1>Restore a damaged photo</h1>'
            "<p>Grain, blur, rain, haze, darkness, compression, or several at once: one model finds out what is wrong "
            "and mends what it can. You tell it nothing.</p>"
            f'<p class="fine">{html.escape(IN_WORDS)}</p></div>'
            f'<img src="data:image/jpeg;base64,{picture}" alt="A photo full of grain, left, and what the model made of it, right"></header>'
        )

    def _restore_tab(self) -> None:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                self.photo = gr.Image(
                    type="filepath",
                    image_mode=None,
                    label="Your photo",
                    elem_id="photo",
                    sources=["upload", "clipboard", "webcam"],
                    height=300,
                    buttons=["fullscreen"],
                )
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
                self.diagnosis = gr.HTML(elem_id="diagnosis", visible=False)
                self.preset = gr.Radio(
                    self._preset_choices(),
                    value="balanced",
                    label="Quality",
                    elem_id="preset",
                    info="dB: how near to the originals of damaged test photos, by the model card; more is nearer",
                )
                self.expectation = gr.HTML(elem_id="expectation")
                self.restore_button = gr.Button("Restore", variant="primary", size="lg", elem_id="restore", interactive=False)
                with gr.Accordion("Size, tones, download", open=False, elem_id="settings"):
                    self.size = gr.Radio(list(SIZES), value="keep", label="Size", elem_id="size")
                    self.factor = gr.Slider(1, 4, value=2, step=0.5, label="Factor", visible=False, elem_id="factor")
                    self.width = gr.Number(value=2000, precision=0, label="Width in pixels", visible=False, elem_id="width")
                    self.tone = gr.Radio(
                        list(TONES),
                        value="auto",
                        label="Exposure, haze and colour",
                        info="auto: where they are surely wrong; off: never; always: however unsure the model is",
                        elem_id="tone",
                    )
                    self.strength = gr.Slider(0, 1, value=1, label="Strength", info="0 returns the photo as it is", elem_id="strength")
                    self.format = gr.Radio(
                        list(FORMATS),
                        value="as it came",
                        label="Format of the download",
                        info="PNG and TIFF keep 16 bits",
                        elem_id="format",
                    )
                    self.quality = gr.Slider(
                        0, 100, value=0, step=1, label="Quality of JPEG and WebP", info="0: as finely as it came", elem_id="quality"
                    )
                    names = self.engine.adapter_names
                    self.adapter = gr.Dropdown(
                        list(names), multiselect=True, label="Adapters", info="For one kind of photo, see the tab", visible=bool(names)
                    )
                    self.weight = gr.Slider(0, 2, value=1, step=0.05, label="Weight of the adapters", visible=bool(names))
            with gr.Column(scale=3, min_width=320, elem_id="result"):
                self.empty = gr.HTML(_EMPTY, elem_id="empty")
                self.status = gr.HTML(elem_id="status")
                self.cancel_button = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel")
                self.slider = gr.ImageSlider(
                    label="Before | after: drag the bar, scroll to zoom",
                    format="png",
                    type="filepath",
                    elem_id="slider",
                    interactive=False,
                    max_height=720,
                    visible=False,
                    buttons=["fullscreen"],
                )
                self.download = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="download")
                with gr.Accordion("What it did", open=False, visible=False, elem_id="account") as self.account:
                    picture: dict[str, Any] = {"type": "filepath", "interactive": False, "buttons": ["fullscreen"]}
                    self.crops = gr.HTML(elem_id="crops")
                    with gr.Row():
                        with gr.Column(min_width=260):
                            self.changes = gr.Image(label="Where and how much it changed", elem_id="changes", **picture)
                            gr.HTML('<p class="fine">Levels of 255 that a pixel changed by: see the scale below the picture.</p>')
                        with gr.Column(min_width=260):
                            self.experts = gr.Image(label="Which expert worked where", elem_id="experts", **picture)
                            self.legend = gr.HTML(elem_id="legend")
                    with gr.Row():
                        with gr.Column(min_width=260):
                            self.estimate = gr.ImageSlider(
                                label="First estimate | finished", type="filepath", interactive=False, elem_id="estimate", max_height=480
                            )
                        with gr.Column(min_width=260):
                            self.curves = gr.HTML(elem_id="curves")

    def _preset_choices(self) -> list[tuple[str, str]]:
        psnr = measured(self.card)
        words = {"fast": "Fast: the first estimate", "balanced": "Balanced: one step more", "thorough": "Thorough: four steps, slow"}
        return [(f"{words[name]} ({psnr[steps]:.1f} dB)" if steps in psnr else words[name], name) for name, steps in PRESETS.items()]

    def _batch_tab(self) -> None:
        gr.HTML(
            f'<p class="fine">Up to {BATCH_PHOTOS} photos or a zip of them, {BATCH_MEGABYTES} MB together. They are restored with '
            "the settings of the first tab; a photo that fails does not stop the rest. You get a zip with a list of what was done.</p>"
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
                self.batch_button = gr.Button("Restore all", variant="primary", elem_id="restore-all")
            with gr.Column(scale=3, min_width=320, elem_id="batch-result"):
                self.batch_status = gr.HTML(elem_id="batch-status")
                self.batch_cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="batch-cancel")
                self.batch_download = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="batch-download")

    def _adapters_tab(self) -> None:
        names = self.engine.adapter_names
        if not names:
            gr.HTML(
                "<p>This server offers no adapters. Whoever runs it can: <code>foundir serve --adapters FOLDER</code>, a folder with one "
                "sub-folder for each, as <code>foundir adapt</code> writes them.</p>"
            )
            return
        gr.HTML("<p>Choose them on the first tab, below the size. They come from a folder of this server; none is taken from a link.</p>")
        for name in names:
            card = Path(self.engine.adapters or "") / name / "README.md"
            with gr.Accordion(name, open=False):
                gr.Markdown(_without_head(card.read_text(encoding="utf-8")) if card.is_file() else "It has no card.")

    # What programs call

    def _api(self) -> None:
        """`/restore`, `/batch` and `/diagnose`: with returns of their own names, and no layout."""
        with gr.Row(visible=False):
            adapters = gr.Textbox("", label="adapters")
            files = gr.File(file_count="multiple", label="files")
            restored, changes = gr.File(label="restored"), gr.File(label="change_map")
            report, archive, batch_report = gr.JSON(label="report"), gr.File(label="archive"), gr.JSON(label="report")
            verdict = gr.JSON(label="diagnosis")
            restore, batch, diagnose = (gr.Button() for _ in range(3))
        _as_uploaded(files)
        settings = [self.preset, self.tone, self.strength, self.size, self.factor, self.width, self.format, self.quality, adapters]
        for component in settings:  # what gradio would say of a wrong one names no argument
            component.preprocess = lambda payload: payload
        limits: dict[str, Any] = {"concurrency_limit": _AT_ONCE, "concurrency_id": "work"}
        restore.click(self._api_restore, [self.photo, *settings], [restored, changes, report], api_name="restore", **limits)
        batch.click(self._api_batch, [files, *settings], [archive, batch_report], api_name="batch", **limits)
        diagnose.click(self._api_diagnose, self.photo, verdict, api_name="diagnose", concurrency_limit=4)

    def _settings(self, *values: Any) -> Settings:
        return check_settings(*values, known_adapters=self.engine.adapter_names)

    def _api_restore(
        self,
        photo,
        preset,
        tone,
        strength,
        size,
        factor,
        width,
        format,
        quality,
        adapters,
        request: gr.Request,
        progress=gr.Progress(),  # noqa: B008
    ):
        """Restores a damaged photo. Returns the photo at full quality, a picture of where it changed, and a report.

        Args:
            photo: The damaged photo.
            preset: fast, balanced or thorough.
            tone: Whether exposure, haze and colour are mended: auto, off or always.
            strength: 0 returns the photo as it is, 1 the restoration.
            size: keep, enlarge by a factor, or enlarge to a width.
            factor: For the second size, 1 to 8.
            width: For the third size, in pixels.
            format: as it came, PNG, JPEG, WebP or TIFF.
            quality: Of JPEG and WebP, 1 to 100; 0 leaves it to the writer.
            adapters: Names of this server's adapters with weights, such as scans:0.5.
        """
        if photo is None:
            raise gr.Error("`photo` must be an uploaded photo, got none.", title="PhotoError", print_exception=False)
        visitor = self.visitors.of(request.session_hash)
        with told(photo):
            settings = self._settings(preset, tone, strength, size, factor, width, format, quality, adapters)
            job = self.desk.begin(photo, settings, visitor)
            with _stopping(job, visitor):
                finished: Finished = follow(job, lambda: progress((job.done, job.total or 1), desc=self.desk.how_far(job)[1]))
            changes = self.desk.account(finished, photo)["changes"]
        report = {
            "seconds": round(finished.restored.seconds, 3),
            "width": finished.size[0],
            "height": finished.size[1],
            "notes": list(finished.notes),
            "settings": {
                "steps": settings.steps,
                "tone": settings.tone,
                "strength": settings.strength,
                "adapters": dict(settings.adapters),
            },
        }
        return str(finished.file), changes, report

    def _api_batch(
        self,
        files,
        preset,
        tone,
        strength,
        size,
        factor,
        width,
        format,
        quality,
        adapters,
        request: gr.Request,
        progress=gr.Progress(),  # noqa: B008
    ):
        """Restores several photos, or those in a zip. Returns a zip with the manifest, and what became of each.

        Args:
            files: Photos, or a zip of them.
            preset: fast, balanced or thorough.
            tone: Whether exposure, haze and colour are mended: auto, off or always.
            strength: 0 returns the photo as it is, 1 the restoration.
            size: keep, enlarge by a factor, or enlarge to a width.
            factor: For the second size, 1 to 8.
            width: For the third size, in pixels.
            format: as it came, PNG, JPEG, WebP or TIFF.
            quality: Of JPEG and WebP, 1 to 100; 0 leaves it to the writer.
            adapters: Names of this server's adapters with weights, such as scans:0.5.
        """
        visitor = self.visitors.of(request.session_hash)
        with told(*(files or ())):
            settings = self._settings(preset, tone, strength, size, factor, width, format, quality, adapters)
            work, left_out = self._begin_batch(files, settings, visitor)
            with _stopping(work, visitor):
                while not work.wait(_SOON):
                    progress((len(work.results), len(work.plan.jobs)), desc=f"{len(work.results)} of {len(work.plan.jobs)} photos")
            if work.error is not None:
                raise work.error
        photos = {state.name: {"status": state.status, "note": state.note} for state in work.states.values()}
        return str(work.archive), {"photos": photos, "left_out": left_out}

    def _api_diagnose(self, photo, request: gr.Request):
        """Tells what is wrong with a photo: the probability of every defect, the likeliest first, and the photo's size.

        Args:
            photo: The photo.
        """
        if photo is None:
            raise gr.Error("`photo` must be an uploaded photo, got none.", title="PhotoError", print_exception=False)
        self.visitors.of(request.session_hash).uploads.add(photo)
        with told(photo):
            probabilities, size = self.desk.diagnose(photo)
        return {"defects": {name: round(p, 4) for name, p in probabilities.items()}, "width": size[0], "height": size[1]}

    # What visitors do

    def _events(self) -> None:
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        settings = [self.preset, self.tone, self.strength, self.size, self.factor, self.width, self.format, self.quality]
        settings += [self.adapter, self.weight]
        results = [
            *(
                self.examples,
                self.diagnosis,
                self.expectation,
                self.restore_button,
                self.cancel_button,
                self.empty,
                self.status,
                self.slider,
            ),
            *(self.download, self.account, self.changes, self.crops, self.estimate, self.curves, self.experts, self.legend),
        ]
        changed = self.photo.change(self._photo_changed, [self.photo, *settings], results, concurrency_limit=8, **quiet)
        changed.then(self._show_photo, self.photo, self.photo, **quiet)
        self.examples.select(self._example_chosen, None, self.photo, **quiet)
        self.restore_button.click(
            self._restore,
            [self.photo, *settings],
            results,
            js=_SCROLL,
            concurrency_limit=_AT_ONCE,
            concurrency_id="work",
            **quiet,
        ).then(None, None, None, js=_SCROLL)
        # Beside the queue: it must not wait behind what it is to stop.
        self.cancel_button.click(self._cancel, None, None, queue=False, **quiet)
        shown = [self.factor, self.width]
        self.size.change(
            lambda size: (gr.update(visible=size == SIZES[1]), gr.update(visible=size == SIZES[2])), self.size, shown, queue=False, **quiet
        )
        gr.on(
            [self.preset.change, self.size.change, self.factor.release, self.width.blur],
            self._expect,
            [self.photo, *settings],
            self.expectation,
            **quiet,
        )
        self.batch_button.click(
            self._batch,
            [self.files, *settings],
            [self.batch_status, self.batch_button, self.batch_cancel, self.batch_download],
            concurrency_limit=_AT_ONCE,
            concurrency_id="work",
            **quiet,
        )
        self.files.change(
            lambda: ("", gr.update(visible=False, value=None)), None, [self.batch_status, self.batch_download], queue=False, **quiet
        )
        self.batch_cancel.click(self._cancel, None, None, queue=False, **quiet)

    def _page_settings(self, *values: Any) -> Settings:
        """From the page's own components, whose adapters are chosen and not typed."""
        *plain, adapters, weight = values
        return self._settings(*plain, ", ".join(f"{name}:{weight:g}" for name in adapters or []))

    def _cleared(self) -> dict[Any, Any]:
        """No result, no work."""
        return {
            self.restore_button: gr.update(visible=True, interactive=True),
            self.cancel_button: gr.update(visible=False),
            self.slider: gr.update(visible=False, value=None),
            self.download: gr.update(visible=False, value=None),
            self.account: gr.update(visible=False),
            **dict.fromkeys((self.changes, self.crops, self.estimate, self.curves, self.experts, self.legend)),
        }

    def _photo_changed(self, request: gr.Request, path: str | None, *settings: Any) -> Iterator[dict[Any, Any]]:
        visitor = self.visitors.of(request.session_hash)
        if path is not None and path == visitor.shown:
            yield {self.empty: gr.skip()}  # what we put there ourselves
            return
        visitor.stop()
        if visitor.source is not None:
            self.visitors.forget(visitor, visitor.source)
        visitor.source = visitor.shown = None
        if path is None:
            message, visitor.message = visitor.message, None
            yield {
                **self._cleared(),
                self.restore_button: gr.update(visible=True, interactive=False),
                self.diagnosis: gr.update(visible=False, value=""),
                self.examples: gr.update(visible=True),
                self.expectation: "",
                self.status: markup.note(message, "bad") if message else "",
                self.empty: gr.update(visible=True),
            }
            return
        # Not before it has been read: a click would find no photograph.
        waiting = {self.restore_button: gr.update(visible=True, interactive=False)}
        yield {**self._cleared(), **waiting, self.status: "", self.empty: gr.update(visible=True)}
        try:
            photo = self.desk.accept(path, visitor)
        except Exception as error:
            visitor.message = explain(error)[1].replace(path, Path(path).name)
            yield {self.empty: gr.skip()}  # the photo is taken off the page next, and the message is shown then
            return
        yield {
            self.examples: gr.update(visible=False),
            self.restore_button: gr.update(interactive=True),
            self.diagnosis: gr.update(visible=True, value=markup.note("Looking at it…")),
            self.expectation: self._expect(request, path, *settings, size=photo.size),
        }
        if (example := next((e for e in EXAMPLES if e.path.name == Path(path).name and _same(e.path, path)), None)) is not None:
            visitor.example = example.task
        try:
            probabilities, size = self.desk.diagnose(path)
            told_of = markup.diagnosis(probabilities, size)
        except Exception as error:
            told_of = markup.note(explain(error)[1], "bad")
        if visitor.source != path:
            return  # another photograph has come meanwhile
        yield {
            self.diagnosis: gr.update(visible=True, value=told_of),
            self.expectation: self._expect(request, path, *settings, size=size),
        }

    def _show_photo(self, request: gr.Request, path: str | None) -> Any:
        """Takes a photo off the page that cannot be read, and shows a picture of one that browsers cannot show."""
        visitor = self.visitors.of(request.session_hash)
        if path is not None and visitor.message is not None:
            return None
        return visitor.shown if path is not None and path == visitor.source != visitor.shown else gr.skip()

    def _example_chosen(self, request: gr.Request, event: gr.SelectData) -> str:
        # A copy: what a visitor leaves is deleted, and gradio would serve all of them the same file.
        return str(shutil.copy(EXAMPLES[event.index].path, self.visitors.of(request.session_hash).room()))

    def _expect(self, request: gr.Request, path: str | None, *settings: Any, size: tuple[int, int] | None = None) -> str:
        if path is None:
            return ""
        try:
            visitor = self.visitors.of(request.session_hash)
            return self.desk.expectation(size or _size(visitor.source or path), self._page_settings(*settings))
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
            settings = self._page_settings(*values)
            job = self.desk.begin(source, settings, visitor)
        except Exception as error:
            yield {**self._cleared(), self.status: self._told(error, source), self.empty: gr.update(visible=False)}
            return
        with _stopping(job, visitor):
            yield {
                **self._cleared(),
                self.restore_button: gr.update(interactive=False),
                self.cancel_button: gr.update(visible=True),
                self.empty: gr.update(visible=False),
                self.status: markup.progress(*self.desk.how_far(job)),
            }
            before = ""
            while not job.wait(_SOON):
                now = markup.progress(*self.desk.how_far(job))
                if now != before:
                    yield {self.status: now}
                before = now
        if job.is_cancelled or visitor.source != source:
            # Of another photograph by now, whose own events say what is shown.
            if visitor.source == source and visitor.job in (None, job):
                yield {**self._cleared(), self.status: markup.note("Cancelled. Nothing was kept."), self.empty: gr.update(visible=True)}
            return
        if job.error is not None:
            yield {**self._cleared(), self.status: self._told(job.error, source), self.empty: gr.update(visible=False)}
            return
        finished: Finished = job.result
        yield {
            **self._cleared(),
            self.status: self.desk.summary(finished, settings),
            self.slider: gr.update(visible=True, value=(finished.before, finished.after)),
            self.download: gr.update(
                visible=True, value=str(finished.file), label=f"Download {finished.file.name} ({_bytes(finished.file)})"
            ),
            self.expectation: self._expect(request, path, *values),
        }
        shown = self.desk.account(finished, source)
        yield {
            self.account: gr.update(visible=True),
            self.changes: shown["changes"],
            self.crops: shown["crops"],
            self.estimate: shown["estimate"],
            self.curves: shown["curves"],
            self.experts: gr.update(value=shown["experts"], visible=shown["experts"] is not None),
            self.legend: shown["legend"],
        }

    def _told(self, error: BaseException, path: str) -> str:
        title, text = explain(error)
        if title == "Error":
            import traceback

            traceback.print_exception(error)
        return markup.note(text.replace(path, Path(path).name), "bad")

    def _cancel(self, request: gr.Request) -> None:
        self.visitors.of(request.session_hash).stop()

    def _leave(self, request: gr.Request) -> None:
        self.visitors.leave(request.session_hash)

    def _begin_batch(self, files: list[str] | None, settings: Settings, visitor) -> tuple[BatchWork, list[str]]:
        from .batch import BatchWork, gather

        if not files:
            raise PhotoError("Drop photos or a zip first.")
        visitor.uploads.update(files)
        room = visitor.room()
        left_out = gather(files, room / "in")
        return BatchWork(self.engine, room, settings), left_out

    def _batch(self, request: gr.Request, files: list[str] | None, *values: Any) -> Iterator[dict[Any, Any]]:
        visitor = self.visitors.of(request.session_hash)
        visitor.stop()
        idle = {self.batch_button: gr.update(interactive=True), self.batch_cancel: gr.update(visible=False)}
        try:
            work, left_out = self._begin_batch(files, self._page_settings(*values), visitor)
        except Exception as error:
            text = explain(error)[1]
            for file in files or []:
                text = text.replace(file, Path(file).name)
            yield {**idle, self.batch_status: markup.note(text, "bad"), self.batch_download: gr.update(visible=False, value=None)}
            return
        with _stopping(work, visitor):
            yield {
                self.batch_button: gr.update(interactive=False),
                self.batch_cancel: gr.update(visible=True),
                self.batch_download: gr.update(visible=False, value=None),
                self.batch_status: self._batch_table(work),
            }
            before = ""
            while not work.wait(_SOON):
                now = self._batch_table(work)
                if now != before:
                    yield {self.batch_status: now}
                before = now
        if work.error is not None:
            yield {
                **idle,
                self.batch_status: markup.note(explain(work.error)[1], "plain" if isinstance(work.error, StoppedError) else "bad"),
            }
            return
        told_of = self._batch_table(work)
        if left_out:
            told_of += markup.note(f"Left out, no photos by their names: {', '.join(left_out[:5])}{', …' if len(left_out) > 5 else ''}.")
        assert work.archive is not None
        yield {
            **idle,
            self.batch_status: told_of,
            self.batch_download: gr.update(visible=True, value=str(work.archive), label=f"Download restored.zip ({_bytes(work.archive)})"),
        }

    def _batch_table(self, work: BatchWork) -> str:
        job, done, all_of_them = work.current, len(work.results), len(work.plan.jobs)
        share, text = done / all_of_them, f"{done} of {all_of_them} photos"
        if not work.is_finished and job is not None and not job.is_finished:
            within, now = self.desk.how_far(job)
            share, text = (done + within) / all_of_them, f"{text}. {now}"
        rows = [(state.name, state.status, state.note) for state in work.states.values()]
        failed = sum(state.status == "failed" for state in work.states.values())
        if work.is_finished:
            bar = markup.note(
                f"{done - failed} of {all_of_them} restored" + (f", {failed} failed." if failed else "."), "bad" if failed else "good"
            )
        else:
            bar = markup.progress(share, text)
        return bar + markup.table(("Photo", "", ""), rows, "What became of each")


@contextmanager
def _stopping(job: Job | BatchWork, visitor: Any) -> Iterator[None]:
    """The visitor's work as long as somebody follows it; stopped if nobody does before its end."""
    visitor.job = job
    try:
        yield
    finally:
        if not job.is_finished:
            job.cancel()
        if visitor.job is job:
            visitor.job = None


def _size(path: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(274, 1) >= 5
            return (image.height, image.width) if turned else image.size
    except Exception:
        return read_photo(path).size


def _same(one: Path, other: str) -> bool:
    return one.read_bytes() == Path(other).read_bytes()


def _bytes(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, round(size / 1e3))} kB"


def _without_head(card: str) -> str:
    """Markdown without the Hub's metadata."""
    return re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.S)
