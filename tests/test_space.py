"""The page in a real browser and its API from another process, on one server: what visitors do, and what they should not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundir_hf.cli import main
from foundir_hf.io.reading import read_photo
from foundir_hf.space.examples import EXAMPLES
from foundir_hf.space.limits import PAGE_LIMITS, batch_megabytes

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
def server(checkpoint, adapters, tmp_path_factory):
    """The Space as a process of its own, on a free port: `(address, folder of its temporary files, process)`."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "FOUNDIR_CHECKPOINT": str(checkpoint),
        "FOUNDIR_ADAPTERS": str(adapters),
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    url = f"http://127.0.0.1:{port}/"
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen([sys.executable, str(APP)], env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE / 1000
            while not answers(url):
                alive = process.poll() is None and time.monotonic() < deadline
                assert alive, (folder / "log").read_text()
                time.sleep(0.2)
            yield url, folder, process.pid
        finally:
            process.terminate()
    # After SIGTERM, in the middle of whatever: nothing of anybody's is left.
    assert [path.name for path in folder.iterdir()] == ["log"]
    assert "Traceback" not in (folder / "log").read_text(), (folder / "log").read_text()


@pytest.fixture
def address(server) -> str:
    return server[0]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def files_of_visitors(server) -> set[str]:
    """Names of all files that the server holds. `walk` passes over folders that vanish meanwhile."""
    return {name for _, _, names in os.walk(server[1]) for name in names} - {"log"}


def eventually(holds) -> None:
    """Waits for what another process does in its own time; the test's time limit bounds it."""
    while not holds():
        time.sleep(0.1)


def open_page(browser, address, **options):
    """A page and the list that its errors go to."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **options})
    context.set_default_timeout(PATIENCE)
    page, errors = context.new_page(), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else errors.append(request.url))
    page.goto(address, wait_until="domcontentloaded")
    page.locator("#restore").wait_for()
    return page, errors


@pytest.fixture
def page(browser, address):
    """The open page; the test fails if the browser's console reports an error, or if it asks another server for anything."""
    page, errors = open_page(browser, address)
    yield page
    page.context.close()
    assert [error for error in errors if "net::ERR_ABORTED" not in error] == []


def upload(page, path: Path) -> None:
    """Puts a photo on the page and waits until it has been looked at."""
    with page.expect_response(lambda response: "/upload" in response.url and response.request.method == "POST"):
        page.locator("#photo input[type=file]").set_input_files(path)
    page.locator("#diagnosis .diagnosis").wait_for()


def restore_and_download(page, folder: Path) -> Path:
    page.locator("#restore").click()
    page.locator("#slider img").nth(1).wait_for()
    with page.expect_download() as download:
        page.locator("#download").click()
    target = folder / download.value.suggested_filename
    download.value.save_as(target)
    return target


def expected(checkpoint, photo: Path, output: Path, *options: str) -> bytes:
    """What the command line makes of a photo."""
    assert main(["restore", str(photo), "-o", str(output), "--checkpoint", str(checkpoint), *options]) == 0
    return output.read_bytes()


def large(path: Path, seed: int = 0) -> Path:
    """A photo of several tiles, which takes a while."""
    noise = np.random.default_rng(seed).integers(0, 256, (1100, 2100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=1)
    return path


@pytest.mark.browser
def test_the_page_restores_a_photo_as_the_command_line_does(page, photo, checkpoint, tmp_path):
    photo.save(tmp_path / "holiday.png", dpi=(300, 300))
    upload(page, tmp_path / "holiday.png")
    assert "72 x 56 pixels" in page.locator("#expectation").inner_text()
    downloaded = restore_and_download(page, tmp_path)
    assert downloaded.name == "holiday-restored.png"
    assert downloaded.read_bytes() == expected(checkpoint, tmp_path / "holiday.png", tmp_path / "expected.png")
    assert not np.array_equal(read_photo(downloaded).pixels, np.asarray(photo))
    assert re.search(r"Done in [\d.]+ s\. 72 x 56 pixels, 8 bits a channel", page.locator("#status").inner_text())
    before, after = (page.locator("#slider img").nth(i) for i in range(2))
    assert before.get_attribute("src") != after.get_attribute("src")
    for shown in (before, after):
        assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [72, 56]


@pytest.mark.browser
def test_the_settings_are_the_command_line_s(page, photo, checkpoint, tmp_path):
    photo.save(tmp_path / "holiday.png")
    upload(page, tmp_path / "holiday.png")
    page.locator("#preset").get_by_text("Fast", exact=True).click()
    page.locator("#settings").get_by_text("More settings").click()
    page.locator("#size").get_by_text("enlarge to a width").click()
    page.locator("#width input").fill("108")
    page.locator("#tone").get_by_text("Off", exact=True).click()
    page.locator("#format").get_by_text("JPEG", exact=True).click()
    page.locator("#quality input[type=number]").fill("80")
    page.locator("#expectation").get_by_text("108 x 84 pixels").wait_for()
    downloaded = restore_and_download(page, tmp_path)
    options = ("--steps", "0", "--tone", "off", "--upscale", "1.5", "--quality", "80")
    assert downloaded.read_bytes() == expected(checkpoint, tmp_path / "holiday.png", tmp_path / "expected.jpg", *options)


@pytest.mark.browser
def test_the_page_keeps_transparency_metadata_and_orientation(page, photo, checkpoint, tmp_path):
    exif = Image.Exif()
    exif[271], exif[274] = "Camera works", 6
    picture = photo.copy()
    picture.putalpha(Image.fromarray(np.arange(56 * 72, dtype=np.uint32).reshape(56, 72).astype(np.uint8)))
    picture.save(tmp_path / "cut out.png", exif=exif)
    upload(page, tmp_path / "cut out.png")
    downloaded = restore_and_download(page, tmp_path)
    assert downloaded.read_bytes() == expected(checkpoint, tmp_path / "cut out.png", tmp_path / "expected.png")
    with Image.open(downloaded) as restored:
        upright = picture.transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(np.asarray(restored.getchannel("A")), np.asarray(upright.getchannel("A")))
        assert dict(restored.getexif()) == {271: "Camera works", 274: 1}
    # What can be seen through is shown as such.
    shown = page.locator("#slider img").nth(1)
    assert "conic-gradient" in shown.evaluate("image => getComputedStyle(image).backgroundImage")


@pytest.mark.browser
def test_a_transparent_photo_as_jpeg_says_what_is_lost(page, photo, tmp_path):
    picture = photo.copy()
    picture.putalpha(128)
    picture.save(tmp_path / "glass.png")
    upload(page, tmp_path / "glass.png")
    page.locator("#settings").get_by_text("More settings").click()
    page.locator("#format").get_by_text("JPEG", exact=True).click()
    page.locator("#restore").click()
    page.locator("#status").get_by_text("JPEG cannot hold its transparency").wait_for()


@pytest.mark.browser
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_stay_sixteen_bits(page, checkpoint, tmp_path, suffix):
    import imagecodecs
    import tifffile

    y, x = np.mgrid[0:56, 0:72]
    deep = np.stack([x * 900, y * 1100, x * y * 16], axis=-1).astype(np.uint16)
    source = tmp_path / f"deep{suffix}"
    if suffix == ".png":
        source.write_bytes(imagecodecs.png_encode(deep))
    else:
        tifffile.imwrite(source, deep, photometric="rgb")
    upload(page, source)
    # A browser shows no TIFF: what it shows must be a picture all the same.
    assert page.locator("#photo img").first.evaluate("image => image.naturalWidth") == 72
    downloaded = restore_and_download(page, tmp_path)
    assert read_photo(downloaded).pixels.dtype == np.uint16
    assert downloaded.read_bytes() == expected(checkpoint, source, tmp_path / f"expected{suffix}")
    assert "16 bits" in page.locator("#status").inner_text()


@pytest.mark.browser
def test_changing_or_removing_the_photo_clears_the_result(page, photo, tmp_path):
    photo.save(tmp_path / "first.png")
    photo.rotate(90, expand=True).save(tmp_path / "second.png")
    upload(page, tmp_path / "first.png")
    restore_and_download(page, tmp_path)
    page.locator("#photo button[aria-label='Remove Image'], #photo button[aria-label='Clear']").first.click()
    for gone in ("#slider", "#download", "#account", "#diagnosis"):
        page.locator(gone).wait_for(state="hidden")
    assert page.locator("#status").inner_text().strip() == ""
    assert page.locator("#restore").is_disabled()
    upload(page, tmp_path / "second.png")
    assert page.locator("#slider").count() == 0 or page.locator("#slider").is_hidden()
    assert restore_and_download(page, tmp_path).name == "second-restored.png"
    assert page.locator("#slider img").nth(1).evaluate("image => [image.naturalWidth, image.naturalHeight]") == [56, 72]


@pytest.mark.browser
def test_an_example_is_restored_without_an_upload_and_the_page_tells_what_was_done(page):
    page.locator("#examples button").nth(3).click()
    page.locator("#diagnosis .diagnosis").wait_for()
    page.locator("#restore").click()
    page.locator("#slider img").nth(1).wait_for()
    page.locator("#account").get_by_text("What it did").click()
    for part in ("#changes img", "#experts img", "#estimate img", "#crops img"):
        picture = page.locator(part).first
        picture.wait_for()
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert page.locator("#curves polyline").count() == 30 or "left exposure" in page.locator("#curves").inner_text()
    assert "of the work" in page.locator("#legend").inner_text()
    # Pixel by pixel, however wide the page is.
    assert page.locator("#crops img").evaluate("image => image.clientWidth == image.naturalWidth")


@pytest.mark.browser
def test_the_slider_moves_with_the_mouse(page, photo, tmp_path):
    photo.resize((720, 560)).save(tmp_path / "holiday.png")
    upload(page, tmp_path / "holiday.png")
    restore_and_download(page, tmp_path)
    page.locator("#slider").scroll_into_view_if_needed()
    handle, box = page.locator("#slider .inner, #slider .handle").first, page.locator("#slider").bounding_box()
    at_first = handle.bounding_box()["x"]
    place = handle.bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, place["y"] + place["height"] / 2, steps=5)
    page.mouse.up()
    assert handle.bounding_box()["x"] < at_first - 50
    page.wait_for_function("() => Number(document.querySelector('#slider [role=slider]').getAttribute('aria-valuenow')) < 45")


@pytest.mark.browser
def test_cancel_stops_the_work_and_the_next_photo_can_be_restored(page, photo, tmp_path):
    upload(page, large(tmp_path / "large.png"))
    page.locator("#restore").click()
    page.locator("#status").get_by_text("of 18 steps").wait_for()
    assert page.locator("#restore").is_disabled()
    page.locator("#cancel").click()
    page.locator("#status").get_by_text("Cancelled. Nothing was kept.").wait_for()
    page.locator("#cancel").wait_for(state="hidden")
    assert page.locator("#slider").is_hidden()
    photo.save(tmp_path / "small.png")
    page.locator("#photo button[aria-label='Remove Image'], #photo button[aria-label='Clear']").first.click()
    page.locator("#diagnosis").wait_for(state="hidden")
    upload(page, tmp_path / "small.png")
    assert restore_and_download(page, tmp_path).name == "small-restored.png"


@pytest.mark.browser
def test_who_leaves_stops_their_work_takes_their_files_along_and_can_come_back(browser, server, photo, tmp_path):
    page, _ = open_page(browser, server[0])
    upload(page, large(tmp_path / "leaving.png", seed=1))
    assert "leaving.png" in files_of_visitors(server)
    page.locator("#restore").click()
    page.locator("#status").get_by_text("of 18 steps").wait_for()
    page.reload()
    page.locator("#restore").wait_for()
    eventually(lambda: not any("leaving" in name for name in files_of_visitors(server)))
    assert page.locator("#slider").is_hidden()
    photo.save(tmp_path / "back.png")
    upload(page, tmp_path / "back.png")
    assert restore_and_download(page, tmp_path).name == "back-restored.png"
    page.context.close()
    eventually(lambda: not any("back" in name for name in files_of_visitors(server)))


@pytest.mark.browser
def test_the_second_visitor_is_told_how_long_it_takes(browser, page, address, photo, tmp_path):
    other, _ = open_page(browser, address)
    upload(other, large(tmp_path / "large.png", seed=2))
    photo.save(tmp_path / "small.png")
    upload(page, tmp_path / "small.png")
    other.locator("#restore").click()
    other.locator("#status").get_by_text("of 18 steps").wait_for()
    page.locator("#restore").click()
    page.locator("#status").get_by_text(re.compile(r"Waiting: 1 photo is before yours. It starts in about .+ and takes .+")).wait_for()
    other.context.close()  # with whom the work goes, and the line moves on
    page.locator("#slider img").nth(1).wait_for()
    assert page.locator("#slider img").nth(1).evaluate("image => [image.naturalWidth, image.naturalHeight]") == [72, 56]


@pytest.mark.browser
def test_without_a_photo_there_is_nothing_to_press(page):
    assert page.locator("#restore").is_disabled()
    assert f"up to {PAGE_LIMITS.megabytes} MB; results up to 24 megapixels" in page.locator("#notice").inner_text()
    page.locator("#examples button").nth(5).wait_for()
    assert page.locator("#examples button").count() == len(EXAMPLES) == 6


@pytest.mark.browser
def test_a_file_that_is_no_photo_is_reported_by_its_name_at_once(page, tmp_path):
    name = "<img src=x onerror=alert(1)>.png"
    (tmp_path / name).write_text("not a photograph")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / name)
    page.locator("#notice").get_by_text("cannot be read: not an image of a known format").wait_for()
    assert page.locator("#notice img").count() == 0  # its name is text
    assert "/tmp" not in page.locator("#notice").inner_text()  # where the server keeps it is nobody's business
    assert page.locator("#photo img").count() == 0
    assert page.locator("#restore").is_disabled()


