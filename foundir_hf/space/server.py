"""Runs the page: a private folder for everybody's files, the model loaded beside, all of it gone at the end."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.limits import Limits
from .engine import is_zero_gpu
from .limits import PAGE_LIMITS, WAITING

if TYPE_CHECKING:
    from .visitors import Visitors

# Whatever else a process does with gradio: the page calls nobody.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def serve(
    checkpoint: str = "tiny",
    *,
    device: str = "auto",
    adapters: str | Path | None = None,
    host: str | None = None,
    port: int | None = None,
    open_browser: bool = False,
    limits: Limits = PAGE_LIMITS,
) -> None:
    """Shows the page until Ctrl-C or SIGTERM.

    Args:
        checkpoint: Bundled name, folder or Hub repository.
        device: As torch calls it, or `auto`.
        adapters: Folder whose sub-folders are the adapters that visitors may choose.
        host: Address to listen on; left out, this machine only, or what `GRADIO_SERVER_NAME` says.
        port: Left out, 7860 or the next that is free, or what `GRADIO_SERVER_PORT` says.
        open_browser: Open the page too.
        limits: What a photograph may take; pixels of the result too, seconds for reading it.

    Raises:
        OSError: If the port is taken.
        ValueError: If the checkpoint cannot be loaded.
    """
    # Gradio's own folder too, so that one folder holds all that visitors sent and got. Set before gradio makes components.
    root = Path(tempfile.mkdtemp(prefix="foundir-", dir=os.environ.get("GRADIO_TEMP_DIR") or None)).resolve()
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(root)
    stop = threading.Event()
    old = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    page = None
    try:
        page = _page(checkpoint, device, adapters, root, limits)
        if is_zero_gpu():  # which sees only what the main thread puts on its GPU before the launch
            page.engine.load()
            page.engine.wait_until_ready()  # raises what kept it from loading
        page.app.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            share=False,
            app_kwargs={"middleware": [_middleware(page.visitors, limits)]},
            **launch_options(limits),
        )
        if page.app.mcp_server_obj is not None:  # gradio 6.31 makes no list of files of a tool's links
            page.app.mcp_server_obj.tool_to_endpoint.pop("batch", None)
        # After the page is up: it waits for the model, and visitors need not.
        page.engine.start(then=page.desk.warm_up, otherwise=stop.set)
        page.desk.open()
        while not stop.wait(60):
            page.visitors.sweep()
        if page.engine.failure is not None:
            raise page.engine.failure
    finally:
        if page is not None:
            page.visitors.close()
            page.app.close(verbose=False)
            page.engine.close()
            page.desk.close()
        shutil.rmtree(root, ignore_errors=True)
        if before is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = before
        for number, handler in old.items():
            signal.signal(number, handler)


def launch_options(limits: Limits = PAGE_LIMITS) -> dict[str, Any]:
    """Gradio's, the same wherever the page runs."""
    from .theme import theme

    here = Path(__file__).parent
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("outer.css", "page.js"))
    return {
        "theme": theme(),
        "head": f"<style>{style}</style><script>{script}</script>",
        "css_paths": here / "page.css",
        "max_file_size": int(limits.megabytes * 1_000_000),
        "ssr_mode": False,
        "footer_links": ["api", "settings"],
        # A tool for language models as well, where gradio has what it needs for it: `pip install 'gradio[mcp]'`.
        "mcp_server": importlib.util.find_spec("mcp") is not None,
    }


def _middleware(visitors: Visitors, limits: Limits) -> Any:
    from starlette.middleware import Middleware as Entry

    from .middleware import Middleware

    return Entry(Middleware, visitors=visitors, limits=limits)


def _page(checkpoint: str, device: str, adapters: str | Path | None, root: Path, limits: Limits) -> Any:
    from .about import model_card
    from .engine import Engine
    from .page import Page
    from .visitors import Visitors

    engine = Engine(checkpoint, device, Path(adapters) if adapters else None)
    page = Page(engine, Visitors(root), model_card(), limits)
    page.visitors.settle()
    # Calls beside the queue would know no limit.
    page.app.queue(max_size=4 * WAITING, default_concurrency_limit=8, api_open=False)
    return page
