"""RAVDESS speech: 24 actors, eight emotions, two sentences (Livingstone and Russo, 2018).

Reads the maker's release (48 kHz wav in Actor_01 ... Actor_24, with or without the folder
Audio_Speech_Actors_01-24 above them) and converted copies with the same names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

import datasets

from data_builders.corpora.corpus_table import Description, count_line, load_audio_folder

EMOTION_WORDS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
NUM_ACTORS = 24
ACTORS_PER_SESSION = 4
UTTERANCES_PER_ACTOR = 60

# modality 03 (audio only), channel 01 (speech), emotion, intensity, statement, repetition, actor
FILE_NAME = re.compile(r"03-01-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")


def load_ravdess(
    data_dir: Path | None, cache_dir: Path, *, strict: bool = False
) -> datasets.Dataset:
    """Reads RAVDESS speech, all eight emotions; a session is a group of two men and two women.

    Arguments, result and errors are those of `data_builders.load_corpus`.
    """
    return load_audio_folder(
        "ravdess",
        data_dir,
        cache_dir,
        expected="Actor_01/03-01-01-01-01-01-01.wav (or .flac) and so on",
        describe=_describe,
        check=_check,
        strict=strict,
    )


def _check(descriptions: Sequence[Description]) -> list[str]:
    found = Counter(f"actor {description.speaker_id[-2:]}" for description in descriptions)
    known = {f"actor {actor:02d}": UTTERANCES_PER_ACTOR for actor in range(1, NUM_ACTORS + 1)}
    return count_line(found, known)


def _describe(path: PurePath) -> Description | None:
    match = FILE_NAME.fullmatch(path.stem)
    if match is None or not 1 <= int(match[5]) <= NUM_ACTORS:
        return None
    emotion, _, statement, _, actor = match.groups()
    return Description(
        name=path.stem,
        speaker_id=f"ravdess_{actor}",
        # Odd actors are men, even ones women.
        gender="male" if int(actor) % 2 else "female",
        emotion=EMOTION_WORDS[emotion],
        session=str((int(actor) - 1) // ACTORS_PER_SESSION + 1),
        text=STATEMENTS[statement],
        language="en-US",
        licence="CC-BY-NC-SA-4.0",
    )
