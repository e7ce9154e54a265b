"""Interferers: whose speech disturbs the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np

from data_builders.schema import GENDERS, CorpusError

GenderState = Literal["any", "same", "different"]
MAX_REPORTED_SPEAKERS = 5


class InterfererPool:
    """Draws an utterance of another speaker, in the wanted gender state.

    The corpus is drawn first, then the speaker, then the utterance, each uniformly: neither a large
    corpus nor a talkative speaker crowds out the others.

    Args:
        utterance_ids (`Sequence[str]`): utterances to draw from; the part before "/" is the corpus.
        speaker_ids (`Sequence[str]`): their speakers.
        genders (`Sequence[str]`): the speakers' genders.
        gender_state (`str`): "any", "same" or "different" genders of target and interferer.
    """

    def __init__(
        self,
        utterance_ids: Sequence[str],
        speaker_ids: Sequence[str],
        genders: Sequence[str],
        gender_state: GenderState = "any",
    ) -> None:
        if gender_state not in get_args(GenderState):
            raise ValueError(f"unknown gender_state {gender_state!r}: use any, same or different")
        self.gender_state = gender_state
        rows: dict[str, dict[str, list[int]]] = {}
        self._gender_of_speaker: dict[str, str] = {}
        for row, utterance_id in enumerate(utterance_ids):
            speaker = speaker_ids[row]
            of_corpus = rows.setdefault(utterance_id.partition("/")[0], {})
            of_corpus.setdefault(speaker, []).append(row)
            self._gender_of_speaker[speaker] = genders[row]
        self._rows = {
            corpus: {speaker: np.asarray(of_speaker) for speaker, of_speaker in speakers.items()}
            for corpus, speakers in sorted(rows.items())
        }
        # (target speaker) -> the admissible speakers of each corpus; filled when first asked for.
        self._admissible: dict[str, list[tuple[str, list[str]]]] = {}

    def check(self, targets: Iterable[tuple[str, str]]) -> None:
        """Raises unless every target speaker has an admissible interferer.

        Args:
            targets (`Iterable[tuple[str, str]]`): speaker and gender of each target.

        Raises:
            CorpusError: some have none; the message names them and the reason.
        """
        speakers = set(targets)
        if self.gender_state != "any":
            unknown = sorted(speaker for speaker, gender in speakers if gender not in GENDERS)
            if unknown:
                raise CorpusError(
                    f"gender_state {self.gender_state!r} needs the gender of every target speaker; "
                    f"unknown: {', '.join(unknown[:MAX_REPORTED_SPEAKERS])}"
                )
        without = sorted(
            speaker for speaker, gender in speakers if not self.admissible(speaker, gender)
        )
        if without:
            names = ", ".join(without[:MAX_REPORTED_SPEAKERS])
            wanted = "" if self.gender_state == "any" else f" of {self.gender_state} gender"
            raise CorpusError(
                f"{len(without)} of the target speakers have no other speaker{wanted} to "
                f"interfere: {names}; the interferers have {len(self._gender_of_speaker)} speakers "
                f"in this split. Add interfering speakers, or use gender_state 'any'"
            )

    def admissible(self, speaker_id: str, gender: str) -> list[tuple[str, list[str]]]:
        """The speakers who may interfere with a target speaker.

        Args:
            speaker_id (`str`): target speaker.
            gender (`str`): the target speaker's gender.

        Returns:
            `list[tuple[str, list[str]]]`: each corpus that has some, with these speakers.
        """
        if speaker_id not in self._admissible:
            candidates = [
                (corpus, [name for name in speakers if self._fits(name, speaker_id, gender)])
                for corpus, speakers in self._rows.items()
            ]
            self._admissible[speaker_id] = [entry for entry in candidates if entry[1]]
        return self._admissible[speaker_id]

    def draw(self, speaker_id: str, gender: str, rng: np.random.Generator) -> int:
        """Draws an interfering utterance.

        Args:
            speaker_id (`str`): target speaker.
            gender (`str`): the target speaker's gender.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `int`: row of the drawn utterance.
        """
        candidates = self.admissible(speaker_id, gender)
        corpus, speakers = candidates[int(rng.integers(len(candidates)))]
        rows = self._rows[corpus][speakers[int(rng.integers(len(speakers)))]]
        return int(rows[rng.integers(len(rows))])

    def _fits(self, interferer: str, target: str, target_gender: str) -> bool:
        if interferer == target:
            return False
        if self.gender_state == "any":
            return True
        gender = self._gender_of_speaker[interferer]
        return gender in GENDERS and (gender == target_gender) == (self.gender_state == "same")
