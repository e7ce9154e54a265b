"""The one schema that every corpus is read into, and the constants that the rooms share."""

from __future__ import annotations

import datasets

SAMPLING_RATE = 16_000
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


def emotion_label(emotion: str) -> int:
    """Index of an emotion in `EMOTIONS`.

    Args:
        emotion (`str`): emotion word of a corpus, "" when unknown.

    Returns:
        `int`: the label, or `IGNORED_LABEL` for every other word.
    """
    return EMOTIONS.index(emotion) if emotion in EMOTIONS else IGNORED_LABEL
