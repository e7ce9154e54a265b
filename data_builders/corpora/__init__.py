"""The corpora, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets

from data_builders.corpora.asterisk import load_asterisk
from data_builders.corpora.denoised import load_denoised
from data_builders.corpora.emodb import load_emodb
from data_builders.corpora.generated import load_generated, load_generated_pool
from data_builders.corpora.ravdess import load_ravdess

# name -> function(folder of the corpus, cache folder)
CORPORA: dict[str, Callable[[Path | None, Path], datasets.Dataset]] = {
    "generated": load_generated,
    "generated_pool": load_generated_pool,
    "ravdess": load_ravdess,
    "emodb": load_emodb,
    "asterisk": load_asterisk,
    "denoised": load_denoised,
}
