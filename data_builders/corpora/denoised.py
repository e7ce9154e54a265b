"""A Denoised set (paper, section II-B): emotional speech as a trained extractor hears it.

`tse_ser.training.denoise_corpus` writes it: metadata.parquet with the columns of
`UTTERANCE_FEATURES` and more (the split each row belongs to, the SI-SDR it
reached), and the waveforms below audio/.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from data_builders.corpora.corpus_table import audio_columns, require_folder
from data_builders.corpora.scan import corpus_cache, find_file, scan_audio_files
from data_builders.schema import UTTERANCE_FEATURES, CorpusError

logger = logging.getLogger(__name__)

METADATA_FILE = "metadata.parquet"
# The options that the set was written with.
SETTINGS_FILE = "settings.json"


def settings_of(data_dir: str | Path) -> dict[str, Any]:
    """The options that a Denoised set was made with.

    Empty where the set does not tell. Raises `CorpusError` where the file that tells is no JSON.
    """
    path = Path(data_dir) / SETTINGS_FILE
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise CorpusError(f"{path}: is not valid JSON: {error}") from error


def load_denoised(
    data_dir: Path | None, cache_dir: Path, *, strict: bool = False
) -> datasets.Dataset:
    """Reads a Denoised set, with every column of its metadata.

    Arguments, result and errors are those of `data_builders.load_corpus`.
    """
    root = require_folder("denoised", data_dir)
    metadata_path = root / METADATA_FILE
    if not metadata_path.is_file():
        raise CorpusError(
            f"denoised: {root} holds no {METADATA_FILE}; write the set with "
            f"python -m tse_ser.training.denoise_corpus"
        )
    # Not by `from_parquet`, which keeps tables under their path and time.
    metadata = datasets.Dataset(pq.read_table(metadata_path))
    missing_columns = sorted({*UTTERANCE_FEATURES, "split"} - set(metadata.column_names))
    if missing_columns:
        raise CorpusError(f"{metadata_path}: the columns {missing_columns} are missing")
    # Relative to the folder, so that it can be moved.
    files = [find_file(root, path) for path in metadata["path"]]
    missing = [
        root / file.path
        for file in files
        if file.size_bytes < 0 or Path(file.path).is_absolute() or ".." in Path(file.path).parts
    ]
    if missing:
        raise CorpusError(
            f"denoised: {len(missing)} files named in {metadata_path} are not there, such as "
            f"{missing[0]}; run python -m tse_ser.training.denoise_corpus again"
        )
    report: list[str] = []
    scanned = scan_audio_files("denoised", root, files, cache_dir, report, strict=strict)
    for line in report:
        logger.warning("denoised: %s", line)
    usable = [(file, one) for file, one in zip(files, scanned, strict=True) if one is not None]
    rows = [position for position, one in enumerate(scanned) if one is not None]
    measured = audio_columns(root, usable, corpus_cache(cache_dir, "denoised") / "audio")
    columns = {**metadata.select(rows)[:], **measured}
    features = datasets.Features({**metadata.features, **UTTERANCE_FEATURES})
    return datasets.Dataset.from_dict(columns, features=features)
