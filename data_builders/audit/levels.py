"""Does loudness alone give the emotion away? A classifier that hears nothing else tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_builders.schema import EMOTIONS

MAX_GROUPS = 10
NUM_PERMUTATIONS = 200
# Keeps a measure without any spread, such as a normalised level, from dividing by nothing.
MIN_VARIANCE = 0.01
SILENCE_DB = -100.0
# What is measured, and the column of the recordings that holds it. Level is the root mean square;
# loudness, with its gate and its filters, also hears rhythm and spectrum.
MEASURES = {
    "level as recorded": "level_db",
    "level, normalised": "normalized_level_db",
    "loudness as recorded": "loudness_lufs",
    "loudness, normalised": "normalized_loudness_lufs",
}


class LevelScore(NamedTuple):
    """What a classifier reaches from one number an utterance."""

    corpus: str
    measure: str  # one of `MEASURES`
    ua: float  # mean recall over the classes, on speakers it was not fitted to
    chance: float  # what guessing gives
    bound: float  # 95th percentile of `ua` after the labels of each speaker are shuffled

    @property
    def tells(self) -> bool:
        """Whether it does better than chance."""
        return self.ua > max(self.bound, self.chance)


def score_levels(recordings: pd.DataFrame, classes: Sequence[str] = EMOTIONS) -> list[LevelScore]:
    """Scores every measure on the labelled recordings of one corpus.

    There is no score where there are fewer than two classes or speakers.
    """
    labelled = recordings[recordings["emotion"].isin(classes)]
    num_classes = labelled["emotion"].nunique()
    if num_classes < 2 or labelled["speaker_id"].nunique() < 2:
        return []
    labels = np.array([classes.index(emotion) for emotion in labelled["emotion"]])
    speakers = labelled["speaker_id"].to_numpy()
    rng = np.random.default_rng(0)
    shuffles = [_shuffle_within(labels, speakers, rng) for _ in range(NUM_PERMUTATIONS)]
    tried = np.stack([labels, *shuffles])
    scores = []
    for measure, column in MEASURES.items():
        # A recording without any sound above the gate has no loudness: as quiet as can be. What is
        # below a hundredth of a dB is rounding of the samples, which can differ between classes.
        values = np.round(np.maximum(labelled[column].to_numpy(), SILENCE_DB), 2)
        ua, *shuffled = cross_validated_ua(values, tried, speakers)
        bound = float(np.quantile(shuffled, 0.95))
        corpus = labelled["corpus"].iloc[0]
        scores.append(LevelScore(corpus, measure, float(ua), 1 / num_classes, bound))
    return scores


def cross_validated_ua(values: np.ndarray, labels: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Mean recall of a Gaussian a class with equal priors, fitted to other speakers.

    Takes the measure in dB, of shape `(num_utterances,)`, class indices of shape `(num_labellings,
    num_utterances)`, each labelling of which is scored for itself, and speaker ids of shape
    `(num_utterances,)`. Returns the mean over the classes of the share of utterances that is
    recognised, of shape `(num_labellings,)`.
    """
    names, speaker_of_row = np.unique(speakers, return_inverse=True)
    group_of_row = speaker_of_row % min(MAX_GROUPS, len(names))
    # (num_labellings, num_classes, num_utterances)
    belongs = (labels[:, None, :] == np.unique(labels)[:, None]).astype(np.float64)
    recognised = np.zeros(belongs.shape[:2])
    # Differences to the mean of everything: squares of small numbers round less.
    values = values - values.mean()
    for group in np.unique(group_of_row):
        held_out = group_of_row == group
        known, tested = belongs[:, :, ~held_out], belongs[:, :, held_out]
        # A class that the others do not have has no mean: it is never chosen.
        counts = known.sum(axis=2)
        means = known @ values[~held_out] / np.maximum(counts, 1)
        variances = known @ values[~held_out] ** 2 / np.maximum(counts, 1) - means**2
        variances = np.maximum(variances, MIN_VARIANCE)
        distances = (values[held_out] - means[:, :, None]) ** 2 / variances[:, :, None]
        likelihoods = -0.5 * (distances + np.log(variances)[:, :, None])
        likelihoods[counts == 0] = -np.inf
        chosen = likelihoods.argmax(axis=1)
        chosen_of_class = np.arange(belongs.shape[1])[:, None] == chosen[:, None, :]
        recognised += (tested * chosen_of_class).sum(axis=2)
    return (recognised / belongs.sum(axis=2)).mean(axis=1)


def _shuffle_within(
    labels: np.ndarray, speakers: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    shuffled = labels.copy()
    for name in np.unique(speakers):
        rows = np.flatnonzero(speakers == name)
        shuffled[rows] = labels[rng.permutation(rows)]
    return shuffled
