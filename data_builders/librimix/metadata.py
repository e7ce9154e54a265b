"""LibriMix's metadata files: which recordings at which gain make a mixture, and who speaks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from data_builders.files import read_csv
from data_builders.schema import CorpusError

# The columns of two sources are among those of three.
NUM_SOURCES = (3, 2)
GENDER_WORDS = {"F": "female", "M": "male"}
METADATA_SOURCE = "https://github.com/JorisCos/LibriMix"


class ScaledFile(NamedTuple):
    """A recording and the factor on its amplitude."""

    path: str  # within LibriSpeech or the noise folder, with forward slashes
    gain: float


class LibriMixRow(NamedTuple):
    """One mixture of the metadata."""

    mixture_id: str  # name of its files, without suffix
    sources: tuple[ScaledFile, ...]  # the recordings of the speakers, within LibriSpeech
    noise: ScaledFile  # within WHAM's folder


def find_librimix_metadata(folder: str | Path, subset: str, num_speakers: int) -> Path:
    """Finds the metadata file of a subset of LibriSpeech, such as libri2mix_train-clean-100.csv.

    The folder is `metadata` of the LibriMix repository, the repository itself, or that of the
    files. Raises `CorpusError` where the file is not there, and names what is.
    """
    root = Path(folder)
    own = f"Libri{num_speakers}Mix"
    candidates = [root, root / own, root / "metadata" / own]
    name = f"{own.lower()}_{subset}.csv"
    for candidate in candidates:
        if (candidate / name).is_file():
            return candidate / name
    there = sorted(
        path.name
        for candidate in candidates
        for path in candidate.glob("libri*mix_*.csv")
        if not path.stem.endswith("_info")
    )
    found = f"it has {', '.join(there)}" if there else "no metadata of LibriMix are there"
    raise CorpusError(
        f"librimix: {root}/{name} is missing: {found}. Take the folder metadata/{own} of "
        f"{METADATA_SOURCE}, and name it by librimix_metadata_dir or by corpus_dirs librimix=FOLDER"
    )


def find_librimix_speech(folder: str | Path, subset: str) -> Path:
    """Finds the folder of LibriSpeech that the paths of the metadata count from.

    It is given, or the folder above it is. Raises `CorpusError` where the subset is in neither.
    """
    root = Path(folder)
    for candidate in (root, root / "LibriSpeech"):
        if (candidate / subset).is_dir():
            return candidate
    raise CorpusError(
        f"librimix: {root} holds no folder {subset} of LibriSpeech: extract the subset there (from "
        "https://www.openslr.org/12), or name another folder by librispeech_dir or by corpus_dirs "
        "librispeech=FOLDER"
    )


def read_librimix_metadata(metadata_csv: str | Path) -> list[LibriMixRow]:
    """Reads the mixtures of a metadata file of Libri2Mix or Libri3Mix, in the order of the file.

    Raises `CorpusError` where it is missing, is no such table, or a row cannot be used.
    """
    path = Path(metadata_csv)
    columns, records = read_csv(path)
    num_sources = next((count for count in NUM_SOURCES if {*_columns(count)} <= {*columns}), None)
    if num_sources is None:
        raise CorpusError(
            f"{path}: is no LibriMix metadata file: expected the columns "
            f"{', '.join(_columns(2))} (or a third source too), found {', '.join(columns)}; take "
            f"a file such as libri2mix_test-clean.csv as published, neither its _info.csv nor the "
            f"tables that the scripts write beside the mixtures"
        )
    if not records:
        raise CorpusError(f"{path}: holds no mixtures; fetch the metadata again")
    rows: dict[str, LibriMixRow] = {}
    for number, record in enumerate(records, start=1):
        name, place = record["mixture_ID"], f"{path}, row {number}"
        if not name or name in rows:
            raise CorpusError(f"{place}: mixture_ID {name!r} is empty or repeats")
        rows[name] = LibriMixRow(
            mixture_id=name,
            sources=tuple(
                _scaled_file(record, f"source_{source}", place)
                for source in range(1, num_sources + 1)
            ),
            noise=_scaled_file(record, "noise", place),
        )
    return list(rows.values())


def read_librimix_genders(metadata_csv: str | Path) -> dict[str, str]:
    """Reads genders, by speaker number, from the `_info.csv` that lies beside a metadata file.

    It is published with it; without it nobody has a gender. Raises `CorpusError` where the file is
    there, but is another one.
    """
    path = Path(metadata_csv)
    path = path.with_name(f"{path.stem}_info.csv")
    if not path.is_file():
        return {}
    genders: dict[str, str] = {}
    columns, records = read_csv(path)
    numbers = [number for number in (1, 2, 3) if f"speaker_{number}_ID" in columns]
    for row, record in enumerate(records, start=1):
        for number in numbers:
            word = record.get(f"speaker_{number}_sex", "")
            if word not in GENDER_WORDS:
                raise CorpusError(
                    f"{path}, row {row}: speaker_{number}_sex is {word!r}, expected F or M; fetch "
                    f"the file again, or delete it to go without genders"
                )
            genders[record[f"speaker_{number}_ID"]] = GENDER_WORDS[word]
    return genders


def _columns(num_sources: int) -> list[str]:
    names = [f"source_{number}" for number in range(1, num_sources + 1)]
    return ["mixture_ID", *(f"{n}_{part}" for n in [*names, "noise"] for part in ("path", "gain"))]


def _scaled_file(record: dict[str, str], name: str, place: str) -> ScaledFile:
    path = Path(record[f"{name}_path"])
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise CorpusError(
            f"{place}: {name}_path is {record[f'{name}_path']!r}, expected a path within the "
            f"corpus, such as test-clean/61/70968/61-70968-0000.flac"
        )
    try:
        gain = float(record[f"{name}_gain"])
    except ValueError:
        gain = math.nan
    if not (math.isfinite(gain) and gain > 0):
        raise CorpusError(
            f"{place}: {name}_gain is {record[f'{name}_gain']!r}, expected a positive number"
        )
    return ScaledFile(path.as_posix(), gain)
