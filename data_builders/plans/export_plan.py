"""Writes the mixtures of a split as a plan file: a table of ids, paths and numbers, no audio.

    python -m data_builders.plans.export_plan --config recipe.yaml --split test \\
        --output plan.parquet [--fold 1] [--corpus_dir DIR] [--snr_range_db 0 5] [--epochs 1]

A recipe is read as by `train.py`; every option of the data is a flag too, which wins over what the
recipe says of that split. This table is enough to publish a test set: `load_mixtures_from_plan`
renders the same bytes from the same corpora.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils import tqdm

from data_builders.corpora.folds import SPLITS
from data_builders.corpora.utterance_table import RowIndex, UtteranceTable
from data_builders.files import check_output, whole_file
from data_builders.load import corpus_folder, load_mixtures, read_corpora
from data_builders.mixtures.dataset import MixtureDataset
from data_builders.mixtures.spec import MixtureSpec
from data_builders.option_reader import OptionError, OptionParser
from data_builders.options import DataOptions, MixtureOptions, read_split
from data_builders.plans.plan_files import (
    MAX_ROW_GROUP_ROWS,
    METADATA_KEY,
    PLAN_FILE_FEATURES,
    SCHEMA_VERSION,
    audio_fingerprint,
    noise_fingerprint,
)
from data_builders.schema import IGNORED_LABEL, CorpusError

# Row groups are what nodes and DataLoader workers share out when a plan file is streamed: a
# multiple of this, which many numbers of nodes divide.
ROW_GROUPS_STEP = 24
FOLDERS = ("corpus_dir", "corpus_dirs", "noise_dir")


def write_plan(
    output: str | Path,
    *,
    split: str = "test",
    num_epochs: int = 1,
    cache_dir: str | Path | None = None,
    **keywords: Any,
) -> int:
    """Draws the mixtures of a split and writes them down.

    Args:
        output (`str` or `Path`): Parquet file to write; its folder is made.
        split (`str`): "train", "validation" or "test".
        num_epochs (`int`): epochs to draw, the train split only.
        cache_dir (`str` or `Path`, *optional*): see `load_corpus`.
        keywords: the fields of `MixtureOptions`.

    Returns:
        `int`: number of rows.

    Raises:
        OptionError: several epochs of a split that has one, or what `load_mixtures` raises.
        CorpusError: see `load_mixtures`.
    """
    if num_epochs < 1 or (num_epochs > 1 and split != "train"):
        raise OptionError(
            f"epochs: expected 1, or more for the train split, got {num_epochs} for {split}; "
            f"evaluation mixtures are the same in every epoch"
        )
    options = MixtureOptions.from_keywords(keywords)
    mixtures = load_mixtures(split=split, cache_dir=cache_dir, **keywords)
    size = num_epochs * len(mixtures)
    describer = _RowDescriber(mixtures, split, options, cache_dir)
    schema = PLAN_FILE_FEATURES.arrow_schema
    metadata = {METADATA_KEY: json.dumps(_metadata(mixtures, split, num_epochs, options)).encode()}
    schema = schema.with_metadata({**schema.metadata, **metadata})
    num_groups = min(size, ROW_GROUPS_STEP * math.ceil(size / ROW_GROUPS_STEP / MAX_ROW_GROUP_ROWS))
    with (
        whole_file(Path(output)) as unfinished,
        pq.ParquetWriter(unfinished, schema, write_statistics=False) as writer,
        tqdm(total=size, desc="Writing") as bar,
    ):
        for numbers in np.array_split(np.arange(size), num_groups):
            specs = [
                mixtures.planner.plan(*divmod(number, len(mixtures))) for number in numbers.tolist()
            ]
            writer.write_table(pa.Table.from_pylist(describer.rows(specs), schema=schema))
            bar.update(len(specs))
    return size


class _RowDescriber:
    """Makes rows of specs; each recording is decoded once, for its fingerprint."""

    def __init__(
        self,
        mixtures: MixtureDataset,
        split: str,
        options: MixtureOptions,
        cache_dir: str | Path | None,
    ) -> None:
        self._planner = mixtures.planner
        tables = (self._planner.targets, self._planner.enrollments, self._planner.interferers)
        self._tables = [table for table in tables if table is not None]
        self._split = split
        self._options = options
        self._corpora = _read_ids(options, cache_dir)
        # Utterance id to what a row tells of the utterance.
        self._utterances: dict[str, dict[str, Any]] = {}
        # Path of a noise recording to its fingerprint.
        self._noises: dict[str, str] = {}

    def rows(self, specs: Sequence[MixtureSpec]) -> list[dict[str, Any]]:
        """Rows of `PLAN_FILE_FEATURES`."""
        named = {name for spec in specs for name in _utterances_of(spec)}
        new = sorted(named - self._utterances.keys())
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            self._utterances.update(zip(new, pool.map(self._describe, new), strict=True))
        return [self._row(spec) for spec in specs]

    def _row(self, spec: MixtureSpec) -> dict[str, Any]:
        names = _utterances_of(spec)
        targets = self._tables[0]
        target = targets.row_of_id[spec.target_id]
        emotion = targets.emotions[target]
        return {
            "split": self._split,
            **spec.to_dict(),
            "label": IGNORED_LABEL if spec.target_absent else self._planner.label_of(emotion),
            "emotion": emotion,
            "speaker_id": targets.speaker_ids[target],
            "corpora": sorted({self._utterances[name]["corpus"] for name in names}),
            "utterances": [self._utterances[name] for name in names],
            "noise_fingerprint": self._noise(spec),
        }

    def _noise(self, spec: MixtureSpec) -> str | None:
        if spec.noise is None or self._planner.noise is None:
            return None
        path = spec.noise.path
        if path not in self._noises:
            self._noises[path] = noise_fingerprint(self._planner.noise, path)
        return self._noises[path]

    def _describe(self, utterance_id: str) -> dict[str, Any]:
        table = next(table for table in self._tables if utterance_id in table.row_of_id)
        row = table.row_of_id[utterance_id]
        corpus = next(name for name in self._corpora if utterance_id in self._corpora[name])
        path = Path(table.paths[row])
        folder = corpus_folder(corpus, self._options.corpus_dir, self._options.corpus_dirs)
        folder = (folder or Path()).absolute()
        return {
            "utterance_id": utterance_id,
            "corpus": corpus,
            "path": path.relative_to(folder).as_posix() if path.is_relative_to(folder) else "",
            "num_samples": int(table.num_samples[row]),
            "speech_start": int(table.speech_start[row]),
            "speech_end": int(table.speech_end[row]),
            "fingerprint": audio_fingerprint(path),
        }


def _read_ids(options: MixtureOptions, cache_dir: str | Path | None) -> dict[str, RowIndex]:
    """The utterances of each corpus, by its name with options."""
    return {
        name: UtteranceTable(corpus).row_of_id
        for name in dict.fromkeys([*options.targets, *(options.interferers or ())])
        for corpus in read_corpora(name, options, cache_dir)
    }


def _utterances_of(spec: MixtureSpec) -> list[str]:
    interferers = [interferer.utterance_id for interferer in spec.interferers]
    return list(dict.fromkeys([spec.target_id, spec.enrollment_id, *interferers]))


def _metadata(
    mixtures: MixtureDataset, split: str, num_epochs: int, options: MixtureOptions
) -> dict[str, Any]:
    """What a reader needs besides the rows, and how they were drawn."""
    try:
        package_version = importlib.metadata.version("tse-ser")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        package_version = "unknown"
    drawn = dataclasses.asdict(options)
    return {
        "schema_version": SCHEMA_VERSION,
        "package_version": package_version,
        "split": split,
        "num_epochs": num_epochs,
        "options": {name: value for name, value in drawn.items() if name not in FOLDERS},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line and writes the plan.

    Returns the exit code, 2 where an option or a corpus cannot be used.
    """
    parser = OptionParser(
        [DataOptions],
        prog="python -m data_builders.plans.export_plan",
        description=__doc__.partition("\n")[0],
    )
    parser.add_argument("--config", required=True, help="YAML recipe")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--output", required=True, help="Parquet file to write")
    parser.add_argument("--epochs", type=int, default=1, help="epochs to draw of the train split")
    try:
        flags = parser.flags(argv)
        config, split, output = flags.pop("config"), flags.pop("split"), flags.pop("output")
        num_epochs = flags.pop("epochs")
        check_output(output)
        keywords = read_split(config, split, flags).keywords()
        size = write_plan(output, split=split, num_epochs=num_epochs, **keywords)
    except (OptionError, CorpusError) as error:
        print(f"export_plan: error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {size} mixtures of the {split} split")
    return 0


if __name__ == "__main__":
    sys.exit(main())
