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
    result = loaded.recognize(loaded.hear(mixture), loaded.embed(sample))

    expected = reference({"mixture": mixture, "enrollment": sample}, return_extracted=True)
    assert isinstance(expected, dict)
    assert list(result.separated) == EMOTIONS
    for entry in expected["emotions"]:
        assert result.separated[entry["label"]] == pytest.approx(entry["score"], rel=1e-4)
    extracted = expected["extracted"]["array"]
    assert np.corrcoef(extracted, result.voice)[0, 1] > 0.9999


def test_without_separation_the_classifier_hears_the_recording(
    loaded: recognizer.Recognizer, tmp_path: Path
) -> None:
    reference = save_model(tmp_path / "same")
    mixture, sample = files_of(loaded)
    result = loaded.recognize(loaded.hear(mixture), loaded.embed(sample))

    waveform, _ = soundfile.read(mixture, dtype="float32")
    features = reference.feature_extractor(waveform)
    with torch.no_grad():
        logits = reference.model.classifier(features["input_values"]).logits
    np.testing.assert_allclose(
        list(result.unseparated.values()), logits[0].softmax(-1).numpy(), rtol=1e-4
    )
    assert result.unseparated != result.separated


def test_both_signals_are_played_equally_loud_and_unclipped(loaded: recognizer.Recognizer) -> None:
    mixture, sample = files_of(loaded)
    result = loaded.recognize(loaded.hear(mixture), loaded.embed(sample))

    assert result.mixture.shape == result.voice.shape == (2 * RATE,)
    assert np.std(result.mixture) == pytest.approx(np.std(result.voice), rel=0.02)
    peak = max(np.abs(result.mixture).max(), np.abs(result.voice).max())
    assert peak == pytest.approx(recognizer.PLAYBACK_PEAK, rel=1e-3)


def test_other_rates_and_stereo_are_taken(loaded: recognizer.Recognizer, tmp_path: Path) -> None:
    plain = save_voice_like(tmp_path / "plain.wav", seed=3)
    fast = save_voice_like(tmp_path / "fast.wav", seed=3, rate=48000)
    samples, rate = soundfile.read(fast)
    soundfile.write(tmp_path / "stereo.flac", np.stack([samples, samples], axis=1), rate)

    expected = loaded.hear(str(plain))
    for name in ("fast.wav", "stereo.flac"):
        heard = loaded.hear(str(tmp_path / name))
        assert heard.shape == expected.shape
        assert torch.nn.functional.cosine_similarity(heard, expected).item() > 0.95


def test_an_answer_from_the_beginning_says_so(tmp_path: Path) -> None:
    made = save_model(tmp_path / "recognizer_model")
    made.model.classifier.config.max_duration_seconds = 1.5
    made.model.config.classifier_config.max_duration_seconds = 1.5
    made.save_pretrained(tmp_path / "short")
    model = Recognizer(str(tmp_path / "short"))
    path = save_voice_like(tmp_path / "long.wav", seed=0, seconds=3.0)

    result = model.recognize(model.hear(str(path)), model.embed(str(path)))

    assert result.judged_seconds == 1.5


@pytest.mark.parametrize(
    ("threshold", "present"), [(None, None), (-0.99, True), (0.9999999, False)]
)
def test_a_person_who_is_not_there_is_told(
    tmp_path: Path, threshold: float | None, present: bool | None
) -> None:
    save_model(tmp_path / "recognizer_model", presence_threshold=threshold)
    model = Recognizer(str(tmp_path / "recognizer_model"))
    mixture, sample = files_of(model)

    assert model.recognize(model.hear(mixture), model.embed(sample)).is_present is present


def written(path: Path, samples: np.ndarray, rate: int = RATE) -> str:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return str(path)


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE))


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (noise(0.3), RATE, "The recording is too short: 0.3 seconds. At least 0.5 seconds are"),
        (noise(0.0), RATE, "The recording is too short: 0.0 seconds"),
        (noise(30.1), RATE, "The recording is too long. Cut it to at most 30 seconds"),
        (0 * noise(1.0), RATE, "The recording is silent. Check the microphone"),
        (noise(1.0, level=1e-4), RATE, "The recording is silent"),
        (noise(1.0) * np.nan, RATE, "The recording is damaged"),
        (noise(1.0), 15991, "an unusual sampling rate of 15991 Hz. Save it with 16000"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said_in_words(
    loaded: recognizer.Recognizer, tmp_path: Path, samples: np.ndarray, rate: int, message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        loaded.hear(written(tmp_path / "recording.wav", samples, rate))


def test_what_is_missing_or_unreadable_is_said_in_words(
    loaded: recognizer.Recognizer, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no sound at all")
    with pytest.raises(RecordingError, match=r"could not be read as sound\. Use a WAV, FLAC, OGG"):
        loaded.hear(str(tmp_path / "text.wav"))
    with pytest.raises(RecordingError, match="There is no recording yet"):
        loaded.hear(None)
    with pytest.raises(RecordingError, match="There is no sample of the person yet"):
        loaded.embed(None)
    with pytest.raises(RecordingError, match=r"sample is too short.*At least 1 second is needed"):
        loaded.embed(written(tmp_path / "sample.wav", noise(0.9)))


def test_the_limits_are_taken(loaded: recognizer.Recognizer, tmp_path: Path) -> None:
    shortest = written(tmp_path / "shortest.wav", noise(0.5))
    longest = written(tmp_path / "longest.wav", noise(30.0))
    assert loaded.hear(shortest).shape == (1, RATE // 2)
    assert loaded.hear(longest).shape == (1, 30 * RATE)
    assert loaded.embed(written(tmp_path / "second.wav", noise(1.0))).shape[0] == 1


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
