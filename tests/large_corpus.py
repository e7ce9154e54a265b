"""A corpus of a million rows without audio, and what it costs to plan with it.

Run as a program it opens a planner over a corpus on disk and prints the costs as JSON, in a process
of its own, so that nothing else counts: `python tests/large_corpus.py FOLDER [selected]`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from data_builders import MixturePlanner
from data_builders.schema import UTTERANCE_FEATURES

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


def _memory_mib() -> dict[str, float]:
    """Resident memory: all of it, and without what is mapped from files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}


def main() -> None:
    corpus = datasets.load_from_disk(sys.argv[1])
    if "selected" in sys.argv:  # in no order, as a random split leaves it
        corpus = corpus.select(np.random.default_rng(1).permutation(len(corpus)))
    before, start = _memory_mib(), time.process_time()
    planner = MixturePlanner(corpus, corpus, mixing_seed=0)
    seconds = time.process_time() - start
    plans = plans_a_second(planner, 5000)
    growth = {name: value - before[name] for name, value in _memory_mib().items()}
    print(json.dumps({"seconds": seconds, "plans_a_second": plans, **growth}))


if __name__ == "__main__":
    main()
