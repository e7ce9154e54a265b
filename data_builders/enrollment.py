"""Enrollment: the utterance that tells the extractor whom to listen to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from data_builders.schema import CorpusError

MAX_REPORTED_SPEAKERS = 5


class EnrollmentPool:
    """Draws an utterance of the target speaker that is not in the mixture (paper, section III-C).

    Args:
        utterance_ids (`Sequence[str]`): utterances to draw from.
        speaker_ids (`Sequence[str]`): their speakers.
        emotions (`Sequence[str]`): their emotions.
        emotion (`str`, *optional*): "neutral" in the paper; None for any emotion.
    """

    def __init__(
        self,
        utterance_ids: Sequence[str],
        speaker_ids: Sequence[str],
        emotions: Sequence[str],
        emotion: str | None = "neutral",
    ) -> None:
        self.emotion = emotion
        self._utterance_ids = utterance_ids
        rows_of_speaker: dict[str, list[int]] = {}
        for row, (speaker, row_emotion) in enumerate(zip(speaker_ids, emotions, strict=True)):
            if emotion is None or row_emotion == emotion:
                rows_of_speaker.setdefault(speaker, []).append(row)
        self._rows_of_speaker = {
            speaker: np.asarray(rows, dtype=np.int64) for speaker, rows in rows_of_speaker.items()
        }
        self._row_of_id = {
            utterance_ids[row]: row for rows in rows_of_speaker.values() for row in rows
        }

    def check(self, targets: Iterable[tuple[str, str]]) -> None:
        """Raises unless every target has an enrollment other than itself.

        Args:
            targets (`Iterable[tuple[str, str]]`): utterance id and speaker of each target.

        Raises:
            CorpusError: some have none; the message names their speakers.
        """
        without = set()
        for utterance_id, speaker in targets:
            rows = self._rows_of_speaker.get(speaker, ())
            if len(rows) - (utterance_id in self._row_of_id) < 1:
                without.add(speaker)
        if without:
            kind = "" if self.emotion is None else f"{self.emotion} "
            names = ", ".join(sorted(without)[:MAX_REPORTED_SPEAKERS])
            raise CorpusError(
                f"{len(without)} of the target speakers have no {kind}utterance for enrollment "
                f"besides the target itself: {names}; add one, leave these speakers out, or set "
                f"enrollment_emotion to None (any emotion)"
            )

    def draw(self, utterance_id: str, speaker_id: str, rng: np.random.Generator) -> int:
        """Draws an enrollment uniformly from the speaker's admissible utterances.

        Args:
            utterance_id (`str`): the target, which is not drawn.
            speaker_id (`str`): the target's speaker.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `int`: row of the drawn utterance.
        """
        rows = self._rows_of_speaker[speaker_id]
        own_row = self._row_of_id.get(utterance_id)
        if own_row is None:
            return int(rows[rng.integers(len(rows))])
        # Rows are sorted: skip over the target's own place.
        drawn = int(rng.integers(len(rows) - 1))
        return int(rows[drawn + (drawn >= int(np.searchsorted(rows, own_row)))])
