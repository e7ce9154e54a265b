"""Waveforms to forward arguments: levels, padding, and the audio that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import ragged_waveforms, relative_error, tiny_tse_ser

from modeling import TseSerFeatureExtractor


def speech(num_samples: int, seed: int = 0) -> np.ndarray:
    waveform: np.ndarray = ragged_waveforms((num_samples,), seed)[0].numpy()
    return waveform


def level(waveform: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(waveform)))))


def test_mixture_and_enrollment_come_to_unit_level_and_the_target_with_its_mixture() -> None:
    target, enrollment = 0.02 * speech(4000, 1), 3 * speech(3000, 3)
    mixture = target + 0.01 * speech(4000, 2)
    features = TseSerFeatureExtractor()(mixture, enrollment, target)
    assert level(features["input_values"]) == pytest.approx(1, abs=1e-5)
    assert level(features["enrollment_values"]) == pytest.approx(1, abs=1e-5)
    ratio = level(features["target_values"]) / level(features["input_values"])
    assert ratio == pytest.approx(level(target) / level(mixture), rel=1e-5)


def test_levels_stay_on_request() -> None:
    waveform = 0.02 * speech(4000)
    features = TseSerFeatureExtractor(do_normalize=False)(waveform, 2 * waveform, waveform)
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
    features = TseSerFeatureExtractor()(mixtures)
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
