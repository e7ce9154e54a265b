"""The generated corpus: speech by espeak-ng that everybody can make in seconds, without a download.

`generated` has five sessions of one female and one male voice, like IEMOCAP's. Each voice says the
sentences of its session as neutral, happy, sad and angry; prosody alone (rate, pitch, pitch range,
contour, tension) makes the emotion, with spreads that overlap, and every utterance has the same
level. `generated_pool` holds the other voices: interferers, and targets for pretraining an
extractor, in prosody of any kind. Both lie in one folder of the cache, made at first use.

The recordings are CC0-1.0. espeak-ng, which is used as a separate and unmodified wheel, is
GPL-3.0-or-later; its licence does not extend to what it says.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import filelock
import numpy as np
import soundfile
from datasets.utils import tqdm

from data_builders import audio
from data_builders.corpora import espeak, generated_voices
from data_builders.corpora.generated_sentences import POOL_SENTENCES, SESSION_SENTENCES
from data_builders.corpora.generated_voices import Voice, emotional_voices, pool_voices
from data_builders.files import short_digest
from data_builders.schema import EMOTIONS, SAMPLING_RATE, UTTERANCE_FEATURES, CorpusError

LICENCE = "CC0-1.0"
NUM_POOL_UTTERANCES = 10
LEVEL_RMS = 0.05

_SEED = 0
_METADATA_FILE = "metadata.json"


class _Utterance(NamedTuple):
    """One recording to be made."""

    corpus: str
    name: str
    voice: Voice
    emotion: str  # as it is spoken; the pool does not tell it
    text: str


def load_generated(
    data_dir: Path | None, cache_dir: Path, *, strict: bool = False
) -> datasets.Dataset:
    """Loads the ten emotional speakers in sessions "1" to "5"; makes the corpus at first use.

    Arguments, result and errors are those of `data_builders.load_corpus`; no folder is read.
    """
    return _load("generated", cache_dir)


def load_generated_pool(
    data_dir: Path | None, cache_dir: Path, *, strict: bool = False
) -> datasets.Dataset:
    """Loads the voices of the pool, without emotion and session; makes the corpus at first use.

    Arguments, result and errors are those of `data_builders.load_corpus`; no folder is read.
    """
    return _load("generated_pool", cache_dir)


def _load(corpus: str, cache_dir: Path) -> datasets.Dataset:
    folder = _find_or_make(cache_dir)
    rows = json.loads((folder / _METADATA_FILE).read_text(encoding="utf-8"))
    own = [
        {**row, "path": str(folder / row["path"])}
        for row in rows
        if row["utterance_id"].startswith(f"{corpus}/")
    ]
    return datasets.Dataset.from_list(own, features=UTTERANCE_FEATURES)


def _find_or_make(cache_dir: Path) -> Path:
    """Folder of the corpus in this version; one process makes it while others wait."""
    parent = cache_dir.absolute() / "generated"
    folder = parent / _version()
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(parent / f"{folder.name}.lock"):
        if not folder.is_dir():
            # A folder that bears its final name is complete, whenever the making is interrupted.
            unfinished = parent / f"{folder.name}.part"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            _make(unfinished, _emotional_utterances() + _pool_utterances())
            os.replace(unfinished, folder)
    return folder


def _version() -> str:
    """Changes with the code that makes the corpus and with espeak-ng."""
    try:
        espeak_version = importlib.metadata.version("espeakng-loader")
    except importlib.metadata.PackageNotFoundError as error:
        raise CorpusError(
            "generated: the corpus is spoken by espeak-ng, which is not installed: "
            "pip install espeakng-loader"
        ) from error
    here = Path(__file__).parent
    sources = (here.parent / "audio.py", here / "espeak.py", *sorted(here.glob("generated*.py")))
    return short_digest(espeak_version, *(source.read_bytes() for source in sources))


def _make(folder: Path, utterances: list[_Utterance]) -> None:
    """Speaks the utterances and writes them with their metadata, paths relative to the folder."""
    requests = [
        generated_voices.speech_request(
            utterance.voice,
            utterance.emotion,
            utterance.text,
            np.random.default_rng([_SEED, number]),
        )
        for number, utterance in enumerate(utterances)
    ]
    try:
        spoken, source_rate = espeak.synthesize(requests)
    except RuntimeError as error:
        raise CorpusError(f"generated: {error}") from error
    progress = tqdm(utterances, desc="Making the generated corpus", unit="utterance")
    metadata = [
        _write_utterance(folder, utterance, samples, source_rate)
        for utterance, samples in zip(progress, spoken, strict=True)
    ]
    (folder / _METADATA_FILE).write_text(json.dumps(metadata), encoding="utf-8")


def _emotional_utterances() -> list[_Utterance]:
    return [
        _Utterance(
            "generated",
            f"{voice.speaker_id.removeprefix('generated_')}_{emotion}_{number:02d}",
            voice,
            emotion,
            text,
        )
        for voice in emotional_voices()
        for number, text in enumerate(SESSION_SENTENCES[voice.session], start=1)
        for emotion in EMOTIONS
    ]


def _pool_utterances() -> list[_Utterance]:
    # The stride makes neighbors in the list, which differ in gender only, say different things.
    return [
        _Utterance(
            "generated_pool",
            f"{voice.speaker_id.removeprefix('generated_pool_')}_{number + 1:02d}",
            voice,
            EMOTIONS[number % len(EMOTIONS)],
            POOL_SENTENCES[(7 * position + number) % len(POOL_SENTENCES)],
        )
        for position, voice in enumerate(pool_voices())
        for number in range(NUM_POOL_UTTERANCES)
    ]


def _write_utterance(
    folder: Path, utterance: _Utterance, spoken: bytes, source_rate: int
) -> dict[str, Any]:
    """Writes 16 kHz FLAC of equal level, cut to the speech; returns the metadata."""
    samples = np.frombuffer(spoken, dtype="<i2") / np.float32(2**15)
    if not samples.any():
        raise CorpusError(f"generated: espeak-ng kept silent at {utterance.text!r}")
    samples = audio.resample(samples, source_rate)
    start, end = (round(time * SAMPLING_RATE) for time in audio.find_speech(samples))
    samples = samples[start:end]
    samples = samples * (LEVEL_RMS / np.sqrt(np.mean(samples**2)))
    path = Path("audio", utterance.corpus, f"{utterance.name}.flac")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / path, samples, SAMPLING_RATE, subtype="PCM_16")
    speech_start, speech_end = audio.find_speech(samples)
    in_pool = utterance.corpus == "generated_pool"
    return {
        "utterance_id": f"{utterance.corpus}/{utterance.name}",
        "path": path.as_posix(),
        "speaker_id": utterance.voice.speaker_id,
        "gender": utterance.voice.gender,
        "emotion": "" if in_pool else utterance.emotion,
        "session": utterance.voice.session,
        "text": utterance.text,
        "language": utterance.voice.language,
        "licence": LICENCE,
        "duration_seconds": len(samples) / SAMPLING_RATE,
        "speech_start_seconds": speech_start,
        "speech_end_seconds": speech_end,
    }
