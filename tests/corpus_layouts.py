"""Tiny corpora in the true layouts of RAVDESS, EMO-DB and Asterisk: noise bursts, no speech."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
import soundfile

from data_builders.schema import UTTERANCE_FEATURES

LEAD_SECONDS = 0.2
TRAIL_SECONDS = 0.3
RAVDESS_EMOTIONS = ("01", "03", "04", "05")


def burst(seed: int, rate: int = 16_000, active_seconds: float = 0.4) -> np.ndarray:
    """Noise with silence before and after it; its loudness and length depend on the seed."""
    rng = np.random.default_rng(seed)
    active = rng.standard_normal(round((active_seconds + 0.01 * (seed % 7)) * rate))
    active *= 10 ** rng.uniform(-2.5, -1.0) / np.abs(active).max()
    lead, trail = (np.zeros(round(seconds * rate)) for seconds in (LEAD_SECONDS, TRAIL_SECONDS))
    return np.concatenate([lead, active, trail]).astype(np.float32)


def write_ravdess(
    root: Path,
    actors: Iterable[int] = range(1, 13),
    rate: int = 16_000,
    suffix: str = ".flac",
    emotions: Iterable[str] = RAVDESS_EMOTIONS,
) -> Path:
    """Two statements of each emotion by each actor, in Actor_01 and so on."""
    for actor in actors:
        folder = root / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in emotions:
            for statement in ("01", "02"):
                name = f"03-01-{emotion}-01-{statement}-01-{actor:02d}{suffix}"
                seed = actor * 1000 + int(emotion) * 10 + int(statement)
                soundfile.write(folder / name, burst(seed, rate), rate)
    return root


def write_emodb(root: Path, suffix: str = ".wav") -> Path:
    """A neutral and an angry sentence by each of the ten speakers, in wav/."""
    (root / "wav").mkdir(parents=True)
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        for emotion in "NW":
            path = root / "wav" / f"{speaker}a01{emotion}a{suffix}"
            soundfile.write(path, burst(int(speaker) * 100 + ord(emotion)), 16_000)
    return root


def write_asterisk(root: Path) -> Path:
    """Two prompts by each of the five voices, one of them in a subfolder."""
    voices = (
        "en_US_f_Allison",
        "es_MX_f_Allison",
        "fr_CA_f_June",
        "it_IT_m_Carlo",
        "ru_RU_f_IvrvoiceRU",
    )
    for number, voice in enumerate(voices):
        (root / voice / "dictate").mkdir(parents=True)
        soundfile.write(root / voice / "conf-full.flac", burst(number + 50), 16_000)
        soundfile.write(
            root / voice / "dictate" / "play_help.flac",
            burst(number + 60, active_seconds=2),
            16_000,
        )
    return root


def write_corpora(root: Path) -> Path:
    """The three corpora, each in the folder of its name, as `corpus_dir` wants them."""
    write_ravdess(root / "ravdess")
    write_emodb(root / "emodb")
    write_asterisk(root / "asterisk")
    return root


def utterances(rows: Iterable[dict[str, object]]) -> datasets.Dataset:
    """A corpus without audio: rows of `UTTERANCE_FEATURES`, what is left out gets a default."""
    filled = [
        {
            "path": f"{row['utterance_id']}.wav",
            "gender": "female",
            "emotion": "neutral",
            "session": "",
            "text": "",
            "language": "",
            "licence": "",
            "duration_seconds": 2.0,
            "speech_start_seconds": 0.5,
            "speech_end_seconds": 1.5,
            **row,
        }
        for row in rows
    ]
    return datasets.Dataset.from_list(filled, features=UTTERANCE_FEATURES)
