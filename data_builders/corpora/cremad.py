"""CREMA-D: 91 actors, six emotions, twelve sentences (Cao et al., 2014).

Reads the maker's release (AudioWAV/1001_DFA_ANG_XX.wav, beside VideoDemographics.csv), its mp3
files, and converted copies with the same names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Literal

import datasets
import numpy as np

from data_builders.corpora.corpus_table import (
    Description,
    add_gender,
    count_line,
    describe_files,
    load_table,
    require_folder,
    unknown_gender_line,
)
from data_builders.corpora.folds import SENTENCE_COLUMN, split_by_name
from data_builders.corpora.scan import AUDIO_SUFFIXES, FoundFile, list_files
from data_builders.files import read_csv
from data_builders.schema import GENDERS

EMOTION_WORDS = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
# All 7,442 utterances.
EMOTION_COUNTS = {**dict.fromkeys(EMOTION_WORDS.values(), 1271), "neutral": 1087}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
# Where sentences are held apart: half of them for training, among them IEO, the only one that is
# spoken in three intensities.
SENTENCE_SPLITS = {
    **dict.fromkeys(("IEO", "TIE", "IOM", "IWW", "TAI", "MTI"), "train"),
    **dict.fromkeys(("IWL", "ITH", "DFA"), "validation"),
    **dict.fromkeys(("ITS", "TSI", "WSI"), "test"),
}
# Settings are chosen on these, three women and three men, who are in no test of the study.
SET_ASIDE = ("1014", "1024", "1034", "1054", "1064", "1074")
FIRST_ACTOR, NUM_ACTORS, NUM_SESSIONS = 1001, 91, 5
# The first has every actor, the second (of converted copies) those whose clips it lists.
DEMOGRAPHICS_FILES = ("VideoDemographics.csv", "metadata.csv")
ACTOR_COLUMNS, GENDER_COLUMNS = ("ActorID", "speaker_id"), ("Sex", "gender")
EXPECTED = "AudioWAV/1001_DFA_ANG_XX.wav (or any other format)"

# actor, sentence, emotion, level; the release has one file whose level is a single X
FILE_NAME = re.compile(
    rf"(\d{{4}})_({'|'.join(SENTENCES)})_({'|'.join(EMOTION_WORDS)})_(LO|MD|HI|XX?)"
)


def load_cremad(
    data_dir: Path | None,
    cache_dir: Path,
    *,
    held_out_sentences: bool = False,
    part: Literal["study", "choices"] | None = None,
    strict: bool = False,
) -> datasets.Dataset:
    """Reads CREMA-D; sessions are five groups of 18 or 19 actors with consecutive numbers.

    Args:
        data_dir, cache_dir, strict: see `data_builders.load_corpus`, as for result and errors.
        held_out_sentences (`bool`): each split has sentences of its own besides actors of its own,
            see `SENTENCE_SPLITS`; otherwise all actors speak all sentences.
        part (`str`, *optional*): "study" leaves out the actors of `SET_ASIDE`; "choices" validates
            on them, trains on all others, and tests nobody.

    Returns:
        `datasets.Dataset`: utterances of all six emotions, with `UTTERANCE_FEATURES`, and the split
        of each sentence where they are held apart, or of each actor in "choices".
    """
    root = require_folder("cremad", data_dir)
    audio = list_files(root, AUDIO_SUFFIXES)
    tables = list_files(root, (".csv",))
    demographics = [file for file in tables if PurePath(file.path).name in DEMOGRAPHICS_FILES]
    split_of_name: dict[str, str] = {}

    def describe(report: list[str]) -> list[tuple[FoundFile, Description]]:
        genders = _read_genders(root, demographics)
        described = describe_files(
            "cremad", root, audio, EXPECTED, lambda path: _describe(path, genders), report
        )
        descriptions = [description for _, description in described]
        report += count_line(Counter(entry.emotion for entry in descriptions), EMOTION_COUNTS)
        report += unknown_gender_line(descriptions, f"{DEMOGRAPHICS_FILES[0]} of the release")
        split_of_name.update(
            {entry.name: SENTENCE_SPLITS[entry.name.split("_")[1]] for entry in descriptions}
        )
        return described

    corpus = load_table(
        "cremad",
        root,
        [*audio, *demographics],
        cache_dir,
        describe,
        options={"held_out_sentences": held_out_sentences},
        more_columns={SENTENCE_COLUMN: split_of_name} if held_out_sentences else None,
        strict=strict,
    )
    is_set_aside = np.isin(corpus["speaker_id"][:], [f"cremad_{actor}" for actor in SET_ASIDE])
    if part == "study":
        return corpus.select(np.flatnonzero(~is_set_aside))
    if part == "choices":
        found = corpus.select(np.flatnonzero(is_set_aside))["speaker_id"][:]
        return split_by_name(corpus, validation_speakers=sorted({*found}))
    return corpus


def _describe(path: PurePath, genders: Mapping[str, str]) -> Description | None:
    match = FILE_NAME.fullmatch(path.stem)
    number = int(match[1]) - FIRST_ACTOR if match else -1
    if match is None or not 0 <= number < NUM_ACTORS:
        return None
    actor, sentence, emotion, _ = match.groups()
    return Description(
        name=path.stem,
        speaker_id=f"cremad_{actor}",
        gender=genders.get(actor, ""),
        emotion=EMOTION_WORDS[emotion],
        session=str(number * NUM_SESSIONS // NUM_ACTORS + 1),
        text=SENTENCES[sentence],
        language="en-US",
        licence="ODbL-1.0",
    )


def _read_genders(root: Path, files: Sequence[FoundFile]) -> dict[str, str]:
    """Actor to gender."""
    genders: dict[str, str] = {}
    for file in files:
        for row in read_csv(root / file.path)[1]:
            actor, gender = (
                next((row[name] for name in names if row.get(name)), "")
                for names in (ACTOR_COLUMNS, GENDER_COLUMNS)
            )
            actor, gender = actor.removeprefix("cremad_"), gender.lower()
            if gender in GENDERS:
                add_gender(genders, actor, gender, f"cremad: {root / file.path}")
    return genders
