"""Plan files: Parquet tables of mixtures, one row each, in ids, paths and numbers, without audio.

A plan is such a file, or a dataset repository of the Hugging Face Hub that has some. Rows are read
when they are asked for, a row group at a time, however many there are.
`data_builders.plans.export_plan` writes plans, `data_builders.plans.plan_rendering` renders them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import types
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from data_builders.audio import read_audio
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.spec import MixtureSpec
from data_builders.schema import CorpusError

# The columns are derived from `MixtureSpec`, so that the two cannot part ways.
_DTYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def _record_features(record: type) -> dict[str, Any]:
    """Columns for the plain values of a dataclass of strings, numbers, tuples and dataclasses."""
    hints = get_type_hints(record)
    return {field.name: _feature(hints[field.name]) for field in dataclasses.fields(record)}


def _feature(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # of a type and None: every column may hold nulls
        return _feature(next(one for one in arguments if one is not types.NoneType))
    if origin is tuple:
        return datasets.List(_feature(arguments[0]))
    if origin is Literal:
        return _feature(type(arguments[0]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_features(hint)
    return datasets.Value(_DTYPES[hint])


SPEC_FEATURES = datasets.Features(_record_features(MixtureSpec))

# The columns of a plan file: the specs, what they are to give, and what they are made of.
PLAN_FILE_FEATURES = datasets.Features(
    {
        "split": datasets.Value("string"),
        **SPEC_FEATURES,
        "label": datasets.Value("int64"),
        "emotion": datasets.Value("string"),
        "speaker_id": datasets.Value("string"),
        # Names of the corpora whose folders are needed, with their options.
        "corpora": datasets.List(datasets.Value("string")),
        # The recordings of the mixture and of its enrollment, to tell another copy of a corpus.
        "utterances": datasets.List(
            {
                "utterance_id": datasets.Value("string"),
                "corpus": datasets.Value("string"),
                # Relative to the folder of its corpus, "" where that is converted or generated. It
                # is for the reader: files are found by their ids, however a copy is laid out.
                "path": datasets.Value("string"),
                # At 16 kHz; the speech lasts from its start to before its end.
                "num_samples": datasets.Value("int64"),
                "speech_start": datasets.Value("int64"),
                "speech_end": datasets.Value("int64"),
                "fingerprint": datasets.Value("string"),
            }
        ),
        # Of the noise recording; null without noise.
        "noise_fingerprint": datasets.Value("string"),
    }
)

# Raise it whenever a column changes its name or meaning, or is added.
SCHEMA_VERSION = 2
# Version 1 lacks the column `lowpass_hz`: its mixtures have no low-pass.
READ_VERSIONS = (1, SCHEMA_VERSION)
OPTIONAL_COLUMNS = frozenset({"lowpass_hz"})
METADATA_KEY = b"target_speaker_mixture"
# Rows that are decoded at a time; larger groups would make a row in the middle costly.
MAX_ROW_GROUP_ROWS = 512
KEPT_ROW_GROUPS = 8
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def audio_fingerprint(path: str | Path) -> str:
    """Fingerprint of what a 16 kHz mono file holds, whatever its format.

    It has 16 hexadecimal digits over the samples in 16 bits, so that the last bit of a float, in
    which resampled copies may differ between machines, does not count.
    """
    return _fingerprint(read_audio(path))


def noise_fingerprint(noise: NoiseFolder, path: str) -> str:
    """Fingerprint of what a recording of a noise folder holds, see `audio_fingerprint`."""
    return _fingerprint(noise.read(path, 0, soundfile.info(noise.file_of(path)).frames))


class PlanFile:
    """The rows of a plan file.

    Args:
        path (`str` or `Path`): file that `data_builders.plans.export_plan` wrote.

    Raises:
        CorpusError: it cannot be read, is no plan, or one of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file = _open_parquet(self.path)
        self.metadata = _read_metadata(self.path, self._file.schema_arrow)
        counts = [
            self._file.metadata.row_group(group).num_rows
            for group in range(self._file.num_row_groups)
        ]
        self._first_rows = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._read_group = lru_cache(KEPT_ROW_GROUPS)(self._decode_group)

    def __reduce__(self) -> tuple[type[PlanFile], tuple[str]]:
        return PlanFile, (self.path,)  # another process opens the file by itself

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    @property
    def split(self) -> str:
        """The split that the plan was drawn of."""
        return str(self.metadata["split"])

    @property
    def num_epochs(self) -> int:
        """Epochs that the plan holds, one after the other, with equally many rows."""
        return int(self.metadata["num_epochs"])

    def row(self, number: int) -> dict[str, Any]:
        """Reads the row of a 0-based number: values by the names of `PLAN_FILE_FEATURES`."""
        group = int(np.searchsorted(self._first_rows, number, side="right")) - 1
        table = self._read_group(group)
        values: dict[str, Any] = table.slice(number - int(self._first_rows[group]), 1).to_pylist()[
            0
        ]
        return values

    def utterances(self) -> dict[str, str]:
        """Every utterance that the plan names: its id to the name of its corpus."""
        found: dict[str, str] = {}
        for group in range(len(self._first_rows) - 1):
            table = self._file.read_row_group(group, columns=["utterances"], use_threads=False)
            utterances = pc.list_flatten(table["utterances"]).combine_chunks()
            ids, corpora = (utterances.field(name) for name in ("utterance_id", "corpus"))
            found.update(zip(ids.to_pylist(), corpora.to_pylist(), strict=True))
        return found

    def _decode_group(self, group: int) -> pa.Table:
        # One thread: worker processes that are forked have no others.
        return self._file.read_row_group(group, use_threads=False)


