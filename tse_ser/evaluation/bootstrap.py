"""Bootstrap intervals of a study's numbers, over test utterances or over their speakers.

Over utterances, these are drawn anew within each fold and class, so that every sample has as many
of each as the test sets have. Over speakers, whole speakers are drawn, from all folds together:
utterances of one speaker are alike, so this interval is the wider and the safer one where speakers
are few. Correctness is averaged over seeds first, and a difference is that of the same utterance
under both models (paired). An interval says how far the test set decides the number; it says
nothing of another training, which the deviation over folds and seeds does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

NUM_SAMPLES = 10_000
LEVEL = 0.95
# What an utterance is known by: `unit` is the one that was mixed, in a denoised set as well.
UNIT = ["fold", "label", "unit", "speaker_id"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval, in the unit of the values."""

    estimate: float  # of the utterances as they are
    low: float
    high: float  # ends of the interval


def utterance_values(utterances: pd.DataFrame, column: str) -> pd.DataFrame:
    """A value of every test utterance, averaged over seeds: of the rows of one system on one
    test set (`tse_ser.evaluation.results`) that have it in `column`, such as "correct" or
    "si_sdri_db". Columns `fold`, `label`, `unit`, `speaker_id` and `value`, by fold."""
    known = utterances[utterances[column].notna()].sort_values("fold", kind="stable")
    values = known.astype({column: float}).groupby(UNIT, sort=False, dropna=False)[column].mean()
    return values.rename("value").reset_index()


def paired_differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """`first` minus `second`, both of `utterance_values`, utterance by utterance: the same
    columns; empty where the two are not of the same utterances, which cannot be paired."""
    keys = ["fold", "label", "unit"]
    both = first.merge(second[[*keys, "value"]], on=keys, suffixes=("", "_second"))
    if not len(first) == len(second) == len(both):
        return first.iloc[:0]
    return both.assign(value=both["value"] - both["value_second"])[[*UNIT, "value"]]


def interval(
    values: pd.DataFrame,
    rng: np.random.Generator,
    *,
    by_class: bool = True,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """Mean over folds, with the interval of a stratified bootstrap over utterances.

    Args:
        values (`DataFrame`): what `utterance_values` or `paired_differences` gives.
        rng (`np.random.Generator`): draws the samples.
        by_class (`bool`): whether classes count alike within a fold, as in UA, or utterances.
        num_samples (`int`): bootstrap samples.

    Returns:
        `Interval`: from the 2.5th to the 97.5th percentile; None where there is no utterance.
    """
    if values.empty:
        return None
    estimate, samples = 0.0, np.zeros(num_samples)
    num_folds = values["fold"].nunique()
    for _, fold in values.groupby("fold"):
        classes = fold.groupby("label", sort=False, dropna=False)["value"]
        for _, own in classes:
            share = 1 / classes.ngroups if by_class else len(own) / len(fold)
            estimate += share / num_folds * float(own.mean())
            samples += share / num_folds * resampled_means(own.to_numpy(), rng, num_samples)
    return _interval(estimate, samples)


def speaker_interval(
    values: pd.DataFrame,
    rng: np.random.Generator,
    *,
    by_class: bool = True,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """Mean over all utterances, with the interval of a cluster bootstrap over speakers.

    Args:
        values (`DataFrame`): what `utterance_values` or `paired_differences` gives.
        rng (`np.random.Generator`): draws the samples.
        by_class (`bool`): whether classes count alike, as in UA, or utterances.
        num_samples (`int`): bootstrap samples; one that lacks a class is over the others.

    Returns:
        `Interval`: from the 2.5th to the 97.5th percentile; None where fewer than two speakers are
        known.
    """
    if values["speaker_id"].nunique() < 2:
        return None
    classes = values["label"].astype(str) if by_class else pd.Series("", index=values.index)
    by_speaker = values.groupby(["speaker_id", classes])["value"]
    sums, counts = (part.unstack(fill_value=0) for part in (by_speaker.sum(), by_speaker.count()))
    num_speakers = len(sums)
    drawn = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), num_samples)
    with np.errstate(invalid="ignore"):
        samples = np.nanmean((drawn @ sums.to_numpy()) / (drawn @ counts.to_numpy()), axis=1)
    return _interval(float((sums.sum() / counts.sum()).mean()), samples)


def resampled_means(values: np.ndarray, rng: np.random.Generator, num_samples: int) -> np.ndarray:
    """Means, `(num_samples,)`, of samples drawn with replacement from values `(num_values,)`,
    each as many as there are values."""
    # How often each distinct value is drawn is all that a mean depends on: for correctness that is
    # two numbers a sample, not one an utterance.
    distinct, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(values.size, counts / values.size, size=num_samples)
    means: np.ndarray = drawn @ distinct / values.size
    return means


def _interval(estimate: float, samples: np.ndarray) -> Interval:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Interval(estimate, float(low), float(high))
