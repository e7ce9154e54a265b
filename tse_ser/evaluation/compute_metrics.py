"""What `Trainer` reports after an evaluation, from the arrays it keeps: logits and SI-SNR."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import EvalPrediction

from data_builders.schema import IGNORED_LABEL
from tse_ser.evaluation.metrics.ser_accuracy.ser_accuracy import emotion_accuracies


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Scores of one evaluation run: `{wa, ua}`, `{si_sdr}`, or all three for the joint model.

    Waveforms are not needed: a model returns the SI-SNR of each example, and the trainer keeps that
    and the logits. The two are told apart by their number of dimensions, whatever their order.

    Args:
        prediction (`EvalPrediction`): `predictions` is an array or a tuple of arrays, logits of
            shape `(num_examples, num_labels)` and SI-SNR of shape `(num_examples,)` in dB;
            `label_ids` holds the labels of shape `(num_examples,)`, -100 where unknown, in an array
            or anywhere in a tuple.

    Returns:
        Accuracies between 0 and 1 over the labelled examples, SI-SDR in dB over all; a score whose
        input is missing is left out.
    """
    scores: dict[str, float] = {}
    for array in _as_arrays(prediction.predictions):
        if array.ndim == 2:
            scores.update(_accuracies(array, _labels(prediction.label_ids)))
        elif array.ndim == 1 and array.size:
            # The model's SI-SNR is the zero-mean SI-SDR of Le Roux et al. 2019 in float32.
            scores["si_sdr"] = float(array.astype(np.float64).mean())
    return scores


def _accuracies(logits: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
    if labels is None or not (labelled := labels != IGNORED_LABEL).any():
        return {}
    result = emotion_accuracies(
        logits[labelled].argmax(axis=-1), labels[labelled], range(logits.shape[1])
    )
    return {"wa": result["wa"], "ua": result["ua"]}


def _labels(label_ids: Any) -> np.ndarray | None:
    for array in _as_arrays(label_ids):
        if array.ndim == 1 and np.issubdtype(array.dtype, np.integer):
            return array
    return None


def _as_arrays(values: Any) -> list[np.ndarray]:
    values = values if isinstance(values, (tuple, list)) else (values,)
    return [np.asarray(value) for value in values if value is not None]
