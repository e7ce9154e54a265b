"""Curves of a study as numbers: UA against the input SNR, and against what extraction gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tse_ser.evaluation.bootstrap import Cells, correct, interval, utterance_values

SNR_LABEL = "snr_db"
NUM_BINS = 5
SEED = 0


@dataclass(frozen=True)
class Point:
    """A point of a curve.

    Attributes:
        x (`float`): the condition, in dB.
        ua (`float`): unweighted accuracy, 0 to 1.
        low, high (`float`): ends of its 95 % bootstrap interval.
    """

    x: float
    ua: float
    low: float
    high: float


def snr_curves(cells: Cells) -> dict[str, list[Point]]:
    """UA against the input SNR, from the cells whose `condition_label` is `snr_db`.

    Args:
        cells (sequence of mappings): cells of one section, with records of the utterances.

    Returns:
        Points in the order of their SNR, by the name of the model.
    """
    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell.get("condition_label") == SNR_LABEL and cell["wa"] is not None:
            key = (model_name(cell), float(cell["condition_value"]))
            groups.setdefault(key, []).append(cell)
    curves: dict[str, list[Point]] = {}
    for (name, snr_db), group in sorted(groups.items(), key=lambda item: item[0]):
        found = interval(utterance_values(group), np.random.default_rng(SEED))
        if found is not None:
            curves.setdefault(name, []).append(Point(snr_db, found.estimate, found.low, found.high))
    return curves


def si_sdri_curves(cells: Cells, num_bins: int = NUM_BINS) -> dict[str, list[Point]]:
    """UA against the SI-SDRi of the single utterance, in bins of as many utterances each.

    Args:
        cells (sequence of mappings): cells of one section, with records of the utterances.
        num_bins (`int`): bins, at most.

    Returns:
        Points in the order of their mean SI-SDRi, by the name of the model, of the tables' mixtures
        with any interferer. UA is over the classes that a bin has.
    """
    records: dict[str, list[tuple[float, int, float]]] = {}
    for cell in cells:
        for record in cell.get("utterances", ()):
            right = correct(record)
            usual = not cell.get("condition_label") and cell.get("gender_state", "any") == "any"
            if usual and right is not None and "si_sdri_db" in record:
                entry = (record["si_sdri_db"], record["label"], right)
                records.setdefault(model_name(cell), []).append(entry)
    return {
        name: [_bin(part) for part in np.array_split(np.array(sorted(entries)), num_bins)]
        for name, entries in sorted(records.items())
        if len(entries) >= num_bins
    }


def model_name(cell: Mapping[str, Any]) -> str:
    """What a model is called in a legend.

    Args:
        cell (mapping): a cell.

    Returns:
        `str`: the model, with its train set where it is a classifier alone.
    """
    train_set = cell.get("train_set")
    alone = cell["model"] == "SC" and train_set
    return f"{cell['model']} trained on {train_set}" if alone else str(cell["model"])


def _bin(entries: np.ndarray) -> Point:
    # A bin mixes folds and seeds: its stratum is the class alone.
    strata = {
        (0, int(label)): {
            str(row): float(entries[row, 2]) for row in np.flatnonzero(entries[:, 1] == label)
        }
        for label in np.unique(entries[:, 1])
    }
    found = interval(strata, np.random.default_rng(SEED))
    if found is None:
        raise ValueError("a bin needs at least one utterance")
    return Point(float(entries[:, 0].mean()), found.estimate, found.low, found.high)
