"""From audio files to the table of a corpus, which is kept and memory-mapped from then on."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import datasets
import filelock
import pyarrow as pa

from data_builders.corpora.scan import (
    AUDIO_SUFFIXES,
    LOSSY_SUFFIXES,
    FoundFile,
    ScannedFile,
    corpus_cache,
    find_file,
    list_files,
    scan_audio_files,
)
from data_builders.files import short_digest, whole_file
from data_builders.schema import UTTERANCE_FEATURES, CorpusError, some_of

logger = logging.getLogger(__name__)

MAX_REPORTED_GROUPS = 20
# Where the metadata of a table keep what was said of it, and what it depends on besides.
FACTS_KEY = b"facts"


@dataclass(frozen=True)
class Description:
    """What is known of an utterance besides its audio; the fields of `UTTERANCE_FEATURES`."""

    name: str  # utterance id within the corpus
    speaker_id: str  # with the name of the corpus in front
    gender: str = ""  # "female" or "male", "" when unknown
    emotion: str = ""  # a word, "" when unknown
    session: str = ""  # "" when the corpus has none
    text: str = ""  # what is said
    language: str = ""  # BCP 47 tag
    licence: str = ""  # SPDX identifier, or LicenseRef- and the corpus


# Chooses and describes the audio files of a corpus; appends to the report a line, with the count,
# for whatever it leaves out or misses.
Describer = Callable[[list[str]], list[tuple[FoundFile, Description]]]


def require_folder(corpus: str, data_dir: Path | None) -> Path:
    """The absolute folder of a corpus.

    Raises `CorpusError` where none was given, or it does not exist.
    """
    if data_dir is None:
        raise CorpusError(
            f"{corpus}: its folder is not known; pass --corpus_dir, the folder that holds "
            f"{corpus}/, or --corpus_dirs {corpus}=FOLDER; in Python corpus_dir or corpus_dirs "
            "(load_mixtures) or data_dir (load_corpus)"
        )
    if not data_dir.is_dir():
        raise CorpusError(f"{corpus}: {data_dir} is not a folder; check the path")
    return data_dir.absolute()


def load_table(
    corpus: str,
    root: Path,
    files: Sequence[FoundFile],
    cache_dir: Path,
    describe: Describer,
    *,
    options: Mapping[str, Any] | None = None,
    measure_speech: bool = True,
    more_columns: Mapping[str, Mapping[str, str]] | None = None,
    strict: bool = False,
) -> datasets.Dataset:
    """Makes the table of a corpus, or maps into memory the one that was made before.

    It is made anew when a file, an option or the code of the corpora has changed.

    Args:
        corpus (`str`): name of the corpus.
        root (`Path`): its folder.
        files (`Sequence[FoundFile]`): every file that the table depends on, texts included.
        cache_dir (`Path`): where tables and scans are kept.
        describe (`Callable`): see `Describer`; called only when the table is made.
        options (`Mapping`, *optional*): the options of the corpus, plain values.
        measure_speech (`bool`): see `scan_audio_files`.
        more_columns (`Mapping`, *optional*): columns of strings besides the schema's, which
            `describe` fills: column to utterance name to value.
        strict (`bool`): stop at audio that cannot be used, which is otherwise left out.

    Returns:
        `datasets.Dataset`: the utterances, with `UTTERANCE_FEATURES`, in the order of `describe`.

    Raises:
        CorpusError: no audio can be used, or `strict` and some cannot, a speaker of two
            genders, or what `describe` raises.
    """
    # Where a link leads counts as well as its name: it may lead elsewhere another time.
    place = [str(root), str(root.resolve())]
    code = [_code_version(), _source_of(describe)]
    settings = [*code, corpus, place, options or {}, measure_speech, strict]
    digest = short_digest(json.dumps(settings), *(f"\n{file.key}" for file in files))
    folder = corpus_cache(cache_dir, corpus)
    table = folder / f"table_{digest}.arrow"
    copies = folder / "audio"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "table.lock"):
        facts = _read_facts(table, root, copies)
        if facts is None:
            report: list[str] = []
            described = describe(report)
            chosen = [file for file, _ in described]
            results = scan_audio_files(
                corpus,
                root,
                chosen,
                cache_dir,
                report,
                measure_speech=measure_speech,
                strict=strict,
            )
            usable = [
                (file, description, one)
                for (file, description), one in zip(described, results, strict=True)
                if one is not None
            ]
            descriptions = [description for _, description, _ in usable]
            columns: dict[str, list[Any]] = {
                "utterance_id": [f"{corpus}/{entry.name}" for entry in descriptions],
                **{
                    name: [getattr(entry, name) for entry in descriptions]
                    for name in UTTERANCE_FEATURES
                    if name in Description.__annotations__
                },
                **audio_columns(root, [(file, one) for file, _, one in usable], copies),
            }
            _check_genders(corpus, columns)
            for name, values in (more_columns or {}).items():
                columns[name] = [values[entry.name] for entry in descriptions]
            facts = {
                "report": report,
                "copies": [one.copy for _, _, one in usable if one.copy],
                # Files outside the folder, which its listing does not show.
                "elsewhere": {file.path: file.key for file in chosen if os.path.isabs(file.path)},
            }
            more = dict.fromkeys(more_columns or {}, datasets.Value("string"))
            schema = datasets.Features({**UTTERANCE_FEATURES, **more}).arrow_schema
            schema = schema.with_metadata({**schema.metadata, FACTS_KEY: json.dumps(facts)})
            with (
                whole_file(table) as unfinished,
                pa.ipc.new_stream(str(unfinished), schema) as writer,
            ):
                writer.write_table(pa.table(columns, schema))
    for line in facts["report"]:
        logger.warning("%s: %s", corpus, line)
    return datasets.Dataset.from_file(str(table))


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

    # Of a corpus of one's own they are in a file of one's own.
    code = {"describe": _source_of(describe), "check": _source_of(check)}
    return load_table(corpus, root, files, cache_dir, describe_all, options=code, strict=strict)


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


def count_line(found: Mapping[str, int], known: Mapping[str, int]) -> list[str]:
    """One line that tells what differs from the known counts of a complete corpus, or none.

    Both are numbers of utterances by group.
    """
    differing = [
        f"{group}: {found.get(group, 0)} instead of {number}"
        for group, number in known.items()
        if found.get(group, 0) != number
    ]
    if not differing:
        return []
    total, expected = sum(found.get(group, 0) for group in known), sum(known.values())
    return [
        f"{total} utterances where the complete corpus has {expected} "
        f"({some_of(differing, MAX_REPORTED_GROUPS, '; ')}); is the copy complete?"
    ]


def add_gender(genders: dict[str, str], speaker: str, gender: str, where: str) -> None:
    """Notes the gender of a speaker; raises `CorpusError` where it was another one before."""
    if genders.setdefault(speaker, gender) != gender:
        raise CorpusError(
            f"{where}: speaker {speaker} is both {genders[speaker]} and {gender}; correct one of "
            f"the lines"
        )


def unknown_gender_line(descriptions: Iterable[Description], fix: str) -> list[str]:
    """One line that counts the speakers whose gender is unknown, or none.

    It names the fix: what to put into the folder.
    """
    unknown = {entry.speaker_id for entry in descriptions if not entry.gender}
    if not unknown:
        return []
    return [
        f"the gender of {len(unknown)} speakers is unknown, such as {min(unknown)}: put {fix} into "
        f"the folder, or use gender_state 'any'"
    ]


def left_out_line(paths: Sequence[str | Path], reason: str) -> list[str]:
    """One line with the number of files that are left out, and why, or none.

    The reason is in words that follow "files".
    """
    if not paths:
        return []
    return [f"{len(paths)} audio files {reason} and are left out, such as {paths[0]}"]


def audio_columns(
    root: Path, usable: Sequence[tuple[FoundFile, ScannedFile]], copies: Path
) -> dict[str, list[Any]]:
    """The columns of `UTTERANCE_FEATURES` that the scan fills.

    Takes the usable files of a corpus with what was found out, and the folder of their 16 kHz mono
    copies.
    """
    return {
        "path": [str(copies / one.copy if one.copy else root / file.path) for file, one in usable],
        **{
            name: [getattr(one, name) for _, one in usable]
            for name in ScannedFile._fields
            if name in UTTERANCE_FEATURES
        },
    }


def _check_genders(corpus: str, columns: Mapping[str, list[Any]]) -> None:
    ids, speakers, genders = (columns[name] for name in ("utterance_id", "speaker_id", "gender"))
    gender_of_speaker: dict[str, tuple[str, str]] = {}
    for utterance_id, speaker, gender in zip(ids, speakers, genders, strict=True):
        first_gender, first_id = gender_of_speaker.setdefault(speaker, (gender, utterance_id))
        if first_gender != gender:
            raise CorpusError(
                f"{corpus}: speaker {speaker} is {first_gender or 'of unknown gender'} in "
                f"{first_id} and {gender or 'of unknown gender'} in {utterance_id}; correct one"
            )


@functools.cache
def _code_version() -> str:
    """Changes with the code that describes and scans: an older table may say something else."""
    here = Path(__file__).parent
    shared = (here.parent / name for name in ("schema.py", "files.py"))
    sources = (*shared, *sorted(here.glob("*.py")))
    return short_digest(*(source.read_bytes() for source in sources))


def _source_of(function: Callable[..., Any]) -> str:
    """Changes with the file that a function is written in: that of a corpus of one's own may lie
    anywhere. Empty where there is none, as of what was typed at a prompt."""
    path = Path(function.__code__.co_filename) if hasattr(function, "__code__") else None
    return short_digest(path.read_bytes()) if path is not None and path.is_file() else ""


def _read_facts(table: Path, root: Path, copies: Path) -> dict[str, Any] | None:
    """The report and the copies of a table that can still be used."""
    if not table.is_file():
        return None
    with pa.memory_map(str(table)) as content:
        facts: dict[str, Any] = json.loads(pa.ipc.open_stream(content).schema.metadata[FACTS_KEY])
    if any(find_file(root, path).key != key for path, key in facts["elsewhere"].items()):
        return None
    present = set(os.listdir(copies)) if facts["copies"] and copies.is_dir() else set()
    return facts if present.issuperset(facts["copies"]) else None
