"""What the audit measures of each recording: a hash of its samples, level, and what mars it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from datasets.utils import tqdm

from data_builders.audio import read_audio
from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.mixtures.loudness import padded_loudness
from data_builders.mixtures.mixing import mean_power
from data_builders.schema import SAMPLING_RATE

# The largest 16-bit sample but one: a resampled or rounded peak may miss full scale by a step.
CLIPPING_LEVEL = 1 - 2 / 2**15
CLIPPING_RUN_SAMPLES = 3


@dataclass(frozen=True)
class Recording:
    """An utterance of a corpus and what was measured of it.

    Attributes:
        utterance_id (`str`): "<corpus>/<name>".
        speaker_id (`str`): speaker.
        gender (`str`): "female", "male" or "".
        emotion (`str`): emotion word, "" when unknown.
        seconds (`float`): length of the file.
        content_hash (`str`): digest of the decoded samples.
        level_db (`float`): root mean square of what is heard of it, in dB of full scale.
        loudness_lufs (`float`): its integrated loudness (ITU-R BS.1770).
        normalized_level_db (`float`): level after division by the root mean square, as in the
            models' feature extractor.
        normalized_loudness_lufs (`float`): loudness after that.
        clipped_samples (`int`): samples in runs of at least three at full scale.
        offset_ratio (`float`): mean of the samples over their root mean square.
        silence_ratio (`float`): share of the file before and after the speech.
    """

    utterance_id: str
    speaker_id: str
    gender: str
    emotion: str
    seconds: float
    content_hash: str
    level_db: float
    loudness_lufs: float
    normalized_level_db: float
    normalized_loudness_lufs: float
    clipped_samples: int
    offset_ratio: float
    silence_ratio: float

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.utterance_id.partition("/")[0]


def measure_recordings(
    tables: Iterable[UtteranceTable], trim_silence: bool, known: dict[tuple[str, str], Recording]
) -> dict[str, Recording]:
    """Decodes every utterance once.

    Args:
        tables (`Iterable[UtteranceTable]`): utterances of one split.
        trim_silence (`bool`): level and loudness are those between first and last active time.
        known (`dict[tuple[str, str], Recording]`): recordings by utterance id and file, as corpora
            of one name may lie in several folders; what is missing is added.

    Returns:
        `dict[str, Recording]`: the recordings of these tables by utterance id.

    Raises:
        CorpusError: a file cannot be read.
    """
    rows = {
        (name, table.paths[row]): (table, row)
        for table in tables
        for row, name in enumerate(table.utterance_ids)
    }
    missing = [key for key in rows if key not in known]
    for key in tqdm(missing, desc="Measuring", disable=not missing):
        known[key] = measure_recording(*rows[key], trim_silence)
    return {key[0]: known[key] for key in rows}


def measure_recording(table: UtteranceTable, row: int, trim_silence: bool) -> Recording:
    """Decodes and measures an utterance.

    Args:
        table (`UtteranceTable`): utterances.
        row (`int`): row of the utterance.
        trim_silence (`bool`): level and loudness are those between first and last active time.

    Returns:
        `Recording`: what was measured.

    Raises:
        CorpusError: the file cannot be read.
    """
    samples = read_audio(table.paths[row])
    heard = samples[slice(*table.region(row, trim_silence))]
    first, last = table.region(row, True)
    rms = float(np.sqrt(mean_power(heard)))
    normalized = heard / np.float32(rms) if rms > 0 else heard
    return Recording(
        utterance_id=table.utterance_ids[row],
        speaker_id=table.speaker_ids[row],
        gender=table.genders[row],
        emotion=table.emotions[row],
        seconds=len(samples) / SAMPLING_RATE,
        content_hash=hashlib.sha256(samples.tobytes()).hexdigest(),
        level_db=_to_db(rms),
        loudness_lufs=padded_loudness(heard),
        normalized_level_db=_to_db(float(np.sqrt(mean_power(normalized)))),
        normalized_loudness_lufs=padded_loudness(normalized),
        clipped_samples=count_clipped(samples),
        offset_ratio=_offset_ratio(samples),
        silence_ratio=1 - (last - first) / len(samples),
    )


def count_clipped(samples: np.ndarray) -> int:
    """Counts the samples in runs of at least three at full scale.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): waveform, full scale 1.0.

    Returns:
        `int`: number of clipped samples.
    """
    # +1 and -1 in turn are no plateau, so the two sides are counted apart.
    total = 0
    for side in (samples >= CLIPPING_LEVEL, samples <= -CLIPPING_LEVEL):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], side.astype(np.int8), [0]])))
        lengths = edges[1::2] - edges[::2]
        total += int(lengths[lengths >= CLIPPING_RUN_SAMPLES].sum())
    return total


def _to_db(rms: float) -> float:
    return float(20 * np.log10(rms)) if rms > 0 else -np.inf


def _offset_ratio(samples: np.ndarray) -> float:
    rms = np.sqrt(mean_power(samples))
    return float(abs(np.mean(samples, dtype=np.float64)) / rms) if rms > 0 else 0.0
