"""From the rows of `predict` to the numbers of a test and to its record of each utterance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_builders.schema import EMOTIONS, IGNORED_LABEL
from tse_ser.evaluation.metrics.ser_accuracy.ser_accuracy import emotion_accuracies
from tse_ser.evaluation.prediction import ID_FIELDS, SI_SDR_FIELDS

# Digits that are kept of each utterance: far below what a different machine changes.
PROBABILITY_DIGITS, DECIBEL_DIGITS = 6, 4
Rows = Sequence[Mapping[str, Any]]


def score_predictions(rows: Rows, classes: Sequence[str] = EMOTIONS) -> dict[str, Any]:
    """Accuracies and mean SI-SDR of prediction rows.

    Args:
        rows (sequence of mappings): what `predict` returns.
        classes (`Sequence[str]`): emotions in the order of their labels.

    Returns:
        `num_examples`, `wa` and `ua` (0 to 1), `per_class_recall` by emotion, `confusion` (a row
        a true emotion), `si_sdr_mixture_db`, `si_sdr_extracted_db`, `si_sdri_db`; None where
        unknown.
    """
    scores: dict[str, Any] = {"num_examples": len(rows)}
    labelled = [
        row for row in rows if row["prediction"] is not None and row["label"] != IGNORED_LABEL
    ]
    scores |= dict.fromkeys(("wa", "ua", "per_class_recall", "confusion"))
    if labelled:
        predictions = [row["prediction"] for row in labelled]
        labels = [row["label"] for row in labelled]
        scores |= emotion_accuracies(predictions, labels, range(len(classes)))
        scores["per_class_recall"] = dict(zip(classes, scores["per_class_recall"], strict=True))
    for name in SI_SDR_FIELDS:
        values = [row[name] for row in rows if row[name] is not None]
        scores[name] = float(np.mean(values)) if values else None
    return scores


def score_groups(
    rows: Rows, key: str, classes: Sequence[str] = EMOTIONS
) -> dict[str, dict[str, Any]]:
    """`score_predictions` of the rows that share a value of `key`, by that value; rows without
    one belong to no group."""
    groups = sorted({row[key] for row in rows if row[key]})
    return {
        group: score_predictions([row for row in rows if row[key] == group], classes)
        for group in groups
    }


def score_detection(similarities: np.ndarray, present: np.ndarray) -> dict[str, Any]:
    """How well the speaker similarity tells that the target is there.

    Args:
        similarities (`np.ndarray` of shape `(num_examples,)`): cosines, -1 to 1.
        present (`np.ndarray` of bools of shape `(num_examples,)`): whether the target speaks.

    Returns:
        `num_present`, `num_absent`; `auc`, the chance that a present target has the higher
        similarity; `eer`, the error rate at the threshold where as many present targets are missed
        as absent ones are accepted, both 0 to 1; `eer_threshold`, that threshold; the last three
        are None where there is one kind only.
    """
    counts = {"num_present": int(present.sum()), "num_absent": int((~present).sum())}
    if not all(counts.values()):
        return counts | dict.fromkeys(("auc", "eer", "eer_threshold"))
    positive, negative = similarities[present], similarities[~present]
    differences = positive[:, None] - negative[None, :]
    # Ties count half (Mann and Whitney).
    auc = float((differences > 0).mean() + 0.5 * (differences == 0).mean())
    thresholds = np.unique(similarities)
    misses = (positive[None, :] < thresholds[:, None]).mean(axis=1)
    accepted = (negative[None, :] >= thresholds[:, None]).mean(axis=1)
    nearest = int(np.abs(misses - accepted).argmin())
    eer = float((misses[nearest] + accepted[nearest]) / 2)
    return counts | {"auc": auc, "eer": eer, "eer_threshold": float(thresholds[nearest])}


def utterance_records(rows: Rows) -> list[dict[str, Any]]:
    """What a test keeps of each utterance, for paired comparisons and for curves.

    Args:
        rows (sequence of mappings): what `predict` returns, with `source_utterance_id` where the
            utterance was extracted from a mixture of another.

    Returns:
        A record a row without what is unknown or empty: the ids, `gender_state`, `label`,
        `prediction`, `probabilities`, SI-SDR in dB, `snr_db`, `noise_snr_db`, `target_absent`
        (where it is), `speaker_similarity`.
    """
    return [_record(row) for row in rows]


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    record = {name: row.get(name) for name in ("source_utterance_id", *ID_FIELDS)}
    record |= {name: row[name] for name in ("label", "prediction")}
    if row["probabilities"] is not None:
        rounded = [round(share, PROBABILITY_DIGITS) for share in row["probabilities"]]
        record["probabilities"] = rounded
    for name in (*SI_SDR_FIELDS, "snr_db", "noise_snr_db"):
        if row[name] is not None:
            record[name] = round(row[name], DECIBEL_DIGITS)
    if row["speaker_similarity"] is not None:
        record["speaker_similarity"] = round(row["speaker_similarity"], PROBABILITY_DIGITS)
    if row["target_absent"]:
        record["target_absent"] = True
    return {name: value for name, value in record.items() if value is not None and value != ""}
