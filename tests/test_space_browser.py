"""
The Space in a real browser, as somebody at a desk and somebody with a phone use it.

The browser is Playwright's Chromium, or one of the system (TSE_SER_CHROMIUM names it). With
TSE_SER_SCREENSHOTS=docs the pictures of the documentation are taken anew, of the demo's model.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from space_modules import EMOTIONS, RATE, SPACE, save_model, save_voice_like
from synthetic_speech import by_av

from modeling import (
    TargetSpeakerEmotionPipeline,
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
)

pytest.importorskip("gradio", reason="gradio is absent: pip install -e '.[browser]'")
sync_api: Any = pytest.importorskip(
    "playwright.sync_api", reason="playwright is absent: pip install -e '.[browser]'"
)
pytestmark = pytest.mark.slow

SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
START_SECONDS = 120
MAX_PICTURE_BYTES = 300_000
SCREENSHOTS = os.environ.get("TSE_SER_SCREENSHOTS")
READ_ON_THE_GROUND = (
    ".intro h1",
    ".intro p",
    ".limits p",
    ".verdict .answer",
    ".verdict .answer strong",
    ".probabilities .percent",
    ".probabilities thead th[scope=col]",
    ".spectrogram .across span",
    "#mixture .timestamps time",
    "#example",
)
# A microphone that hears a file, and needs nobody's permission.
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("space") / "browser_model"
    if SCREENSHOTS is None:
        save_model(folder)
        return folder
    demo = repository / "results" / "demo"
    TargetSpeakerEmotionPipeline(
        model=TseSerForEmotionClassification.from_pretrained(demo / "checkpoint"),
        feature_extractor=TseSerFeatureExtractor.from_pretrained(demo / "checkpoint"),
        device="cpu",
    ).save_pretrained(folder)
    (folder / "sample").mkdir()
    for name in ("mixture.wav", "enrollment.wav"):
        shutil.copy(demo / name, folder / "sample")
    return folder


class Server:
    """deploy/space/app.py as its own process, offline, on a free port."""

    def __init__(self, model_dir: Path, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.kept = folder / "kept"
        self.log = folder / "server.log"
        environment = os.environ | {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(self.kept),
            "HF_HOME": str(folder / "home"),
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, str(SPACE / "app.py"), "--model", str(model_dir)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Until the page is served."""
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The Space did not start: {self.log.read_text()[-3000:]}")
            time.sleep(0.3)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(self.url, timeout=5).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """As a service manager or a container does it."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture(scope="module")
def server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(model_dir, tmp_path_factory.mktemp("server"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def executable(own: str) -> str:
    """Playwright's own Chromium, or the system's."""
    named = os.environ.get("TSE_SER_CHROMIUM")
    found = [named, own, *map(shutil.which, SYSTEM_BROWSERS)]
    for path in found:
        if path and Path(path).is_file():
            return path
    pytest.skip(
        "no Chromium: apt-get install chromium, or playwright install chromium, or set "
        "TSE_SER_CHROMIUM"
    )


@pytest.fixture(scope="module")
def browser(model_dir: Path) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        heard = model_dir / "sample" / "mixture.wav"
        arguments = [*MICROPHONE, f"--use-file-for-fake-audio-capture={heard}"]
        # Chromium's own sandbox does not start for root, as in containers.
        arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
        path = executable(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Visit:
    """One visitor with one window, who notices what goes wrong behind the page."""

    def __init__(self, browser: Any, server: Server, size: dict[str, int], **options: Any):
        self.context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, server.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(server.url)
        self.page.wait_for_selector("#run")

    def _note(self, url: str, own: str) -> None:
        if not url.startswith((own, "data:", "blob:")):
            self.elsewhere.append(url)

    def upload(self, place: str, path: Path) -> None:
        self.page.set_input_files(f"#{place} input[type=file]", path)
        self.page.wait_for_selector(f"#{place} .play-pause-button")

    def upload_again(self, place: str, path: Path) -> None:
        self.page.click(f"#{place} button[aria-label=Clear]")
        self.upload(place, path)

    def record(self, place: str, seconds: int) -> None:
        """Holds the microphone open until the page itself has counted so many seconds."""
        self.page.click(f"#{place} button[aria-label='Record audio']")
        self.page.click(f"#{place} .record-button")
        self.page.wait_for_function(
            """([place, seconds]) => {
                const counted = document.querySelector(`#${place} .timestamps .duration`)
                return counted && Number(counted.innerText.split(":").pop()) >= seconds
            }""",
            arg=[place, seconds],
        )
        self.page.click(f"#{place} .stop-button")
        # The recorder has a play button too; this player comes when the server has the recording.
        self.page.wait_for_selector(f"#{place} [data-testid^=audio-player]", state="attached")

    def recognize(self) -> str:
        self.page.click("#run")
        try:
            self.page.wait_for_selector(".verdict")
        except sync_api.TimeoutError:
            pytest.fail(f"no verdict, but: {self.page.inner_text('#message') or 'nothing'}")
        return str(self.page.inner_text("#verdict"))

    def message(self, expected: str) -> Any:
        return self.page.wait_for_selector(f"#message .message:has-text('{expected}')")

    def close(self) -> None:
        self.context.close()
        assert not self.elsewhere, "the page asked other hosts"
        assert not self.errors


@pytest.fixture
def visit(browser: Any, server: Server) -> Iterator[Visit]:
    visit = Visit(browser, server, DESKTOP)
    yield visit
    visit.close()


def files_of(model_dir: Path) -> tuple[Path, Path]:
    return model_dir / "sample" / "mixture.wav", model_dir / "sample" / "enrollment.wav"


@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_upload_click_result(
    browser: Any, server: Server, model_dir: Path, tmp_path: Path, name: str, size: dict[str, int]
) -> None:
    visit = Visit(browser, server, size)
    page = visit.page
    assert page.locator("#answers").count() == 0
    for place, path in zip(("mixture", "sample"), files_of(model_dir), strict=True):
        visit.upload(place, path)
    verdict = visit.recognize()

    assert all(emotion.capitalize() in verdict for emotion in EMOTIONS)
    assert "This voice alone" in verdict and "Whole recording" in verdict
    page.wait_for_function("document.querySelector('#answers').getBoundingClientRect().top < 400")
    picture = (Path(SCREENSHOTS) if SCREENSHOTS else tmp_path) / f"space_{name}.png"
    take_picture(page, picture, full_page=name == "desktop")
    assert picture.stat().st_size < MAX_PICTURE_BYTES
    mixture, _ = soundfile.read(files_of(model_dir)[0])
    sounds = [played(page, place) for place in ("voice-player", "mixture-player")]
    for samples, rate in sounds:
        assert (rate, len(samples)) == (RATE, len(mixture)) and np.abs(samples).max() > 0.01
    # The extractor of the tests takes nothing away.
    for sound, _ in sounds:
        assert np.corrcoef(sound, mixture)[0, 1] > 0.99
    pictures = page.locator(".spectrogram img")
    assert pictures.count() == 2
    assert all(
        pictures.nth(index).evaluate("image => image.complete && image.naturalWidth > 50")
        for index in range(2)
    )
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits), "the page scrolls sideways"
    visit.close()


def take_picture(page: Any, path: Path, full_page: bool) -> None:
    """A screenshot; in 256 colours, a third of the size, where it would be large."""
    from PIL import Image  # which Gradio brings along

    for place in ("voice-player", "mixture-player"):
        page.wait_for_selector(f"#{place} .play-pause-button")
    page.mouse.move(0, 0)
    content = page.screenshot(full_page=full_page)
    path.write_bytes(content)
    if len(content) > MAX_PICTURE_BYTES:
        shown = Image.open(io.BytesIO(content)).convert("RGB")
        shown.quantize(256, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)


def played(page: Any, place: str) -> tuple[np.ndarray, int]:
    """What a player plays, once it has been seen to play."""
    page.click(f"#{place} .play-pause-button")
    page.wait_for_selector(f"#{place} [aria-label=Pause]")
    link = page.wait_for_selector(f"#{place} a[download]").get_attribute("href")
    return soundfile.read(io.BytesIO(page.request.get(link).body()))


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_dark_and_light_follow_the_visitor_and_stay_readable(
    browser: Any, server: Server, size: dict[str, int]
) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        visit = Visit(browser, server, size, color_scheme=scheme)
        visit.page.click("#example")
        visit.message("The example is filled in")
        visit.recognize()
        ground = colour(visit.page, "body", "backgroundColor")
        for text in READ_ON_THE_GROUND:
            ratio = contrast(colour(visit.page, text, "color"), ground)
            assert ratio >= 4.5, f"{text} is pale when {scheme}: {ratio:.1f}"
        button = colour(visit.page, "#run", "backgroundColor")
        assert contrast(colour(visit.page, "#run", "color"), button) >= 4.5
        grounds.append(ground)
        visit.close()
    assert grounds[0] > 0.8 and grounds[1] < 0.05


def colour(page: Any, element: str, name: str) -> float:
    """Relative luminance of a colour of an element, as the contrast rules of the Web define it."""
    found = page.evaluate(f"getComputedStyle(document.querySelector('{element}')).{name}")
    channels = [float(part) / 255 for part in found[found.index("(") + 1 : -1].split(",")[:3]]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_what_went_wrong_is_said_on_the_page(visit: Visit, model_dir: Path, tmp_path: Path) -> None:
    page = visit.page
    page.click("#run")
    alert = visit.message("There is no recording yet")
    assert alert.get_attribute("role") == "alert" and alert.is_visible()
    visit.upload("mixture", save_voice_like(tmp_path / "short.wav", seed=0, seconds=0.05))
    page.click("#run")
    visit.message("There is no sample of the person yet")
    (tmp_path / "text.wav").write_text("no sound at all")
    page.set_input_files("#sample input[type=file]", tmp_path / "text.wav")
    page.wait_for_function("!document.querySelector('#sample .upload-container')")
    page.click("#run")
    visit.message("The recording is too short")
    visit.upload_again("mixture", files_of(model_dir)[0])
    page.click("#run")
    visit.message("The sample could not be read as sound")
    assert page.locator(".verdict").count() == 0
    visit.upload_again("sample", files_of(model_dir)[1])
    visit.recognize()
    assert page.locator("#message .message").count() == 0


def test_a_file_that_is_too_large_is_refused_with_its_limit(visit: Visit, tmp_path: Path) -> None:
    silence = np.zeros(21 * 2**20 // 2, np.int16)
    soundfile.write(tmp_path / "large.wav", silence, 48000)
    visit.page.set_input_files("#mixture input[type=file]", tmp_path / "large.wav")

    refusal = visit.page.wait_for_selector("[data-testid=toast-body]").inner_text()

    assert "20" in refusal and "MB" in refusal.upper()


def test_a_saved_voice_serves_another_recording_of_the_same_visit_alone(
    browser: Any, server: Server, visit: Visit, model_dir: Path, tmp_path: Path
) -> None:
    page = visit.page
    mixture, sample = files_of(model_dir)
    visit.upload("mixture", mixture)
    visit.upload("sample", sample)
    expected = visit.recognize()
    page.click("#keep button.label-wrap")
    page.fill("#name input, #name textarea", "Ada <b>")
    page.click("#save")
    visit.message("The voice of Ada <b> is saved for this visit")
    page.wait_for_selector("#new-sample", state="hidden")
    assert page.locator("#chosen label:has(input:checked)").inner_text().strip() == "Ada <b>"
    visit.upload_again("mixture", save_voice_like(tmp_path / "other.wav", seed=3, seconds=2.5))
    page.click("#run")
    page.wait_for_function(
        "old => document.querySelector('#verdict').innerText !== old", arg=expected
    )
    visit.upload_again("mixture", mixture)
    page.click("#run")
    page.wait_for_function(
        "old => document.querySelector('#verdict').innerText === old", arg=expected
    )

    other = Visit(browser, server, PHONE)
    assert not other.page.locator("#chosen").is_visible()
    other.close()
    page.click("#forget")
    visit.message("is forgotten")
    page.wait_for_selector("#new-sample", state="visible")
    assert not page.locator("#chosen").is_visible()


def test_a_recording_from_the_microphone_serves_too(visit: Visit, model_dir: Path) -> None:
    visit.upload("sample", files_of(model_dir)[1])
    # Where a machine is busy the first second is not heard.
    visit.record("mixture", seconds=4)

    assert "This voice sounds" in visit.recognize()


def test_what_phones_and_browsers_record_is_taken_and_a_channel_chosen(
    browser: Any, server: Server, model_dir: Path, tmp_path: Path
) -> None:
    mixture, sample = files_of(model_dir)
    left, rate = soundfile.read(save_voice_like(tmp_path / "l.wav", 0, 2.0, 48000), dtype="float32")
    right, _ = soundfile.read(save_voice_like(tmp_path / "r.wav", 3, 2.0, 48000), dtype="float32")
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), rate)
    for name, container, codec in (("a.webm", "webm", "libopus"), ("a.m4a", "mp4", "aac")):
        (tmp_path / name).write_bytes(by_av(left[:, None], rate, container, codec))
    found = {}
    for path in (mixture, *(tmp_path / name for name in ("a.webm", "a.m4a", "stereo.wav"))):
        visit = Visit(browser, server, DESKTOP)
        visit.upload("sample", sample)
        visit.upload("mixture", path)
        if path.name == "stereo.wav":
            visit.page.click("#stereo button.label-wrap")
            visit.page.click("#channel label:has-text('The left one')")
        visit.recognize()
        found[path.name] = shown_percentages(visit.page)
        assert visit.page.locator(".verdict .warning").count() == 0
        visit.close()
    for name, percentages in found.items():
        assert np.abs(np.subtract(percentages, found["mixture.wav"])).max() <= 5, name


def shown_percentages(page: Any) -> list[int]:
    """The percentages of the separated voice, from the table."""
    texts = page.locator(".probabilities td.separated .percent").all_inner_texts()
    return [int(text.split()[0]) for text in texts]


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit.page
    tab_to(page, "example")
    page.keyboard.press("Enter")
    visit.message("The example is filled in")
    page.wait_for_selector("#sample .play-pause-button")
    tab_to(page, "run")
    width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert width == "3px", "one sees where one is"
    page.keyboard.press("Enter")
    page.wait_for_selector(".verdict")


def tab_to(page: Any, element: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == element:
            return
    pytest.fail(f"#{element} cannot be reached with the tab key")


def test_every_place_and_button_has_a_name(visit: Visit) -> None:
    unnamed = visit.page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, img')]
            .filter(element => element.offsetParent !== null)
            .filter(element => !(element.innerText || element.ariaLabel || element.alt
                || element.title || element.labels?.length))
            .map(element => element.outerHTML.slice(0, 200))"""
    )
    assert not unnamed
    assert visit.page.title() == "One voice among several"
    assert visit.page.locator("h1").count() == 1


def test_nothing_is_left_when_the_server_has_ended(
    browser: Any, model_dir: Path, tmp_path: Path
) -> None:
    server = Server(model_dir, tmp_path)
    try:
        server.wait()
        visit = Visit(browser, server, DESKTOP)
        for place, path in zip(("mixture", "sample"), files_of(model_dir), strict=True):
            visit.upload(place, path)
        visit.recognize()
        visit.close()
        assert list(server.kept.rglob("*.wav"))
    finally:
        server.stop()
    assert not [path for path in server.kept.rglob("*") if path.is_file()]
