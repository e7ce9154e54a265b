"""Enrollment: the utterance that tells the extractor whom to listen to."""

from __future__ import annotations

import numpy as np

from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.schema import CorpusError, some_of


class EnrollmentPool:
    """Draws an utterance of the target speaker that is not in the mixture (paper, section III-C).

    Its emotion is "neutral" in the paper; None takes any.
    """

    def __init__(self, utterances: UtteranceTable, emotion: str | None = "neutral") -> None:
        self.emotion = emotion
        self._utterances = utterances
        rows = np.arange(len(utterances), dtype=np.int32)
        if emotion is not None:
            rows = rows[utterances.emotions.isin([emotion])]
        speakers = utterances.speaker_ids.codes[rows]
        # Sorted by speaker, then by row.
        self._rows = rows[np.argsort(speakers, kind="stable")]
        names = utterances.speaker_ids.categories
        self._code_of_speaker = {name: code for code, name in enumerate(names)}
        counts = np.bincount(speakers, minlength=len(names))
        self._bounds = np.append(0, np.cumsum(counts))

    def _rows_of(self, speaker_id: str) -> np.ndarray:
        code = self._code_of_speaker.get(speaker_id)
        if code is None:
            return self._rows[:0]
        return self._rows[self._bounds[code] : self._bounds[code + 1]]

    def check(self, targets: UtteranceTable) -> None:
        """Raises `CorpusError` unless every target has an enrollment other than itself."""
        without = []
        for speaker in targets.speaker_ids.unique():
            rows = self._rows_of(speaker)
            # A single utterance serves all targets but itself.
            if len(rows) == 0 or (
                len(rows) == 1 and self._utterances.utterance_ids[rows[0]] in targets.row_of_id
            ):
                without.append(speaker)
        if without:
            kind = "" if self.emotion is None else f"{self.emotion} "
            names = some_of(sorted(without))
            raise CorpusError(
                f"{len(without)} of the target speakers have no {kind}utterance for enrollment "
                f"besides the target itself: {names}; add one, leave these speakers out, or set "
                f"enrollment_emotion to None (any emotion)"
            )

    def draw(self, utterance_id: str, speaker_id: str, rng: np.random.Generator) -> int:
        """Draws a row uniformly from the admissible utterances of a speaker, all but the target."""
        rows = self._rows_of(speaker_id)
        own_row = self._utterances.row_of_id.get(utterance_id)
        others = rows if own_row is None else rows[rows != own_row]
        return int(others[rng.integers(len(others))])
