"""The `evaluate` modules: definitions, reference values, silence, and offline loading."""

from __future__ import annotations

import json
import socket
import tracemalloc
from pathlib import Path

import evaluate
import numpy as np
import pytest
from safetensors.numpy import load_file

from tse_ser.evaluation.metrics.ser_accuracy.ser_accuracy import emotion_accuracies
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr

METRICS = Path(__file__).resolve().resolve().parents[1] / "tse_ser" / "evaluation" / "metrics"


@pytest.fixture(scope="module")
def si_sdr() -> evaluate.Metric:
    return evaluate.load(str(METRICS / "si_sdr"))


@pytest.fixture(scope="module")
def ser_accuracy() -> evaluate.Metric:
    return evaluate.load(str(METRICS / "ser_accuracy"))


def noisy_pair(noise_level: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.standard_normal(4000)
    return target + noise_level * rng.standard_normal(4000), target


def test_si_sdr_reproduces_the_float64_zero_mean_values_of_torchmetrics(vectors_dir: Path) -> None:
    tensors = load_file(vectors_dir / "si_sdr" / "sisdr.safetensors")
    cases = json.loads((vectors_dir / "si_sdr" / "sisdr.json").read_text())["cases"]
    for case, estimate, target in zip(cases, tensors["est"], tensors["target"], strict=True):
        expected = case["torchmetrics_f64_zero_mean"]
        # What is orthogonal up to rounding is the rounding's own ratio.
        tolerance = 1e-6 if "orthogonalised" in case["case"] else 1e-10
        value = scale_invariant_sdr(estimate, target)
        assert value == pytest.approx(expected, abs=tolerance), case["case"]


@pytest.mark.parametrize("level", [1e-3, 1.0, 100.0])
def test_si_sdr_of_audible_signals_is_the_plain_definition(level: float) -> None:
    estimate, target = (level * signal for signal in noisy_pair())
    estimate, target = estimate - estimate.mean(), target - target.mean()
    scaled_target = (estimate @ target) / (target @ target) * target
    ratio = np.sum(scaled_target**2) / np.sum((estimate - scaled_target) ** 2)
    assert scale_invariant_sdr(estimate, target) == pytest.approx(10 * np.log10(ratio), abs=1e-9)


def test_si_sdr_ignores_scale_sign_and_offset() -> None:
    estimate, target = noisy_pair()
    expected = scale_invariant_sdr(estimate, target)
    for other in (7.3 * estimate, -estimate, estimate + 0.5):
        assert scale_invariant_sdr(other, target) == pytest.approx(expected, abs=1e-9)
    assert scale_invariant_sdr(estimate, 0.1 * target - 2) == pytest.approx(expected, abs=1e-9)


def test_silence_and_exact_copies_are_finite_as_documented() -> None:
    _, target = noisy_pair()
    silence = np.zeros_like(target)
    assert scale_invariant_sdr(silence, target) == 0.0
    assert scale_invariant_sdr(silence, silence) == 0.0
    assert -200 < scale_invariant_sdr(target, silence) < -150
    assert 150 < scale_invariant_sdr(target, target) < 200


@pytest.mark.parametrize(
    ("estimate", "target", "message"),
    [
        (np.ones(5), np.ones(6), "5 samples and its target 6"),
        (np.ones((2, 5)), np.ones((2, 5)), r"shape \(num_samples,\)"),
        (np.ones(0), np.ones(0), r"shape \(num_samples,\)"),
        (np.array([0.0, np.nan]), np.ones(2), "NaN"),
    ],
)
def test_si_sdr_refuses_what_it_cannot_score(
    estimate: np.ndarray, target: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scale_invariant_sdr(estimate, target)


def test_si_sdr_module_averages_examples_of_different_lengths(si_sdr: evaluate.Metric) -> None:
    estimate, target = noisy_pair()
    mixture, _ = noisy_pair(noise_level=1.0)
    cut = slice(0, 1500)
    scores = si_sdr.compute(
        predictions=[estimate, estimate[cut]],
        references=[target, target[cut]],
        mixtures=[mixture, mixture[cut]],
    )
    extracted = [scale_invariant_sdr(estimate[s], target[s]) for s in (slice(None), cut)]
    mixed = [scale_invariant_sdr(mixture[s], target[s]) for s in (slice(None), cut)]
    assert scores["si_sdr"] == pytest.approx(np.mean(extracted))
    assert scores["si_sdri"] == pytest.approx(np.mean(extracted) - np.mean(mixed))
    assert scores["si_sdri"] > 5


def test_si_sdr_module_takes_no_more_memory_than_a_row(si_sdr: evaluate.Metric) -> None:
    waveforms = list(np.random.default_rng(0).standard_normal((50, 16_000)).astype(np.float32))
    targets = waveforms[1:] + waveforms[:1]
    tracemalloc.start()
    scores = si_sdr.compute(predictions=waveforms, references=targets, mixtures=waveforms)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scores["si_sdri"] == 0.0
    # A row in float64, and what is computed of it; all of them would be 12.8 MB.
    assert peak < 12 * waveforms[0].size * 8


def test_si_sdr_module_gives_the_same_for_batches_that_are_added(si_sdr: evaluate.Metric) -> None:
    estimate, target = noisy_pair()
    for cut in (slice(0, 1500), slice(0, None), slice(100, 900)):
        si_sdr.add_batch(predictions=[estimate[cut]], references=[target[cut]])
    assert si_sdr.compute() == si_sdr.compute(
        predictions=[estimate[:1500], estimate, estimate[100:900]],
        references=[target[:1500], target, target[100:900]],
    )
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        si_sdr.compute(predictions=[estimate], references=[target, target])


def test_si_sdr_module_has_no_improvement_without_mixtures(si_sdr: evaluate.Metric) -> None:
    estimate, target = noisy_pair()
    scores = si_sdr.compute(predictions=[estimate], references=[target])
    assert set(scores) == {"si_sdr"}
    with pytest.raises(ValueError, match="2 mixtures for 1 references"):
        si_sdr.compute(predictions=[estimate], references=[target], mixtures=[target, target])


def test_wa_is_plain_accuracy_and_ua_the_mean_recall(ser_accuracy: evaluate.Metric) -> None:
    # Six of class 0, two of class 1: always answering 0 is 75 % weighted, 50 % unweighted.
    scores = ser_accuracy.compute(predictions=[0] * 8, references=[0] * 6 + [1] * 2)
    assert scores["wa"] == 0.75
    assert scores["ua"] == 0.5
    assert scores["per_class_recall"] == [1.0, 0.0]
    assert scores["confusion"] == [[6, 0], [2, 0]]


def test_an_absent_class_has_no_recall_and_does_not_count_in_ua(
    ser_accuracy: evaluate.Metric,
) -> None:
    scores = ser_accuracy.compute(predictions=[0, 2, 1], references=[0, 0, 1], num_classes=4)
    assert scores["per_class_recall"] == [0.5, 1.0, None, None]
    assert scores["ua"] == 0.75
    assert scores["confusion"][0] == [1, 0, 1, 0]


def test_labels_give_the_order_of_rows_and_columns() -> None:
    scores = emotion_accuracies([3, 1, 1], [3, 3, 1], labels=[3, 1])
    assert scores["confusion"] == [[1, 1], [0, 1]]
    assert scores["per_class_recall"] == [0.5, 1.0]


def test_unlabelled_utterances_and_confused_arguments_are_refused(
    ser_accuracy: evaluate.Metric,
) -> None:
    with pytest.raises(ValueError, match="-100"):
        ser_accuracy.compute(predictions=[0, 1], references=[0, -100], num_classes=4)
    with pytest.raises(ValueError, match="not both"):
        ser_accuracy.compute(predictions=[0], references=[0], num_classes=4, labels=[0])
    with pytest.raises(ValueError, match="twice"):
        emotion_accuracies([0], [0], labels=[0, 0])
    with pytest.raises(ValueError, match="one or more"):
        emotion_accuracies([], [])


def test_the_modules_load_by_relative_path_without_network(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> None:
        raise OSError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.chdir(repository)
    si_sdr = evaluate.load("tse_ser/evaluation/metrics/si_sdr")
    ser_accuracy = evaluate.load("tse_ser/evaluation/metrics/ser_accuracy")
    # The examples that the metric cards show.
    target = [1.0, 1.0, -1.0, -1.0]
    assert si_sdr.compute(predictions=[[2.0, 0.0, -2.0, 0.0]], references=[target]) == {
        "si_sdr": 0.0
    }
    assert ser_accuracy.compute(
        predictions=[0, 0, 0, 1], references=[0, 0, 1, 1], num_classes=2
    ) == {"wa": 0.75, "ua": 0.75, "per_class_recall": [1.0, 0.5], "confusion": [[2, 0], [1, 1]]}
