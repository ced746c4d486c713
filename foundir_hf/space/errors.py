"""What visitors are told of what went wrong: a type, words, and never where the server keeps a file."""

from __future__ import annotations

import html
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gradio as gr

from ..io.photograph import PhotoError
from .line import LineFullError
from .settings import SettingError
from .work import StoppedError

_OUT_OF_MEMORY = "This photo takes more memory than the server has left; try it without enlargement, or a smaller one."
_UNKNOWN = "Error"  # the type of what is the server's own fault


@contextmanager
def told(*paths: str | None) -> Iterator[None]:
    """Turns what a visitor can cause into `gr.Error`, which a page and a program are shown.

    Args:
        paths: Files that the visitor sent, whose names are told and whose folders are not.
    """
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        title, text = explain(error, [path for path in paths if path])
        raise gr.Error(html.escape(text, quote=False), title=title, print_exception=False) from error


def explain(error: BaseException, paths: Sequence[str] = ()) -> tuple[str, str]:
    """The type and the words of what went wrong; what is nobody's fault but the server's goes to its log."""
    title, text = _type_and_words(error)
    if title == _UNKNOWN:
        traceback.print_exception(error)
    text = without_options(text)
    for path in paths:
        text = text.replace(str(path), Path(path).name)
    return title, text


def without_options(text: str) -> str:
    """An error of the package without the option of the command line that would allow it."""
    return re.sub(r" \(--[\w-]+\)", "", text)


def _type_and_words(error: BaseException) -> tuple[str, str]:
    if _is_out_of_memory(error):
        return "OutOfMemory", _OUT_OF_MEMORY
    for kind, title in ((PhotoError, "PhotoError"), (SettingError, "SettingError"), (LineFullError, "Busy"), (StoppedError, "Cancelled")):
        if isinstance(error, kind):
            return title, str(error)
    if isinstance(error, TimeoutError):
        return "PhotoError", f"This photo cannot be read here: {error}."
    if isinstance(error, gr.Error):  # of ZeroGPU: that a visitor's time is used up, say
        return error.title, str(error.message)
    if isinstance(error, ValueError):  # of an adapter that does not fit, say
        return "SettingError", str(error)
    return _UNKNOWN, "Something went wrong on the server; it has been written to its log."


def _is_out_of_memory(error: BaseException) -> bool:
    if not isinstance(error, MemoryError | RuntimeError):
        return False
    from ..pipelines.pipeline_foundir import is_out_of_memory  # torch, which the page must not wait for

    return is_out_of_memory(error)
