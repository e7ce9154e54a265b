"""Mixtures from plan files: the same bytes as when the plan was written, from the same corpora.

Rows name utterances; the corpora that they name, and no others, are read when they are needed. An
utterance that is missing, or differs from the one that the plan was made of, is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_builders.corpora.utterance_table import UtteranceTable
from data_builders.load import read_corpora
from data_builders.mixtures.dataset import MixtureDataset
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.rendering import SpecRenderer
from data_builders.mixtures.spec import MixtureSpec
from data_builders.options import MixtureOptions
from data_builders.plans.plan_files import (
    SPEC_FEATURES,
    PlanFile,
    audio_fingerprint,
    check_columns,
    noise_fingerprint,
    open_plan,
)
from data_builders.schema import UTTERANCE_FEATURES, CorpusError, some_of

# Up to this many mixtures, missing utterances are found when a plan is opened; in larger plans when
# the first mixture is rendered.
MAX_ROWS_CHECKED_AT_ONCE = 100_000
MAX_REPORTED_UTTERANCES = 10

# What `datasets.load_dataset` gives, with a split or without, streaming or not.
Rows = TypeVar(
    "Rows",
    datasets.Dataset,
    datasets.IterableDataset,
    datasets.DatasetDict,
    datasets.IterableDatasetDict,
)


class PlanPlayer:
    """Stands in for a `MixturePlanner`: its mixtures are the rows of a plan, if one is given.

    The options tell where the corpora and the noise lie, and how strict they are read.
    """

    def __init__(
        self,
        options: MixtureOptions,
        cache_dir: str | Path | None = None,
        rows: PlanFile | None = None,
    ) -> None:
        self._options = options
        self._cache_dir = cache_dir
        self._rows = rows
        self._corpora: dict[str, datasets.Dataset] = {}
        self._verified: set[str] = set()
        self._verified_noise: set[str] = set()
        self._labels: dict[str, int] = {}
        self._use(datasets.Dataset(UTTERANCE_FEATURES.arrow_schema.empty_table()))

    def _use(self, utterances: datasets.Dataset) -> None:
        """The utterances of all corpora that were needed so far serve in every role."""
        self.targets = self.enrollments = UtteranceTable(utterances)
        self.interferers: UtteranceTable | None = self.targets

    @cached_property
    def noise(self) -> NoiseFolder | None:
        """The recordings of the noise folder, if one was given."""
        folder = self._options.noise_folder
        if folder is None:
            return None
        return NoiseFolder(folder, self._cache_dir, strict=self._options.strict_corpora)

    def label_of(self, emotion: str) -> int:
        """The label that the plan gives an emotion."""
        return self._labels[emotion]

    def __len__(self) -> int:
        return 0 if self._rows is None else len(self._rows) // self._rows.num_epochs

    def target_samples(self) -> np.ndarray:
        """Lengths of the mixtures of the first epoch, of shape `(num_mixtures,)`."""
        rows = self._rows
        return np.array([rows.row(index)["num_samples"] for index in range(len(self)) if rows])

    def plan(self, epoch: int, index: int) -> MixtureSpec:
        """Reads a mixture by epoch, 0 for evaluation, and index.

        Raises `ValueError` where the plan does not reach that epoch; otherwise see `spec`.
        """
        if self._rows is None or not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {len(self)} mixtures")
        if epoch >= self._rows.num_epochs:
            raise ValueError(
                f"{self._rows.path}: holds the mixtures of {self._rows.num_epochs} epochs, epoch "
                f"{epoch} is not among them; export more with --epochs"
            )
        return self.spec(self._rows.row(epoch * len(self) + index))

    def spec(self, row: Mapping[str, Any]) -> MixtureSpec:
        """Restores the spec of a row, after its utterances were found and verified.

        The row has values by the names of `PLAN_FILE_FEATURES`. Raises `CorpusError` where an
        utterance is missing or another one, or its corpus cannot be read.
        """
        names = [utterance["utterance_id"] for utterance in row["utterances"]]
        if not self._verified.issuperset(names):
            self._read_corpora({utterance["corpus"] for utterance in row["utterances"]})
            self._refuse_missing([name for name in names if name not in self.targets.row_of_id])
            for utterance in row["utterances"]:
                if utterance["utterance_id"] not in self._verified:
                    self._verify(utterance)
            self._verified.update(names)
        self._check_target(row)
        if not row["target_absent"]:
            self._labels[row["emotion"]] = row["label"]
        spec = MixtureSpec.from_dict({name: row.get(name) for name in SPEC_FEATURES})
        if spec.noise is not None and spec.noise.path not in self._verified_noise:
            self._verify_noise(spec.noise.path, row["noise_fingerprint"])
            self._verified_noise.add(spec.noise.path)
        return spec

    def require(self, utterances: Mapping[str, str]) -> None:
        """Reads the corpora of utterances, given by id, and looks for these.

        Raises `CorpusError` where a corpus cannot be read, or lacks some of them.
        """
        self._read_corpora(set(utterances.values()))
        names = pa.array(sorted(utterances), pa.string())
        self._refuse_missing(names.filter(pc.invert(self._is_known(names))).to_pylist())

    def _is_known(self, utterance_ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        return pc.is_in(utterance_ids, value_set=self.targets.utterance_ids.column)

    def _read_corpora(self, names: set[str]) -> None:
        for name in sorted(names - self._corpora.keys()):
            (corpus,) = read_corpora(name, self._options, self._cache_dir)
            corpus = corpus.select_columns(list(UTTERANCE_FEATURES))
            # The same corpus with other options may have given some of its utterances before.
            known = self._is_known(corpus.with_format("arrow")[:]["utterance_id"])
            self._corpora[name] = corpus.select(np.flatnonzero(~known.to_numpy()))
            self._use(datasets.concatenate_datasets(list(self._corpora.values())))
            self._verified.clear()

    @staticmethod
    def _refuse_missing(missing: Sequence[str]) -> None:
        if missing:
            raise CorpusError(
                f"{len(missing)} utterances of the plan are not in the corpora: "
                f"{some_of(missing, MAX_REPORTED_UTTERANCES)}; complete the copies, or check "
                f"corpus_dir and corpus_dirs"
            )

    def _check_target(self, row: Mapping[str, Any]) -> None:
        target = self.targets.row_of_id[row["target_id"]]
        for name, found in (
            ("speaker_id", self.targets.speaker_ids[target]),
            ("emotion", self.targets.emotions[target]),
        ):
            if found != row[name]:
                raise CorpusError(
                    f"{row['target_id']}: its {name} is {found!r}, in the plan {row[name]!r}; "
                    f"use the copy of the corpus that the plan was made of"
                )

    def _verify(self, recorded: Mapping[str, Any]) -> None:
        table, row = self.targets, self.targets.row_of_id[recorded["utterance_id"]]
        path = table.paths[row]
        differs = ""
        if table.num_samples[row] != recorded["num_samples"]:
            differs = f"has {table.num_samples[row]} samples, {recorded['num_samples']} in the plan"
        elif audio_fingerprint(path) != recorded["fingerprint"]:
            differs = "holds other samples than when the plan was written"
        if differs:
            raise CorpusError(
                f"{recorded['utterance_id']} ({path}) {differs}: use the copy of the corpus that "
                f"the plan was made of"
            )
        # As measured then, should the search for speech have changed since.
        table.speech_start[row] = recorded["speech_start"]
        table.speech_end[row] = recorded["speech_end"]

    def _verify_noise(self, path: str, fingerprint: str) -> None:
        if self.noise is None:
            raise CorpusError(f"the plan has background noise, such as {path}: give noise_dir")
        if noise_fingerprint(self.noise, path) != fingerprint:
            raise CorpusError(
                f"noise_dir: {path} holds other samples than when the plan was written: use the "
                f"copy that the plan was made of"
            )


class RowRenderer(ABC):
    """Renders rows of a table into examples, one by one or column by column, for `datasets`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> RowRenderer:
        return self  # `datasets` copies it with every selection of rows

    @abstractmethod
    def render_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Renders one row, given by column, into an example, see `MixtureDataset.render`."""

    def render_batch(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Renders several rows, given by column, into the fields of the examples."""
        names = list(batch)
        rows = zip(*batch.values(), strict=True)
        examples = [self.render_row(dict(zip(names, row, strict=True))) for row in rows]
        return {name: [example[name] for example in examples] for name in examples[0]}


