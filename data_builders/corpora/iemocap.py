"""IEMOCAP: ten actors in five sessions of two, scripted and improvised (Busso et al., 2008).

Reads the original release: the labels of Session1/dialog/EmoEvaluation/*.txt, the texts of
dialog/transcriptions and the turns of sentences/wav. As in the paper (section III-A), "excited" is
counted as happy. Turns of other emotions stay in the corpus under their words, undecided ones (xxx)
under "": without a label, they serve as interference and for pretraining.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import datasets

from data_builders.corpora.corpus_table import (
    Description,
    count_line,
    describe_files,
    load_table,
    require_folder,
    wrong_folder,
)
from data_builders.corpora.scan import AUDIO_SUFFIXES, FoundFile, list_files
from data_builders.schema import EMOTIONS, CorpusError

Scenario = Literal["all", "improvised", "scripted"]

EMOTION_WORDS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "sad": "sad",
    "ang": "angry",
    "fru": "frustrated",
    "sur": "surprised",
    "fea": "fearful",
    "dis": "disgust",
    "oth": "other",
    "xxx": "",
}
SESSIONS = ("1", "2", "3", "4", "5")
# The 5,531 labelled turns of the release, by session, in the order of `EMOTIONS`.
KNOWN_COUNTS = {
    "1": (384, 278, 194, 229),
    "2": (362, 327, 197, 137),
    "3": (320, 286, 305, 240),
    "4": (258, 303, 143, 327),
    "5": (384, 442, 245, 170),
}
# Dialogue (whose first letter tells who wore the markers), kind, actor who speaks, turn.
TURN = re.compile(r"(Ses0([1-5])[FM]_(impro|script)\w*)_([FM])\w+")
# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
EVALUATION_LINE = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\S+)\s+\[")
# Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
TRANSCRIPTION_LINE = re.compile(r"(Ses\w+)\s+\[[^\]]*\]:?\s*(.*)")
EXPECTED = (
    "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt and "
    "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav, and so on to Session5"
)


def load_iemocap(
    data_dir: Path | None, cache_dir: Path, *, scenario: Scenario = "all", strict: bool = False
) -> datasets.Dataset:
    """Reads IEMOCAP; sessions are "1" to "5", with one woman and one man each.

    Args:
        data_dir, cache_dir, strict: see `data_builders.load_corpus`, as for errors; the folder
            holds Session1 to Session5, or is the one above.
        scenario (`str`): "improvised" or "scripted" turns only; the utterance id tells them apart
            (Ses01F_impro01_F000, Ses01F_script01_1_F000).

    Returns:
        `datasets.Dataset`: the evaluated turns, with `UTTERANCE_FEATURES`; the speaker is the actor
        of the turn, "iemocap_ses01_f".
    """
    root = _find_root(require_folder("iemocap", data_dir))
    audio = _list("sentences/wav", AUDIO_SUFFIXES, root)
    # The folders below hold single evaluators' opinions.
    labels = [
        file
        for file in _list("dialog/EmoEvaluation", (".txt",), root)
        if PurePosixPath(file.path).parent.name == "EmoEvaluation"
    ]
    texts = _list("dialog/transcriptions", (".txt",), root)

    def describe(report: list[str]) -> list[tuple[FoundFile, Description]]:
        evaluations = _read_evaluations(root, labels)
        words = _read_transcriptions(root, texts)
        described = describe_files(
            "iemocap",
            root,
            audio,
            EXPECTED,
            lambda path: _describe(path.stem, evaluations, words),
            report,
            "have no evaluation",
        )
        turns = {description.name for _, description in described}
        silent = [turn for turn in evaluations if turn not in turns]
        if silent:
            report.append(f"{len(silent)} evaluated turns have no audio file, such as {silent[0]}")
        report += _check([description for _, description in described])
        return [entry for entry in described if _in_scenario(entry[1], scenario)]

    return load_table(
        "iemocap",
        root,
        [*audio, *labels, *texts],
        cache_dir,
        describe,
        options={"scenario": scenario},
        strict=strict,
    )


def _find_root(folder: Path) -> Path:
    """The folder of the sessions: the given one, or IEMOCAP_full_release and the like in it."""
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if any((candidate / f"Session{session}").is_dir() for session in SESSIONS):
            return candidate
    raise wrong_folder("iemocap", folder, EXPECTED, list_files(folder, AUDIO_SUFFIXES))


def _list(below: str, suffixes: tuple[str, ...], root: Path) -> list[FoundFile]:
    folders = [f"Session{session}/{below}" for session in SESSIONS]
    return [
        file
        for folder in folders
        if (root / folder).is_dir()
        for file in list_files(root, suffixes, folder)
    ]


def _read_evaluations(root: Path, files: Sequence[FoundFile]) -> dict[str, str]:
    """Turn to emotion word."""
    evaluations = {}
    for file in files:
        text = (root / file.path).read_text(encoding="utf-8", errors="replace")
        for turn, label in EVALUATION_LINE.findall(text):
            if label not in EMOTION_WORDS:
                raise CorpusError(
                    f"iemocap: {root / file.path}: unknown emotion {label!r} of {turn}; known are "
                    f"{', '.join(EMOTION_WORDS)}"
                )
            evaluations[turn] = EMOTION_WORDS[label]
    return evaluations


def _read_transcriptions(root: Path, files: Sequence[FoundFile]) -> dict[str, str]:
    """Turn to text."""
    texts = {}
    for file in files:
        lines = (root / file.path).read_text(encoding="utf-8", errors="replace").splitlines()
        matches = (TRANSCRIPTION_LINE.fullmatch(line.strip()) for line in lines)
        texts.update({match[1]: match[2] for match in matches if match})
    return texts


def _describe(
    turn: str, evaluations: Mapping[str, str], words: Mapping[str, str]
) -> Description | None:
    match = TURN.fullmatch(turn)
    if match is None or turn not in evaluations:
        return None
    _, session, _, actor = match.groups()
    return Description(
        name=turn,
        speaker_id=f"iemocap_ses0{session}_{actor.lower()}",
        gender="female" if actor == "F" else "male",
        emotion=evaluations[turn],
        session=session,
        text=words.get(turn, ""),
        language="en-US",
        licence="LicenseRef-IEMOCAP",
    )


def _check(descriptions: Sequence[Description]) -> list[str]:
    found = Counter(f"session {entry.session} {entry.emotion}" for entry in descriptions)
    known = {
        f"session {session} {emotion}": number
        for session, counts in KNOWN_COUNTS.items()
        for emotion, number in zip(EMOTIONS, counts, strict=True)
    }
    return count_line(found, known)


def _in_scenario(description: Description, scenario: Scenario) -> bool:
    improvised = "_impro" in description.name
    return scenario == "all" or improvised == (scenario == "improvised")