@pytest.mark.browser
def test_a_photo_too_large_for_the_page_is_reported_before_it_is_decoded(page, tmp_path):
    Image.new("1", (6000, 5000)).save(tmp_path / "poster.png")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "poster.png")
    page.locator("#notice").get_by_text("it has 6000 x 5000 pixels, the limit is 24 megapixels").wait_for()
    assert "--" not in page.locator("#notice").inner_text()  # the option of the command line is no help here


@pytest.mark.browser
def test_a_batch_comes_back_as_a_zip_with_its_manifest(page, photo, checkpoint, tmp_path):
    photo.save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("not a photograph")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(tmp_path / "good.png", "folder/zipped.png")
    page.get_by_role("tab", name="Batch").click()
    page.locator("#files input[type=file]").set_input_files([tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "more.zip"])
    page.locator("#files").get_by_text("more").first.wait_for()
    page.locator("#restore-all").click()
    page.locator("#batch-status").get_by_text("2 of 3 restored, 1 failed.").wait_for()
    assert "cannot be read" in page.locator("#batch-status").inner_text()
    with page.expect_download() as download:
        page.locator("#batch-download").click()
    download.value.save_as(tmp_path / "restored.zip")
    line = expected(checkpoint, tmp_path / "good.png", tmp_path / "expected.png")
    with zipfile.ZipFile(tmp_path / "restored.zip") as archive:
        assert set(archive.namelist()) == {"good.png", "folder/zipped.png", "foundir.jsonl"}
        assert archive.read("good.png") == archive.read("folder/zipped.png") == line
        assert '"failed"' in archive.read("foundir.jsonl").decode()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_overflows_and_the_result_comes_into_view(browser, address, photo, tmp_path, scheme):
    page, errors = open_page(browser, address, viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    wide = "[document.documentElement.scrollWidth, document.querySelector('.gradio-container').getBoundingClientRect().right]"
    assert page.evaluate(wide) == [390, 390]
    photo.resize((288, 224)).save(tmp_path / "holiday.png")
    upload(page, tmp_path / "holiday.png")
    page.locator("#restore").click()
    page.locator("#slider img").nth(1).wait_for()
    page.wait_for_function(
        "() => { const box = document.querySelector('#slider').getBoundingClientRect(); return box.top >= 0 && box.top < 500 }"
    )
    page.locator("#account").get_by_text("What it did").click()
    page.locator("#changes img").wait_for()
    assert page.evaluate(wide) == [390, 390]
    # Of a file that is no photo, what is wrong is told where the file was dropped.
    (tmp_path / "broken.png").write_text("not a photograph")
    page.reload()
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "broken.png")
    page.locator("#notice .bad").wait_for()
    assert page.locator("#notice .bad").evaluate("note => note.getBoundingClientRect().bottom < window.innerHeight && !window.scrollY")
    for tab in ("Batch", "Adapters", "About"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel").filter(visible=True).wait_for()
        assert page.evaluate(wide) == [390, 390]
    assert page.locator("#about img").first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    page.context.close()
    assert [error for error in errors if "net::ERR_ABORTED" not in error] == []


@pytest.mark.browser
def test_the_keyboard_alone_restores_an_example(page):
    page.locator("#examples button").nth(0).focus()
    page.keyboard.press("Enter")
    page.locator("#diagnosis .diagnosis").wait_for()
    page.locator("#restore").focus()
    page.keyboard.press("Enter")
    page.locator("#slider img").nth(1).wait_for()
    handle = page.locator("#slider").get_by_role("slider")
    handle.focus()
    at_first = handle.bounding_box()["x"]
    page.keyboard.press("ArrowLeft")
    assert handle.bounding_box()["x"] < at_first
    assert handle.get_attribute("aria-valuenow") == "45"
    page.keyboard.press("End")
    assert handle.get_attribute("aria-valuenow") == "100"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_is_in_the_way_of_anybody(browser, address, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page, _ = open_page(browser, address, color_scheme=scheme)

    def found(impacts=("serious", "critical")) -> list[str]:
        page.wait_for_timeout(500)  # colours fade in, and would be measured on their way
        violations = Axe().run(page).response["violations"]
        return [f"{v['id']}: {node['html'][:200]}" for v in violations if v["impact"] in impacts for node in v["nodes"]]

    assert found() == []
    assert page.locator("#examples button").first.get_attribute("aria-label") == "Grain"
    page.locator("#examples button").nth(0).click()
    page.locator("#diagnosis .diagnosis").wait_for()
    page.locator("#settings").get_by_text("More settings").click()
    page.locator("#restore").click()
    page.locator("#slider img").nth(1).wait_for()
    page.locator("#account").get_by_text("What it did").click()
    page.locator("#crops img").wait_for()
    assert found() == []
    for tab in ("Batch", "Adapters", "About"):
        page.get_by_role("tab", name=tab).click()
        assert found() == []
    page.context.close()


@pytest.mark.browser
def test_an_adapter_of_the_server_is_chosen_with_its_weight(page, photo, checkpoint, adapters, tmp_path):
    photo.save(tmp_path / "holiday.png")
    upload(page, tmp_path / "holiday.png")
    page.locator("#settings").get_by_text("More settings").click()
    page.locator("#adapters input").click()
    page.get_by_role("option", name="scans").click()
    page.locator("#adapter-weight input[type=number]").fill("0.5")
    page.locator("#adapter-weight input[type=number]").blur()
    downloaded = restore_and_download(page, tmp_path)
    option = ("--adapter", f"{adapters / 'scans'}:0.5")
    assert downloaded.read_bytes() == expected(checkpoint, tmp_path / "holiday.png", tmp_path / "expected.png", *option)
    page.get_by_role("tab", name="Adapters").click()
    page.get_by_role("button", name="scans").click()
    page.get_by_role("heading", name="For scans").wait_for()


# The API, from another process.


@pytest.fixture
def client(address, tmp_path):
    from gradio_client import Client

    client = Client(address, verbose=False, download_files=str(tmp_path / "downloads"))
    yield client
    client.close()


def test_programs_get_the_command_line_s_bytes_and_a_report(client, photo, checkpoint, tmp_path):
    from gradio_client import handle_file

    photo.save(tmp_path / "holiday.png")
    file, change_map, report = client.predict(
        photo=handle_file(tmp_path / "holiday.png"), preset="fast", size="enlarge by a factor", factor=2, api_name="/restore"
    )
    options = ("--steps", "0", "--upscale", "2")
    assert Path(file).read_bytes() == expected(checkpoint, tmp_path / "holiday.png", tmp_path / "expected.png", *options)
    assert (report["width"], report["height"]) == (144, 112)
    assert report["seconds"] > 0
    with Image.open(change_map) as picture:
        assert picture.width == 240  # of the scale, at least
    verdict = client.predict(photo=handle_file(tmp_path / "holiday.png"), api_name="/diagnose")
    assert (verdict["width"], verdict["height"]) == (72, 56)
    assert all(0 <= probability <= 1 for probability in verdict["defects"].values())


def test_what_the_api_takes_and_gives_has_names(client):
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/restore", "/batch", "/diagnose"}
    assert [entry["label"] for entry in endpoints["/restore"]["returns"]] == ["restored", "change_map", "report"]
    assert [entry["label"] for entry in endpoints["/batch"]["returns"]] == ["archive", "report"]
    assert [entry["parameter_name"] for entry in endpoints["/diagnose"]["parameters"]] == ["photo"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"preset": "best"}, "SettingError.*`preset` must be one of fast, balanced, thorough; got 'best'"),
        ({"strength": 2}, r"SettingError.*`strength` must be a number in \[0, 1\], got 2"),
        ({"size": "enlarge to a width", "width": 9}, r"SettingError.*`width` must be 72 to 576 pixels for this photo, got 9"),
        ({"adapters": "../secret"}, "SettingError.*`adapters` must be of this server's: scans; got '../secret'"),
        ({"size": "enlarge by a factor", "factor": "x"}, "SettingError.*`factor` must be a number"),
    ],
)
def test_what_the_api_cannot_take_is_named(client, photo, tmp_path, given, told):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    photo.save(tmp_path / "holiday.png")
    with pytest.raises((AppError, ValueError)) as caught:
        client.predict(photo=handle_file(tmp_path / "holiday.png"), api_name="/restore", **given)
    assert re.search(told, f"{getattr(caught.value, 'title', '')}: {caught.value}")


