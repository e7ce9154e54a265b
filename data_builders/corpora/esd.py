"""ESD, the Emotional Speech Database (Zhou et al., 2022): its English half, speakers 0011 to 0020.

Every speaker says the same 350 sentences in five emotions. The corpus is handed round in several
layouts, all of which are read: 0011/Angry/train/0011_000351.wav or 0011/Angry/0011_000351.wav,
with or without folders such as "Emotion Speech Dataset" above. Texts come from 0011/0011.txt,
which is UTF-8, UTF-16 or a Windows code page, depending on the speaker.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Literal

import datasets

from data_builders.corpora.corpus_table import (
    Description,
    count_line,
    describe_files,
    load_table,
    require_folder,
)
from data_builders.corpora.scan import AUDIO_SUFFIXES, FoundFile, list_files
from data_builders.schema import CorpusError

Part = Literal["all", "train", "evaluation", "test"]
PART_FOLDERS = ("train", "evaluation", "test")

# As the ReadMe.txt of the database lists them.
SPEAKER_GENDERS = {
    **dict.fromkeys(("0011", "0012", "0013", "0014", "0020"), "male"),
    **dict.fromkeys(("0015", "0016", "0017", "0018", "0019"), "female"),
}
# Names of the folders, in any case.
EMOTION_WORDS = {
    "neutral": "neutral",
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "surprise": "surprised",
}
SENTENCES_PER_EMOTION = 350
# Of the 350 sentences of each emotion, the first 20 are the evaluation part, the next 30 the test.
LAST_EVALUATION_SENTENCE, LAST_TEST_SENTENCE = 20, 50

FILE_NAME = re.compile(r"(\d{4})_(\d{6})")
# 0011_000351	The nine the eggs, I keep.	Angry; some lines lack the tabs, or the emotion.
TRANSCRIPT_LINE = re.compile(r"(\d{4}_\d{6})\s+(.*)")
TRANSCRIPT_EMOTION = re.compile(r"\s+(?:neutral|angry|happy|sad|surprise)$", re.IGNORECASE)
EXPECTED = (
    "0011/Angry/0011_000351.wav or 0011/Angry/train/0011_000351.wav, and so on for the English "
    "speakers 0011 to 0020"
)


def load_esd(
    data_dir: Path | None, cache_dir: Path, *, part: Part = "all", strict: bool = False
) -> datasets.Dataset:
    """Reads the English speakers of ESD.

    Args:
        data_dir, cache_dir, strict: see `data_builders.load_corpus`, as for result and errors; the
            folder may be one above the corpus.
        part (`str`): the sentences of "train", "evaluation" or "test" only: by the folders of these
            names, or by their numbers where there are none. All speakers are in every part.
    """
    root = require_folder("esd", data_dir)
    audio = list_files(root, AUDIO_SUFFIXES)
    transcripts = [
        file for file in list_files(root, (".txt",)) if PurePath(file.path).stem in SPEAKER_GENDERS
    ]

    def describe(report: list[str]) -> list[tuple[FoundFile, Description]]:
        texts = _read_transcripts(root, transcripts)
        others = [file for file in audio if not "0001" <= PurePath(file.path).stem[:4] <= "0010"]
        if len(others) < len(audio):
            report.append(
                f"{len(audio) - len(others)} audio files of the Mandarin speakers 0001 to 0010 are "
                f"left out"
            )
        described = describe_files(
            "esd", root, others, EXPECTED, lambda path: _describe(path, texts), report
        )
        report += _check([description for _, description in described])
        untold = [entry.name for _, entry in described if not entry.text]
        if untold:
            report.append(f"{len(untold)} utterances have no transcript, such as {untold[0]}")
        return [entry for entry in described if part in ("all", _part_of(PurePath(entry[0].path)))]

    return load_table(
        "esd",
        root,
        [*audio, *transcripts],
        cache_dir,
        describe,
        options={"part": part},
        strict=strict,
    )


def _describe(path: PurePath, texts: dict[str, str]) -> Description | None:
    match = FILE_NAME.fullmatch(path.stem)
    if match is None or match[1] not in SPEAKER_GENDERS:
        return None
    folders = [part for part in path.parts[:-1] if part.lower() not in PART_FOLDERS]
    emotion = EMOTION_WORDS.get(folders[-1].lower() if folders else "")
    if emotion is None:
        raise CorpusError(
            f"esd: {path}: the folder is none of the emotions {', '.join(EMOTION_WORDS)}; "
            f"expected {EXPECTED}"
        )
    return Description(
        name=path.stem,
        speaker_id=f"esd_{match[1]}",
        gender=SPEAKER_GENDERS[match[1]],
        emotion=emotion,
        text=texts.get(path.stem, ""),
        language="en",
        licence="LicenseRef-ESD",
    )


def _part_of(path: PurePath) -> str:
    """The folder's word; in a layout without these folders, the part that the number belongs to."""
    folder = path.parent.name.lower()
    if folder in PART_FOLDERS:
        return folder
    sentence = (int(path.stem[-6:]) - 1) % SENTENCES_PER_EMOTION + 1
    if sentence <= LAST_EVALUATION_SENTENCE:
        return "evaluation"
    return "test" if sentence <= LAST_TEST_SENTENCE else "train"


def _check(descriptions: Sequence[Description]) -> list[str]:
    found = Counter(f"{entry.speaker_id[-4:]} {entry.emotion}" for entry in descriptions)
    known = {
        f"{speaker} {emotion}": SENTENCES_PER_EMOTION
        for speaker in SPEAKER_GENDERS
        for emotion in EMOTION_WORDS.values()
    }
    return count_line(found, known)


def _read_transcripts(root: Path, files: Sequence[FoundFile]) -> dict[str, str]:
    """Name of the recording to text."""
    texts = {}
    for file in files:
        for line in _decode_text((root / file.path).read_bytes()).splitlines():
            match = TRANSCRIPT_LINE.fullmatch(line.strip())
            if match:
                texts[match[1]] = TRANSCRIPT_EMOTION.sub("", match[2]).strip()
    return texts


def _decode_text(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Curly quotes of a Windows editor.
        return data.decode("cp1252", errors="replace")
