"""Waveforms to forward arguments: levels, padding, and the audio that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_speech import silence
from synthetic_speech import speech as babble
from tiny_models import ragged_waveforms, relative_error, tiny_tse_ser

from modeling import TseSerFeatureExtractor, feature_extraction_tse_ser
from modeling.feature_extraction_tse_ser import high_pass
from modeling.stretches import join_stretches, spread_stretches


def speech(num_samples: int, seed: int = 0) -> np.ndarray:
    waveform: np.ndarray = ragged_waveforms((num_samples,), seed)[0].numpy()
    return waveform


# What is made of noise, sample by sample: nothing is filtered out of it.
PLAIN: dict[str, Any] = {"highpass_hz": 0}


def level(waveform: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(waveform)))))


def test_mixture_and_enrollment_come_to_unit_level_and_the_target_with_its_mixture() -> None:
    target, enrollment = 0.02 * speech(4000, 1), 3 * speech(3000, 3)
    mixture = target + 0.01 * speech(4000, 2)
    features = TseSerFeatureExtractor(**PLAIN)(mixture, enrollment, target)
    assert level(features["input_values"]) == pytest.approx(1, abs=1e-5)
    assert level(features["enrollment_values"]) == pytest.approx(1, abs=1e-5)
    ratio = level(features["target_values"]) / level(features["input_values"])
    assert ratio == pytest.approx(level(target) / level(mixture), rel=1e-5)


def test_levels_stay_on_request() -> None:
    waveform = 0.02 * speech(4000)
    features = TseSerFeatureExtractor(do_normalize=False, **PLAIN)(waveform, 2 * waveform, waveform)
    for name, factor in (("input_values", 1), ("enrollment_values", 2), ("target_values", 1)):
        assert np.array_equal(features[name][0].numpy(), factor * waveform), name


def test_a_ragged_batch_is_padded_and_masked() -> None:
    mixtures, enrollments = [speech(4000), speech(2500)], [speech(2000), speech(3000)]
    features = TseSerFeatureExtractor()(mixtures, enrollments, mixtures)
    assert set(features) == {
        "input_values",
        "attention_mask",
        "enrollment_values",
        "enrollment_attention_mask",
        "target_values",
    }
    assert features["input_values"].shape == features["target_values"].shape == (2, 4000)
    assert features["attention_mask"].sum(dim=1).tolist() == [4000, 2500]
    assert features["enrollment_attention_mask"].sum(dim=1).tolist() == [2000, 3000]
    assert not features["input_values"][1, 2500:].any()
    assert not features["target_values"][1, 2500:].any()
    assert level(features["input_values"][1, :2500]) == pytest.approx(1, abs=1e-5)
    assert all(value.dtype in (torch.float32, torch.long) for value in features.values())


def test_one_length_needs_no_mask() -> None:
    features = TseSerFeatureExtractor()([speech(4000), speech(4000, 1)])
    assert set(features) == {"input_values"}


@pytest.mark.parametrize(
    "mixtures",
    [
        speech(4000),
        speech(4000).astype(np.float64),
        torch.from_numpy(speech(4000)),
        speech(4000).tolist(),
        [speech(4000)],
        speech(4000)[None],
    ],
    ids=["array", "float64", "tensor", "floats", "list", "batch"],
)
def test_one_waveform_may_come_in_any_form(mixtures: Any) -> None:
    features = TseSerFeatureExtractor(**PLAIN)(mixtures)
    assert features["input_values"].shape == (1, 4000)
    expected = speech(4000) / level(speech(4000))
    assert np.allclose(features["input_values"][0].numpy(), expected, atol=1e-5)


def test_numpy_comes_back_on_request() -> None:
    features = TseSerFeatureExtractor()(speech(4000), return_tensors="np")
    assert isinstance(features["input_values"], np.ndarray)
    assert features["input_values"].dtype == np.float32


def test_a_padded_batch_gives_what_its_rows_give_alone() -> None:
    model, extractor = tiny_tse_ser(), TseSerFeatureExtractor()
    mixtures = [0.1 * speech(4000, 1), 10 * speech(2600, 2)]
    enrollments = [speech(1800, 3), 0.01 * speech(2400, 4)]
    batch = model(**extractor(mixtures, enrollments, mixtures))
    for row, (mixture, enrollment) in enumerate(zip(mixtures, enrollments, strict=True)):
        alone = model(**extractor(mixture, enrollment, mixture))
        assert relative_error(batch.logits[row], alone.logits[0]) < 1e-5
        assert relative_error(batch.si_snr[row], alone.si_snr[0]) < 1e-5


@pytest.mark.parametrize("length", [1.0, 30.0])
def test_offset_and_rumble_are_filtered_out_and_speech_is_not(length: float) -> None:
    times = np.arange(round(length * 16000)) / 16000
    tones = [0.1 * np.sin(2 * np.pi * hz * times) for hz in (80, 300, 3000)]
    kept = np.sum(tones, axis=0).astype(np.float32)
    filtered = high_pass(kept, 16000, 40.0)
    assert np.square(filtered - kept).mean() < 3e-3 * np.square(kept).mean()
    for rumble in (0.5 * np.ones_like(times), np.sin(2 * np.pi * 5 * times), 0.1 * times):
        spoilt = (kept + rumble).astype(np.float32)
        inner = slice(1200, -1200)
        error = high_pass(spoilt, 16000, 40.0)[inner] - filtered[inner]
        assert np.abs(error).max() < 2e-3


def test_blocks_of_a_long_recording_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = speech(20_000) + 0.3
    expected = high_pass(waveform, 16000, 40.0)
    monkeypatch.setattr(feature_extraction_tse_ser, "FILTER_BLOCK", 8192)
    assert np.abs(high_pass(waveform, 16000, 40.0) - expected).max() < 1e-5


def test_a_low_cutoff_has_a_long_filter() -> None:
    # Its filter is longer than a block of most recordings.
    waveform = np.concatenate([np.zeros(800), babble(0, 2.0), np.zeros(800)]).astype(np.float32)
    for offset in (0.0, 0.3):
        assert np.abs(high_pass(waveform + np.float32(offset), 16000, 0.5) - waveform).max() < 1e-3


@pytest.mark.parametrize("highpass_hz", [-1.0, float("nan"), 8000.0])
def test_a_cutoff_out_of_range_is_refused(highpass_hz: float) -> None:
    with pytest.raises(ValueError, match="`highpass_hz` must be 0 or more, and below half"):
        TseSerFeatureExtractor(highpass_hz=highpass_hz)


def test_a_target_is_filtered_and_cut_as_its_mixture() -> None:
    target, pause = babble(0, 2.0), silence(2.0)
    target = np.concatenate([silence(1.0), target, pause, babble(1, 1.0), silence(1.0)])
    mixture = target + 0.2 + silence(len(target) / 16000, level=1e-4)
    features = TseSerFeatureExtractor()(mixture, babble(2, 3.0), target)
    assert features["input_values"].shape == features["target_values"].shape
    assert 2.8 < features["input_values"].shape[1] / 16000 < 3.6
    difference = features["input_values"] - features["target_values"]
    assert difference.square().mean() < 1e-3
    whole = TseSerFeatureExtractor(keep_speech_only=False)(mixture)
    assert whole["input_values"].shape[1] == len(mixture)


def test_noise_holds_no_speech_and_speech_in_noise_does() -> None:
    extractor = TseSerFeatureExtractor()
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(16000 * 8).astype(np.float32)
    hum = np.sin(2 * np.pi * 100 * np.arange(len(noise)) / 16000).astype(np.float32)
    for level_of_noise in (1e-5, 1e-2, 1.0):
        for nothing in (noise, np.cumsum(noise), hum + 0.01 * noise):
            assert extractor.prepare(level_of_noise * nothing).speech_seconds == 0
        spoken = np.concatenate([np.zeros(48000), babble(3, 2.0), np.zeros(48000)])
        for snr_db in (40, 20, 10):
            gain = level_of_noise * 10 ** (snr_db / 20) / babble(3, 2.0).std()
            prepared = extractor.prepare((gain * spoken + level_of_noise * noise).astype("f4"))
            assert 0.6 < prepared.speech_seconds < 2.2
            (start, stop) = prepared.stretches[0][0], prepared.stretches[-1][1]
            assert start / 16000 == pytest.approx(3.0, abs=0.35)
            assert stop / 16000 == pytest.approx(5.0, abs=0.35)


@pytest.mark.parametrize("level", [0.0, 1e-5, 1e-4])
def test_how_much_silence_lies_around_says_nothing_about_the_speech(level: float) -> None:
    # Loud and soft parts: the soft ones were lost where little silence diluted the loud ones.
    parts = [gain * babble(seed, 0.7) for seed, gain in enumerate((1.0, 0.1, 0.5, 0.05))]
    spoken = np.concatenate([silence(0.2, level=level), *parts, silence(0.2, level=level)])
    found = []
    for seconds in (0.0, 1.0, 4.0, 12.0):
        around = silence(seconds, level=level, seed=1)
        prepared = TseSerFeatureExtractor().prepare(np.concatenate([around, spoken, around]))
        found.append([(a - len(around), b - len(around)) for a, b in prepared.stretches])
    assert found[0] == found[1] == found[2] == found[3]


def test_settings_are_saved(tmp_path: Path) -> None:
    extractor = TseSerFeatureExtractor(8000, do_normalize=False, min_duration_seconds=0.25)
    extractor.save_pretrained(tmp_path)
    loaded = TseSerFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.sampling_rate == 8000
    assert loaded.do_normalize is False
    assert loaded.min_duration_seconds == 0.25


def test_a_target_may_be_silent() -> None:
    features = TseSerFeatureExtractor()(speech(4000), speech(4000), np.zeros(4000))
    assert not features["target_values"].any()


BROKEN = speech(4000)
BROKEN[17] = np.nan


@pytest.mark.parametrize(
    ("mixtures", "message"),
    [
        (BROKEN, "mixture 0 holds NaN or infinite samples: repair"),
        ([speech(4000), np.full(4000, np.inf)], "mixture 1 holds NaN or infinite"),
        (1e200 * speech(4000).astype(np.float64), "mixture 0 holds NaN or infinite"),
        (np.zeros(4000), "mixture 0 is silent: pass a recording with speech"),
        (np.full(4000, 1e-200), "mixture 0 is silent"),
        ([speech(4000)[:0]], "mixture 0 is empty: pass a recording with speech"),
        ([], "No mixture given: pass at least one"),
        (np.zeros(0), "No mixture given"),
        (speech(1599), r"mixture 0 has 1599 samples, fewer than 1600 \(0.1 s\): pass a longer"),
        ([np.ones((2, 4000))], r"mixture 0 must be mono, .* got \(2, 4000\): average its channels"),
        (np.ones((4000, 2)), r"shape \(4000, 2\), as one recording of 2 channels: average its"),
        (np.ones(4000, dtype=np.int16), "mixture 0 has int16 samples: convert them to float"),
    ],
)
def test_bad_audio_is_refused(mixtures: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TseSerFeatureExtractor()(mixtures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": 8000}, "Expected 16000 Hz, got 8000: resample the audio first"),
        ({"enrollments": [speech(4000)] * 2}, "Got 2 enrollments for 1 mixtures: pass one each"),
        ({"enrollments": np.zeros(4000)}, "enrollment 0 is silent"),
        ({"enrollments": BROKEN}, "enrollment 0 holds NaN"),
        ({"targets": speech(3999)}, "Target 0 has 3999 samples and its mixture 4000: both must"),
        ({"targets": [speech(4000)] * 2}, "Got 2 targets for 1 mixtures"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TseSerFeatureExtractor()(speech(4000), **arguments)


@pytest.mark.parametrize("stretches", [[(0, 9)], [(2, 4)], [(0, 2), (3, 4), (6, 9)], [(4, 8)]])
def test_stretches_go_back_to_their_places(stretches: list[tuple[int, int]]) -> None:
    # As a decoder leaves it: in a buffer that is longer.
    waveform = np.arange(1, 20, dtype=np.float32)[:9]
    kept = np.zeros(9, np.float32)
    for start, stop in stretches:
        kept[start:stop] = waveform[start:stop]
    joined = join_stretches(waveform, stretches)
    padded = np.pad(joined, (0, 5))  # as a batch does
    np.testing.assert_array_equal(spread_stretches(joined, stretches, 9), kept)
    if stretches != [(0, 9)]:
        np.testing.assert_array_equal(spread_stretches(padded, stretches, 9), kept)
    in_place = join_stretches(waveform, stretches, in_place=True)
    np.testing.assert_array_equal(in_place, joined)
    whole = spread_stretches(in_place, stretches, 9, in_place=True)
    assert np.shares_memory(whole, waveform)
    np.testing.assert_array_equal(whole, kept)
    if stretches != [(0, 9)]:
        assert (waveform.base is not None) and (waveform.base[9:] == np.arange(10, 20)).all()
