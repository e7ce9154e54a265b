"""Corpora, folds and target speaker mixtures.

`load_corpus` reads a corpus, `load_mixtures` makes mixtures of corpora. After this import,
`datasets.load_dataset("target_speaker_mixture", data_files=NO_DATA_FILES, ...)` gives the same
mixtures. `load_mixtures_from_plan` and `render_plan_rows` give those of a plan, a file that
`python -m data_builders.plans.export_plan` writes or a dataset repository of the Hub.
"""

from __future__ import annotations

import datasets.packaged_modules

from data_builders import target_speaker_mixture
from data_builders.load import load_corpus, load_mixtures
from data_builders.mixtures.dataset import MixtureDataset
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.planner import MixturePlanner
from data_builders.mixtures.spec import InterfererSpec, MixtureSpec, NoiseSpec, RoomSpec
from data_builders.plans.plan_rendering import load_mixtures_from_plan, render_plan_rows
from data_builders.schema import (
    EMOTIONS,
    GENDERS,
    IGNORED_LABEL,
    SAMPLING_RATE,
    UTTERANCE_FEATURES,
    CorpusError,
)

__all__ = [
    "EMOTIONS",
    "GENDERS",
    "IGNORED_LABEL",
    "NO_DATA_FILES",
    "SAMPLING_RATE",
    "UTTERANCE_FEATURES",
    "CorpusError",
    "InterfererSpec",
    "MixtureDataset",
    "MixturePlanner",
    "MixtureSpec",
    "NoiseFolder",
    "NoiseSpec",
    "RoomSpec",
    "load_corpus",
    "load_mixtures",
    "load_mixtures_from_plan",
    "render_plan_rows",
]

# Without data_files, `load_dataset` would search the working directory for some.
NO_DATA_FILES: dict[str, list[str]] = {"train": []}

# The only way to a builder since `load_dataset` no longer runs scripts. The table is private: this
# is the one place that touches it, and test_load_dataset.py tells when it changes. The second value
# names the version of the prepared plans: raise it when plans are drawn in another way.
datasets.packaged_modules._PACKAGED_DATASETS_MODULES["target_speaker_mixture"] = (
    target_speaker_mixture.__name__,
    "plans-3",
)
