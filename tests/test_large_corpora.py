"""Planning with large corpora: neither time nor memory grows the way Python lists of strings do."""

from __future__ import annotations

import time
import tracemalloc

import datasets
import numpy as np
import pyarrow as pa
import pytest
from corpus_layouts import utterances
from planned_voices import voices

from data_builders import MixturePlanner
from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.schema import UTTERANCE_FEATURES, CorpusError

MAX_BYTES_A_ROW = 80  # what the id alone would take as a string
NUM_ROWS = 50_000
UTTERANCES_A_SPEAKER = 100


def large_corpus(num_utterances: int) -> datasets.Dataset:
    """Utterances in no order, a hundred a speaker, as long as those of LibriSpeech."""
    rng = np.random.default_rng(0)
    speakers = rng.permutation(np.arange(num_utterances) // UTTERANCES_A_SPEAKER)
    numbers = rng.permutation(num_utterances)
    seconds = rng.uniform(2.0, 15.0, num_utterances)

    def chosen(names: list[str], codes: np.ndarray) -> pa.Array:
        return pa.DictionaryArray.from_arrays(codes.astype(np.int32), names).cast(pa.string())

    def constant(text: str) -> pa.Array:
        return chosen([text], np.zeros(num_utterances))

    names = [f"large_{number:05d}" for number in range(-(-num_utterances // UTTERANCES_A_SPEAKER))]
    emotions = ["neutral", "happy", "sad", "angry"]
    columns = {
        "utterance_id": pa.array([f"large/{number:07d}-123456-0001" for number in numbers]),
        "path": pa.array([f"/corpora/large/1234/123456/{number:07d}.flac" for number in numbers]),
        "speaker_id": chosen(names, speakers),
        "gender": chosen(["female", "male"], speakers % 2),
        "emotion": chosen(emotions, rng.integers(4, size=num_utterances)),
        "session": constant(""),
        "text": constant("a sentence of some words that somebody has read aloud"),
        "language": constant("en"),
        "licence": constant("CC-BY-4.0"),
        "duration_seconds": pa.array(seconds),
        "speech_start_seconds": pa.array(0.05 * seconds),
        "speech_end_seconds": pa.array(0.95 * seconds),
    }
    table = pa.table(columns, schema=UTTERANCE_FEATURES.arrow_schema)
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def plans_a_second(planner: MixturePlanner, num_plans: int) -> float:
    """How many mixtures are drawn in a second of one core, all over the corpus."""
    indices = (np.arange(num_plans) * 7919 % len(planner)).tolist()
    start = time.process_time()
    for index in indices:
        planner.plan(1, index)
    return num_plans / (time.process_time() - start)


def test_a_row_takes_a_few_bytes_and_a_plan_no_time() -> None:
    corpus = large_corpus(NUM_ROWS)
    tracemalloc.start()
    planner = MixturePlanner(corpus, corpus, mixing_seed=0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MAX_BYTES_A_ROW * NUM_ROWS
    assert plans_a_second(planner, 1000) > 2000  # 5,000 on a quiet core


def test_selected_rows_are_the_rows_that_were_selected() -> None:
    corpus = voices("a", "fm" * 20)
    rows = np.random.default_rng(0).permutation(len(corpus))[:50]
    table, selected = UtteranceTable(corpus), UtteranceTable(corpus.select(rows))
    assert len(selected) == 50
    for name in ("utterance_ids", "paths", "speaker_ids", "genders", "emotions", "corpora"):
        expected = [getattr(table, name)[int(row)] for row in rows]
        assert list(getattr(selected, name)) == expected
    np.testing.assert_array_equal(selected.num_samples, table.num_samples[rows])
    for row, utterance_id in enumerate(selected.utterance_ids):
        assert selected.row_of_id[utterance_id] == row
    assert list(UtteranceTable(corpus.select([])).utterance_ids) == []


def test_ids_are_found_whatever_they_look_like() -> None:
    ids = ["x/a", "x/aa", "x/" + "a" * 5000, "x/ä", "x/日本語", "y/a b", "x/ab", "x/ba"]
    table = UtteranceTable(
        utterances({"utterance_id": one, "speaker_id": f"s{row}"} for row, one in enumerate(ids))
    )
    for row, utterance_id in enumerate(ids):
        assert table.row_of_id[utterance_id] == table.row_of_id.get(utterance_id) == row
        assert utterance_id in table.row_of_id
    for other in ("", "x/", "x/b", "x/aaa", "x/日本"):
        assert other not in table.row_of_id
        with pytest.raises(KeyError):
            table.row_of_id[other]
    assert set(table.corpora) == {"x", "y"}


def test_an_empty_or_a_repeated_id_is_refused() -> None:
    corpus = voices("a", "fm")
    with pytest.raises(CorpusError, match="utterance ids repeat, such as a/0_1"):
        UtteranceTable(corpus.select([0, 1, 4, 1]))
    with pytest.raises(CorpusError, match="an utterance has an empty id"):
        UtteranceTable(utterances([{"utterance_id": "", "speaker_id": "a_0"}]))