def call(address: str, api_name: str, **values) -> str:
    """What the API answers to a program that sends what `gradio_client` would not: the last event, with its data."""
    import httpx

    answer = httpx.post(f"{address}gradio_api/call/v2/{api_name}", json=values, timeout=60)
    event = answer.raise_for_status().json()["event_id"]
    return httpx.get(f"{address}gradio_api/call/{api_name}/{event}", timeout=60).text


@pytest.mark.parametrize("api_name", ["restore", "diagnose", "batch"])
def test_no_path_and_no_link_of_a_client_is_opened(server, api_name):
    address, folder, _ = server
    uploaded = next(path for path in folder.iterdir() if path.is_dir())
    for path in (
        folder / "log",
        "/etc/passwd",
        f"{uploaded}/../log",
        "../log",
        f"{uploaded}/never.png",
        address,
        f"{address}gradio_api/file=/etc/passwd",
    ):
        file = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        told = call(address, api_name, files=[file]) if api_name == "batch" else call(address, api_name, photo=file)
        assert '"title": "PhotoError"' in told, told
        assert "was never uploaded" in told or "fetches nothing from elsewhere" in told
    if api_name != "batch":
        assert "was never uploaded" in call(address, api_name, photo={"path": "/etc/passwd"})  # without what makes it a file for gradio


