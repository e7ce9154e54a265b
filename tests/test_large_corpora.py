"""Planning with large corpora: neither time nor memory grows the way Python lists of strings do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_layouts import utterances
from large_corpus import large_corpus, plans_a_second
from planned_voices import voices

from data_builders import MixturePlanner
from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.schema import CorpusError

MAX_BYTES_A_ROW = 80  # what the id alone would take as a string
NUM_ROWS = 50_000


def test_a_row_takes_a_few_bytes_and_a_plan_no_time(tmp_path: Path) -> None:
    corpus = large_corpus(NUM_ROWS)
    tracemalloc.start()
    planner = MixturePlanner(corpus, corpus, mixing_seed=0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MAX_BYTES_A_ROW * NUM_ROWS
    assert plans_a_second(planner, 1000) > 2000  # 5,000 on a quiet core, see below


@pytest.mark.slow
@pytest.mark.parametrize("selected", [False, True])
def test_a_million_utterances_open_in_two_seconds_and_300_megabytes(
    selected: bool, tmp_path: Path, repository: Path
) -> None:
    large_corpus(1_000_000).save_to_disk(tmp_path / "large")
    command = [sys.executable, "tests/large_corpus.py", str(tmp_path / "large")]
    command += ["selected"] * selected
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    output = subprocess.run(
        command, cwd=repository, env=environment, check=True, capture_output=True, text=True
    ).stdout
    costs: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert costs["seconds"] < 2.0, costs
    assert costs["VmRSS"] < 300, costs
    assert costs["plans_a_second"] > 5000, costs


def test_selected_rows_are_the_rows_that_were_selected() -> None:
    corpus = voices("a", "fm" * 20)
    rows = np.random.default_rng(0).permutation(len(corpus))[:50]
    table, selected = UtteranceTable(corpus), UtteranceTable(corpus.select(rows))
    assert len(selected) == 50
    for name in ("utterance_ids", "paths", "speaker_ids", "genders", "emotions", "corpora"):
        expected = [getattr(table, name)[int(row)] for row in rows]
        assert list(getattr(selected, name)) == expected
        assert getattr(selected, name)[3:7] == expected[3:7]
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
    assert set(table.corpora.names) == {"x", "y"}


def test_ids_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = "data_builders.corpora.utterance_table._HASH_FACTORS"
    monkeypatch.setattr(factors, np.ones(4096, dtype=np.uint64))
    corpus = voices("a", "fmfmfm" * 3)  # a/1_2 and a/2_1 collide now
    table = UtteranceTable(corpus)
    for row, utterance_id in enumerate(corpus["utterance_id"]):
        assert table.row_of_id[utterance_id] == row
    with pytest.raises(CorpusError, match="utterance ids repeat, such as a/0_0"):
        UtteranceTable(corpus.select([0, 4, 1, 0]))


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(CorpusError, match="an utterance has an empty id"):
        UtteranceTable(utterances([{"utterance_id": "", "speaker_id": "a_0"}]))
