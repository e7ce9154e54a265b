"""The documented requests, over HTTP, to a server that treats the handler as the toolkit does."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import soundfile
from huggingface_hub import InferenceClient
from subprocesses import run_program
from tiny_endpoint import (
    LABELS,
    RATE,
    assert_clean_error,
    assert_emotions,
    audio_file,
    load_handler_module,
    noise,
    tiny_pipeline,
)

DOCUMENTATION = Path(__file__).resolve().parent.parent / "docs" / "endpoint.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def converted(value: str) -> Any:
    """Values of a query string as the toolkit hands them on: the rest stays text."""
    if value.isnumeric():
        return int(value)
    return {"true": True, "false": False}.get(value, value)


class Toolkit(BaseHTTPRequestHandler):
    """Bodies, answers and errors as in the toolkit of Inference Endpoints."""

    handler: Any = None

    def do_POST(self) -> None:
        try:
            status, answer = 200, type(self).handler(self._data())
        except Exception as error:  # every exception is the client's fault there
            status, answer = 400, {"error": str(error)}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _data(self) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        if kind.startswith("audio/"):
            data: dict[str, Any] = {"inputs": body}
        elif kind == "application/json":
            data = json.loads(body)
        else:
            raise ValueError(f'Content type "{kind}" not supported.')
        if "inputs" not in data:
            raise ValueError("Body needs to provide a inputs key")
        query = urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query)
        if query and "parameters" not in data:
            data["parameters"] = {key: converted(value) for key, value in query}
        return data

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("endpoint")
    tiny_pipeline().save_pretrained(folder)
    Toolkit.handler = load_handler_module().EndpointHandler(str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Toolkit)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "meeting.wav").write_bytes(audio_file(noise(0)))
    (tmp_path / "call.flac").write_bytes(audio_file(noise(2), kind="FLAC"))
    (tmp_path / "alice.wav").write_bytes(audio_file(noise(1)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented(language: str) -> list[str]:
    blocks = BLOCK.findall(DOCUMENTATION.read_text(encoding="utf-8"))
    return [code for name, code in blocks if name == language]


def run_in_shell(endpoint: str, *command: str) -> str:
    if shutil.which(command[0]) is None or (command[0] == "bash" and shutil.which("curl") is None):
        pytest.skip(f"{command[0]} or curl is absent")
    # The examples talk to this machine alone: offline is what the tests are, not the reader.
    environment = {"HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "HF_TOKEN": "hf_none"}
    return run_program(command, Path(), {**os.environ, **environment, "ENDPOINT": endpoint})


def test_the_documented_curl_commands_get_what_is_documented(
    endpoint: str, recordings: Path
) -> None:
    exports, pair, alone = documented("bash")
    assert exports.startswith("export ENDPOINT=")
    shown = [json.loads(answer) for answer in documented("json")]
    for command, example in zip((pair, alone), shown, strict=True):
        answer = json.loads(run_in_shell(endpoint, "bash", "-c", command))
        # Noise in place of speech adds what there is to say of it.
        assert [set(emotion) - {"answer", "warnings"} for emotion in answer] == [
            set(emotion) for emotion in example
        ]
        assert {emotion["label"] for emotion in answer} <= set(LABELS)


def test_the_documented_python_examples_run(endpoint: str, recordings: Path) -> None:
    several, client = documented("python")
    printed = run_in_shell(endpoint, sys.executable, "-c", several)
    assert "meeting {" in printed and "call {" in printed and "error" not in printed
    for name in ("meeting", "call"):
        assert soundfile.info(recordings / f"{name}_alice.wav").frames == RATE // 2
    assert "AudioClassificationOutputElement" in run_in_shell(
        endpoint, sys.executable, "-c", client
    )


def test_the_documented_limits_are_those_of_the_handler() -> None:
    limits = load_handler_module().LIMITS
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", DOCUMENTATION.read_text("utf-8"), re.MULTILINE)
    assert [value for name, value in rows[rows.index(("Limit", "Value")) + 1 :]] == [
        str(limits.max_items),
        f"{limits.max_request_bytes // 2**20} MiB",
        f"{limits.max_audio_bytes // 2**20} MiB",
        f"{limits.max_audio_seconds:g} s",
    ]


def test_the_hub_client_gets_the_pipelines_emotions(
    endpoint: str, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    expected = tiny_pipeline()("alice.wav", top_k=3)
    client = InferenceClient(endpoint, token="hf_none")
    for top_k in (3, None):
        answer = client.audio_classification("alice.wav", top_k=top_k)
        assert [(each.label, each.score) for each in answer][:3] == [
            (each["label"], pytest.approx(each["score"])) for each in expected
        ]


def test_a_bad_item_is_told_apart_by_its_error(endpoint: str, recordings: Path) -> None:
    audio = base64.b64encode(Path("alice.wav").read_bytes()).decode()
    response = requests.post(endpoint, json={"inputs": [audio, "alice.wav"]}, timeout=30)
    assert response.status_code == 200
    good, bad = response.json()
    assert_emotions(good)
    assert_clean_error(bad, 400)
    # What the toolkit finds wrong by itself has the same key.
    for options in ({"data": b"x", "headers": {"Content-Type": "text/plain"}}, {"json": {"x": 1}}):
        response = requests.post(endpoint, timeout=30, **options)
        assert response.status_code == 400 and "error" in response.json()


def test_the_query_gives_parameters(endpoint: str, recordings: Path) -> None:
    response = requests.post(
        f"{endpoint}?top_k=1&return_extracted=true&window_seconds=0.25",
        data=Path("alice.wav").read_bytes(),
        headers={"Content-Type": "audio/x-wav"},
        timeout=30,
    )
    answer = response.json()
    assert {"emotions", "enrollment", "extracted", "windows"} <= set(answer)
    assert len(answer["emotions"]) == 1
