"""EMO-DB, the Berlin database of emotional speech: ten actors, German (Burkhardt et al., 2005).

Reads the maker's release (16 kHz wav, wav/03a01Fa.wav) and converted copies with the same names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

import datasets

from data_builders.corpora.corpus_table import Description, count_line, load_audio_folder

SPEAKER_GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}
# The first letters of the German words.
EMOTION_WORDS = {
    "W": "angry",
    "L": "bored",
    "E": "disgust",
    "A": "fearful",
    "F": "happy",
    "T": "sad",
    "N": "neutral",
}
# All 535 utterances.
EMOTION_COUNTS = {
    "angry": 127,
    "bored": 81,
    "disgust": 46,
    "fearful": 69,
    "happy": 71,
    "sad": 62,
    "neutral": 79,
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

# speaker, sentence, emotion, take
FILE_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-z])")


def load_emodb(data_dir: Path | None, cache_dir: Path, *, strict: bool = False) -> datasets.Dataset:
    """Reads EMO-DB, all seven emotions, which has no sessions.

    Arguments, result and errors are those of `data_builders.load_corpus`.
    """
    return load_audio_folder(
        "emodb",
        data_dir,
        cache_dir,
        expected="wav/03a01Fa.wav (or .flac) and so on",
        describe=_describe,
        check=_check,
        strict=strict,
    )


def _check(descriptions: Sequence[Description]) -> list[str]:
    return count_line(Counter(description.emotion for description in descriptions), EMOTION_COUNTS)


def _describe(path: PurePath) -> Description | None:
    match = FILE_NAME.fullmatch(path.stem)
    if match is None or match[1] not in SPEAKER_GENDERS or match[2] not in SENTENCES:
        return None
    speaker, sentence, emotion, _ = match.groups()
    return Description(
        name=path.stem,
        speaker_id=f"emodb_{speaker}",
        gender=SPEAKER_GENDERS[speaker],
        emotion=EMOTION_WORDS[emotion],
        text=SENTENCES[sentence],
        language="de-DE",
        licence="CC0-1.0",
    )
