"""Audio in every form, and in none: the pipeline hears it or says what to do."""

from __future__ import annotations

import io
import math
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from bad_payloads import BAD_FILES, FILES, JSON, PLACES, SCALARS, SPOILED
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_meter import PeakTensorBytes
from synthetic_speech import by_av
from tiny_endpoint import FIX, RATE, audio_file, noise, tiny_pipeline
from torchaudio.functional import resample

from modeling import TargetSpeakerEmotionPipeline, audio_reading
from modeling.audio_reading import Recording, read_recording, read_waveform
from modeling.input_checks import AudioError

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


CODECS = [
    *(("WAV", None), ("FLAC", None), ("OGG", None), ("OGG", "OPUS"), ("MP3", None)),
    *(("AIFF", None), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ALAW"), ("WAV", "MS_ADPCM")),
    *(("CAF", None), ("W64", None), ("AU", None)),
]


def codes(recording: Recording) -> list[str]:
    return [warning["code"] for warning in recording.warnings]


@pytest.mark.parametrize(("kind", "subtype"), CODECS)
def test_what_libsndfile_knows_is_read(kind: str, subtype: str | None) -> None:
    recording = read_recording(audio_file(noise(0, 2.0), kind=kind, subtype=subtype), RATE)
    assert len(recording.waveform) == pytest.approx(2 * RATE, rel=0.02)
    assert recording.warnings == []


@pytest.mark.parametrize(("kind", "subtype"), CODECS[:6])
def test_joined_files_are_read_whole(kind: str, subtype: str | None, tmp_path: Path) -> None:
    parts = [noise(seed, seconds) for seed, seconds in ((0, 1.5), (1, 2.0), (2, 1.0))]
    files = [audio_file(part, kind=kind, subtype=subtype) for part in parts]
    alone = [read_waveform(file, RATE) for file in files]
    path = tmp_path / "joined"
    path.write_bytes(b"".join(files))
    for joined in (b"".join(files), path):
        recording = read_recording(joined, RATE)
        assert recording.warnings == []
        # Decoders of mp3 hear across the seam.
        np.testing.assert_allclose(recording.waveform, np.concatenate(alone), atol=0.02)


@pytest.mark.parametrize(("kind", "subtype"), CODECS[:5])
def test_a_cut_file_is_used_and_noticed(kind: str, subtype: str | None) -> None:
    content = audio_file(noise(0, 20.0), kind=kind, subtype=subtype)
    recording = read_recording(content[: len(content) // 2], RATE)
    assert codes(recording) == ["cut_file"]
    assert 5 < len(recording.waveform) / RATE < 11


def test_a_wav_whose_recorder_was_killed_is_read_to_its_end(tmp_path: Path) -> None:
    content = audio_file(noise(0, 2.0))
    path = tmp_path / "killed.wav"
    # Nothing yet, or what those who write into a pipe claim: most, SoX and arecord.
    for claimed in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x7FFFFF00):
        size = struct.pack("<I", claimed)
        path.write_bytes(content[:4] + size + content[8:40] + size + content[44:])
        recording = read_recording(path, RATE)
        np.testing.assert_allclose(recording.waveform, read_waveform(content, RATE))
        assert codes(recording) == ([] if claimed else ["cut_file"])
    size = struct.pack("<I", 0x80000000)  # of a recording that was this long before it was cut
    path.write_bytes(content[:4] + size + content[8:40] + size + content[44:])
    assert codes(read_recording(path, RATE)) == ["cut_file"]
    with pytest.raises(ValueError, match="is empty"):  # an empty one followed by tags
        read_waveform(audio_file(noise(0, 0)) + b"LIST\x04\0\0\0INFO", RATE)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("webm", "libopus")])
def test_what_phones_and_browsers_write_is_read_by_pyav(
    container: str, codec: str, monkeypatch: Any, tmp_path: Path
) -> None:
    samples = np.stack([tone(48000, 96000), 0.5 * tone(48000, 96000)], axis=1)
    content = by_av(samples, 48000, container, codec)
    path = tmp_path / "recording"
    path.write_bytes(content)
    for channel, level in ((0, 1.0), (1, 0.5), ("louder", 1.0)):
        for audio in (content, path, io.BytesIO(content)):
            read = read_waveform(audio, RATE, channel)
            assert len(read) == pytest.approx(2 * RATE, rel=0.03)
            assert np.abs(read[RATE // 2 : RATE]).max() == pytest.approx(level, rel=0.1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'tse-ser\[av\]'.*ffmpeg -i"):
        read_waveform(content, RATE)


def test_integers_come_with_their_scale() -> None:
    expected = np.array([-1.0, -0.5, 0.0, 0.5] * 400, np.float32)
    for dtype, scale, zero in ((np.int8, 2**7, 0), (np.uint8, 2**7, 2**7), (np.int16, 2**15, 0)):
        given = (expected * scale + zero).astype(dtype)
        np.testing.assert_allclose(read_waveform(given, RATE), expected)
        np.testing.assert_allclose(read_waveform((RATE, given), RATE), expected)
    np.testing.assert_allclose(read_waveform((expected * 2**31).astype(np.int32), RATE), expected)


def test_blocks_are_resampled_as_the_whole(monkeypatch: Any) -> None:
    samples = noise(0, 3.0, rate=44100)
    expected = read_waveform({"array": samples, "sampling_rate": 44100}, RATE)
    for block in (100, 4097):
        monkeypatch.setattr(audio_reading, "BLOCK_FRAMES", block)
        read = read_waveform({"array": samples, "sampling_rate": 44100}, RATE)
        np.testing.assert_allclose(read, expected, atol=1e-6)


def test_long_audio_is_refused_before_it_is_decoded_whole() -> None:
    for num_channels in (1, 2):
        content = audio_file(np.zeros((RATE * 600, num_channels), np.float32), kind="FLAC")
        with PeakTensorBytes() as meter, pytest.raises(ValueError, match="longer than 5 s"):
            read_recording(content, RATE, max_seconds=5)
        assert meter.peak < 2**24


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_a_recording_may_be_as_long_as_is_allowed(rate: int) -> None:
    samples = np.full(rate * 60, 100, np.int16)
    assert len(read_recording((rate, samples), RATE, max_seconds=60.0).waveform) == 60 * RATE
    with pytest.raises(AudioError, match="longer than 60 s"):
        read_recording((rate, np.append(samples, samples[:1])), RATE, max_seconds=60.0)


def test_no_more_than_is_allowed_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Channels are weighed up before their mean is taken, which is a pass of its own.
    heard = []
    read = soundfile.SoundFile.read

    def counted(sound: soundfile.SoundFile, *arguments: Any, **options: Any) -> Any:
        block = read(sound, *arguments, **options)
        heard.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    content = audio_file(np.zeros((RATE * 600, 2), np.float32), kind="FLAC")
    with pytest.raises(ValueError, match="longer than 5 s"):
        read_recording(content, RATE, max_seconds=5)
    assert sum(heard) / RATE < 30


def test_what_a_decoder_of_others_cannot_read_is_no_audio() -> None:
    class Broken:
        def get_all_samples(self) -> Any:
            raise RuntimeError("Could not push packet to decoder")

    with pytest.raises(AudioError, match=r"cannot be decoded.*push packet") as caught:
        read_recording(Broken(), RATE)
    assert caught.value.reason == "unreadable"


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
