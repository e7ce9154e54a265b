"""What Trainer is told after a validation, for each stage's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from modeling.signal_losses import si_snr
from tse_ser.evaluation.compute_metrics import compute_metrics
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr

LOGITS = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
LABELS = np.array([0, 1, 1, 2])
SI_SNR_DB = np.array([4.0, 6.0, 8.0, -2.0], dtype=np.float32)


def prediction(predictions: Any, label_ids: Any) -> EvalPrediction:
    # Trainer gives tuples of any length; the library's hint says one array.
    return EvalPrediction(predictions=predictions, label_ids=label_ids)


def test_classification_gives_weighted_and_unweighted_accuracy() -> None:
    scores = compute_metrics(prediction(LOGITS, LABELS))
    assert scores == {"wa": 0.75, "ua": pytest.approx((1 + 0.5 + 1) / 3)}


def test_extraction_gives_si_sdr_without_any_waveform() -> None:
    labels = np.full(4, -100)
    scores = compute_metrics(prediction(SI_SNR_DB, labels))
    assert scores == {"si_sdr": 4.0}


@pytest.mark.parametrize("predictions", [(LOGITS, SI_SNR_DB), (SI_SNR_DB, LOGITS)])
def test_the_joint_model_gives_all_whatever_the_order(
    predictions: tuple[np.ndarray, np.ndarray],
) -> None:
    scores = compute_metrics(prediction(predictions, (LABELS,)))
    assert scores["wa"] == 0.75
    assert scores["si_sdr"] == 4.0


def test_unlabelled_examples_count_for_extraction_only() -> None:
    labels = np.array([0, -100, 1, -100])
    scores = compute_metrics(prediction((LOGITS, SI_SNR_DB), labels))
    assert scores == {"wa": 0.5, "ua": 0.5, "si_sdr": 4.0}


def test_the_models_si_snr_is_the_si_sdr_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal((3, 2000)).astype(np.float32)
    estimate = target + 0.5 * rng.standard_normal((3, 2000)).astype(np.float32) + 0.2
    model_db = si_snr(torch.from_numpy(estimate), torch.from_numpy(target)).numpy()
    metric_db = [scale_invariant_sdr(e, t) for e, t in zip(estimate, target, strict=True)]
    np.testing.assert_allclose(model_db, metric_db, atol=1e-4)
