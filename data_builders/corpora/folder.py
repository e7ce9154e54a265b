"""Anybody's own recordings: audio files and a table that describes them, CSV or Parquet.

The table has the columns of `UTTERANCE_FEATURES`, of which only `path` and `speaker_id` are needed:

    path,speaker_id,gender,emotion,session,text
    anna/001.wav,anna,f,neutral,1,Good morning.

A relative path is relative to the folder of the table and stays inside it; an absolute one may lead
anywhere on this machine. Lengths are measured, whatever the table says. A column `split` (train,
validation, test) decides how the corpus is split.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import datasets
import pyarrow.parquet as pq

from data_builders.corpora.corpus_table import Description, load_table, require_folder
from data_builders.corpora.folds import SPLITS
from data_builders.corpora.scan import FoundFile, find_file, list_files
from data_builders.files import read_csv
from data_builders.option_reader import close_match
from data_builders.schema import GENDERS, UTTERANCE_FEATURES, CorpusError

METADATA_FILES = ("metadata.csv", "metadata.parquet")
REQUIRED_COLUMNS = ("path", "speaker_id")

GENDER_WORDS = {
    **{gender: gender for gender in GENDERS},
    **dict.fromkeys(("f", "w", "woman"), "female"),
    **dict.fromkeys(("m", "man"), "male"),
    **dict.fromkeys(("", "unknown", "other"), ""),
}
# The words of the other corpora, and common ways to say the same.
EMOTION_WORDS = {
    **{
        word: word
        for word in (
            *("neutral", "happy", "sad", "angry", "calm", "fearful", "disgust", "surprised"),
            *("bored", "frustrated", "excited", "contempt", "other"),
        )
    },
    **dict.fromkeys(("", "unknown"), ""),
    "neu": "neutral",
    **dict.fromkeys(("hap", "happiness", "joy"), "happy"),
    "sadness": "sad",
    **dict.fromkeys(("ang", "anger"), "angry"),
    "fear": "fearful",
    "disgusted": "disgust",
    "surprise": "surprised",
    "boredom": "bored",
    "frustration": "frustrated",
    "excitement": "excited",
}
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def load_folder(
    data_dir: Path | None,
    cache_dir: Path,
    *,
    metadata: str | None = None,
    name: str = "folder",
    strict: bool = False,
) -> datasets.Dataset:
    """Reads the recordings that a table describes.

    Args:
        data_dir, cache_dir, strict: see `data_builders.load_corpus`; the folder holds the table
            and, below it, the recordings.
        metadata (`str`, *optional*): the table, relative to the folder; metadata.csv or
            metadata.parquet if not given.
        name (`str`): the corpus' name in utterance ids and in front of speakers, so that several
            such corpora can be used together.

    Returns:
        `datasets.Dataset`: the utterances, with `UTTERANCE_FEATURES`, and `split` where the table
        has it, in the order of the table. Without `utterance_id` it is the path without its suffix;
        everything else that is not told is "".

    Raises:
        CorpusError: the folder or table is missing or lacks a column, a row has no path or speaker,
            a gender or split that nobody knows, a misspelt emotion or a path outside of the folder,
            utterances repeat, a speaker has two genders, no audio can be used, or `strict` and some
            cannot.
    """
    if NAME.fullmatch(name) is None:
        raise CorpusError(f"folder: name={name!r}: use letters, digits, _, . and - only")
    root = require_folder(name, data_dir)
    table = _find_table(name, root, metadata)
    splits: dict[str, dict[str, str]] = {}

    def describe(report: list[str]) -> list[tuple[FoundFile, Description]]:
        columns, rows = _read_table(table)
        _check_rows(table, columns, rows)
        unused = [column for column in columns if column not in {*UTTERANCE_FEATURES, "split"}]
        if unused:
            report.append(f"{len(unused)} columns are not used: {', '.join(unused)}")
        speakers = _without_prefix([row["speaker_id"] for row in rows], f"{name}_")
        ids = _without_prefix([_utterance_id(row) for row in rows], f"{name}/")
        described = []
        for number, (row, speaker, own_id) in enumerate(zip(rows, speakers, ids, strict=True), 1):
            description = _describe(row, own_id, f"{name}_{speaker}", f"{table}, row {number}")
            described.append((find_file(root, _path(row)), description))
        words = Counter(entry.emotion for _, entry in described)
        own = [f"{one} ({words[one]})" for one in sorted(words) if one not in EMOTION_WORDS]
        if own:
            report.append(f"emotions that no other corpus has: {', '.join(own)}; no slip?")
        _refuse_repeated(table, ids)
        if "split" in columns:
            splits["split"] = {own_id: row["split"] for own_id, row in zip(ids, rows, strict=True)}
        return described

    return load_table(
        name,
        root,
        list_files(root, ("",)),
        cache_dir,
        describe,
        options={"metadata": str(table)},
        more_columns=splits,
        strict=strict,
    )


def _find_table(name: str, root: Path, metadata: str | None) -> Path:
    names = METADATA_FILES if metadata is None else (metadata,)
    found = [root / entry for entry in names if (root / entry).is_file()]
    if not found:
        raise CorpusError(
            f"{name}: {root} holds no {' or '.join(names)}: write a table with the columns "
            f"{', '.join(REQUIRED_COLUMNS)}, and any other of {', '.join(UTTERANCE_FEATURES)}"
        )
    if len(found) > 1:
        raise CorpusError(f"{name}: {root} holds {' and '.join(names)}: name one with metadata=")
    return found[0]


def _read_table(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows; what is not told is ""."""
    if table.suffix.lower() != ".parquet":
        return read_csv(table)
    # Not by `datasets`, which keeps tables under their path and time.
    content = pq.read_table(table)
    rows = [
        {column: "" if value is None else str(value).strip() for column, value in row.items()}
        for row in content.to_pylist()
    ]
    return content.column_names, rows


