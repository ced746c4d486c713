"""What programs call: `/restore`, `/batch` and `/diagnose`, over HTTP and, where that is switched on, as tools of a language model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import gradio as gr

from .desk import Desk, Finished
from .errors import told
from .form import Form
from .limits import AT_ONCE
from .uploads import as_uploaded
from .visitors import Visitor

# What each setting means to a program; in the order of [`check_settings`].
_SETTINGS = {
    "preset": "fast, balanced or thorough.",
    "tone": "Whether exposure, haze and colour are mended: auto, off or always.",
    "strength": "0 returns the photo as it is, 1 the restoration.",
    "size": "keep, enlarge by a factor, or enlarge to a width.",
    "factor": "For the second size, 1 to 8.",
    "width": "For the third size, in pixels.",
    "format": "as it came, PNG, JPEG, WebP or TIFF.",
    "quality": "Of JPEG and WebP, 1 to 100; 0 leaves it to the writer.",
    "adapters": "Names of this server's adapters with weights, such as scans:0.5.",
}


def _takes_settings(function: Callable) -> Callable:
    """Gradio reads names from a signature and meanings from a docstring: gives a method `(self, files, settings, request, progress)`, whose
    `settings` are a tuple, a parameter and a line for every setting."""
    given, settings, *rest = list(inspect.signature(function).parameters.values())[1:]
    each = [settings.replace(name=name) for name in _SETTINGS]

    def expanded(self, given, *values):
        *settings, request, progress = values
        return function(self, given, settings, request, progress)

    call: Any = wraps(function)(expanded)
    described = inspect.cleandoc(function.__doc__ or "").replace("\n    settings: All of them.", "")
    described += "".join(f"\n    {name}: {meaning}" for name, meaning in _SETTINGS.items())
    call.__doc__ = described
    call.__signature__ = inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), given, *each, *rest])
    return call


class Api:
    """The endpoints, with returns of their own names, and no layout.

    Args:
        desk: That serves.
        form: Whose settings they take.
        photo: The page's input, whose settings an upload obeys.
    """

    def __init__(self, desk: Desk, form: Form, photo: gr.Image):
        self.desk, self.form = desk, form
        with gr.Row(visible=False):
            adapters = gr.Textbox("", label="adapters")
            files = gr.File(file_count="multiple", label="files")
            restored, changes = gr.File(label="restored"), gr.File(label="change_map")
            report, archive, batch_report = gr.JSON(label="report"), gr.File(label="archive"), gr.JSON(label="report")
            verdict = gr.JSON(label="diagnosis")
            restore, batch, diagnose = (gr.Button() for _ in range(3))
        as_uploaded(files)
        settings = [*form.plain, adapters]
        for component in settings:  # what gradio would say of a wrong one names no argument
            component.preprocess = lambda payload: payload
        limits: dict[str, Any] = {"concurrency_limit": AT_ONCE, "concurrency_id": "work"}
        restore.click(self.restore, [photo, *settings], [restored, changes, report], api_name="restore", **limits)
        batch.click(self.batch, [files, *settings], [archive, batch_report], api_name="batch", **limits)
        diagnose.click(self.diagnose, photo, verdict, api_name="diagnose", concurrency_limit=4)

    @_takes_settings
    def restore(self, photo, settings, request: gr.Request, progress=gr.Progress()):  # noqa: B008
        """Restores a damaged photo. Returns the photo at full quality, a picture of where it changed, and a report.

        Args:
            photo: The damaged photo.
            settings: All of them.
        """
        with self._call(photo, request) as visitor:
            checked = self.form.check(*settings)
            job = self.desk.begin(photo, checked, visitor)
            with visitor.follows(job):
                for _ in job.watch():
                    progress((job.done, job.total or 1), desc=self.desk.how_far(job)[1])
            finished: Finished = job.outcome()
            changes = self.desk.changes(finished)
        report = {
            "seconds": round(finished.restored.seconds, 3),
            "width": finished.size[0],
            "height": finished.size[1],
            "notes": list(finished.notes),
            "settings": {
                "steps": checked.steps,
                "tone": checked.tone,
                "strength": checked.strength,
                "adapters": dict(checked.adapters),
            },
        }
        return str(finished.file), changes, report

    @_takes_settings
    def batch(self, files, settings, request: gr.Request, progress=gr.Progress()):  # noqa: B008
        """Restores several photos, or those in a zip. Returns a zip with the manifest, and what became of each.

        Args:
            files: Photos, or a zip of them.
            settings: All of them.
        """
        with self.desk.visitors.call(request.session_hash) as visitor, told(*(files or ())):
            work, left_out = self.desk.begin_batch(files, self.form.check(*settings), visitor)
            with visitor.follows(work):
                for _ in work.watch():
                    progress((len(work.results), len(work.plan.jobs)), desc=f"{len(work.results)} of {len(work.plan.jobs)} photos")
            archive = work.outcome()
        photos = {state.name: {"status": state.status, "note": state.note} for state in work.states}
        return str(archive), {"photos": photos, "left_out": left_out}

    def diagnose(self, photo, request: gr.Request):
        """Tells what is wrong with a photo: the probability of every defect, the likeliest first, and the photo's size.

        Args:
            photo: The photo.
        """
        with self._call(photo, request) as visitor:
            probabilities, size = self.desk.diagnose(photo, visitor)
        return {"defects": {name: round(p, 4) for name, p in probabilities.items()}, "width": size[0], "height": size[1]}

    @contextmanager
    def _call(self, photo: str | None, request: gr.Request) -> Iterator[Visitor]:
        """Who calls, with the photo that they sent."""
        with self.desk.visitors.call(request.session_hash) as visitor, told(photo):
            if photo is None:
                raise gr.Error("`photo` must be an uploaded photo, got none.", title="PhotoError", print_exception=False)
            visitor.uploads.add(photo)
            yield visitor
