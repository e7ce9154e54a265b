"""Calibration: what probabilities say, and thresholds at a stated rate of false alarms."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tse_ser.evaluation.calibration import (
    ask_all,
    at_temperature,
    detection,
    expected_calibration_error,
    find_temperature,
    log_loss,
    main,
    write_settings,
)


def drawn(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right at `temperature`, as a model gives them at 1."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 4)) * 2
    true = np.exp(logits / temperature)
    true /= true.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(4, p=row) for row in true])
    given = np.exp(logits)
    return given / given.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("temperature", [1.0, 1.4, 2.2])
def test_the_temperature_that_was_put_in_is_found(temperature: float) -> None:
    probabilities, labels = drawn(temperature)
    found = find_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.08)
    after = at_temperature(probabilities, found)
    assert log_loss(after, labels) <= log_loss(probabilities, labels) + 1e-9
    assert expected_calibration_error(after, labels)[0] < 0.03
    if temperature != 1:
        assert expected_calibration_error(probabilities, labels)[0] > 0.05
    np.testing.assert_array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))


def test_speakers_who_flatter_a_model_do_not_make_it_surer() -> None:
    assert find_temperature(*drawn(0.6)) == 1.0


def test_the_error_is_the_gap_of_each_bin_by_its_size() -> None:
    probabilities = np.array([[0.95, 0.05]] * 4 + [[0.65, 0.35]])
    error, bins = expected_calibration_error(probabilities, np.array([0, 0, 1, 1, 0]))
    assert error == pytest.approx((4 * 0.45 + 1 * 0.35) / 5)
    assert [each["num_examples"] for each in bins] == [1, 4]
    assert bins[1] == pytest.approx(
        {"from": 0.9, "to": 1.0, "num_examples": 4, "confidence": 0.95, "accuracy": 0.5}
    )


@settings(deadline=None, derandomize=True)
@given(
    positive=st.lists(st.floats(-1, 1), min_size=20, max_size=60),
    negative=st.lists(st.floats(-1, 1), min_size=1, max_size=60),
    rate=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_false_alarms_stay_at_the_stated_rate(
    positive: list[float], negative: list[float], rate: float
) -> None:
    found = detection(positive, negative, None, rate)
    assert found is not None
    # The threshold is rounded to four places.
    assert (
        found["false_alarms"]
        <= rate
        + 1 / len(positive)
        + (np.abs(np.array(positive) - found["threshold"]) < 1e-4).mean()
    )
    again = detection(positive, negative, found["threshold"], 0.9)
    assert again == found
    assert detection(positive, [], None, rate) is None


def test_what_was_found_goes_into_the_config_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"temperature": 1.0, "kept": [1, 2]}))
    presence = {"threshold": 0.61}
    write_settings(tmp_path, {"temperature": 0.71234567, "presence": presence, "one_voice": None})
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "kept": [1, 2],
        "presence_threshold": 0.61,
        "temperature": 0.7123,
    }


def test_probabilities_stand_in_the_order_of_the_models_own_classes() -> None:
    class Recognizer:
        model = SimpleNamespace(config=SimpleNamespace(id2label={0: "sad", 1: "amused"}))

        def __call__(self, given: Any, details: bool) -> dict[str, Any]:
            likeliest_first = [{"label": "amused", "score": 0.7}, {"label": "sad", "score": 0.3}]
            return {"emotions": likeliest_first, "speaker_similarity": 0.5}

    example = {"mixture": None, "enrollment": None, "label": 1, "speaker_id": "a"}
    (answer,) = ask_all(cast(Any, Recognizer()), cast(Any, [example]), "present")
    assert answer["probabilities"] == [0.3, 0.7]


def test_nothing_is_found_on_the_speakers_of_training_or_test(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--model", "none", "--targets", "generated", "--interferers", "generated"]
    assert main([*words, "--write", "--split", "test"]) == 2
    assert "validation split alone" in capsys.readouterr().err
    assert main([*words, "--split", "train"]) == 2
    assert "not trained on" in capsys.readouterr().err
