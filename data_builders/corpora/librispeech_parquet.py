"""LibriSpeech out of Parquet files, local or on the Hub, into the layout of its archives.

Rendering reads stretches of files, so the recordings are unpacked once into the cache, where they
take as much room as the archives. Rows are streamed, and FLAC is written as it is. The Parquet
copies know no genders: SPEAKERS.TXT has to be put beside them.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import filelock
import soundfile
from datasets.utils import tqdm

from data_builders.corpora.scan import FoundFile, corpus_cache
from data_builders.files import short_digest
from data_builders.schema import CorpusError

# The splits of the configuration "all" of openslr/librispeech_asr.
HUB_CONFIGURATION = "all"
HUB_SPLITS = {
    "train-clean-100": "train.clean.100",
    "train-clean-360": "train.clean.360",
    "train-other-500": "train.other.500",
    "dev-clean": "validation.clean",
    "dev-other": "validation.other",
    "test-clean": "test.clean",
    "test-other": "test.other",
}
COLUMNS = ("id", "audio", "text")
UTTERANCE_NAME = re.compile(r"(\d+)-(\d+)-\d+")
FLAC_MAGIC = b"fLaC"


def subset_of(root: Path, path: str) -> str | None:
    """The subset that a Parquet file belongs to, by the names of its folders and its own.

    Such as all/train.clean.100/0000.parquet, clean/train.100/0000.parquet or dev-
    clean-00000-of-00001.parquet within the folder `root`, whose last two names count as well.
    """
    for name in (path, f"{root.parent.name}/{root.name}/{path}"):
        words = "-".join(re.findall(r"[a-z0-9]+", name.lower())).replace("validation", "dev")
        for subset in HUB_SPLITS:
            kind, quality, *size = subset.split("-")
            forms = ("-".join([kind, quality, *size]), "-".join([quality, kind, *size]))
            if any(f"-{form}-" in f"-{words}-" for form in forms):
                return subset
    return None


def unpack_files(
    root: Path, files_of_subset: Mapping[str, Sequence[FoundFile]], cache_dir: Path
) -> Path:
    """Unpacks local Parquet files, unless that was done before and they are the same.

    Returns a folder of the cache with a folder for each subset. Raises `CorpusError` where a file
    is no LibriSpeech in Parquet.
    """
    folder = _folder(cache_dir, str(root))
    for subset, files in files_of_subset.items():
        paths = {"train": [str(root / file.path) for file in files]}
        source = "\n".join(file.key for file in files)
        _unpack(folder, subset, source, "parquet", data_files=paths, split="train")
    return folder


def unpack_hub(name: str, subsets: Sequence[str], cache_dir: Path) -> Path:
    """Streams subsets from the Hub and unpacks them, unless that was done before.

    The dataset has the splits of openslr/librispeech_asr. Returns a folder of the cache with a
    folder for each subset. Raises `CorpusError` where the dataset cannot be reached, or is no
    LibriSpeech in Parquet.
    """
    folder = _folder(cache_dir, f"hub:{name}")
    for subset in subsets:
        _unpack(folder, subset, name, name, HUB_CONFIGURATION, split=HUB_SPLITS[subset])
    return folder


def _folder(cache_dir: Path, source: str) -> Path:
    folder = corpus_cache(cache_dir, "librispeech") / "unpacked" / short_digest(source)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _unpack(folder: Path, subset: str, source: str, *dataset: str, **keywords: Any) -> None:
    """A folder that bears the name of the subset is complete, whenever unpacking is interrupted.

    It is unpacked anew where `source` differs from the last time; the rest is for `load_dataset`.
    """
    stamp = folder / f"{subset}.source"
    with filelock.FileLock(folder / "unpack.lock"):
        is_there = (folder / subset).is_dir() and stamp.is_file()
        if is_there and stamp.read_text() == short_digest(source):
            return
        unfinished = folder / f"{subset}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(folder / subset, ignore_errors=True)
        unfinished.mkdir()
        try:
            rows = datasets.load_dataset(*dataset, **keywords, streaming=True)
            rows = rows.cast_column("audio", datasets.Audio(decode=False))
            _write_rows(tqdm(rows, desc=f"Unpacking {subset}", unit="utterance"), unfinished)
        except CorpusError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise CorpusError(
                f"librispeech: {subset} cannot be read from Parquet ({error}); expected the "
                f"columns {', '.join(COLUMNS)} of openslr/librispeech_asr"
            ) from error
        os.replace(unfinished, folder / subset)
        stamp.write_text(short_digest(source))


def _write_rows(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    for row in rows:
        name = str(row["id"])
        match = UTTERANCE_NAME.fullmatch(name)
        if match is None:
            raise CorpusError(f"librispeech: {name!r} is no utterance such as 103-1240-0000")
        speaker, chapter = match.groups()
        chapter_folder = folder / speaker / chapter
        chapter_folder.mkdir(parents=True, exist_ok=True)
        (chapter_folder / f"{name}.flac").write_bytes(_to_flac(name, row["audio"]["bytes"]))
        transcripts = chapter_folder / f"{speaker}-{chapter}.trans.txt"
        with transcripts.open("a", encoding="utf-8") as file:
            file.write(f"{name} {row['text']}\n")


def _to_flac(name: str, data: bytes | None) -> bytes:
    if not data:
        raise CorpusError(f"librispeech: {name} has no audio in the Parquet file, only a path")
    if data.startswith(FLAC_MAGIC):
        return data
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise CorpusError(f"librispeech: the audio of {name} is unreadable ({error})") from error
    flac = io.BytesIO()
    soundfile.write(flac, samples, rate, format="FLAC", subtype="PCM_16")
    return flac.getvalue()
