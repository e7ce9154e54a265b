"""Audio in every form, and in none: the pipeline hears it or says what to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from bad_payloads import BAD_FILES, FILES, JSON, PLACES, SCALARS, SPOILED
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_meter import PeakTensorBytes
from tiny_endpoint import FIX, RATE, audio_file, flac_claiming, noise, tiny_pipeline
from torchaudio.functional import resample
from transformers.utils import logging as transformers_logging

from modeling import TargetSpeakerEmotionPipeline
from modeling.audio_reading import read_waveform

ENROLLMENT = noise(1)[:, 0]
SPEECH = noise(0)[:, 0]
fuzz = settings(max_examples=300, deadline=None, database=None, derandomize=True)


@pytest.fixture(scope="module")
def recognize() -> TargetSpeakerEmotionPipeline:
    return tiny_pipeline()


def tone(rate: float, num_samples: int) -> np.ndarray:
    return np.sin(2 * np.pi * 440 * np.arange(num_samples) / rate).astype(np.float32)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (FILES["FLAC"][:2000], "no audio file: pass wav"),
        (flac_claiming(0, FILES["FLAC"]), "no audio file: pass wav"),
        (flac_claiming(2**36 - 1, FILES["FLAC"]), "no audio file: pass wav"),
        (audio_file(noise(0, 0, channels=2)), "is empty: pass one with speech"),
        (np.zeros((0, 2), np.float32), "is empty: pass one with speech"),
        (np.zeros((2, 2, 2), np.float32), "of one or two dimensions"),
        ({"array": [[1.0], [1.0, 2.0]], "sampling_rate": RATE}, "must be an array of numbers"),
        ({"array": ["a"], "sampling_rate": RATE}, "convert them to float"),
        ({"array": SPEECH}, "needs its `sampling_rate`"),
        ({"bytes": "abc"}, "Cannot read audio from a dict of"),
        ({"path": 3}, "Cannot read audio from a dict of"),
        ({1: 2, "a": 3}, "Cannot read audio from a dict of"),
        ("A" * 5000, "is no file"),  # base64, say
        ("a\0b", "is no file"),
        (".", "is no file"),
        ("https://example.com/a.wav", "is a URL: download it first"),
        *(
            ({"array": SPEECH, "sampling_rate": rate}, "`sampling_rate` must be")
            for rate in ("abc", math.nan, math.inf, True, -5, 0, [1], 3999, 10**9, 1e30)
        ),
    ],
)
def test_what_is_no_audio_is_refused(audio: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_waveform(audio, RATE)


def test_tensors_of_every_precision_are_read() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        given = torch.from_numpy(SPEECH).to(dtype).requires_grad_()
        for audio in (given, {"array": given, "sampling_rate": RATE}):
            read = read_waveform(audio, RATE)
            assert read.dtype == np.float32
            np.testing.assert_allclose(read, SPEECH, atol=2e-3)


def test_common_rates_are_resampled_exactly() -> None:
    for rate in (8000, 11025, 22050, 44100, 48000, 96000, 192000):
        samples = noise(0, 0.2, rate=rate)[:, 0]
        read = read_waveform({"array": samples, "sampling_rate": rate}, RATE)
        exact = resample(torch.from_numpy(samples), rate, RATE).numpy()
        np.testing.assert_allclose(read, exact, atol=2e-5)


def test_odd_rates_take_little_memory_and_keep_the_pitch() -> None:
    for rate in (44101, 15999, 7919, 191999):
        with PeakTensorBytes() as meter:
            read = read_waveform({"array": tone(rate, rate), "sampling_rate": rate}, RATE)
        # An exact resampler from 44101 Hz has filters of 5 GiB.
        assert meter.peak < 100 * 2**20
        assert len(read) == pytest.approx(RATE, rel=2e-3)
        peak_hz = np.abs(np.fft.rfft(read)).argmax() * RATE / len(read)
        assert peak_hz == pytest.approx(440, rel=2.5e-3)


class Heard(logging.Handler):
    """The messages of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[Heard]:
    logger, handler = logging.getLogger("modeling.audio_reading"), Heard()
    transformers_logging.warning_once.cache_clear()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_resampling_and_mixing_down_are_said_once(
    recognize: TargetSpeakerEmotionPipeline, heard: Heard
) -> None:
    stereo = audio_file(noise(0, channels=2, rate=8000), 8000)
    recognize([{"mixture": stereo, "enrollment": stereo}] * 3)
    assert sorted(message.split()[0] for message in heard.messages) == ["Audio", "Stereo"]


ROWS = st.fixed_dictionaries(
    {"array": JSON | st.lists(st.floats(width=32), max_size=9), "sampling_rate": SCALARS}
)
ANYTHING = st.one_of(BAD_FILES, SPOILED, PLACES, JSON, ROWS, st.just(SPEECH))
OPTIONS = st.dictionaries(
    st.sampled_from(["top_k", "window_seconds", "voice"]), SCALARS | st.just(0.1), max_size=2
)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@fuzz
@given(mixture=ANYTHING, enrollment=ANYTHING | st.just(ENROLLMENT), options=OPTIONS)
def test_anything_is_heard_or_refused_with_the_fix(
    recognize: TargetSpeakerEmotionPipeline, mixture: Any, enrollment: Any, options: dict[str, Any]
) -> None:
    try:
        answer = recognize({"mixture": mixture, "enrollment": enrollment}, **options)
    except ValueError as error:
        assert FIX.search(str(error)), error
        assert len(str(error)) < 600 and "0x" not in str(error)
        return
    emotions = answer["emotions"] if isinstance(answer, dict) else answer
    assert all(0 <= emotion["score"] <= 1 for emotion in emotions)
