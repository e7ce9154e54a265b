"""`datasets.load_dataset("target_speaker_mixture", ...)`: the examples of `load_mixtures`.

What is prepared and kept on disk is the table of plans, a hundred bytes a mixture; waveforms are
rendered when a row is read, map-style and streaming alike. The plans are those of epoch 0: for
mixtures that are new in every epoch, use `load_mixtures`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.fingerprint import Hasher

from data_builders.corpora.folds import SPLITS
from data_builders.corpora.scan import AUDIO_SUFFIXES, list_files
from data_builders.load import load_mixtures, read_corpora
from data_builders.mixtures.dataset import MixtureDataset
from data_builders.mixtures.spec import MixtureSpec
from data_builders.option_reader import refuse_unknown
from data_builders.options import MixtureOptions, values_of
from data_builders.plans.plan_files import SPEC_FEATURES
from data_builders.plans.plan_rendering import RowRenderer

# Parts of a split that nodes and DataLoader workers share out when streaming. Many numbers of nodes
# divide it: with others, every node would render the examples of all.
NUM_SHARDS = 240
# The prime nearest to the golden section of it: multiples of it spread evenly.
SHARD_STEP = 149

PLAN_FEATURES = datasets.Features({"split": datasets.Value("string"), **SPEC_FEATURES})


@dataclasses.dataclass
class MixtureConfig(MixtureOptions, datasets.BuilderConfig):
    """`MixtureOptions` as a configuration of `datasets`.

    `split` and `cache_dir` are arguments of `load_dataset` itself.
    """

    corpus_cache_dir: str | None = None

    def __post_init__(self) -> None:
        datasets.BuilderConfig.__post_init__(self)
        MixtureOptions.__post_init__(self)

    def mixture_keywords(self) -> dict[str, Any]:
        """The keywords for `load_mixtures`, all but `split`."""
        return {**values_of(self, MixtureOptions), "cache_dir": self.corpus_cache_dir}

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Names the folder of the prepared plans after what they were drawn from.

        It is another one when a keyword or the content of a corpus has changed.
        """
        names = [*self.targets, *(self.interferers or ())]
        content: list[Any] = [
            Hasher.hash(corpus.with_format("arrow")[:])
            for corpus in read_corpora(names, self, self.corpus_cache_dir)
        ]
        if self.noise_folder is not None:
            content += list_files(Path(self.noise_folder), AUDIO_SUFFIXES)
        return super().create_config_id({**config_kwargs, "content": content}, custom_features)


def shard_bounds(num_examples: int) -> list[int]:
    """First example of each shard, and the size of the split at the end.

    The sizes of shards differ by one at most. The larger ones lie apart such that nodes and workers
    get equally many examples, whether they are handed neighboring shards (as `accelerate` does) or
    every n-th (as `datasets` does).
    """
    sizes = np.full(NUM_SHARDS, num_examples // NUM_SHARDS)
    larger = np.arange(num_examples % NUM_SHARDS) * SHARD_STEP % NUM_SHARDS
    sizes[larger] += 1
    bounds: list[int] = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    return bounds


class MixtureRenderer(RowRenderer):
    """Renders plan rows; other processes read the corpora by themselves.

    The keywords are those of `load_mixtures`, all but `split`.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = dict(keywords)
        self._mixtures: dict[str, MixtureDataset] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_keywords": self._keywords, "_mixtures": {}}

    def mixtures(self, split: str) -> MixtureDataset:
        """The mixtures of a split, loaded once."""
        if split not in self._mixtures:
            self._mixtures[split] = load_mixtures(split=split, **self._keywords)
        return self._mixtures[split]

    def render_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """See `RowRenderer.render_row`; the columns are `PLAN_FEATURES`."""
        values = dict(row)
        split = values.pop("split")
        return self.mixtures(split).render(MixtureSpec.from_dict(values))


class TargetSpeakerMixture(datasets.GeneratorBasedBuilder):
    """Builder behind `datasets.load_dataset("target_speaker_mixture", ...)`."""

    BUILDER_CONFIG_CLASS = MixtureConfig

    def __init__(self, cache_dir: str | None = None, **kwargs: Any) -> None:
        of_builder = inspect.signature(datasets.DatasetBuilder.__init__).parameters
        of_config = [field.name for field in dataclasses.fields(MixtureConfig)]
        refuse_unknown(kwargs, [*of_builder, *of_config])
        super().__init__(cache_dir=cache_dir, corpus_cache_dir=cache_dir, **kwargs)
        self._renderer = MixtureRenderer(self.config.mixture_keywords())

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Plans of target speaker mixtures, rendered on access.",
            features=PLAN_FEATURES,
        )

    def _split_generators(
        self, dl_manager: datasets.DownloadManager
    ) -> list[datasets.SplitGenerator]:
        del dl_manager
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"split": split, "shards": list(range(NUM_SHARDS))}
            )
            for split in self._splits()
        ]

    def _splits(self) -> list[str]:
        without_validation = self.config.protocol == "paper"
        return [split for split in SPLITS if not (split == "validation" and without_validation)]

    def _generate_examples(
        self, split: str, shards: list[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        planner = self._renderer.mixtures(split).planner
        bounds = shard_bounds(len(planner))
        for shard in shards:
            for index in range(bounds[shard], bounds[shard + 1]):
                yield index, {"split": split, **planner.plan(epoch=0, index=index).to_dict()}

    def as_dataset(
        self, split: Any = None, *args: Any, **kwargs: Any
    ) -> datasets.Dataset | datasets.DatasetDict:
        """The plans of `GeneratorBasedBuilder.as_dataset`, rendered when a row is read."""
        self._read_corpora(split)
        plans = super().as_dataset(split, *args, **kwargs)
        return plans.with_transform(self._renderer.render_batch)

    def as_streaming_dataset(
        self, split: Any = None, *args: Any, **kwargs: Any
    ) -> datasets.IterableDataset | datasets.IterableDatasetDict:
        """The plans of `GeneratorBasedBuilder.as_streaming_dataset`, rendered one by one."""
        self._read_corpora(split)
        plans = super().as_streaming_dataset(split, *args, **kwargs)
        return plans.map(self._renderer.render_row, remove_columns=list(PLAN_FEATURES))

    def _read_corpora(self, split: Any) -> None:
        """Before any worker starts, so that all share one copy and errors come early."""
        for name in self._splits():
            if split is None or name in str(split):  # "test[:10%]" too
                self._renderer.mixtures(name)