def open_plan(plan: str | Path, split: str | None = None, revision: str | None = None) -> PlanFile:
    """Opens the plan of a split: a file, or a dataset repository on the Hub, as "lab/mixtures".

    A repository has one file a split, of which one must be named where it has several; it is
    downloaded first, at a branch, tag or commit, if it is not in the cache of the Hub already.
    Raises `CorpusError` where neither the file nor the repository can be read, one of its tables is
    no plan, or it has no such split, or several and none is named.
    """
    plans = [PlanFile(path) for path in _plan_paths(plan, revision)]
    found = [one for one in plans if split in (None, one.split)]
    if len(found) == 1:
        return found[0]
    splits = ", ".join(sorted(one.split for one in plans)) or "no plan at all"
    wanted = "split: name the one that is wanted" if split is None else f"split {split!r}"
    raise CorpusError(f"{plan}: {wanted}; it has {splits}")


def check_columns(where: str, names: Iterable[str]) -> None:
    """Raises `CorpusError` unless the rows of some origin have all columns of a plan."""
    missing = sorted({*PLAN_FILE_FEATURES} - {*names} - OPTIONAL_COLUMNS)
    if missing:
        raise CorpusError(
            f"{where}: lacks the columns {missing} of a plan of mixtures; keep all columns that "
            f"python -m data_builders.plans.export_plan writes"
        )


def _fingerprint(samples: np.ndarray) -> str:
    rounded = np.round(samples.astype(np.float64) * 2**15).astype("<i4")
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]


def _open_parquet(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorpusError(
            f"{path}: is no readable Parquet file ({error}); a plan file is written by "
            f"python -m data_builders.plans.export_plan"
        ) from error


def _read_metadata(path: str, schema: pa.Schema) -> dict[str, Any]:
    written = (schema.metadata or {}).get(METADATA_KEY)
    if written is None:
        raise CorpusError(
            f"{path}: is a Parquet file, but no plan of mixtures; write one with "
            f"python -m data_builders.plans.export_plan, or give rows of such a plan that you have "
            f"chosen yourself to render_plan_rows"
        )
    metadata: dict[str, Any] = json.loads(written)
    if metadata["schema_version"] not in READ_VERSIONS:
        raise CorpusError(
            f"{path}: has schema version {metadata['schema_version']}, written by tse-ser "
            f"{metadata['package_version']}; this version reads {READ_VERSIONS}: install the "
            f"other, or export the plan again"
        )
    check_columns(path, schema.names)
    return metadata


def _plan_paths(plan: str | Path, revision: str | None) -> list[Path]:
    is_file = Path(plan).suffix == ".parquet" or Path(plan).exists()
    if is_file or not isinstance(plan, str) or not HUB_ID.fullmatch(plan):
        return [Path(plan)]
    try:
        folder = snapshot_download(
            plan, repo_type="dataset", revision=revision, allow_patterns="*.parquet"
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = " ".join([line for line in str(error).splitlines() if line.strip()][:2])
        raise CorpusError(
            f"{plan}: is no file, and cannot be had as a dataset repository of the Hub ({reason}); "
            f"check its name and the revision, and whether you are logged in and online"
        ) from error
    return sorted(Path(folder).rglob("*.parquet"))
