"""Hundreds of generated payloads: each gets a clean answer, none opens a file or a connection."""

from __future__ import annotations

import http.server
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import soundfile
from bad_payloads import BAD_AUDIO, BAD_FILES, FILES, JSON, NOT_TEXT, PLACES, SCALARS, SPOILED
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_endpoint import (
    assert_clean_error,
    assert_emotions,
    audio_file,
    in_base64,
    load_handler_module,
    noise,
    tiny_pipeline,
)

MIXTURE = audio_file(noise(0, 0.2))
GOOD = {"mixture": in_base64(MIXTURE), "enrollment": in_base64(audio_file(noise(1, 0.2)))}
# What looks inside a machine, or out of it.
WATCHED = (
    *("open", "os.", "shutil.", "tempfile.", "glob."),
    *("socket.", "urllib.", "http.", "subprocess."),
)

fuzz = settings(max_examples=300, deadline=None, database=None, derandomize=True)


class Watch:
    """What a thread opens: an audit hook stays for the life of the process, so there is one."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.thread == threading.get_ident() and event.startswith(WATCHED):
            self.seen.append(f"{event} {arguments!r:.100}")

    @contextmanager
    def nothing_is_opened(self) -> Iterator[None]:
        self.seen.clear()
        self.thread = threading.get_ident()
        try:
            yield
        finally:
            self.thread = None
        assert not self.seen


@cache
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("endpoint")
    tiny_pipeline().save_pretrained(folder)
    handler = load_handler_module().EndpointHandler(str(folder))
    # Libraries load parts of themselves, and say once that they resample, at the first use.
    for content in (*FILES.values(), audio_file(noise(0, channels=2, rate=8000), 8000)):
        handler({"inputs": content, "parameters": {"window_seconds": 0.1}})
    return handler


@pytest.fixture(autouse=True)
def only_memory_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile opens paths by itself, which an audit hook does not hear."""
    construct = soundfile.SoundFile.__init__

    def checked(self: Any, file: Any, *args: Any, **options: Any) -> None:
        # A part of what lies in memory.
        held = file.file if type(file).__name__ == "FilePart" else file
        assert type(held) is io.BytesIO
        construct(self, file, *args, **options)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", checked)


def ask(handler: Any, data: Any) -> Any:
    with watch().nothing_is_opened():
        return handler(data)


BAD_ITEM = st.one_of(
    PLACES,
    BAD_FILES.map(in_base64),
    BAD_FILES,
    st.integers(),
    st.floats(),
    st.just({}),
    st.lists(SCALARS, max_size=2),
    BAD_AUDIO.map(lambda audio: {**GOOD, "mixture": audio}),
    BAD_AUDIO.map(lambda audio: {**GOOD, "enrollment": audio}),
    BAD_AUDIO.map(lambda audio: {"mixture": audio}),
    BAD_AUDIO.map(lambda audio: {"enrollment": audio}),
    st.sampled_from(sorted(GOOD)).map(lambda key: {key: GOOD[key]}),
    (PLACES | NOT_TEXT | st.text(max_size=9)).map(
        lambda voice: {"mixture": GOOD["mixture"], "voice": voice}
    ),
    (PLACES | NOT_TEXT).map(lambda voice: {**GOOD, "voice": voice}),
    st.tuples(PLACES | st.sampled_from(["path", "url", "array"]), JSON).map(
        lambda more: {**GOOD, more[0]: more[1]}
    ),
)
BAD_PARAMETERS = st.one_of(
    SCALARS.filter(lambda value: value is not None),
    st.lists(JSON, max_size=3),
    (st.integers(max_value=0) | st.floats() | st.booleans() | PLACES).map(
        lambda value: {"top_k": value}
    ),
    (st.integers() | st.floats() | PLACES).map(lambda value: {"return_extracted": value}),
    (st.floats(max_value=0.02) | st.floats(min_value=7.6) | st.booleans() | PLACES).map(
        lambda value: {"window_seconds": value}
    ),
    st.tuples(PLACES | st.sampled_from(["voices", "model", "device", "batch_size"]), JSON).map(
        lambda more: {more[0]: more[1]}
    ),
)
BAD_REQUEST = st.one_of(
    JSON,
    st.dictionaries(st.sampled_from(["input", "parameters", "instances"]), JSON, max_size=3),
    st.sampled_from([None, []]).map(lambda inputs: {"inputs": inputs}),
    st.integers(17, 40).map(lambda count: {"inputs": [GOOD] * count}),
    BAD_ITEM.filter(lambda item: not isinstance(item, list)).map(lambda item: {"inputs": item}),
    BAD_PARAMETERS.map(lambda parameters: {"inputs": GOOD, "parameters": parameters}),
)


@fuzz
@given(data=BAD_REQUEST)
def test_every_bad_request_gets_an_error_that_names_the_fix(handler: Any, data: Any) -> None:
    assert_clean_error(ask(handler, data))


@fuzz
@given(item=BAD_ITEM)
def test_every_bad_item_gets_its_own_error_and_the_others_their_emotions(
    handler: Any, item: Any
) -> None:
    answers = ask(handler, {"inputs": [GOOD, item, MIXTURE]})
    assert len(answers) == 3
    assert_emotions(answers[0])
    assert_clean_error(answers[1])
    assert_emotions(answers[2])


@fuzz
@given(content=SPOILED)
def test_spoiled_files_are_heard_or_refused(handler: Any, content: bytes) -> None:
    # Spoiled samples are samples still: both answers are right, and none else.
    answer = ask(handler, {"inputs": {**GOOD, "mixture": in_base64(content)}})
    if isinstance(answer, dict):
        assert_clean_error(answer)
    else:
        assert_emotions(answer)


def test_the_watch_hears_files_and_connections(tmp_path: Path) -> None:
    import socket

    for opening in (lambda: (tmp_path / "x").write_text("x"), lambda: socket.socket().close()):
        with pytest.raises(AssertionError), watch().nothing_is_opened():
            opening()


class Counting(http.server.BaseHTTPRequestHandler):
    """Serves a recording, and counts who asks for it."""

    asked = 0

    def do_GET(self) -> None:
        Counting.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(MIXTURE)


@pytest.fixture
def recording_url() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Counting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/recording.wav"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_recording_that_is_there_is_not_fetched(
    handler: Any, tmp_path: Path, recording_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recording.wav").write_bytes(MIXTURE)
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "recording.wav")
    for place in (path, "recording.wav", f"file://{path}", recording_url):
        for audio in (place, in_base64(place.encode()), place.encode()):
            for item in (audio, {**GOOD, "mixture": audio}, {**GOOD, "enrollment": audio}):
                assert_clean_error(ask(handler, {"inputs": item}))
        for row in ({"path": place}, {"mixture": {"path": place}}, {"bytes": None, "path": place}):
            assert_clean_error(ask(handler, {"inputs": row}))
        for parameters in ({"voices": place}, {"voice": place}):
            assert_clean_error(ask(handler, {"inputs": MIXTURE, "parameters": parameters}))
    assert Counting.asked == 0
