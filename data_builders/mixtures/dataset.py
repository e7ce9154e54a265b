"""Mixtures as a map-style dataset: a plan is drawn and rendered when an example is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from data_builders.mixtures.rendering import Planner, SpecRenderer
from data_builders.mixtures.spec import MixtureSpec


class EpochDataset(Dataset[dict[str, Any]]):
    """Examples that training draws anew in every epoch; others are always those of epoch 0."""

    def __init__(self, train: bool) -> None:
        self.train = train
        # In shared memory, so that DataLoader workers that live on see the next epoch too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """Epoch whose examples are rendered, 0 for evaluation."""
        return int(self._epoch) if self.train else 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 0, in this process and in the workers that it has started.

        It is without effect on an evaluation dataset.
        """
        self._epoch.fill_(epoch)


class MixtureDataset(EpochDataset):
    """Renders the mixtures of a planner; nothing is written to disk.

    Args:
        planner (`MixturePlanner`): draws the plans.
        train (`bool`): new mixtures in every epoch; otherwise always those of epoch 0.
    """

    def __init__(self, planner: Planner, train: bool) -> None:
        super().__init__(train)
        self.planner = planner
        self._renderer = SpecRenderer(planner)

    def __len__(self) -> int:
        return len(self.planner)

    def lengths(self) -> np.ndarray:
        """How long the examples are, before a change of speed, for batches of like length.

        Returns:
            `np.ndarray` of shape `(num_examples,)`: samples.
        """
        return self.planner.target_samples()

    def plan(self, index: int) -> MixtureSpec:
        """Draws the plan of an example in the current epoch.

        Args:
            index (`int`): index of the example.

        Returns:
            `MixtureSpec`: the plan.
        """
        return self.planner.plan(self.epoch, index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.render(self.plan(index))

    def render(self, spec: MixtureSpec) -> dict[str, Any]:
        """Renders a plan, which may have been drawn long ago and by another planner.

        Args:
            spec (`MixtureSpec`): plan over the recordings of this dataset.

        Returns:
            `dict[str, Any]`: "mixture" and "target" of shape `(num_samples,)`, "enrollment" of
            shape `(enrollment_num_samples,)`, float32 at "sampling_rate" in Hz; "label";
            "utterance_id" and "speaker_id" of the target; "interferer_id" and "interferer_corpus",
            joined by "+" where there are several; "gender_state", which is "mixed" where they
            differ; "snr_db" of the target to all interferers together; "noise_snr_db";
            "target_absent", in which case the target is zero and the label ignored; and "spec".

        Raises:
            CorpusError: a recording is missing, silent, or cannot be read any more.
        """
        return self._renderer.render(spec)
