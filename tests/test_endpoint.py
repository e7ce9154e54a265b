"""The handler of Inference Endpoints: requests, answers, limits, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from memory_meter import PeakTensorBytes
from synthetic_speech import speech
from tiny_endpoint import (
    RATE,
    assert_clean_error,
    assert_emotions,
    audio_file,
    flac_claiming,
    in_base64,
    load_handler_module,
    noise,
    tiny_pipeline,
    wav_claiming,
)

MIXTURE, ENROLLMENT = audio_file(noise(0)), audio_file(speech(1, 0.9))
PAIR = {"mixture": in_base64(MIXTURE), "enrollment": in_base64(ENROLLMENT)}
MEBIBYTE = 2**20

handler_module = load_handler_module()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endpoint")
    recognize = tiny_pipeline()
    recognize.save_pretrained(folder)
    recognize._open_voices(folder / "voices")
    recognize.enroll("alice", ENROLLMENT)
    return folder


@pytest.fixture(scope="module")
def handler(folder: Path) -> Any:
    return handler_module.EndpointHandler(str(folder))


@pytest.fixture(scope="module")
def small(folder: Path) -> Any:
    limits = handler_module.Limits(
        max_items=3, max_request_bytes=90_000, max_audio_bytes=60_000, max_audio_seconds=1.0
    )
    return handler_module.EndpointHandler(str(folder), limits)


def plain_scores(answer: Any) -> dict[str, float]:
    return {emotion["label"]: emotion["score"] for emotion in answer}


def test_a_pair_gets_the_emotions_of_the_pipeline(handler: Any) -> None:
    answer = handler({"inputs": PAIR})

    assert_emotions(answer)
    expected = tiny_pipeline()({"mixture": MIXTURE, "enrollment": ENROLLMENT})
    assert plain_scores(answer) == plain_scores(expected)
    assert [emotion["label"] for emotion in answer] == [emotion["label"] for emotion in expected]


def test_bytes_and_base64_get_the_same_answer(handler: Any) -> None:
    as_bytes = {"mixture": MIXTURE, "enrollment": ENROLLMENT}
    assert handler({"inputs": as_bytes}) == handler({"inputs": PAIR})
    assert handler({"inputs": MIXTURE}) == handler({"inputs": in_base64(MIXTURE)})


def test_audio_alone_is_its_own_enrollment_and_the_answer_says_so(handler: Any) -> None:
    answer = handler({"inputs": MIXTURE})
    assert_emotions(answer)
    assert all(emotion["enrollment"] == "the recording itself" for emotion in answer)
    explicit = handler({"inputs": {"mixture": MIXTURE, "enrollment": MIXTURE}})
    assert plain_scores(answer) == plain_scores(explicit)


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "FLOAT", 1e-3),
        ("WAV", "PCM_24", 1e-3),
        ("FLAC", None, 1e-3),
        ("OGG", "VORBIS", 0.1),
        ("MP3", None, 0.1),
    ],
)
def test_every_format_is_read(
    handler: Any, kind: str, subtype: str | None, tolerance: float
) -> None:
    content = audio_file(noise(0), kind=kind, subtype=subtype)
    answer = handler({"inputs": {"mixture": content, "enrollment": ENROLLMENT}})
    assert_emotions(answer)
    expected = plain_scores(handler({"inputs": PAIR}))
    assert plain_scores(answer) == pytest.approx(expected, abs=tolerance)


def test_channels_are_averaged_and_rates_resampled(handler: Any) -> None:
    def answer(content: bytes) -> dict[str, float]:
        return plain_scores(handler({"inputs": {"mixture": content, "enrollment": ENROLLMENT}}))

    samples = noise(0, channels=4)
    averaged = samples.mean(axis=1, keepdims=True)
    four = audio_file(samples, subtype="FLOAT")
    assert answer(four) == pytest.approx(answer(audio_file(averaged, subtype="FLOAT")), rel=1e-4)

    def tone(rate: int) -> bytes:
        seconds = np.arange(rate // 2) / rate
        return audio_file(np.sin(2 * np.pi * 440 * seconds).astype(np.float32), rate)

    for rate in (8000, 44100, 44101, 48000):
        assert answer(tone(rate)) == pytest.approx(answer(tone(RATE)), abs=0.06)


def test_a_list_keeps_its_order_and_a_bad_item_loses_nothing_else(handler: Any) -> None:
    other = {"mixture": in_base64(audio_file(noise(2))), "enrollment": PAIR["enrollment"]}
    answers = handler({"inputs": [PAIR, {"mixture": "no audio"}, other, 3, MIXTURE, PAIR]})

    assert len(answers) == 6
    assert answers[0] == answers[5] == handler({"inputs": PAIR})
    assert answers[2] == handler({"inputs": other}) != answers[0]
    assert answers[4] == handler({"inputs": MIXTURE})
    assert_clean_error(answers[1], 400)
    assert_clean_error(answers[3], 400)
    assert answers[3]["error"].startswith("inputs[3] ")
    assert handler({"inputs": [PAIR]}) == [answers[0]]


def test_parameters_shape_the_answer(handler: Any) -> None:
    plain = handler({"inputs": PAIR})
    assert handler({"inputs": PAIR, "parameters": {"top_k": 2}}) == plain[:2]
    assert handler({"inputs": PAIR, "parameters": {"top_k": None}}) == plain
    for window_seconds in (0.25, "0.25"):  # text is what a query string gives
        answer = handler({"inputs": PAIR, "parameters": {"window_seconds": window_seconds}})
        assert plain_scores(answer["emotions"]) == plain_scores(plain)
        assert answer["windows"][-1]["end_seconds"] == pytest.approx(0.5)
        assert_emotions(answer["windows"][0])


def test_the_extracted_speech_is_a_float_wav_without_clipping_or_date(handler: Any) -> None:
    request = {"inputs": [PAIR, PAIR], "parameters": {"return_extracted": True}}
    first, second = handler(request)
    assert first == second  # the second item saw the parameters as well

    extracted = first["extracted"]
    content = base64.b64decode(extracted["audio"])
    info = soundfile.info(io.BytesIO(content))
    assert (info.format, info.subtype, info.channels) == ("WAV", "FLOAT", 1)
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == extracted["sampling_rate"] == RATE
    expected = tiny_pipeline()(
        {"mixture": MIXTURE, "enrollment": ENROLLMENT}, return_extracted=True
    )
    np.testing.assert_array_equal(samples, expected["extracted"]["array"])
    # libsndfile itself writes the second of writing into such files.
    assert b"PEAK" not in content


def test_an_enrolled_voice_needs_no_enrollment(handler: Any) -> None:
    expected = plain_scores(handler({"inputs": PAIR}))
    by_name = {"mixture": PAIR["mixture"], "voice": "alice"}
    alone = {"mixture": PAIR["mixture"]}
    for inputs, parameters in (
        (by_name, {}),
        (alone, {"voice": "alice"}),
        (MIXTURE, {"voice": "alice"}),
        (PAIR, {"voice": "nobody"}),  # its own enrollment wins
        (by_name, {"voice": "nobody"}),
    ):
        answer = handler({"inputs": inputs, "parameters": parameters})
        assert plain_scores(answer) == pytest.approx(expected, rel=1e-4)
        assert handler({"inputs": [inputs] * 2, "parameters": parameters}) == [answer] * 2


def test_a_channel_and_all_details_can_be_asked_for(handler: Any) -> None:
    stereo = audio_file(np.concatenate([noise(0), noise(5)], axis=1))
    request = {"inputs": {"mixture": stereo, "enrollment": ENROLLMENT}}
    for channel in (0, "0"):
        answer = handler({**request, "parameters": {"channel": channel, "details": True}})
        assert plain_scores(answer["emotions"]) == plain_scores(handler({"inputs": PAIR}))
        assert answer["speech_seconds"] == 0 and answer["answer"] == "not enough speech"
    warned = handler({**request, "parameters": {"details": True}})["warnings"]
    assert "channels_differ" in [warning["code"] for warning in warned]
    wrong: list[Any] = [-1, 1.5, True, "left", "٣"]
    for channel in wrong:
        answer = handler({**request, "parameters": {"channel": channel}})
        assert_clean_error(answer, 400)
    assert_clean_error(handler({**request, "parameters": {"channel": 2}}), 422)


def test_what_is_cut_or_joined_is_heard_and_said(handler: Any) -> None:
    for kind, joined in (("FLAC", True), ("MP3", False)):
        content = audio_file(noise(0, 3), kind=kind)
        content = content * 2 if joined else content[: len(content) // 2]
        request = {"inputs": content, "parameters": {"details": True}}
        answer = handler(request)
        codes = [warning["code"] for warning in answer["warnings"]]
        assert ("cut_file" in codes) is not joined
        assert answer["duration_seconds"] == pytest.approx(6 if joined else 1.4, abs=0.3)


def test_nobody_learns_who_is_enrolled(handler: Any) -> None:
    for inputs in ({**PAIR, "enrollment": None, "voice": "bob"}, {"mixture": "", "voice": "../x"}):
        answer = handler({"inputs": inputs})
        assert_clean_error(answer)
        assert "alice" not in answer["error"]


def test_a_request_is_left_as_it_came(handler: Any) -> None:
    request = {"inputs": [dict(PAIR)], "parameters": {"voice": "alice", "top_k": 1}}
    before = json.dumps(request)
    handler(request)
    assert json.dumps(request) == before


WAV = audio_file(noise(0))
FLAC = audio_file(noise(0), kind="FLAC")
NAN = np.full((RATE, 1), np.nan, np.float32)


@pytest.mark.parametrize(
    ("audio", "status", "message"),
    [
        (b"", 400, "is empty"),
        ("", 400, "is empty"),
        (b"no audio at all", 415, "no audio file"),
        ("/var/lib/nonexistent", 415, "Paths and URLs are never opened"),  # valid base64
        ("/etc/passwd", 400, "Paths and URLs are never opened"),
        ("https://example.com/a.wav", 400, "Paths and URLs are never opened"),
        ("data:audio/wav;base64,AAAA", 400, "is no base64"),
        (in_base64(WAV)[:-1], 400, "is no base64"),
        (in_base64(WAV)[:76] + "\n", 400, "is no base64"),
        ("Ünïcode", 400, "is no base64"),
        ("\ud800", 400, "is no base64"),
        (3, 400, "of type int"),
        ([PAIR["mixture"]], 400, "of type list"),
        ({"array": [0.1], "sampling_rate": RATE}, 400, "has the key 'array'"),
        (WAV[:40], 415, "no audio file"),
        (b"RIFF", 415, "no audio file"),
        (b"fLaC" + bytes(100), 415, "no audio file"),
        (b"\xff\xfb" + bytes(100), 415, "no audio file"),
        (audio_file(noise(0), kind="AIFF"), 415, "no audio file"),
        (audio_file(noise(0, 0)), 422, "is empty"),
        (audio_file(noise(0, 0, channels=2)), 422, "is empty"),
        (audio_file(noise(0, 0.01)), 422, "pass a longer recording"),
        (audio_file(np.zeros((RATE, 1))), 422, "is silent"),
        (audio_file(NAN, subtype="FLOAT"), 422, "NaN or infinite"),
        (audio_file(NAN, 8000, subtype="FLOAT"), 422, "NaN or infinite"),
        (wav_claiming(24, "<I", 1, WAV), 422, "`sampling_rate` must be"),
        (wav_claiming(24, "<I", 2**31 - 1, WAV), 422, "`sampling_rate` must be"),
        (wav_claiming(24, "<I", 0, WAV), 415, "no audio file"),
        (wav_claiming(22, "<H", 1024, WAV), 422, "fewer than 1600"),
        (wav_claiming(22, "<H", 0, WAV), 415, "no audio file"),
        (audio_file(np.zeros((RATE * 601, 1)), kind="FLAC"), 413, "longer than 600 s"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_bad_audio_is_refused(handler: Any, audio: Any, status: int, message: str) -> None:
    for inputs in (audio, {"mixture": audio, "enrollment": ENROLLMENT}):
        if inputs is audio and isinstance(audio, list):
            continue  # alone, a list is a list of items
        if inputs is not audio and isinstance(audio, dict):
            continue  # as a mixture, an object is of the wrong type whatever it holds
        answer = handler({"inputs": inputs})
        assert_clean_error(answer, status)
        assert message in answer["error"]
    enrolled_by_it = handler({"inputs": {"mixture": MIXTURE, "enrollment": audio}})
    assert_clean_error(enrolled_by_it)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, 'no "inputs"'),
        ([], 'no "inputs"'),
        ({}, 'no "inputs"'),
        ({"inputs": None}, 'no "inputs"'),
        ({"inputs": []}, "empty list"),
        ({"inputs": {}}, "has no mixture"),
        ({"inputs": {"mixture": None, "enrollment": ""}}, "has no mixture"),
        ({"inputs": {"mixture": PAIR["mixture"]}}, "has no enrollment"),
        ({"inputs": {**PAIR, "voice": "alice"}}, "enrollment and voice"),
        ({"inputs": {**PAIR, "path": "x"}}, "has the key 'path'"),
        ({"inputs": {"mixture": PAIR["mixture"], "voice": 3}}, "voice is of type int"),
        ({"inputs": PAIR, "parameters": [1]}, "of type list"),
        ({"inputs": PAIR, "parameters": {"voices": "/etc"}}, "Unknown parameter 'voices'"),
        ({"inputs": PAIR, "parameters": {"batch_size": 2}}, "Unknown parameter"),
        ({"inputs": PAIR, "parameters": {"top_k": 0}}, "top_k must be"),
        ({"inputs": PAIR, "parameters": {"top_k": True}}, "top_k must be"),
        ({"inputs": PAIR, "parameters": {"top_k": 1.5}}, "top_k must be"),
        ({"inputs": PAIR, "parameters": {"return_extracted": 1}}, "return_extracted must be"),
        ({"inputs": PAIR, "parameters": {"window_seconds": 0}}, "window_seconds must be"),
        ({"inputs": PAIR, "parameters": {"window_seconds": True}}, "window_seconds must be"),
        ({"inputs": PAIR, "parameters": {"window_seconds": "nan"}}, "window_seconds must be"),
        ({"inputs": PAIR, "parameters": {"window_seconds": 10**400}}, "window_seconds must be"),
        ({"inputs": PAIR, "parameters": {"window_seconds": []}}, "window_seconds must be"),
    ],
)
def test_a_bad_request_is_refused_as_a_whole(handler: Any, data: Any, message: str) -> None:
    answer = handler(data)
    assert_clean_error(answer, 400)
    assert message in answer["error"]


def test_a_window_that_the_classifier_cannot_hear_is_refused(handler: Any) -> None:
    for window_seconds in (1e-6, 8, 1e308):
        # Nothing of several items can be answered: one error for all of them.
        request = {"inputs": [PAIR] * 2, "parameters": {"window_seconds": window_seconds}}
        answer = handler(request)
        assert_clean_error(answer, 400)
        assert "`window_seconds` must be" in answer["error"]


def test_sizes_are_limited(small: Any) -> None:
    long = audio_file(noise(0, 1.5))
    assert len(long) < 60_000
    assert_emotions(small({"inputs": MIXTURE}))
    for inputs, message in (
        ([PAIR] * 4, "4 inputs: send at most 3"),
        ([MIXTURE] * 3 + [3], "4 inputs"),
        ([PAIR, PAIR], "the request takes"),
        (audio_file(noise(0, 2)), "over 60000 bytes"),
        (in_base64(audio_file(noise(0, 2))), "over 60000 bytes"),
        (long, "longer than 1 s"),
        ({"mixture": MIXTURE, "enrollment": long}, "The enrollment: The recording is longer"),
    ):
        answer = small({"inputs": inputs})
        assert_clean_error(answer, 413)
        assert message in answer["error"]


def test_a_bomb_is_refused_in_little_memory(handler: Any) -> None:
    silence = audio_file(np.zeros((RATE * 3600, 1), np.float32), kind="FLAC")
    assert len(silence) < 600_000
    bombs = [silence, flac_claiming(RATE * 59, silence), wav_claiming(22, "<H", 1024, WAV)]
    handler({"inputs": bombs})
    tracemalloc.start()
    answers = handler({"inputs": bombs})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    for answer in answers:
        assert_clean_error(answer)
    # Ten minutes of float32 samples at 16 kHz take 37 MiB: a buffer of 64 MiB, of which the rest is
    # never touched, beside that of 32 MiB which it grew out of.
    assert peak < 104 * MEBIBYTE


def test_rates_that_share_no_divisor_take_little_memory(handler: Any) -> None:
    # The filters of an exact resampler from 44101 Hz would take gigabytes.
    rate_bomb = audio_file(noise(0, rate=44101), 44101)
    handler({"inputs": rate_bomb})
    with PeakTensorBytes() as meter:
        assert_emotions(handler({"inputs": rate_bomb}))
    assert meter.peak < 100 * MEBIBYTE


def test_the_model_hears_one_item_at_a_time(handler: Any, monkeypatch: Any) -> None:
    recognize, inside, most = handler._recognize, [0], [0]

    class Watched:
        voices, check_options = recognize.voices, recognize.check_options

        def __call__(self, *args: Any, **options: Any) -> Any:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.005)
            result = recognize(*args, **options)
            inside[0] -= 1
            return result

    monkeypatch.setattr(handler, "_recognize", Watched())
    threads = [threading.Thread(target=handler, args=({"inputs": PAIR},)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_failure_of_the_model_is_no_fault_of_the_client(handler: Any, monkeypatch: Any) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("out of memory")

    extractor = handler._recognize.model.extractor
    monkeypatch.setattr(extractor, "forward", broken)
    monkeypatch.setattr(extractor, "extract_in_parts", broken)
    good, bad = handler({"inputs": [b"no audio", PAIR]})
    assert good["status"] == 415 and bad["status"] == 500
    assert "the model failed" in bad["error"] and "look into the endpoint's log" in bad["error"]
    monkeypatch.undo()
    assert_emotions(handler({"inputs": MIXTURE}))  # and the lock is free again


def test_the_requirements_name_what_the_handler_imports() -> None:
    folder = Path(handler_module.__file__).parent
    named = {
        line.split(">")[0].strip()
        for line in (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    }
    assert {"numpy", "soundfile", "torch", "transformers"} == named
