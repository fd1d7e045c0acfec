"""The page in a real browser, with a microphone that plays a recording."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import wavasr
from tests.serving.conftest import Running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the page is tested with Chromium")
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def clip(repository: Path) -> Path:
    return repository / "data" / "samples" / "plain-sentence.flac"


@pytest.fixture(scope="module")
def spoken(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip between silences, as the fake microphone wants it."""
    samples, rate = soundfile.read(clip, dtype="int16")
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    soundfile.write(path, np.concatenate([np.zeros(rate, np.int16), samples, np.zeros(2 * rate, np.int16)]), rate)
    return path


@pytest.fixture(scope="module")
def browser(spoken: Path) -> Iterator[Any]:
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = ["--no-sandbox", *fake, f"--use-file-for-fake-audio-capture={spoken}%noloop"]
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_a_file(server: Running, browser: Any, clip: Path, scheme: str, width: int) -> None:
    mistakes: list[str] = []
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.on("requestfailed", lambda request: mistakes.append(request.url))
    page.goto(server.url)
    page.set_input_files("#file", clip)
    page.locator("#status", has_text="Done").wait_for(timeout=WAIT_MS)
    text = wavasr.transcribe(clip).text
    assert page.inner_text("#text").split() == text.split()
    page.locator(".word", has_text=text.split()[-1]).first.click()
    for format, begins in (("txt", text), ("srt", "1\n00:00:"), ("vtt", "WEBVTT"), ("json", "{")):
        with page.expect_download() as download:
            page.click(f"button[data-format={format}]")
        assert Path(download.value.path()).read_text(encoding="utf-8").startswith(begins)
    box = page.locator("body").bounding_box()
    assert box is not None and box["width"] <= width  # nothing has to be scrolled sideways
    assert not mistakes
    page.close()


def test_the_microphone(server: Running, browser: Any, spoken: Path) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.click("#record")
    page.locator(".word").first.wait_for(timeout=WAIT_MS)  # a final text, while it records
    page.click("#record")
    page.locator("#downloads").wait_for(timeout=WAIT_MS)
    words, expected = page.inner_text("#text").split(), wavasr.transcribe(spoken).text.split()
    assert sum(word in expected for word in words) >= len(expected) - 1  # resampled by the browser
    page.close()


def test_what_is_no_recording(server: Running, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no recording", encoding="utf-8")
    page = browser.new_page()
    page.goto(server.url)
    page.set_input_files("#file", tmp_path / "notes.wav")
    page.locator("#status.error", has_text="not audio").wait_for(timeout=WAIT_MS)
    page.close()


def test_the_key_is_asked_for(small: Running, browser: Any, speech: Path) -> None:
    page = browser.new_page()
    page.goto(small.url)
    page.set_input_files("#file", speech)
    page.locator("#login").wait_for(timeout=WAIT_MS)
    page.fill("#key", "secret")
    page.click("#login button")
    page.set_input_files("#file", speech)
    page.locator("#status", has_text=re.compile("Done|No speech")).wait_for(timeout=WAIT_MS)
    page.close()


def test_stopped_before_the_connection_is_there(server: Running, browser: Any) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.evaluate(
        """() => {
            const button = document.getElementById("record");
            const stop = (_, observer) => { observer.disconnect(); button.click(); };
            new MutationObserver(stop).observe(button, { childList: true });
        }"""
    )
    page.click("#record")
    page.locator("#status", has_text="No speech").wait_for(timeout=WAIT_MS)
    assert page.inner_text("#record") == "Record"
    page.close()


def test_what_was_said_before_the_connection_broke(server: Running, browser: Any) -> None:
    word = {"word": "yes", "start_s": 0.1, "end_s": 0.5, "confidence": 0.9}
    final = {"type": "final", "text": "yes", "start_s": 0.1, "end_s": 0.5, "words": [word]}

    def broken(socket: Any) -> None:
        def answer(_: object) -> None:
            socket.send(json.dumps(final))
            socket.close(code=1011, reason="a fault")

        socket.on_message(answer)

    page = browser.new_page()
    page.route_web_socket(re.compile("/v1/stream"), broken)
    page.goto(server.url)
    page.click("#record")
    page.locator("#status.error", has_text="a fault").wait_for(timeout=WAIT_MS)
    assert page.inner_text("#text") == "yes"
    assert page.locator("#downloads").is_visible()
    page.close()


def test_a_second_click_while_the_microphone_is_asked_for(server: Running, browser: Any) -> None:
    page = browser.new_page()
    page.goto(server.url)
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            window.asked = 0;
            navigator.mediaDevices.getUserMedia = async (wanted) => {
                window.asked++;
                await new Promise((done) => setTimeout(done, 300));
                return ask(wanted);
            };
            document.getElementById("record").click();
            document.getElementById("record").click();
        }"""
    )
    page.locator("#record", has_text="Stop").wait_for(timeout=WAIT_MS)
    assert page.evaluate("window.asked") == 1
    page.click("#record")
    page.locator("#record", has_text="Record").wait_for(timeout=WAIT_MS)
    page.close()
