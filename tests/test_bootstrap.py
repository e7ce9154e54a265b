"""Bootstrap intervals over utterances: against closed forms, by stratum, and paired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tse_ser.evaluation.bootstrap import (
    interval,
    paired_differences,
    resampled_means,
    si_sdri_db,
    utterance_values,
)


def cell(correct: dict[str, tuple[int, bool]], fold: int = 1, seed: int = 0) -> dict[str, Any]:
    """A cell of utterances: id, and its class and whether it was recognised."""
    records = [
        {"utterance_id": name, "label": label, "prediction": label if right else label + 1}
        for name, (label, right) in correct.items()
    ]
    return {"fold": fold, "seed": seed, "utterances": records}


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
    first = {"a": (0, True), "b": (0, False), "c": (0, False), "d": (1, True)}
    second = {"e": (0, True), "f": (1, False), "g": (1, False)}
    found = interval(utterance_values([cell(first), cell(second, fold=2)]), rng())
    assert found is not None
    ua = [(1 / 3 + 1) / 2, (1 + 0) / 2]
    assert found.estimate == pytest.approx(np.mean(ua))
    # Only the first fold's class 0 is uncertain: a quarter of the mean of three.
    assert found.low == pytest.approx(np.mean(ua) - 1 / 12)
    assert found.high == pytest.approx(np.mean(ua) + 2 / 12)


def test_classes_are_drawn_within_so_a_sure_class_adds_no_width() -> None:
    strata = {(1, 0): {str(i): 1.0 for i in range(50)}, (1, 1): {str(i): 0.0 for i in range(50)}}
    found = interval(strata, rng())
    assert found is not None
    assert (found.low, found.estimate, found.high) == (0.5, 0.5, 0.5)


def test_the_width_shrinks_as_the_root_of_the_utterances() -> None:
    def width(count: int) -> float:
        values = {str(index): float(index % 2) for index in range(count)}
        found = interval({(1, 0): values}, rng())
        assert found is not None
        return found.high - found.low

    assert width(100) == pytest.approx(2 * 1.96 * 0.5 / 10, abs=0.02)
    assert width(100) / width(1600) == pytest.approx(4.0, rel=0.1)


def test_seeds_of_one_utterance_are_averaged_before_it_is_drawn() -> None:
    cells = [
        cell({"a": (0, True), "b": (0, True)}, seed=0),
        cell({"a": (0, False), "b": (0, True)}, seed=1),
    ]
    assert utterance_values(cells) == {(1, 0): {"a": 0.5, "b": 1.0}}


def test_differences_are_paired_by_the_utterance_that_was_extracted() -> None:
    clean = cell({"ravdess/a": (0, True), "ravdess/b": (0, False)})
    denoised = cell({"denoised/b": (0, True), "denoised/a": (0, True)})
    for record in denoised["utterances"]:
        record["source_utterance_id"] = record["utterance_id"].replace("denoised", "ravdess")
    pairs = paired_differences(utterance_values([denoised]), utterance_values([clean]))
    assert pairs == {(1, 0): {"ravdess/a": 0.0, "ravdess/b": 1.0}}


def test_a_paired_interval_is_narrower_than_the_models_own() -> None:
    draw = np.random.default_rng(3)
    hard = draw.random(400) < 0.5
    first = {str(i): float(not h) for i, h in enumerate(hard)}
    second = {name: max(0.0, value - float(draw.random() < 0.1)) for name, value in first.items()}
    pair = interval(paired_differences({(1, 0): first}, {(1, 0): second}), rng())
    alone = interval({(1, 0): first}, rng())
    assert pair is not None and alone is not None
    assert pair.low > 0
    assert pair.high - pair.low < 0.6 * (alone.high - alone.low)


def test_other_utterances_cannot_be_paired() -> None:
    one = utterance_values([cell({"a": (0, True)})])
    assert paired_differences(one, utterance_values([cell({"b": (0, True)})])) == {}
    assert paired_differences(one, {}) == {}
    assert interval({}, rng()) is None


def test_old_cells_absent_targets_and_unknown_emotions_have_no_value() -> None:
    assert utterance_values([{"fold": 1, "seed": 0}]) == {}
    absent = {"utterance_id": "a", "label": -100, "prediction": 1, "target_absent": True}
    extracted = {"utterance_id": "b", "label": 2, "si_sdri_db": 4.0}
    cells = [{"fold": 1, "seed": 0, "utterances": [absent, extracted]}]
    assert utterance_values(cells) == {}
    assert utterance_values(cells, si_sdri_db) == {(1, 2): {"b": 4.0}}


def test_decibels_count_by_utterance_not_by_class() -> None:
    strata = {(1, 0): {"a": 0.0, "b": 0.0, "c": 0.0}, (1, 1): {"d": 4.0}}
    by_utterance = interval(strata, rng(), by_class=False)
    by_class = interval(strata, rng())
    assert by_utterance is not None and by_class is not None
    assert (by_utterance.estimate, by_class.estimate) == (1.0, 2.0)
