"""What the audit measures of each recording: a hash of its samples, level, and what mars it.

A table of recordings is a `pandas.DataFrame` with a row an utterance, under its id:

    corpus, speaker_id, gender, emotion   as the corpus has them, "" when unknown
    seconds                               length of the file
    content_hash                          digest of the decoded samples
    level_db                              root mean square of what is heard, in dB of full scale
    loudness_lufs                         its integrated loudness (ITU-R BS.1770)
    normalized_level_db,                  the same after division by the root mean square, as in the
    normalized_loudness_lufs              models' feature extractor
    clipped_samples                       samples in runs of at least three at full scale
    offset_ratio                          mean of the samples over their root mean square
    silence_ratio                         share of the file before and after the speech
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from datasets.utils import tqdm

from data_builders.audio import read_audio
from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.mixtures.loudness import loudness_lufs
from data_builders.mixtures.mixing import mean_power
from data_builders.schema import SAMPLING_RATE

# The largest 16-bit sample but one: a resampled or rounded peak may miss full scale by a step.
CLIPPING_LEVEL = 1 - 2 / 2**15
CLIPPING_RUN_SAMPLES = 3
# What was measured, by utterance id and file, as corpora of one name may lie in several folders.
Measured = dict[tuple[str, str], dict[str, Any]]


def measure_recordings(
    tables: Iterable[UtteranceTable], trim_silence: bool, known: Measured
) -> pd.DataFrame:
    """Decodes every utterance of the tables of a split once.

    Trimmed, level and loudness are those between first and last active time. What was measured
    before is known; what is missing is added to it. Raises `CorpusError` where a file cannot be
    read.
    """
    rows = {
        (name, table.paths[row]): (table, row)
        for table in tables
        for row, name in enumerate(table.utterance_ids)
    }
    missing = [key for key in rows if key not in known]
    for key in tqdm(missing, desc="Measuring", disable=not missing):
        known[key] = _measure_recording(*rows[key], trim_silence)
    return pd.DataFrame.from_dict({key[0]: known[key] for key in rows}, orient="index")


def _measure_recording(table: UtteranceTable, row: int, trim_silence: bool) -> dict[str, Any]:
    samples = read_audio(table.paths[row])
    heard = samples[slice(*table.region(row, trim_silence))]
    first, last = table.region(row, True)
    rms = float(np.sqrt(mean_power(heard)))
    normalized = heard / np.float32(rms) if rms > 0 else heard
    whole_rms = np.sqrt(mean_power(samples))
    offset = abs(np.mean(samples, dtype=np.float64))
    return {
        "corpus": table.utterance_ids[row].partition("/")[0],
        "speaker_id": table.speaker_ids[row],
        "gender": table.genders[row],
        "emotion": table.emotions[row],
        "seconds": len(samples) / SAMPLING_RATE,
        "content_hash": hashlib.sha256(samples.tobytes()).hexdigest(),
        "level_db": _to_db(rms),
        "loudness_lufs": loudness_lufs(heard),
        "normalized_level_db": _to_db(float(np.sqrt(mean_power(normalized)))),
        "normalized_loudness_lufs": loudness_lufs(normalized),
        "clipped_samples": count_clipped(samples),
        "offset_ratio": float(offset / whole_rms) if whole_rms > 0 else 0.0,
        "silence_ratio": 1 - (last - first) / len(samples),
    }


def count_clipped(samples: np.ndarray) -> int:
    """Counts the samples, of full scale 1.0, in runs of at least three at full scale."""
    # +1 and -1 in turn are no plateau, so the two sides are counted apart.
    total = 0
    for side in (samples >= CLIPPING_LEVEL, samples <= -CLIPPING_LEVEL):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], side.astype(np.int8), [0]])))
        lengths = edges[1::2] - edges[::2]
        total += int(lengths[lengths >= CLIPPING_RUN_SAMPLES].sum())
    return total


def _to_db(rms: float) -> float:
    return float(20 * np.log10(rms)) if rms > 0 else -np.inf
