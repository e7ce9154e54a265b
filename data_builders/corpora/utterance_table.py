"""The columns of a corpus that planning and rendering look at, small for a million utterances.

Ids and paths stay where Arrow has them, on disk as a rule; words that repeat become codes of one or
a few bytes; times become sample counts. A lookup costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, overload

import datasets
import numpy as np
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
# Factors of the hash of an id, one for each place of a character: random and odd.
_HASH_FACTORS = np.random.default_rng(0).integers(2**63, size=4096, dtype=np.uint64) * 2 + 1
_HASHED_AT_ONCE = 16_384


class StringColumn(Sequence[str]):
    """Strings of an Arrow column.

    Args:
        column (`pa.ChunkedArray`): the column.
        rows (`np.ndarray` of shape `(num_rows,)`, *optional*): the rows of it that count; None for
            all. They are looked up one by one: a copy of a million paths would take 100 MB.
    """

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray | None = None) -> None:
        self._column = column
        self._rows = rows

    def __len__(self) -> int:
        return len(self._column) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        return str(self._column[int(row) if self._rows is None else int(self._rows[row])])

    @property
    def column(self) -> pa.ChunkedArray:
        """The strings as Arrow has them; a copy where only some rows count."""
        return self._column if self._rows is None else self._column.take(pa.array(self._rows))


class CodedColumn(Sequence[str]):
    """Strings that repeat, each kept once.

    Args:
        column (`pa.ChunkedArray`): the strings.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        encoded = pc.dictionary_encode(column).unify_dictionaries()
        chunks = encoded.chunks
        self.names: list[str] = chunks[0].dictionary.to_pylist() if chunks else []
        smallest = np.min_scalar_type(max(len(self.names) - 1, 0))
        self.codes = np.empty(len(column), dtype=smallest)
        first = 0
        for chunk in chunks:
            self.codes[first : first + len(chunk)] = chunk.indices.to_numpy(zero_copy_only=False)
            first += len(chunk)

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self.names[code] for code in self.codes[row]]
        return self.names[self.codes[row]]

    @cached_property
    def code_of(self) -> dict[str, int]:
        """Name to code."""
        return {name: code for code, name in enumerate(self.names)}

    def where(self, condition: Callable[[str], bool]) -> np.ndarray:
        """Finds the rows whose string meets a condition.

        Args:
            condition (`Callable[[str], bool]`): asked once for each different string.

        Returns:
            `np.ndarray` of shape `(num_rows,)`: bool.
        """
        return np.asarray([condition(name) for name in self.names], dtype=bool)[self.codes]


