"""`foundir serve`: the web page, on this machine."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from ..space.limits import PAGE_LIMITS
from .common import UsageError, WorkError, limit_options, limits, whole


def add_parser(commands) -> None:
    allowed = limit_options(
        PAGE_LIMITS, megapixels="of a photograph and of its result", megabytes="of an upload", seconds="for reading a photograph"
    )
    parser = commands.add_parser("serve", parents=[allowed], help="show the web page: drop a photograph, restore, compare, download")
    parser.add_argument("--checkpoint", default="tiny", help="bundled name, folder or Hub repository (default: tiny)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--adapters", type=Path, metavar="DIR", help="folder whose sub-folders are the adapters that visitors may choose")
    parser.add_argument("--host", help="address to listen on; 0.0.0.0 is every one (default: this machine only)")
    parser.add_argument("--port", type=whole(1, 65535), help="(default: 7860, or the next that is free)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.set_defaults(run=run, checks_first=True)


def run(arguments: argparse.Namespace) -> None:
    """Shows the page until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("the page needs gradio: pip install 'foundir_hf[space]'.")
    if arguments.adapters is not None and not arguments.adapters.is_dir():
        raise UsageError(f"`--adapters` {arguments.adapters}: no such folder.")
    from ..space.server import serve

    try:
        serve(
            arguments.checkpoint,
            device=arguments.device,
            adapters=arguments.adapters,
            host=arguments.host,
            port=arguments.port,
            open_browser=arguments.open,
            limits=limits(arguments),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise WorkError(str(error)) from error
