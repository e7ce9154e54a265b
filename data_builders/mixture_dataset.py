"""Mixtures as a map-style dataset: a plan is drawn and rendered when an example is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.signal
import torch
from torch.utils.data import Dataset

from data_builders.audio import read_audio
from data_builders.mixing import mean_power, mix, snr_gain
from data_builders.planner import (
    MixturePlanner,
    MixtureSpec,
    UtteranceTable,
    samples_at_speed,
    speed_ratio,
)
from data_builders.schema import GENDERS, emotion_label


class MixtureDataset(Dataset[dict[str, Any]]):
    """Renders the mixtures of a planner; nothing is written to disk.

    Args:
        planner (`MixturePlanner`): draws the plans.
        train (`bool`): new mixtures in every epoch; otherwise always those of epoch 0.
    """

    def __init__(self, planner: MixturePlanner, train: bool) -> None:
        self.planner = planner
        self.train = train
        # In shared memory, so that DataLoader workers that live on see the next epoch too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # Power of each whole utterance that was decoded; from then on, only the needed part is.
        self._power: dict[tuple[str, bool], float] = {}

    def __len__(self) -> int:
        return len(self.planner)

    @property
    def epoch(self) -> int:
        """Epoch whose mixtures are rendered, 0 for evaluation."""
        return int(self._epoch) if self.train else 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, in this process and in the workers that it has started.

        Args:
            epoch (`int`): 0-based epoch; without effect on an evaluation dataset.
        """
        self._epoch.fill_(epoch)

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
        """Renders a plan.

        Args:
            spec (`MixtureSpec`): plan over the utterances of this dataset.

        Returns:
            `dict[str, Any]`: "mixture" and "target" of shape `(num_samples,)`, "enrollment" of
            shape `(enrollment_num_samples,)`, float32 at 16 kHz; "label", "utterance_id",
            "speaker_id", "interferer_id", "interferer_corpus", "gender_state", "snr_db" and "spec".

        Raises:
            CorpusError: a file cannot be read any more.
            ValueError: a source is silent.
        """
        targets, enrollments = self.planner.targets, self.planner.enrollments
        row = targets.row_of_id[spec.target_id]
        target = self._read(
            targets, row, spec.target_start, spec.num_samples, spec.target_speed, spec.trim_silence
        )
        enrollment = self._read(
            enrollments,
            enrollments.row_of_id[spec.enrollment_id],
            spec.enrollment_start,
            spec.enrollment_num_samples,
            spec.target_speed,
            spec.trim_silence,
        )
        example = {
            "mixture": target.copy(),
            "enrollment": enrollment,
            "target": target,
            "label": emotion_label(targets.emotions[row]),
            "utterance_id": spec.target_id,
            "speaker_id": targets.speaker_ids[row],
            "interferer_id": "",
            "interferer_corpus": "",
            "gender_state": "",
            "snr_db": float("nan"),
            "spec": spec.to_dict(),
        }
        if spec.interferer_id is not None:
            example.update(self._interfere(spec, target, row))
        return example

    def _interfere(self, spec: MixtureSpec, target: np.ndarray, row: int) -> dict[str, Any]:
        targets, interferers = self.planner.targets, self.planner.interferers
        if interferers is None or spec.interferer_id is None or spec.snr_db is None:
            raise ValueError(f"{spec} has an interferer, but this dataset has none")
        other = interferers.row_of_id[spec.interferer_id]
        # Only the part that lies within the mixture is read.
        first = max(-spec.interferer_offset, 0)
        start, stop = interferers.region(other, spec.trim_silence)
        last = min(
            samples_at_speed(stop - start, spec.interferer_speed),
            spec.num_samples - spec.interferer_offset,
        )
        interferer = self._read(
            interferers, other, first, last - first, spec.interferer_speed, spec.trim_silence
        )
        gain = snr_gain(
            self._utterance_power(targets, row, spec.trim_silence),
            self._utterance_power(interferers, other, spec.trim_silence),
            spec.snr_db,
        )
        return {
            "mixture": mix(target, interferer * np.float32(gain), spec.interferer_offset + first),
            "interferer_id": spec.interferer_id,
            "interferer_corpus": spec.interferer_id.partition("/")[0],
            "gender_state": _gender_state(targets.genders[row], interferers.genders[other]),
            "snr_db": spec.snr_db,
        }

    def _read(
        self,
        table: UtteranceTable,
        row: int,
        start: int,
        num_samples: int,
        speed: float,
        trim_silence: bool,
    ) -> np.ndarray:
        """Reads a stretch of an utterance, counted in samples as heard at the given speed."""
        first, stop = table.region(row, trim_silence)
        if speed == 1.0 and (table.paths[row], trim_silence) in self._power:
            return read_audio(table.paths[row], first + start, first + start + num_samples)
        utterance = read_audio(table.paths[row], first, stop)
        self._power[table.paths[row], trim_silence] = mean_power(utterance)
        if speed != 1.0:
            ratio = speed_ratio(speed)
            utterance = scipy.signal.resample_poly(utterance, ratio.denominator, ratio.numerator)
        return utterance[start : start + num_samples]

    def _utterance_power(self, table: UtteranceTable, row: int, trim_silence: bool) -> float:
        # `_read` has met the utterance before.
        power = self._power[table.paths[row], trim_silence]
        if power == 0.0:
            raise ValueError(f"{table.paths[row]} is silent: leave it out of the corpus")
        return power


def _gender_state(target_gender: str, interferer_gender: str) -> str:
    if not {target_gender, interferer_gender} <= {*GENDERS}:
        return ""
    return "same" if target_gender == interferer_gender else "different"
