"""Batches of like length: less of them is padding, and the mixtures are the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from data_builders.option_reader import OptionError

# So many batches are drawn at random and sorted among themselves: batches of one epoch differ from
# those of the next, and yet hold examples of like length.
BATCHES_SORTED_AT_ONCE = 50


class LengthGroupedSampler(Sampler[int]):
    """Draws every example once an epoch, in batches of like length whose order is random.

    Args:
        lengths (`np.ndarray` of shape `(num_examples,)`): length of each example.
        batch_size (`int`): examples of a batch, over all processes.
        seed (`int`): the order depends on it and on the epoch alone.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        size = self.batch_size * BATCHES_SORTED_AT_ONCE
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate(
            [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        )
        # What fills no batch is left at the end, where it may be dropped: drawn, not the longest.
        spare = len(order) % self.batch_size
        last = np.sort(rng.choice(len(order), spare, replace=False))
        batches = np.delete(order, last).reshape(-1, self.batch_size)
        yield from batches[rng.permutation(len(batches))].ravel().tolist()
        yield from order[last].tolist()


def lengths_of(dataset: Any) -> np.ndarray:
    """The samples of each example of a dataset, `(num_examples,)`; raises `OptionError` where
    it does not tell them."""
    if not hasattr(dataset, "lengths"):
        raise OptionError(
            "train_sampling_strategy: 'group_by_length' needs mixtures drawn from corpora: set "
            "it to 'random'"
        )
    return np.asarray(dataset.lengths())
