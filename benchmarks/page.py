"""The page's pictures: its examples and header, and the screenshots of README and docs, of every state, in light and dark, wide and narrow.

    python benchmarks/page.py --examples      # after a sub-task or a sample changed
    python benchmarks/page.py --header        # after the weights changed
    python benchmarks/page.py -o shots        # needs Chromium and playwright
    python benchmarks/page.py -o docs/page --only wide-light --states finished

The screenshots are of the server that is started here, with the checkpoint that ships.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

SAMPLES = Path(__file__).parents[1] / "foundir_hf" / "samples"
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}


def main() -> None:
    parser = argparse.ArgumentParser(description="the page's pictures")
    parser.add_argument("--examples", action="store_true", help="write foundir_hf/space/examples anew")
    parser.add_argument("--header", action="store_true", help="write foundir_hf/space/header.jpg anew")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="screenshots of every state")
    parser.add_argument("--only", nargs="*", choices=[f"{w}-{s}" for w in WIDTHS for s in ("light", "dark")])
    parser.add_argument("--states", nargs="*", metavar="STATE", help="of the screenshots, keep these, such as `finished`")
    arguments = parser.parse_args()
    if arguments.examples:
        from foundir_hf.space.examples import EXAMPLES

        for example in EXAMPLES:
            example.make()
    if arguments.header:
        header()
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        screenshots(arguments.output, arguments.only, arguments.states)


def header() -> None:
    """One sample: half damaged, half as the shipped checkpoint restores it, one step, nothing chosen by hand."""
    import torch

    from foundir_hf import load_pipeline
    from foundir_hf.io.pictures import write_picture
    from foundir_hf.space.examples import EXAMPLES, FOLDER

    damaged = Image.open(EXAMPLES[0].path).convert("RGB")
    restored: Any = load_pipeline()(damaged, generator=torch.Generator().manual_seed(0)).images[0]
    half = damaged.width // 2
    restored.paste(damaged.crop((0, 0, half, damaged.height)), (0, 0))
    restored.paste((255, 255, 255), (half - 1, 0, half + 1, damaged.height))
    # The animal's eyes, left and right of the line.
    write_picture(restored.crop((0, 20, damaged.width, 20 + damaged.width // 2)), FOLDER.parent / "header.jpg", quality=80)


@contextmanager
def server() -> Iterator[str]:
    """`foundir serve` on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "foundir_hf.cli", "serve", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        try:
            url = f"http://127.0.0.1:{port}/"
            while process.poll() is None:
                with suppress(OSError), urllib.request.urlopen(url, timeout=5):
                    break
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def screenshots(folder: Path, only: list[str] | None, states: list[str] | None) -> None:
    """Every state, or some, as `<width>-<scheme>-<state>.webp`."""
    from playwright.sync_api import sync_playwright

    with server() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--disable-gpu", "--no-sandbox"])
        for name, (width, height) in WIDTHS.items():
            for scheme in ("light", "dark"):
                if only and f"{name}-{scheme}" not in only:
                    continue
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # pyright: ignore[reportArgumentType]
                context.set_default_timeout(300_000)
                page = context.new_page()
                page.goto(url)
                page.locator("#restore").wait_for()

                def shoot(state: str, page=page, prefix=f"{name}-{scheme}") -> None:
                    if not states or state in states:
                        _shoot(page, folder / f"{prefix}-{state}.webp")

                tour(page, shoot)
                context.close()
        browser.close()


def _shoot(page: Any, path: Path) -> None:
    page.wait_for_function("() => [...document.images].every(image => image.complete) && !document.body.innerText.includes('Loading...')")
    page.wait_for_timeout(700)  # transitions
    with Image.open(io.BytesIO(page.screenshot(full_page=True))) as image:
        image.convert("RGB").save(path, quality=90, method=6)


def tour(page: Any, shoot: Any) -> None:
    """Empty, chosen, busy, finished, explained, refused, batch, about."""
    shoot("empty")
    page.locator("#examples button").nth(3).click()
    page.locator("#diagnosis .diagnosis").wait_for()
    shoot("chosen")
    page.locator("#restore").click()
    page.locator("#slider img").nth(1).wait_for()
    page.locator("#account").wait_for()
    shoot("finished")
    page.locator("#account").get_by_text("What it did").click()
    page.locator("#crops img").wait_for()
    shoot("explained")
    with tempfile.TemporaryDirectory() as temporary:
        broken = Path(temporary) / "holiday.png"
        broken.write_text("not a photograph")
        page.reload()
        page.locator("#photo input[type=file]").set_input_files(broken)
        page.locator("#notice .bad").wait_for()
        shoot("refused")
        large = Path(temporary) / "large.jpg"
        with Image.open(SAMPLES / "coffee.jpg") as image:
            image.resize((3000, 2000)).save(large, quality=95)
        page.reload()
        page.locator("#photo input[type=file]").set_input_files(large)
        page.locator("#diagnosis .diagnosis").wait_for()
        page.locator("#restore").click()
        page.locator("#status").get_by_text("steps done").wait_for()
        shoot("busy")
        page.locator("#cancel").click()
    for tab in ("Batch", "Adapters", "About"):
        page.get_by_role("tab", name=tab).click()
        shoot(tab.lower())


if __name__ == "__main__":
    main()
