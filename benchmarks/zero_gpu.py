"""The Space under the real `spaces` package, as ZeroGPU runs it, on a machine without a GPU: `pip install spaces psutil`, then

    python benchmarks/zero_gpu.py

A server of its own lends GPUs as Hugging Face's does, and says what it was asked; the model is packed, forked and unpacked by the package
itself. Only what copies to a GPU copies to main memory. Prints by how much what comes back differs from what the command line writes.
"""

from __future__ import annotations

import http.server
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

EXAMPLE = Path(__file__).parents[1] / "foundir_hf" / "space" / "examples" / "jpeg.jpg"


class Lender(http.server.BaseHTTPRequestHandler):
    """Lends one GPU, to whoever asks."""

    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.asked.append(self.path)
        lent = {"idle": len(self.asked) > 4, "nvidiaIndex": 0, "nvidiaUUID": "none", "allowToken": "token"}
        content = json.dumps(lent).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def import_spaces(folder: Path) -> None:
    """With its environment, and with what a CPU build of torch lacks."""
    lender = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lender)
    threading.Thread(target=lender.serve_forever, daemon=True).start()
    os.environ |= {
        "SPACES_ZERO_GPU": "1",
        "SPACES_ZERO_DEVICE_API_URL": f"http://127.0.0.1:{lender.server_port}",
        "ZEROGPU_OFFLOAD_DIR": str(folder / "offload"),
    }
    import torch
    import torch.version

    build, torch.version.cuda = torch.version.cuda, "12.8"
    for name in ("_cuda_init", "_cuda_getCurrentRawStream"):
        if not hasattr(torch._C, name):
            setattr(torch._C, name, lambda *arguments: 0)
    if build is None:
        torch.cuda._is_in_bad_fork = bool
    import spaces.zero.torch  # pyright: ignore[reportMissingImports]

    torch.version.cuda, spaces.zero.torch.init = build, without_a_gpu


def without_a_gpu(uuid: str) -> None:
    """Instead of the first use of the GPU, in the process that was forked."""
    import torch

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        """On a page's boundary, as reading past the cache wants it."""
        return torch.frombuffer(mmap.mmap(-1, tensor.nbytes), dtype=torch.uint8).view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def here(make):
        return lambda *arguments, **options: make(
            *arguments, **{**options, "device": "cpu"} if options.get("device") == "cuda" else options
        )

    torch.Tensor.cuda = lambda tensor, *arguments, **options: tensor.clone()  # pyright: ignore[reportAttributeAccessIssue]
    torch.Tensor.pin_memory = pinned  # pyright: ignore[reportAttributeAccessIssue]
    torch.cuda.synchronize = lambda *arguments: None
    torch.tensor, torch.empty = here(torch.tensor), here(torch.empty)


def visit(url: str, expected: Path) -> None:
    """Two photographs, the second by the process of the first; then the server is stopped."""
    from gradio_client import Client, handle_file
    from PIL import Image, ImageChops

    try:
        while True:
            with suppress(OSError), urllib.request.urlopen(url, timeout=5):
                break
            threading.Event().wait(0.2)
        client = Client(url, verbose=False)
        for _ in range(2):
            file, _, report = client.predict(photo=handle_file(EXAMPLE), api_name="/restore")
            with Image.open(file) as ours, Image.open(expected) as theirs:
                difference = ImageChops.difference(ours.convert("RGB"), theirs.convert("RGB")).getextrema()
                records = [image.info.get("xmp") for image in (ours, theirs)]
            print(f"{report['seconds']} s; pixels differ by (least, most) {difference}; the same record: {records[0] == records[1]}")
        print(f"diagnosis, without a GPU: {next(iter(client.predict(photo=handle_file(EXAMPLE), api_name='/diagnose')['defects']))}")
        client.close()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as probe:
        folder = Path(temporary)
        expected = folder / "expected.jpg"
        command = [sys.executable, "-m", "foundir_hf.cli", "restore", str(EXAMPLE), "-o", str(expected)]
        subprocess.run(command, check=True, capture_output=True)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        import_spaces(folder)
        from foundir_hf.space.server import serve

        threading.Thread(target=visit, args=(f"http://127.0.0.1:{port}/", expected)).start()
        serve(port=port)
        print("\n".join(["asked of the lender:", *Lender.asked]))


if __name__ == "__main__":
    main()