class PlanRowRenderer(RowRenderer):
    """Renders rows of a plan; other processes read the corpora by themselves.

    Args:
        *folders: options and cache folder of a `PlanPlayer`.
    """

    def __init__(self, *folders: Any) -> None:
        self._folders = folders
        self._player = PlanPlayer(*folders)
        self._renderer = SpecRenderer(self._player)

    def __reduce__(self) -> tuple[type[PlanRowRenderer], tuple[Any, ...]]:
        return PlanRowRenderer, self._folders

    def render_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """See `RowRenderer.render_row`; the columns are `PLAN_FILE_FEATURES`."""
        return self._renderer.render(self._player.spec(row))


def load_mixtures_from_plan(
    plan: str | Path,
    corpus_dir: str | Path | None = None,
    corpus_dirs: Mapping[str, str | Path] | None = None,
    noise_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    *,
    split: str | None = None,
    revision: str | None = None,
    strict: bool = False,
) -> MixtureDataset:
    """Mixtures of a plan, rendered on access from the corpora of this machine.

    Args:
        plan (`str` or `Path`): file that `python -m data_builders.plans.export_plan` wrote, or the
            id of a dataset repository on the Hub with such files, as "lab/mixtures".
        corpus_dir (`str` or `Path`, *optional*): root with one folder a corpus, named like it.
        corpus_dirs (`Mapping[str, str | Path]`, *optional*): folders by corpus name; these win.
        noise_dir (`str` or `Path`, *optional*): folder of noise recordings, if the plan has any.
        cache_dir (`str` or `Path`, *optional*): see `load_corpus`.
        split (`str`, *optional*): split of a repository that has several.
        revision (`str`, *optional*): branch, tag or commit of a repository.
        strict (`bool`): stop at any audio that cannot be used, not at that of the plan alone.

    Returns:
        `MixtureDataset`: the examples that the plan was made of, to the byte, epoch by epoch if
        it holds several.

    Raises:
        CorpusError: the plan cannot be opened, see `open_plan`; a corpus cannot be read; or an
            utterance is missing (plans of over 100,000 mixtures tell when the first is rendered).
    """
    rows = open_plan(plan, split, revision)
    player = PlanPlayer(_options(corpus_dir, corpus_dirs, noise_dir, strict), cache_dir, rows)
    if len(rows) <= MAX_ROWS_CHECKED_AT_ONCE:
        player.require(rows.utterances())
    return MixtureDataset(player, train=rows.split == "train")


