"""`datasets.load_dataset("target_speaker_mixture", ...)`: the examples of `load_mixtures`.

What is prepared and kept on disk is the table of plans, a hundred bytes a mixture; waveforms are
rendered when a row is read, map-style and streaming alike. The plans are those of epoch 0: for
mixtures that are new in every epoch, use `load_mixtures`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from datasets.fingerprint import Hasher

from data_builders.folds import SPLITS, Protocol
from data_builders.interference import GenderState
from data_builders.load import load_mixtures, read_corpora
from data_builders.mixture_dataset import MixtureDataset
from data_builders.planner import MixtureSpec
from data_builders.schema import EMOTIONS

# Parts of a split that DataLoader workers and nodes share out among themselves when streaming.
NUM_SHARDS = 16

PLAN_FEATURES = datasets.Features(
    {
        "split": datasets.Value("string"),
        "target_id": datasets.Value("string"),
        "interferer_id": datasets.Value("string"),
        "enrollment_id": datasets.Value("string"),
        "snr_db": datasets.Value("float64"),
        "target_start": datasets.Value("int64"),
        "num_samples": datasets.Value("int64"),
        "interferer_offset": datasets.Value("int64"),
        "enrollment_start": datasets.Value("int64"),
        "enrollment_num_samples": datasets.Value("int64"),
        "target_speed": datasets.Value("float64"),
        "interferer_speed": datasets.Value("float64"),
        "trim_silence": datasets.Value("bool"),
        "epoch": datasets.Value("int64"),
        "index": datasets.Value("int64"),
    }
)


@dataclasses.dataclass
class MixtureConfig(datasets.BuilderConfig):
    """The keywords of `load_mixtures`, which documents them, under the same names and defaults.

    `split` and `cache_dir` are arguments of `load_dataset` itself.
    """

    targets: str | Sequence[str] = "generated"
    interferers: str | Sequence[str] | None = "generated_pool"
    fold: int = 1
    protocol: Protocol = "validated"
    corpus_dir: str | None = None
    corpus_dirs: Mapping[str, str] | None = None
    emotions: Sequence[str] | None = EMOTIONS
    gender_state: GenderState = "any"
    snr_range_db: tuple[float, float] = (0.0, 0.0)
    segment_seconds: float | None = None
    enrollment_seconds: float | None = None
    enrollment_emotion: str | None = "neutral"
    trim_silence: bool = False
    speed_factors: tuple[float, ...] = (1.0,)
    seed: int = 0
    max_examples: int | None = None
    corpus_cache_dir: str | None = None

    def mixture_keywords(self) -> dict[str, Any]:
        """The keywords for `load_mixtures`, all but `split`.

        Returns:
            `dict[str, Any]`: keyword to value.
        """
        inherited = {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
        keywords = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in inherited
        }
        keywords["cache_dir"] = keywords.pop("corpus_cache_dir")
        return keywords

    def create_config_id(
        self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None
    ) -> str:
        """Names the folder of the prepared plans after what they were drawn from.

        Args:
            config_kwargs (`dict[str, Any]`): keywords that were given.
            custom_features (`datasets.Features`, *optional*): features that were given.

        Returns:
            `str`: the name; another one when a keyword or the content of a corpus has changed.
        """
        names = [self.targets, *([] if self.interferers is None else [self.interferers])]
        corpora = [
            Hasher.hash(corpus[:])
            for name in names
            for corpus in read_corpora(
                name, self.corpus_dir, self.corpus_dirs, self.corpus_cache_dir
            )
        ]
        return super().create_config_id({**config_kwargs, "corpora": corpora}, custom_features)


class MixtureRenderer:
    """Renders plan rows; each process loads the corpora when it renders its first row.

    Args:
        keywords (`Mapping[str, Any]`): keywords of `load_mixtures`, all but `split`.
    """

    def __init__(self, keywords: Mapping[str, Any]) -> None:
        self._keywords = dict(keywords)
        self._mixtures: dict[str, MixtureDataset] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_keywords": self._keywords, "_mixtures": {}}

    def mixtures(self, split: str) -> MixtureDataset:
        """The mixtures of a split.

        Args:
            split (`str`): "train", "validation" or "test".

        Returns:
            `MixtureDataset`: loaded once.
        """
        if split not in self._mixtures:
            self._mixtures[split] = load_mixtures(split=split, **self._keywords)
        return self._mixtures[split]

    def render_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Renders one row.

        Args:
            row (`Mapping[str, Any]`): values by the names of `PLAN_FEATURES`.

        Returns:
            `dict[str, Any]`: the example, see `MixtureDataset.render`.
        """
        values = dict(row)
        split = values.pop("split")
        return self.mixtures(split).render(MixtureSpec.from_dict(values))

    def render_batch(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Renders several rows.

        Args:
            batch (`Mapping[str, Sequence[Any]]`): column to values.

        Returns:
            `dict[str, list[Any]]`: field of the examples to values.
        """
        names = list(batch)
        rows = zip(*batch.values(), strict=True)
        examples = [self.render_row(dict(zip(names, row, strict=True))) for row in rows]
        return {name: [example[name] for example in examples] for name in examples[0]}


class TargetSpeakerMixture(datasets.GeneratorBasedBuilder):
    """Builder behind `datasets.load_dataset("target_speaker_mixture", ...)`."""

    BUILDER_CONFIG_CLASS = MixtureConfig

    def __init__(self, cache_dir: str | None = None, **kwargs: Any) -> None:
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
        splits = [
            split
            for split in SPLITS
            if not (split == "validation" and self.config.protocol == "paper")
        ]
        return [
            datasets.SplitGenerator(
                name=split, gen_kwargs={"split": split, "shards": list(range(NUM_SHARDS))}
            )
            for split in splits
        ]

    def _generate_examples(
        self, split: str, shards: list[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        planner = self._renderer.mixtures(split).planner
        parts = np.array_split(np.arange(len(planner)), NUM_SHARDS)
        for index in np.concatenate([parts[shard] for shard in shards]).tolist():
            yield index, {"split": split, **planner.plan(epoch=0, index=index).to_dict()}

    def as_dataset(self, *args: Any, **kwargs: Any) -> datasets.Dataset | datasets.DatasetDict:
        """The plans of `GeneratorBasedBuilder.as_dataset`, rendered when a row is read."""
        return super().as_dataset(*args, **kwargs).with_transform(self._renderer.render_batch)

    def as_streaming_dataset(
        self, *args: Any, **kwargs: Any
    ) -> datasets.IterableDataset | datasets.IterableDatasetDict:
        """The plans of `GeneratorBasedBuilder.as_streaming_dataset`, rendered one by one."""
        plans = super().as_streaming_dataset(*args, **kwargs)
        return plans.map(self._renderer.render_row, remove_columns=list(PLAN_FEATURES))
