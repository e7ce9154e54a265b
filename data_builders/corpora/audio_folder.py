"""A corpus that is a folder of audio files whose names tell everything else about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import datasets

from data_builders.audio import find_audio_files, scan_audio_files
from data_builders.schema import UTTERANCE_FEATURES, CorpusError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """What a file's name tells about an utterance; the fields of `UTTERANCE_FEATURES`.

    Attributes:
        name (`str`): utterance id within the corpus.
        speaker_id (`str`): speaker, with the name of the corpus in front.
        gender (`str`): "female" or "male".
        emotion (`str`): emotion word, "" when unknown.
        session (`str`): session, "" when the corpus has none.
        text (`str`): what is said.
        language (`str`): BCP 47 tag.
        licence (`str`): SPDX identifier.
    """

    name: str
    speaker_id: str
    gender: str
    emotion: str
    session: str
    text: str
    language: str
    licence: str


def load_audio_folder(
    corpus: str,
    data_dir: Path | None,
    cache_dir: Path,
    *,
    expected: str,
    describe: Callable[[PurePath], Description | None],
) -> datasets.Dataset:
    """Reads a corpus from its folder.

    Args:
        corpus (`str`): name of the corpus.
        data_dir (`Path`, *optional*): its folder.
        cache_dir (`Path`): where the scan is kept.
        expected (`str`): the layout, in words, for the error message.
        describe (`Callable`): describes a file by its path within the folder; None for a file that
            does not belong to the corpus.

    Returns:
        `datasets.Dataset`: the utterances, with `UTTERANCE_FEATURES`, sorted by path.

    Raises:
        CorpusError: the folder is missing, is not that corpus, or holds unusable audio.
    """
    root = require_folder(corpus, data_dir)
    files = find_audio_files(root)
    described: dict[str, tuple[Path, Description]] = {}
    strangers: list[Path] = []
    copies: list[Path] = []
    for path in files:
        description = describe(path.relative_to(root))
        if description is None:
            strangers.append(path)
        elif description.name in described:
            copies.append(path)
        else:
            described[description.name] = (path, description)
    if not described:
        raise CorpusError(
            f"{corpus}: {root} is not that corpus: expected {expected}; found {_found(root, files)}"
        )
    _warn_left_out(corpus, strangers, "are not part of the corpus")
    _warn_left_out(corpus, copies, "repeat the name of another file")
    kept = list(described.values())
    scanned = scan_audio_files(root, [path for path, _ in kept], cache_dir, corpus)
    rows = [
        {
            "utterance_id": f"{corpus}/{description.name}",
            "path": entry.path,
            "speaker_id": description.speaker_id,
            "gender": description.gender,
            "emotion": description.emotion,
            "session": description.session,
            "text": description.text,
            "language": description.language,
            "licence": description.licence,
            "duration_seconds": entry.duration_seconds,
            "speech_start_seconds": entry.speech_start_seconds,
            "speech_end_seconds": entry.speech_end_seconds,
        }
        for (_, description), entry in zip(kept, scanned, strict=True)
    ]
    return datasets.Dataset.from_list(rows, features=UTTERANCE_FEATURES)


def require_folder(corpus: str, data_dir: Path | None) -> Path:
    """Returns the folder of a corpus.

    Args:
        corpus (`str`): name of the corpus.
        data_dir (`Path`, *optional*): its folder.

    Returns:
        `Path`: the absolute folder.

    Raises:
        CorpusError: no folder was given, or it does not exist.
    """
    if data_dir is None:
        raise CorpusError(
            f"{corpus}: its folder is not known; pass data_dir (load_corpus) or corpus_dir or "
            f"corpus_dirs (load_mixtures)"
        )
    if not data_dir.is_dir():
        raise CorpusError(f"{corpus}: {data_dir} is not a folder; check the path")
    return data_dir.absolute()


def _found(root: Path, files: Sequence[Path]) -> str:
    if files:
        examples = ", ".join(path.relative_to(root).as_posix() for path in files[:3])
        return f"{len(files)} audio files, such as {examples}"
    entries = sorted(path.name for path in root.iterdir())
    if not entries:
        return "an empty folder"
    return f"no wav or flac file, but {', '.join(entries[:5])}"


def _warn_left_out(corpus: str, paths: Sequence[Path], reason: str) -> None:
    if paths:
        logger.warning(
            "%s: %d audio files %s and are left out, such as %s",
            corpus,
            len(paths),
            reason,
            paths[0],
        )