class RowIndex:
    """Finds the row of an utterance id, by sorted 64-bit hashes of the ids.

    A dictionary of a million ids would take ten times the memory, and a second to fill.

    Args:
        ids (`StringColumn`): utterance ids.

    Raises:
        CorpusError: an id is empty, or repeats.
    """

    def __init__(self, ids: StringColumn) -> None:
        self._ids = ids
        parts = [
            _hash_strings(chunk.slice(first, _HASHED_AT_ONCE))
            for chunk in ids.column.chunks
            for first in range(0, len(chunk), _HASHED_AT_ONCE)
        ]
        hashes = np.concatenate([np.empty(0, dtype=np.uint64), *parts])
        self._rows = np.argsort(hashes, kind="stable").astype(np.uint32)
        self._hashes = hashes[self._rows]
        for place in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]):
            first, second = (ids[int(row)] for row in self._rows[place : place + 2])
            if first == second:
                raise CorpusError(
                    f"utterance ids repeat, such as {first}: each corpus may be named once, and "
                    f"each of its utterances needs an id of its own"
                )

    def get(self, utterance_id: str) -> int | None:
        """Looks up an id.

        Args:
            utterance_id (`str`): the id.

        Returns:
            `int`, *optional*: its row, or None.
        """
        wanted = _hash_bytes(np.frombuffer(utterance_id.encode(), dtype=np.uint8))
        place = int(np.searchsorted(self._hashes, wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self._ids[row] == utterance_id:
                return row
            place += 1
        return None

    def __getitem__(self, utterance_id: str) -> int:
        row = self.get(utterance_id)
        if row is None:
            raise KeyError(utterance_id)
        return row

    def __contains__(self, utterance_id: str) -> bool:
        return self.get(utterance_id) is not None


class UtteranceTable:
    """Utterances to plan with and to render.

    Args:
        corpus (`datasets.Dataset`): utterances with `UTTERANCE_FEATURES`.

    Raises:
        CorpusError: an id is empty, or repeats.
    """

    def __init__(self, corpus: datasets.Dataset) -> None:
        columns, rows = corpus.data.table, None
        if corpus._indices is not None:  # the rows that were selected; `corpus[:]` takes minutes
            rows = corpus._indices.column(0).to_numpy()
            columns = columns.select(_COLUMNS).take(pa.array(rows))
        self.utterance_ids = StringColumn(columns["utterance_id"])
        self.paths = StringColumn(corpus.data.table["path"], rows)
        self.speaker_ids = CodedColumn(columns["speaker_id"])
        self.genders = CodedColumn(columns["gender"])
        self.emotions = CodedColumn(columns["emotion"])
        self.languages = CodedColumn(columns["language"])
        self.num_samples = _to_samples(columns["duration_seconds"])
        self.speech_start = _to_samples(columns["speech_start_seconds"])
        self.speech_end = _to_samples(columns["speech_end_seconds"])
        self.row_of_id = RowIndex(self.utterance_ids)
        self._levels: dict[tuple[str, bool, float | None], np.ndarray] = {}
        _free_scratch_memory()

    def __len__(self) -> int:
        return len(self.num_samples)

    @cached_property
    def corpora(self) -> CodedColumn:
        """The corpus of each utterance: the part of its id before "/"."""
        parts = [
            pc.list_element(pc.split_pattern(chunk, "/", max_splits=1), 0)
            for chunk in self.utterance_ids.column.chunks
        ]
        corpora = CodedColumn(pa.chunked_array(parts, pa.string()))
        del parts
        _free_scratch_memory()
        return corpora

    def region(self, row: int, trim_silence: bool) -> tuple[int, int]:
        """Where an utterance lies in its file.

        Args:
            row (`int`): row of the utterance.
            trim_silence (`bool`): without the silence before and after the speech.

        Returns:
            `tuple[int, int]`: first sample, and the one after the last.
        """
        if trim_silence:
            return int(self.speech_start[row]), int(self.speech_end[row])
        return 0, int(self.num_samples[row])

    def refuse_empty(self, trim_silence: bool) -> None:
        """Raises if an utterance has no samples.

        Args:
            trim_silence (`bool`): counted without the silence before and after the speech.

        Raises:
            CorpusError: some have none; the message names one.
        """
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

        Args:
            measure (`str`): "power" is the mean square, "loudness" in LUFS, "peak" the largest
                amplitude.
            trim_silence (`bool`): of the part without silence before and after the speech.
            lowpass_hz (`float`, *optional*): of what is heard through a low-pass.

        Returns:
            `np.ndarray` of shape `(num_utterances,)`: float64, to be filled by who decodes. It lies
            in memory that worker processes share, if it was asked for before they were started.
        """
        key = (measure, trim_silence, lowpass_hz)
        if key not in self._levels:
            self._levels[key] = torch.zeros(len(self), dtype=torch.float64).share_memory_().numpy()
        return self._levels[key]


def _hash_strings(strings: pa.Array) -> np.ndarray:
    """Hashes the strings of an Arrow array, each as `_hash_bytes` does."""
    _, offsets_buffer, data_buffer = strings.buffers()
    first, last = strings.offset, strings.offset + len(strings)
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[first : last + 1]
    lengths, starts = np.diff(offsets), offsets[:-1] - offsets[0]
    if not lengths.all():
        raise CorpusError("an utterance has an empty id: ids are <corpus>/<name within the corpus>")
    characters = np.frombuffer(data_buffer, dtype=np.uint8)[offsets[0] : offsets[-1]]
    places = np.arange(len(characters)) - np.repeat(starts, lengths)
    return np.add.reduceat(_weigh(characters, places), starts)


def _hash_bytes(characters: np.ndarray) -> np.uint64:
    return np.add.reduce(_weigh(characters, np.arange(len(characters))))


def _weigh(characters: np.ndarray, places: np.ndarray) -> np.ndarray:
    factors = _HASH_FACTORS[places % len(_HASH_FACTORS)]
    return (characters.astype(np.uint64) + np.uint64(1)) * factors


def _free_scratch_memory() -> None:
    """Arrow keeps what it has worked with, 50 MB for a million utterances."""
    pa.default_memory_pool().release_unused()


def _to_samples(seconds: pa.ChunkedArray) -> np.ndarray:
    return np.round(seconds.to_numpy() * SAMPLING_RATE).astype(np.int32)