def _check_rows(table: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    if missing:
        raise CorpusError(
            f"{table}: the columns {missing} are missing; found {sorted(columns)}; "
            "a CSV file has commas between its columns"
        )
    if not rows:
        raise CorpusError(f"{table}: no utterance is described")
    for number, row in enumerate(rows, start=1):
        if not all(row[column] for column in REQUIRED_COLUMNS):
            raise CorpusError(
                f"{table}, row {number}: {' and '.join(REQUIRED_COLUMNS)} must not be empty"
            )


def _path(row: Mapping[str, str]) -> str:
    return row["path"].replace("\\", "/")


def _utterance_id(row: Mapping[str, str]) -> str:
    """As the table has it, else the path without its suffix."""
    return row.get("utterance_id") or str(PurePosixPath(_path(row)).with_suffix("")).lstrip("/")


def _without_prefix(names: Sequence[str], prefix: str) -> list[str]:
    """Leaves out the prefix of the corpus where every name has it already; where only some do, it
    is a part of these names, and without it two of them could become one."""
    if all(name.startswith(prefix) for name in names):
        return [name.removeprefix(prefix) for name in names]
    return list(names)


def _describe(row: Mapping[str, str], name: str, speaker_id: str, where: str) -> Description:
    path = _path(row)
    if not PurePosixPath(path).is_absolute() and os.path.normpath(path).startswith(".."):
        raise CorpusError(
            f"{where}: {path} leaves the folder of the table; move the file, or write an absolute "
            f"path"
        )
    if row.get("split", SPLITS[0]) not in SPLITS:
        raise CorpusError(
            f"{where}: unknown split {row['split']!r}: use one of {', '.join(SPLITS)}"
        )
    return Description(
        name=name,
        speaker_id=speaker_id,
        gender=_known(row.get("gender", ""), GENDER_WORDS, f"{where}: gender"),
        emotion=_emotion(row.get("emotion", ""), f"{where}: emotion"),
        **{key: row.get(key, "") for key in ("session", "text", "language", "licence")},
    )


def _emotion(word: str, where: str) -> str:
    """The usual word for an emotion; one that is like none of these is an emotion of its own."""
    if word.lower() in EMOTION_WORDS or close_match(word.lower(), EMOTION_WORDS):
        return _known(word, EMOTION_WORDS, where)
    return word.lower()


def _known(word: str, words: Mapping[str, str], where: str) -> str:
    if word.lower() not in words:
        known = ", ".join(entry or '""' for entry in sorted(set(words.values())))
        raise CorpusError(f"{where} {word!r} is unknown: use one of {known}")
    return words[word.lower()]


def _refuse_repeated(table: Path, names: list[str]) -> None:
    repeated = sorted(name for name, number in Counter(names).items() if number > 1)
    if repeated:
        raise CorpusError(
            f"{table}: {len(repeated)} utterance ids repeat, such as {repeated[0]}; give each row "
            f"its own"
        )
