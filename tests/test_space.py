"""The Space in a real browser: drop a photo, press Restore, compare, download."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import main

pytestmark = pytest.mark.browser

APP = Path(__file__).parents[1] / "space" / "app.py"
CHROMIUM_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
PATIENCE = 120_000  # milliseconds, for machines that are busy


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium")
    if executable is None:
        message = "Chromium is not installed."
        if os.environ.get("FOUNDIR_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, headless=True, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(browser, checkpoint, tmp_path_factory):
    """The Space as a process of its own, on a free port; asked for only after the browser, which may be missing."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "FOUNDIR_CHECKPOINT": str(checkpoint),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    url = f"http://127.0.0.1:{port}/"
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen([sys.executable, str(APP)], env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            deadline = time.monotonic() + PATIENCE / 1000
            while not answers(url):
                alive = server.poll() is None and time.monotonic() < deadline
                assert alive, (folder / "log").read_text()
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def page(browser, address):
    """The open page; the test fails if the browser's console reports an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    page.goto(address, wait_until="domcontentloaded")
    page.locator("#restore").wait_for()
    yield page
    context.close()
    assert [error for error in errors if "net::ERR_ABORTED" not in error] == []


def upload(page, path: Path) -> None:
    with page.expect_response(lambda response: "/upload" in response.url and response.request.method == "POST"):
        page.locator("#photo input[type=file]").set_input_files(path)
    page.locator("#photo img").wait_for(state="attached")


def restore_and_download(page, folder: Path) -> Path:
    page.locator("#restore").click()
    page.locator("#slider img").nth(1).wait_for()
    page.locator("#download a").first.wait_for()
    with page.expect_download() as download:
        page.locator("#download a").first.click()
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def test_the_page_restores_a_photo_as_the_command_line_does(page, photo, checkpoint, tmp_path):
    photo.save(tmp_path / "holiday.png")
    upload(page, tmp_path / "holiday.png")
    downloaded = restore_and_download(page, tmp_path)
    assert downloaded.name == "holiday-restored.png"
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    command = ["restore", tmp_path / "holiday.png", "-o", tmp_path / "expected.png", "--checkpoint", checkpoint, "--seed", 0]
    assert main([str(part) for part in command]) == 0
    with Image.open(downloaded) as here, Image.open(tmp_path / "expected.png") as there:
        assert here.mode == there.mode == "RGB"
        assert np.array_equal(np.asarray(here), np.asarray(there))
        assert not np.array_equal(np.asarray(here), np.asarray(photo))
    assert "72 x 56 pixels, seed 0" in page.locator("#status").inner_text()
    before, after = (page.locator("#slider img").nth(i) for i in range(2))
    assert before.get_attribute("src") != after.get_attribute("src")
    for shown in (before, after):
        assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [72, 56]
    with Image.open(tmp_path / "page.png") as screenshot:
        assert np.asarray(screenshot.convert("L")).std() > 10  # something is drawn


def test_the_settings_are_the_command_line_s(page, photo, checkpoint, tmp_path):
    photo.save(tmp_path / "holiday.png")
    upload(page, tmp_path / "holiday.png")
    page.locator("#settings").get_by_text("Settings").click()
    page.locator("#steps").get_by_text("Fast").click()
    page.locator("#tone").get_by_text("off", exact=True).click()
    downloaded = restore_and_download(page, tmp_path)
    command = ["restore", tmp_path / "holiday.png", "-o", tmp_path / "expected.png", "--checkpoint", checkpoint]
    assert main([str(part) for part in (*command, "--steps", 0, "--tone", "off")]) == 0
    with Image.open(downloaded) as here, Image.open(tmp_path / "expected.png") as there:
        assert np.array_equal(np.asarray(here), np.asarray(there))


def test_the_page_keeps_transparency_metadata_and_orientation(page, photo, tmp_path):
    exif = Image.Exif()
    exif[271], exif[274] = "Camera works", 6
    picture = photo.copy()
    picture.putalpha(Image.fromarray(np.arange(56 * 72, dtype=np.uint32).reshape(56, 72).astype(np.uint8)))
    picture.save(tmp_path / "cut out.png", exif=exif)
    upload(page, tmp_path / "cut out.png")
    with Image.open(restore_and_download(page, tmp_path)) as restored:
        upright = picture.transpose(Image.Transpose.ROTATE_270)
        assert restored.size == (56, 72)
        assert np.array_equal(np.asarray(restored.getchannel("A")), np.asarray(upright.getchannel("A")))
        assert dict(restored.getexif()) == {271: "Camera works", 274: 1}


def test_restore_without_a_photo_asks_for_one(page):
    page.locator("#restore").click()
    page.get_by_text("Drop a photograph first.").wait_for()
    assert page.locator("#slider img").count() == 0


def test_a_file_that_is_no_photo_is_reported_by_its_name(page, tmp_path):
    (tmp_path / "words.png").write_text("not a photograph")
    upload(page, tmp_path / "words.png")
    page.locator("#restore").click()
    page.get_by_text("words.png: cannot be read: not an image of a known format").wait_for()
    assert page.get_by_text("/words.png").count() == 0  # where the server keeps it is nobody's business


def test_a_photo_too_large_for_the_page_is_reported_with_its_size(page, tmp_path):
    Image.new("1", (6000, 5000)).save(tmp_path / "poster.png")
    upload(page, tmp_path / "poster.png")
    page.locator("#restore").click()
    page.get_by_text("The result would have 30 megapixels; this page stops at 24.").wait_for()
    assert page.locator("#slider img").count() == 0
