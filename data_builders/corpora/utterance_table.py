"""The columns of a corpus that planning and rendering look at, small for a million utterances.

Ids and paths stay where Arrow has them, on disk as a rule; words that repeat become codes of one or
a few bytes (`pandas.Categorical`); times become sample counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Literal

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from data_builders.schema import SAMPLING_RATE, CorpusError

LevelMeasure = Literal["power", "loudness", "peak"]

_COLUMNS = (
    "utterance_id",
    "speaker_id",
    "gender",
    "emotion",
    "language",
    "duration_seconds",
    "speech_start_seconds",
    "speech_end_seconds",
)


class StringColumn(Sequence[str]):
    """Strings of an Arrow column, or of those of its rows that count.

    These are looked up one by one: a copy of a million paths would take 100 MB.
    """

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray | None = None) -> None:
        self.column = column
        self._rows = rows

    def __len__(self) -> int:
        return len(self.column) if self._rows is None else len(self._rows)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        return str(self.column[int(row) if self._rows is None else int(self._rows[row])])


class RowIndex(Mapping[str, int]):
    """Finds the row of an utterance id, by bisection in the order of the ids.

    A dictionary of a million ids would take ten times the memory, and a second to fill. Raises
    `CorpusError` where an id is empty, or repeats.
    """

    def __init__(self, ids: StringColumn) -> None:
        self._ids = ids
        order = pc.sort_indices(ids.column)
        self._rows = order.to_numpy().astype(np.uint32)
        ordered = ids.column.take(order)
        if len(ordered) and ordered[0].as_py() == "":
            raise CorpusError(
                "an utterance has an empty id: ids are <corpus>/<name within the corpus>"
            )
        repeats = pc.equal(ordered.slice(1), ordered.slice(0, max(len(ordered) - 1, 0)))
        if pc.any(repeats).as_py():
            raise CorpusError(
                f"utterance ids repeat, such as {ordered[pc.index(repeats, True).as_py()]}: each "
                f"corpus may be named once, and each of its utterances needs an id of its own"
            )

    def __getitem__(self, utterance_id: str) -> int:
        place = bisect_left(self._rows, utterance_id, key=self._ids.__getitem__)
        if place == len(self) or self._ids[self._rows[place]] != utterance_id:
            raise KeyError(utterance_id)
        return int(self._rows[place])

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._rows)


class UtteranceTable:
    """Utterances, with `UTTERANCE_FEATURES`, to plan with and to render.

    Raises `CorpusError` where an id is empty, or repeats.
    """

    def __init__(self, corpus: datasets.Dataset) -> None:
        columns, rows = corpus.data.table, None
        if corpus._indices is not None:  # the rows that were selected; `corpus[:]` takes minutes
            rows = corpus._indices.column(0).to_numpy()
            columns = columns.select(_COLUMNS).take(pa.array(rows))
        self.utterance_ids = StringColumn(columns["utterance_id"])
        self.paths = StringColumn(corpus.data.table["path"], rows)
        self.speaker_ids = _coded(columns["speaker_id"])
        self.genders = _coded(columns["gender"])
        self.emotions = _coded(columns["emotion"])
        self.languages = _coded(columns["language"])
        self.num_samples = _to_samples(columns["duration_seconds"])
        self.speech_start = _to_samples(columns["speech_start_seconds"])
        self.speech_end = _to_samples(columns["speech_end_seconds"])
        self.row_of_id = RowIndex(self.utterance_ids)
        self._levels: dict[tuple[str, bool, float | None], np.ndarray] = {}
        _free_scratch_memory()

    def __len__(self) -> int:
        return len(self.num_samples)

    @cached_property
    def corpora(self) -> pd.Categorical:
        """The corpus of each utterance: the part of its id before "/"."""
        names = pc.split_pattern(self.utterance_ids.column, "/", max_splits=1)
        corpora = _coded(pc.list_element(names, 0))
        del names
        _free_scratch_memory()
        return corpora

    def region(self, row: int, trim_silence: bool) -> tuple[int, int]:
        """Where an utterance lies in its file: its first sample, and the one after the last.

        Trimmed, the silence before and after the speech does not count.
        """
        if trim_silence:
            return int(self.speech_start[row]), int(self.speech_end[row])
        return 0, int(self.num_samples[row])

    def refuse_empty(self, trim_silence: bool) -> None:
        """Raises `CorpusError` if an utterance has no samples, with or without its silence."""
        lengths = self.speech_end - self.speech_start if trim_silence else self.num_samples
        empty = np.flatnonzero(lengths < 1)
        if len(empty):
            names = "speech_start_seconds and speech_end_seconds" if trim_silence else ""
            raise CorpusError(
                f"{len(empty)} utterances have no length, such as {self.utterance_ids[empty[0]]}: "
                f"check {names or 'duration_seconds'}, or leave them out"
            )

    def levels(
        self, measure: LevelMeasure, trim_silence: bool, lowpass_hz: float | None = None
    ) -> np.ndarray:
        """Levels of the utterances that were decoded so far, 0 for the others.

        "power" is the mean square, "loudness" in LUFS, "peak" the largest amplitude, with or
        without the silence around the speech, and of what is heard through a low-pass if there is
        one. The array of shape `(num_utterances,)`, float64, is filled by who decodes. It lies in
        memory that worker processes share, if it was asked for before they were started.
        """
        key = (measure, trim_silence, lowpass_hz)
        if key not in self._levels:
            self._levels[key] = torch.zeros(len(self), dtype=torch.float64).share_memory_().numpy()
        return self._levels[key]


def _coded(strings: pa.ChunkedArray) -> pd.Categorical:
    return strings.dictionary_encode().to_pandas().array


def _free_scratch_memory() -> None:
    """Arrow keeps what it has worked with, 50 MB for a million utterances."""
    pa.default_memory_pool().release_unused()


def _to_samples(seconds: pa.ChunkedArray) -> np.ndarray:
    return np.round(seconds.to_numpy() * SAMPLING_RATE).astype(np.int32)
