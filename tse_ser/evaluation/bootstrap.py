"""Bootstrap intervals over test utterances, of one result or of the difference of two.

Utterances are drawn anew within each fold and class, so that every sample has as many of each as
the test sets have. Correctness is averaged over seeds first, and a difference is that of the same
utterance under both models (paired). The interval says how far the test utterances decide the
number; it says nothing of another training, which the deviation over folds and seeds does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_builders.schema import IGNORED_LABEL

NUM_SAMPLES = 10_000
LEVEL = 0.95
Cells = Sequence[Mapping[str, Any]]
# Values by utterance id, by fold and class.
Strata = Mapping[tuple[int, int], Mapping[str, float]]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval, in the unit of the values.

    Attributes:
        estimate (`float`): of the utterances as they are.
        low, high (`float`): ends of the interval.
    """

    estimate: float
    low: float
    high: float


def correct(record: Mapping[str, Any]) -> float | None:
    """1 where an utterance was recognised, 0 where not, None where that is unknown.

    Args:
        record (mapping): one of a cell's `utterances`.

    Returns:
        `float` or None.
    """
    if "prediction" not in record or record["label"] == IGNORED_LABEL:
        return None
    return float(record["prediction"] == record["label"])


def si_sdri_db(record: Mapping[str, Any]) -> float | None:
    """SI-SDRi of an utterance in dB, None where it is unknown.

    Args:
        record (mapping): one of a cell's `utterances`.

    Returns:
        `float` or None.
    """
    return record.get("si_sdri_db")


def utterance_values(
    cells: Cells, value: Callable[[Mapping[str, Any]], float | None] = correct
) -> Strata:
    """A value of every test utterance, averaged over seeds.

    Args:
        cells (sequence of mappings): one model on one test set, a cell a fold and seed.
        value (callable): takes it from a record.

    Returns:
        Values by utterance id, by (fold, class); empty where the cells have no records. An
        utterance of a denoised set goes by the id of the one that was extracted.
    """
    collected: dict[tuple[int, int], dict[str, list[float]]] = {}
    for cell in cells:
        for record in cell.get("utterances", ()):
            number = value(record)
            if number is not None:
                stratum = collected.setdefault((cell["fold"], record["label"]), {})
                utterance = record.get("source_utterance_id", record["utterance_id"])
                stratum.setdefault(utterance, []).append(number)
    return {
        key: {name: float(np.mean(numbers)) for name, numbers in utterances.items()}
        for key, utterances in collected.items()
    }


def paired_differences(first: Strata, second: Strata) -> Strata:
    """`first` minus `second`, utterance by utterance.

    Args:
        first, second (strata): what `utterance_values` gives.

    Returns:
        Differences; empty where the two are not of the same utterances, which cannot be paired.
    """
    if {key: values.keys() for key, values in first.items()} != {
        key: values.keys() for key, values in second.items()
    }:
        return {}
    return {
        key: {name: value - second[key][name] for name, value in values.items()}
        for key, values in first.items()
    }


def interval(
    strata: Strata,
    rng: np.random.Generator,
    *,
    by_class: bool = True,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """Mean over folds, with the interval of a stratified bootstrap over utterances.

    Args:
        strata (strata): what `utterance_values` or `paired_differences` gives.
        rng (`np.random.Generator`): draws the samples.
        by_class (`bool`): whether classes count alike within a fold, as in UA, or utterances.
        num_samples (`int`): bootstrap samples.

    Returns:
        `Interval`: from the 2.5th to the 97.5th percentile; None where there is no utterance.
    """
    if not strata:
        return None
    estimate, samples = 0.0, np.zeros(num_samples)
    for (fold, label), weight in _weights(strata, by_class).items():
        values = np.array(list(strata[fold, label].values()))
        estimate += weight * float(values.mean())
        samples += weight * resampled_means(values, rng, num_samples)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high))


def resampled_means(values: np.ndarray, rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Means of samples drawn with replacement, as many as there are values.

    Args:
        values (`np.ndarray` of shape `(num_values,)`): what is drawn from.
        rng (`np.random.Generator`): draws.
        num_samples (`int`): samples.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: their means.
    """
    # How often each distinct value is drawn is all that a mean depends on: for correctness that is
    # two numbers a sample, not one an utterance.
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(values.size, counts / values.size, size=num_samples)
    means: np.ndarray = drawn @ distinct / values.size
    return means


def _weights(strata: Strata, by_class: bool) -> dict[tuple[int, int], float]:
    folds = sorted({fold for fold, _ in strata})
    weights = {}
    for fold in folds:
        own = [key for key in strata if key[0] == fold]
        total = sum(len(strata[key]) for key in own)
        for key in own:
            share = 1 / len(own) if by_class else len(strata[key]) / total
            weights[key] = share / len(folds)
    return weights