def test_language_models_get_two_tools_that_take_an_upload_and_open_nothing_else(server, photo, tmp_path):
    mcp = pytest.importorskip("mcp")
    import anyio
    import httpx
    from mcp.client.streamable_http import streamable_http_client

    photo.save(tmp_path / "holiday.png")
    with (tmp_path / "holiday.png").open("rb") as file:
        (uploaded,) = httpx.post(f"{server[0]}gradio_api/upload", files={"files": file}).json()

    async def talk() -> tuple[set[str], list]:
        async with (
            streamable_http_client(f"{server[0]}gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            assert "strength" in tools["restore"].inputSchema["properties"]
            assert "request" not in tools["restore"].inputSchema["properties"]
            links = [f"{server[0]}gradio_api/file={path}" for path in (uploaded, "/etc/passwd", f"{server[1]}/log")]
            # More than are kept of an open page: the first caller's result is none of the later ones' business.
            again = links[:1] * 9
            answers = [await session.call_tool("restore", {"photo": link, "preset": "fast"}) for link in (*again, *links[1:], server[0])]
            return set(tools), answers

    with ThreadPoolExecutor(1) as thread:  # playwright has a loop in this one
        tools, answers = thread.submit(anyio.run, talk).result()
    good, bad = answers[:9], answers[9:]
    assert tools == {"restore", "diagnose"}
    addresses = [re.search(r"http\S+holiday-restored\.png", answer.content[0].text)[0] for answer in good]  # pyright: ignore[reportOptionalSubscript]
    assert len(set(addresses)) == 9
    assert len({httpx.get(address).raise_for_status().content for address in addresses}) == 1
    assert [answer.content[0].text for answer in bad] == ["Please upload the photo itself; this server fetches nothing from elsewhere."] * 3


def begin_upload(address: str, megabytes: int, content: bytes) -> socket.socket:
    """An upload that says that it has so many megabytes, and sends some of them."""
    host, port = re.findall(r"//(.*):(\d+)/", address)[0]
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE / 1000)
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary=foundir\r\n"
    part = '--foundir\r\nContent-Disposition: form-data; name="files"; filename="huge.png"\r\n\r\n'
    connection.sendall(f"{head}Content-Length: {megabytes * 1_000_000}\r\n\r\n{part}".encode() + content)
    return connection


@pytest.mark.parametrize(
    ("megabytes", "sent", "told"),
    [
        (PAGE_LIMITS.megabytes + 10, PAGE_LIMITS.megabytes + 1, "File size exceeded maximum allowed size"),
        (batch_megabytes(PAGE_LIMITS) + 10, 0, f"exceed the maximum allowed size: {batch_megabytes(PAGE_LIMITS):g} MB in one upload"),
    ],
)
def test_what_is_over_the_limits_is_refused_while_it_is_uploaded(server, megabytes, sent, told):
    (root,) = server[1].glob("foundir-*")
    before = set(root.iterdir())  # of visitors who were here before
    with begin_upload(server[0], megabytes, bytes(sent * 1_000_000)) as connection:
        answer = connection.recv(10_000).decode()
        while told not in answer:
            more = connection.recv(10_000).decode()
            assert more, answer
            answer += more
    assert answer.startswith("HTTP/1.1 413 ")
    assert not any(path.is_file() for path in set(root.iterdir()) - before)


def test_an_upload_that_breaks_off_leaves_nothing(server):
    (root,) = server[1].glob("foundir-*")
    before = set(root.iterdir())
    with begin_upload(server[0], 5, bytes(900_000)):
        eventually(lambda: any(path.is_file() and path.stat().st_size > 800_000 for path in set(root.iterdir()) - before))
    eventually(lambda: not any(path.is_file() for path in set(root.iterdir()) - before))


def test_a_batch_of_a_program_reports_every_photo(client, photo, tmp_path):
    from gradio_client import handle_file

    photo.save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("not a photograph")
    (tmp_path / "notes.txt").write_text("not a photograph either")
    files = [handle_file(tmp_path / name) for name in ("good.png", "bad.png")]
    archive, report = client.predict(files=files, preset="fast", api_name="/batch")
    assert {name: entry["status"] for name, entry in report["photos"].items()} == {"good.png": "restored", "bad.png": "failed"}
    with zipfile.ZipFile(archive) as zipped:
        assert "good.png" in zipped.namelist()


def resident_megabytes(process: int) -> float:
    """Memory that a process has."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1000  # pyright: ignore[reportOptionalSubscript]


def test_many_programs_at_once_each_get_their_own_photo(server, tmp_path):
    """Fifty visitors, by a few threads of this process: no result is another's, who is refused is told why, no file stays, and memory is
    that of a few."""
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    clients = []

    def visit(number: int) -> str:
        width, height = 640 + number, 480 - number  # 0.9 MB, decoded
        source = tmp_path / f"visitor{number}.png"
        Image.new("RGB", (width, height), (number * 4, 255 - number * 4, 128)).save(source)
        client = Client(server[0], verbose=False, download_files=str(tmp_path / f"of{number}"))
        clients.append(client)
        try:
            file, _, report = client.predict(photo=handle_file(source), preset="fast", strength=0, api_name="/restore")
            with Image.open(file) as restored:
                assert restored.size == (width, height) == (report["width"], report["height"])
                assert restored.getpixel((0, 0)) == (number * 4, 255 - number * 4, 128)
            return "served"
        except AppError as error:
            return str(error)

    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(visit, range(15)))  # as many as are there at once, and more
        early = resident_megabytes(server[2])
        outcomes += pool.map(visit, range(15, 50))
    assert resident_megabytes(server[2]) - early < 200
    assert outcomes.count("served") >= 40
    assert all("are waiting already" in told for told in outcomes if told != "served"), outcomes
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(Client.close, clients))  # each waits a second for a thread of its own
    eventually(lambda: not any("visitor" in name for name in files_of_visitors(server)))


def test_the_documentation_s_snippet_runs_as_it_is_printed(address, photo, tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "space.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert "http://127.0.0.1:7860" in snippet
    photo.save(tmp_path / "photo.jpg")
    code = snippet.replace("http://127.0.0.1:7860", address)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "restored.jpg").is_file()
    assert re.search(r"[\d.]+ s", done.stdout)
