"""The model behind the Space: the same answers as the pipeline, and words for what goes wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from space_modules import EMOTIONS, RATE, recognizer, save_model, save_voice_like

from modeling import TargetSpeakerEmotionPipeline

Recognizer, RecordingError = recognizer.Recognizer, recognizer.RecordingError


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "recognizer_model"
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> recognizer.Recognizer:
    return Recognizer(str(model_dir))


def files_of(model: recognizer.Recognizer) -> tuple[str, str]:
    assert model.example is not None
    return model.example


def test_the_answer_is_that_of_the_pipeline(loaded: recognizer.Recognizer, tmp_path: Path) -> None:
    reference: TargetSpeakerEmotionPipeline = save_model(tmp_path / "same")
    mixture, sample = files_of(loaded)
    expected = reference({"mixture": mixture, "enrollment": sample}, return_extracted=True)
    assert isinstance(expected, dict)
    embedding, warnings = loaded.embed(sample)
    assert set(warnings) <= {warning["message"] for warning in expected["warnings"]}
    for voice in (sample, embedding):
        result = loaded.recognize(mixture, voice)
        assert list(result.separated) == EMOTIONS
        for entry in expected["emotions"]:
            assert result.separated[entry["label"]] == pytest.approx(entry["score"], rel=1e-4)
        assert result.answer == expected["answer"]
        assert result.speech_seconds == pytest.approx(expected["speech_seconds"])
        extracted = expected["extracted"]["array"]
        assert np.corrcoef(extracted, result.voice)[0, 1] > 0.9999


def test_both_signals_are_played_at_one_scale_and_unclipped(
    loaded: recognizer.Recognizer,
) -> None:
    mixture, sample = files_of(loaded)
    result = loaded.recognize(mixture, sample)

    assert result.mixture.shape == result.voice.shape == (2 * RATE,)
    # Nothing is taken away, but where the filters begin.
    np.testing.assert_allclose(result.voice[99:], result.mixture[99:], atol=0.02)
    peak = max(np.abs(result.mixture).max(), np.abs(result.voice).max())
    assert peak == pytest.approx(recognizer.PLAYBACK_PEAK, rel=1e-3)
    assert list(result.unseparated) == EMOTIONS
    assert sum(result.unseparated.values()) == pytest.approx(1)


def test_a_channel_is_taken(loaded: recognizer.Recognizer, tmp_path: Path) -> None:
    _, sample = files_of(loaded)
    plain = save_voice_like(tmp_path / "plain.wav", seed=3, seconds=2.0)
    left, rate = soundfile.read(plain)
    right, _ = soundfile.read(save_voice_like(tmp_path / "other.wav", seed=1, seconds=2.0))
    soundfile.write(tmp_path / "stereo.flac", np.stack([left, right], axis=1), rate)

    expected = loaded.recognize(str(plain), sample)
    stereo = str(tmp_path / "stereo.flac")
    chosen = loaded.recognize(stereo, sample, recognizer.CHANNELS["The left one"])
    assert list(chosen.separated.values()) == pytest.approx(
        list(expected.separated.values()), abs=1e-3
    )
    assert any("channels" in warning for warning in loaded.recognize(stereo, sample).warnings)


@pytest.mark.parametrize(
    ("threshold", "answer"), [(-0.99, "uncertain"), (1.0, "the speaker was not heard")]
)
def test_a_person_who_is_not_there_is_told(tmp_path: Path, threshold: float, answer: str) -> None:
    save_model(tmp_path / "recognizer_model", presence_threshold=threshold)
    model = Recognizer(str(tmp_path / "recognizer_model"))

    assert model.recognize(*files_of(model)).answer == answer


def written(path: Path, samples: np.ndarray, rate: int = RATE) -> str:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return str(path)


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (noise(0.05), "is too short. Use one of a few seconds"),
        (noise(0.0), "is too short"),
        (0 * noise(1.0), "is silent. Check the microphone"),
        (noise(1.0) * np.nan, "is damaged"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said_in_words(
    loaded: recognizer.Recognizer, tmp_path: Path, samples: np.ndarray, message: str
) -> None:
    path = written(tmp_path / "recording.wav", samples)
    mixture, sample = files_of(loaded)
    with pytest.raises(RecordingError, match=f"The recording {message}"):
        loaded.recognize(path, sample)
    for ask in (lambda: loaded.embed(path), lambda: loaded.recognize(mixture, path)):
        with pytest.raises(RecordingError, match=f"The sample {message}"):
            ask()


def test_what_is_missing_or_unreadable_is_said_in_words(
    loaded: recognizer.Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture, sample = files_of(loaded)
    (tmp_path / "text.wav").write_text("no sound at all")
    with pytest.raises(RecordingError, match=r"could not be read as sound\. Use a WAV, FLAC, OGG"):
        loaded.recognize(str(tmp_path / "text.wav"), sample)
    with pytest.raises(RecordingError, match="There is no recording yet"):
        loaded.recognize(None, sample)
    for ask in (lambda: loaded.embed(None), lambda: loaded.recognize(mixture, None)):
        with pytest.raises(RecordingError, match="There is no sample of the person yet"):
            ask()
    monkeypatch.setattr(recognizer, "MAX_SECONDS", 1.0)
    with pytest.raises(RecordingError, match="The recording is too long"):
        loaded.recognize(mixture, sample)


def test_the_example_is_what_the_model_brings_along(
    loaded: recognizer.Recognizer, model_dir: Path, tmp_path: Path
) -> None:
    expected = [model_dir / "sample" / f"{name}.wav" for name in ("mixture", "enrollment")]
    assert [Path(path) for path in files_of(loaded)] == expected
    assert recognizer.find_example(str(tmp_path)) is None


def test_the_voices_of_a_visit_are_bounded_and_named() -> None:
    voice = torch.ones(1, 8)
    voices: dict[str, torch.Tensor] = {}
    for index in range(recognizer.MAX_VOICES):
        before = dict(voices)
        voices = recognizer.with_voice(voices, f" voice  {index} ", voice)
        assert f"voice {index}" in voices and f"voice {index}" not in before
    with pytest.raises(RecordingError, match="There are 8 saved voices, and no room for more"):
        recognizer.with_voice(voices, "one more", voice)
    # The same name again takes the place of the old voice.
    assert recognizer.with_voice(voices, "voice 3", 2 * voice)["voice 3"].max() == 2
    assert len(voices) == recognizer.MAX_VOICES and voices["voice 3"].max() == 1

    with pytest.raises(RecordingError, match="The voice needs a name"):
        recognizer.with_voice({}, "  ", voice)
    with pytest.raises(RecordingError, match=r"too long\. Use at most 30 letters"):
        recognizer.with_voice({}, 31 * "a", voice)
    with pytest.raises(RecordingError, match="The voice of alice is no longer saved"):
        recognizer.saved_voice({}, "alice")
    assert recognizer.saved_voice({"alice": voice}, "alice") is voice


def test_a_failure_of_the_model_is_said_in_words(
    loaded: recognizer.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> object:
        raise RuntimeError("out of memory")

    mixture, sample = files_of(loaded)
    extractor = loaded._pipeline.model.extractor
    monkeypatch.setattr(extractor, "get_speaker_embeddings", broken)
    with pytest.raises(RecordingError, match="Try a shorter recording"):
        loaded.recognize(mixture, sample)
    with pytest.raises(RecordingError, match="Try a shorter recording"):
        loaded.embed(sample)
