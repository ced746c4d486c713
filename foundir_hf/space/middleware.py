"""What requests bring, looked at before gradio takes it: uploads have to find room, and a file has to be one that was uploaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.formparsers import MultiPartException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..io.limits import Limits
from .limits import batch_megabytes
from .visitors import Visitors

_CHECKED_EVERY = 32_000_000  # bytes of an upload between two looks at the disk
_CALL_BYTES = 1_000_000  # of settings and names of files
_CALL = re.compile(r"/gradio_api/(queue/join|(call|run|api)/.+?)/?$")
# Gradio answers with the text, of an allowed size with status 413, and deletes what has come of the upload.
_BROKEN_OFF = "The upload broke off."
_TOO_LARGE = "These files exceed the maximum allowed size: {} MB in one upload."
_NO_ROOM = "The files of all visitors exceed the maximum allowed size. Please try again in some minutes."


class Middleware:
    """ASGI middleware below gradio's own.

    Args:
        app: What it stands before.
        visitors: Whose files there are.
        limits: Of the page.
    """

    def __init__(self, app: ASGIApp, visitors: Visitors, limits: Limits):
        self.app, self.visitors, self.megabytes = app, visitors, batch_megabytes(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            if scope["path"].endswith("/gradio_api/upload"):
                receive = self._bounded(receive, int(dict(scope["headers"]).get(b"content-length", 0)))
            elif _CALL.search(scope["path"]):
                receive = self._of_uploads(receive)
        await self.app(scope, receive, send)

    def _bounded(self, receive: Receive, announced: int) -> Receive:
        """The body of an upload, as long as it is of a size that the page takes and there is room for it. Who says how many bytes there
        will be is refused before they come."""
        total = checked = 0

        async def bounded() -> Message:
            nonlocal total, checked
            message = await receive()
            if message["type"] == "http.disconnect":
                raise MultiPartException(_BROKEN_OFF)
            total += len(message.get("body", b""))
            if max(total, announced) > (self.megabytes + 1) * 1e6:  # with what a form has around its files
                raise MultiPartException(_TOO_LARGE.format(f"{self.megabytes:g}"))
            if not checked or total - checked > _CHECKED_EVERY:
                checked = max(total, 1)
                if not await anyio.to_thread.run_sync(self.visitors.make_room):
                    raise MultiPartException(_NO_ROOM)
            return message

        return bounded

    def _of_uploads(self, receive: Receive) -> Receive:
        """The body of a call, in which what names any other file of the server names none: gradio would refuse it without a word."""
        is_read = False

        async def of_uploads() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read, body, more = True, b"", True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return message
                body, more = body + message.get("body", b""), message.get("more_body", False)
                if len(body) > _CALL_BYTES:
                    return {"type": "http.request", "body": b"too much"}  # for gradio to refuse
            try:
                content = json.loads(body)
            except ValueError:  # for gradio to refuse
                return {"type": "http.request", "body": body}
            return {"type": "http.request", "body": json.dumps(self._cleaned(content)).encode()}

        return of_uploads

    def _cleaned(self, content: Any) -> Any:
        if isinstance(content, list):
            return [self._cleaned(entry) for entry in content]
        if not isinstance(content, dict):
            return content
        path = content.get("path")
        if isinstance(path, str) and not re.match(r"https?:", path, re.I):
            path = path if self.visitors.holds(path) else str(self.visitors.root / "missing" / (Path(path).name or "file"))
            return {**content, "path": path, "meta": {"_type": "gradio.FileData"}}
        return {key: self._cleaned(value) for key, value in content.items()}