def render_plan_rows(
    rows: Rows,
    corpus_dir: str | Path | None = None,
    corpus_dirs: Mapping[str, str | Path] | None = None,
    noise_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    *,
    strict: bool = False,
) -> Rows:
    """Renders the rows that `datasets.load_dataset` gives for a plan file or a plan on the Hub.

    Args:
        rows (`datasets.Dataset`, `datasets.IterableDataset` or a dict of either): rows of a plan,
            as `load_dataset("parquet", data_files=plan)` or `load_dataset("lab/mixtures")` gives
            them; filtered, shuffled or split over nodes as you like.
        corpus_dir, corpus_dirs, noise_dir, cache_dir, strict: see `load_mixtures_from_plan`.

    Returns:
        What `rows` was, of examples, rendered when they are read.

    Raises:
        CorpusError: the rows are none of a plan.
    """
    if isinstance(rows, dict):
        folders = (corpus_dir, corpus_dirs, noise_dir, cache_dir)
        return type(rows)(
            {name: render_plan_rows(one, *folders, strict=strict) for name, one in rows.items()}
        )
    check_columns("rows", rows.column_names or [])
    renderer = PlanRowRenderer(_options(corpus_dir, corpus_dirs, noise_dir, strict), cache_dir)
    if isinstance(rows, datasets.Dataset):
        return rows.with_transform(renderer.render_batch)
    # One part a row group instead of one a file, which DataLoader workers share out.
    return rows.reshard().map(renderer.render_row, remove_columns=rows.column_names)


def _options(
    corpus_dir: str | Path | None,
    corpus_dirs: Mapping[str, str | Path] | None,
    noise_dir: str | Path | None,
    strict: bool,
) -> MixtureOptions:
    folders: dict[str, Any] = {"corpus_dir": corpus_dir, "corpus_dirs": corpus_dirs}
    return MixtureOptions(**folders, noise_dir=noise_dir, strict_corpora=strict)  # type: ignore[arg-type]
