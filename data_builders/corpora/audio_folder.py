"""A corpus that is a folder of audio files whose names tell everything else about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import datasets

from data_builders.corpora.corpus_table import (
    Description,
    left_out_line,
    load_table,
    require_folder,
)
from data_builders.corpora.scan import AUDIO_SUFFIXES, LOSSY_SUFFIXES, FoundFile, list_files
from data_builders.schema import CorpusError


def load_audio_folder(
    corpus: str,
    data_dir: Path | None,
    cache_dir: Path,
    *,
    expected: str,
    describe: Callable[[PurePath], Description | None],
    check: Callable[[Sequence[Description]], list[str]],
    strict: bool = False,
) -> datasets.Dataset:
    """Reads a corpus from its folder.

    Args:
        corpus (`str`): name of the corpus.
        data_dir (`Path`, *optional*): its folder.
        cache_dir (`Path`): where the scan is kept.
        expected (`str`): the layout, in words, for the error message.
        describe (`Callable`): describes a file by its path within the folder; None for a file that
            does not belong to the corpus.
        check (`Callable`): compares the utterances with the complete corpus; the lines that it
            returns are warnings.
        strict (`bool`): see `load_table`.

    Returns:
        `datasets.Dataset`: the utterances, with `UTTERANCE_FEATURES`, sorted by path.

    Raises:
        CorpusError: the folder is missing, is not that corpus, or holds unusable audio.
    """
    root = require_folder(corpus, data_dir)
    files = list_files(root, AUDIO_SUFFIXES)

    def describe_all(report: list[str]) -> list[tuple[FoundFile, Description]]:
        described = describe_files(corpus, root, files, expected, describe, report)
        report += check([description for _, description in described])
        return described

    return load_table(corpus, root, files, cache_dir, describe_all, strict=strict)


def describe_files(
    corpus: str,
    root: Path,
    files: Sequence[FoundFile],
    expected: str,
    describe: Callable[[PurePath], Description | None],
    report: list[str],
    strangers_are: str = "are not part of the corpus",
) -> list[tuple[FoundFile, Description]]:
    """Describes each utterance once; what else the folder holds goes into the report.

    Args:
        corpus, expected, describe: see `load_audio_folder`.
        root (`Path`): folder of the corpus.
        files (`Sequence[FoundFile]`): the audio files.
        report (`list[str]`): lines on files that are left out are added.
        strangers_are (`str`): what is said of the files that are not described.

    Returns:
        `list[tuple[FoundFile, Description]]`: files and what is known of them, sorted by path.

    Raises:
        CorpusError: no file is an utterance of the corpus.
    """
    order = {file.path: position for position, file in enumerate(files)}
    described: dict[str, tuple[FoundFile, Description]] = {}
    strangers, copies = [], []
    # A release may bring its recordings as mp3 as well: what keeps every sample comes first.
    for file in sorted(files, key=lambda file: file.path.lower().endswith(LOSSY_SUFFIXES)):
        description = describe(PurePath(file.path))
        if description is None:
            strangers.append(file.path)
        elif description.name in described:
            copies.append(file.path)
        else:
            described[description.name] = (file, description)
    if not described:
        raise wrong_folder(corpus, root, expected, files)
    report += left_out_line(strangers, strangers_are)
    report += left_out_line(copies, "repeat the name of another file")
    return sorted(described.values(), key=lambda entry: order[entry[0].path])


def wrong_folder(corpus: str, root: Path, expected: str, files: Sequence[FoundFile]) -> CorpusError:
    """The error for a folder that holds something else than was expected."""
    entries = sorted(path.name for path in root.iterdir())
    if files:
        examples = ", ".join(file.path for file in files[:3])
        found = f"{len(files)} audio files, such as {examples}"
    elif entries:
        found = f"no audio file, but {', '.join(entries[:5])}"
    else:
        found = "an empty folder"
    return CorpusError(f"{corpus}: {root} is not that corpus: expected {expected}; found {found}")
