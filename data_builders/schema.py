"""The one schema that every corpus is read into, and the constants that the rooms share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import datasets

SAMPLING_RATE = 16_000
# The classes of the paper; another set is the option `emotions`.
EMOTIONS = ("neutral", "happy", "sad", "angry")
GENDERS = ("female", "male")
IGNORED_LABEL = -100

UTTERANCE_FEATURES = datasets.Features(
    {
        # "<corpus>/<name within the corpus>", unique over all corpora.
        "utterance_id": datasets.Value("string"),
        # Absolute path of a readable 16 kHz mono file.
        "path": datasets.Value("string"),
        "speaker_id": datasets.Value("string"),
        "gender": datasets.Value("string"),
        # "" where the corpus does not state one.
        "emotion": datasets.Value("string"),
        # "" where the corpus has no sessions.
        "session": datasets.Value("string"),
        "text": datasets.Value("string"),
        "language": datasets.Value("string"),
        "licence": datasets.Value("string"),
        "duration_seconds": datasets.Value("float64"),
        # First and last active time, so that silence can be trimmed without decoding.
        "speech_start_seconds": datasets.Value("float64"),
        "speech_end_seconds": datasets.Value("float64"),
    }
)


class CorpusError(ValueError):
    """A corpus folder, file or split that cannot be used; the message names it and the fix."""


def common_rate(examples: Sequence[Mapping[str, Any]]) -> int:
    """The one rate in Hz of examples, for whoever hands them to a model.

    Those that do not tell their "sampling_rate" have that of the corpora. Raises `ValueError` where
    the rates differ.
    """
    rates = {example.get("sampling_rate", SAMPLING_RATE) for example in examples}
    if len(rates) != 1:
        raise ValueError(f"the examples have different rates: {sorted(rates)} Hz")
    return int(rates.pop())


def emotion_label(emotion: str, classes: Sequence[str] = EMOTIONS) -> int:
    """Index of an emotion among the classes, `IGNORED_LABEL` for every other word."""
    return classes.index(emotion) if emotion in classes else IGNORED_LABEL


def some_of(names: Collection[str], at_most: int = 5, between: str = ", ") -> str:
    """Names for a message: the first ones, and how many more there are."""
    shown = [*names][:at_most]
    if len(names) > at_most:
        shown.append(f"and {len(names) - at_most} more")
    return between.join(shown)
