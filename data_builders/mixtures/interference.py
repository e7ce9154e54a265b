"""Interferers: whose speech disturbs the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.options import DrawingOptions
from data_builders.schema import GENDERS, CorpusError, some_of


class _Cell(NamedTuple):
    """The speakers of a corpus who may be drawn, in the order in which they first appear."""

    voices: np.ndarray  # of shape (num_speakers,), numbers of groups of rows
    speakers: np.ndarray  # of shape (num_speakers,), their codes


class InterfererPool:
    """Draws utterances of other speakers, as the options want them.

    Of some emotions and languages, or of all; "en" stands for "en-US" too. The corpus is drawn
    first, then the speaker, then the utterance, each uniformly: neither a large corpus nor a
    talkative speaker crowds out the others. Where a few voices of one corpus would be heard as
    often as hundreds of another, `draw="speaker"` leaves the corpora out of it; "own_corpus" draws
    a speaker of the corpus of the target, and any speaker where it has no other. Raises
    `CorpusError` where no utterance has such an emotion and language.
    """

    def __init__(self, utterances: UtteranceTable, options: DrawingOptions) -> None:
        self.gender_state = options.gender_state
        self._draw = options.interferer_draw
        rows = _admitted_rows(utterances, options.interferer_emotions, options.interferer_languages)
        speaker_of_row = utterances.speaker_ids.codes[rows]
        names = utterances.speaker_ids.categories
        self._code_of_speaker = {name: code for code, name in enumerate(names)}
        self._num_speakers_here = len(np.unique(speaker_of_row))
        gender_of_speaker = np.full(len(names), "", dtype=object)
        gender_of_speaker[speaker_of_row] = utterances.genders[rows]
        # A voice is a speaker within a corpus; rows are sorted by voice, then by row.
        voice_of_row = utterances.corpora.codes[rows] * np.int64(len(names)) + speaker_of_row
        order = np.argsort(voice_of_row, kind="stable")
        self._rows = rows[order].astype(np.int32)
        voice_keys, starts = np.unique(voice_of_row[order], return_index=True)
        self._bounds = np.append(starts, len(rows))
        self._cells = self._make_cells(
            utterances.corpora, voice_keys, self._rows[starts], gender_of_speaker
        )

    def _make_cells(
        self,
        corpora: pd.Categorical,
        voice_keys: np.ndarray,
        first_rows: np.ndarray,
        gender_of_speaker: np.ndarray,
    ) -> dict[str, list[_Cell]]:
        """The cells of each corpus in the order of its name, by gender ("" for all genders)."""
        num_speakers = len(gender_of_speaker)
        corpus_of_voice, speaker_of_voice = np.divmod(voice_keys, num_speakers)
        gender_of_voice = gender_of_speaker[speaker_of_voice]
        cells: dict[str, list[_Cell]] = {}
        for gender in ("",) if self.gender_state == "any" else GENDERS:
            cells[gender] = []
            for corpus in np.argsort(corpora.categories):
                voices = np.flatnonzero(corpus_of_voice == corpus)
                if gender:
                    voices = voices[gender_of_voice[voices] == gender]
                voices = voices[np.argsort(first_rows[voices])]
                cells[gender].append(_Cell(voices, speaker_of_voice[voices]))
        return cells

    def check(self, targets: UtteranceTable, num_interferers: int = 1) -> None:
        """Raises `CorpusError` unless every target speaker has as many admissible interferers."""
        speakers = _speakers_with_gender(targets)
        if self.gender_state != "any":
            unknown = sorted(speaker for speaker, gender in speakers if gender not in GENDERS)
            if unknown:
                raise CorpusError(
                    f"gender_state {self.gender_state!r} needs the gender of every target speaker; "
                    f"unknown: {some_of(unknown)}"
                )
        lacking = sorted(
            speaker
            for speaker, gender in speakers
            if self._count_admissible(speaker, gender) < num_interferers
        )
        if lacking:
            wanted = "" if self.gender_state == "any" else f" of {self.gender_state} gender"
            few = f"no other speaker{wanted}"
            if num_interferers > 1:
                few = f"fewer than {num_interferers} other speakers{wanted}"
            raise CorpusError(
                f"{len(lacking)} of the target speakers have {few} to interfere: "
                f"{some_of(lacking)}; the interferers have {self._num_speakers_here} speakers "
                f"here. Name another corpus among the interferers, move speakers into this split "
                f"(by a column `split` or `session`), lower num_speakers, or use gender_state 'any'"
            )

    def _count_admissible(self, speaker_id: str, gender: str) -> int:
        cells = self._cells[self._wanted_gender(gender)]
        speakers = {code for cell in cells for code in cell.speakers.tolist()}
        return len(speakers - {self._code_of_speaker.get(speaker_id)})

    def _corpora_of(self, code: int) -> set[int]:
        """The numbers of the corpora, in each list of cells, in which a speaker speaks."""
        if self._draw != "own_corpus":
            return set()
        return {
            number
            for cells in self._cells.values()
            for number, cell in enumerate(cells)
            if code in cell.speakers
        }

    def _wanted_gender(self, gender: str) -> str:
        if self.gender_state == "any":
            return ""
        if self.gender_state == "same":
            return gender
        return next(other for other in GENDERS if other != gender)

    def draw(
        self, speaker_id: str, gender: str, rng: np.random.Generator, taken: Sequence[str] = ()
    ) -> int:
        """Draws the row of an interfering utterance, of nobody who is taken already."""
        codes = [self._code_of_speaker.get(name, -1) for name in (speaker_id, *taken)]
        own_corpora = self._corpora_of(codes[0])
        candidates = []
        for number, cell in enumerate(self._cells[self._wanted_gender(gender)]):
            voices = cell.voices[(cell.speakers[:, None] != codes).all(axis=1)]
            if len(voices):
                candidates.append((voices, number in own_corpora))
        if self._draw == "own_corpus":
            candidates = [each for each in candidates if each[1]] or candidates
        if self._draw != "corpus":
            counts = np.cumsum([len(voices) for voices, _ in candidates])
            place = int(np.searchsorted(counts, rng.integers(counts[-1]), side="right"))
        else:
            place = int(rng.integers(len(candidates)))
        voices, _ = candidates[place]
        voice = voices[int(rng.integers(len(voices)))]
        first, last = int(self._bounds[voice]), int(self._bounds[voice + 1])
        return int(self._rows[first + int(rng.integers(last - first))])


def _admitted_rows(
    utterances: UtteranceTable, emotions: Sequence[str] | None, languages: Sequence[str] | None
) -> np.ndarray:
    admitted = np.ones(len(utterances), dtype=bool)
    if emotions is not None:
        admitted &= utterances.emotions.isin(emotions)
    if languages is not None:
        prefixes = tuple(f"{language.lower()}-" for language in languages)
        known = utterances.languages.categories
        admitted &= utterances.languages.isin(
            [name for name in known if f"{name.lower()}-".startswith(prefixes)]
        )
    rows = np.flatnonzero(admitted)
    if not len(rows):
        raise CorpusError(
            f"no utterance to interfere with interferer_emotions {list(emotions or ())} and "
            f"interferer_languages {list(languages or ())}: the interferers have the "
            f"emotions {sorted(utterances.emotions.categories)} and the languages "
            f"{sorted(utterances.languages.categories)}"
        )
    return rows


def _speakers_with_gender(targets: UtteranceTable) -> set[tuple[str, str]]:
    pairs = pd.DataFrame({"speaker": targets.speaker_ids, "gender": targets.genders})
    return {*pairs.drop_duplicates().itertuples(index=False, name=None)}
