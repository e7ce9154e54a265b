"""Bootstrap intervals over utterances and speakers: against closed forms, by stratum, paired."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tse_ser.evaluation.bootstrap import (
    interval,
    paired_differences,
    resampled_means,
    speaker_interval,
    utterance_values,
)


def utterances(correct: Mapping[str, tuple[str, float | None]], fold: int = 1) -> pd.DataFrame:
    """Rows by utterance id: its class, and 1 where it was recognised; each has a speaker."""
    rows = [
        {"fold": fold, "unit": name, "label": label, "correct": right, "speaker_id": f"s{name}"}
        for name, (label, right) in correct.items()
    ]
    return pd.DataFrame(rows)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_samples_have_the_mean_and_variance_of_drawing_with_replacement() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.5, 0.0, 1.0])
    means = resampled_means(values, rng(), 50_000)
    assert means.mean() == pytest.approx(values.mean(), abs=0.005)
    assert means.std() == pytest.approx(values.std() / np.sqrt(values.size), rel=0.02)
    by_index = values[rng().integers(values.size, size=(50_000, values.size))].mean(axis=1)
    np.testing.assert_allclose(
        np.percentile(means, [5, 25, 75, 95]), np.percentile(by_index, [5, 25, 75, 95]), atol=0.01
    )


def test_the_estimate_is_the_unweighted_accuracy_averaged_over_folds() -> None:
    first = {"a": ("sad", 1.0), "b": ("sad", 0.0), "c": ("sad", 0.0), "d": ("happy", 1.0)}
    second = {"e": ("sad", 1.0), "f": ("happy", 0.0), "g": ("happy", 0.0)}
    both = pd.concat([utterances(first), utterances(second, fold=2)])
    found = interval(utterance_values(both, "correct"), rng())
    assert found is not None
    ua = [(1 / 3 + 1) / 2, (1 + 0) / 2]
    assert found.estimate == pytest.approx(np.mean(ua))
    # Only the first fold's class "sad" is uncertain: a quarter of the mean of three.
    assert found.low == pytest.approx(np.mean(ua) - 1 / 12)
    assert found.high == pytest.approx(np.mean(ua) + 2 / 12)


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    rows = pd.DataFrame(
        {"fold": 1, "label": None, "unit": np.arange(400), "speaker_id": "s", "si_sdri_db": values}
    )
    found = interval(utterance_values(rows, "si_sdri_db"), rng(), by_class=False)
    assert found is not None
    half_width = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half_width, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half_width, abs=0.03)


def test_seeds_are_averaged_before_anything_is_drawn() -> None:
    one = utterances({"a": ("sad", 1.0), "b": ("sad", 0.0)})
    two = utterances({"a": ("sad", 0.0), "b": ("sad", 1.0)})
    values = utterance_values(pd.concat([one, two]), "correct")
    assert values["value"].tolist() == [0.5, 0.5]
    found = interval(values, rng())
    assert found is not None
    assert (found.low, found.high) == (0.5, 0.5)


def test_what_is_unknown_is_left_out_and_nothing_has_no_interval() -> None:
    values = utterance_values(utterances({"a": ("sad", 1.0), "b": ("sad", None)}), "correct")
    assert values["unit"].tolist() == ["a"]
    assert interval(values.iloc[:0], rng()) is None
    assert speaker_interval(values, rng()) is None  # one speaker says nothing of others


def test_differences_are_paired_by_utterance_or_not_made() -> None:
    first = utterance_values(utterances({"a": ("sad", 1.0), "b": ("happy", 0.0)}), "correct")
    second = utterance_values(utterances({"b": ("happy", 1.0), "a": ("sad", 1.0)}), "correct")
    assert paired_differences(first, second)["value"].tolist() == [0.0, -1.0]
    other = utterance_values(utterances({"a": ("sad", 1.0), "c": ("happy", 1.0)}), "correct")
    assert paired_differences(first, other).empty


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 30), st.integers(1, 6), st.integers(0, 2**16))
def test_where_speakers_alone_decide_the_interval_is_that_of_so_many_speakers(
    num_speakers: int, per_speaker: int, seed: int
) -> None:
    drawn = np.random.default_rng(seed)
    of_speaker = drawn.integers(0, 2, num_speakers).astype(float)
    rows = [
        {"fold": 1 + speaker % 2, "label": "sad", "unit": f"{speaker}-{index}"}
        | {"speaker_id": str(speaker), "value": right}
        for speaker, right in enumerate(of_speaker)
        for index in range(per_speaker)
    ]
    found = speaker_interval(pd.DataFrame(rows), rng(), num_samples=4000)
    assert found is not None
    expected = resampled_means(of_speaker, np.random.default_rng(1), 4000)
    assert found.estimate == pytest.approx(of_speaker.mean())
    low, high = np.percentile(expected, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=1.01 / num_speakers)
    assert found.high == pytest.approx(high, abs=1.01 / num_speakers)


def test_a_class_that_a_sample_of_speakers_lacks_is_left_out_of_its_mean() -> None:
    values = utterance_values(
        utterances({"a": ("sad", 1.0), "b": ("happy", 1.0), "c": ("happy", 1.0)}), "correct"
    )
    found = speaker_interval(values, rng())
    assert found is not None
    assert (found.low, found.estimate, found.high) == (1.0, 1.0, 1.0)
