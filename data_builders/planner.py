"""Plans: small records that say, to the sample, what each mixture is made of.

A plan is drawn from (seed, epoch, index) alone, so it does not matter which worker draws it, nor in
which order. Rendering a plan into waveforms is the business of `mixture_dataset`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import datasets
import numpy as np

from data_builders.enrollment import EnrollmentPool
from data_builders.interference import GenderState, InterfererPool
from data_builders.schema import SAMPLING_RATE, CorpusError

MAX_SPEED_DENOMINATOR = 20


@dataclass(frozen=True)
class MixtureSpec:
    """One mixture. Sample counts are at 16 kHz and as heard: after the change of speed.

    Attributes:
        target_id (`str`): utterance id of the target.
        interferer_id (`str`, *optional*): utterance id of the interferer; None for clean speech.
        enrollment_id (`str`): utterance id of the enrollment.
        snr_db (`float`, *optional*): power of target to interferer, whole utterances; None: clean.
        target_start (`int`): first sample of the target's utterance that is in the mixture.
        num_samples (`int`): length of mixture and target.
        interferer_offset (`int`): mixture sample at which the interferer's utterance begins;
            negative when its beginning is cut.
        enrollment_start (`int`): first sample of the enrollment's utterance.
        enrollment_num_samples (`int`): length of the enrollment.
        target_speed (`float`): tempo and pitch factor on target and enrollment, 1.0 is unchanged.
        interferer_speed (`float`): the same on the interferer.
        trim_silence (`bool`): utterances count from their first to their last active time.
        epoch (`int`): epoch it was drawn for.
        index (`int`): index of the target among the planner's targets.
    """

    target_id: str
    interferer_id: str | None
    enrollment_id: str
    snr_db: float | None
    target_start: int
    num_samples: int
    interferer_offset: int
    enrollment_start: int
    enrollment_num_samples: int
    target_speed: float
    interferer_speed: float
    trim_silence: bool
    epoch: int
    index: int

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values.

        Returns:
            `dict[str, Any]`: field name to value.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MixtureSpec:
        """Restores a record.

        Args:
            values (`dict[str, Any]`): what `to_dict` gave.

        Returns:
            `MixtureSpec`: the record.
        """
        return cls(**values)


class UtteranceTable:
    """The columns of a corpus that planning and rendering need, as plain lists and arrays.

    Arrow tables are convenient, but a lookup of one row costs more than the drawing of a mixture.

    Args:
        corpus (`datasets.Dataset`): utterances with `UTTERANCE_FEATURES`.
    """

    def __init__(self, corpus: datasets.Dataset) -> None:
        columns = corpus[:]
        self.utterance_ids: list[str] = columns["utterance_id"]
        self.paths: list[str] = columns["path"]
        self.speaker_ids: list[str] = columns["speaker_id"]
        self.genders: list[str] = columns["gender"]
        self.emotions: list[str] = columns["emotion"]
        self.num_samples = _to_samples(columns["duration_seconds"])
        self.speech_start = _to_samples(columns["speech_start_seconds"])
        self.speech_end = _to_samples(columns["speech_end_seconds"])
        self.row_of_id = {utterance_id: row for row, utterance_id in enumerate(self.utterance_ids)}
        if len(self.row_of_id) != len(self.utterance_ids):
            raise CorpusError("utterance ids repeat: each corpus may be named once")

    def __len__(self) -> int:
        return len(self.utterance_ids)

    def region(self, row: int, trim_silence: bool) -> tuple[int, int]:
        """Where an utterance lies in its file.

        Args:
            row (`int`): row of the utterance.
            trim_silence (`bool`): without the silence before and after the speech.

        Returns:
            `tuple[int, int]`: first sample, and the one after the last.
        """
        if trim_silence:
            return int(self.speech_start[row]), int(self.speech_end[row])
        return 0, int(self.num_samples[row])


class MixturePlanner:
    """Draws the `MixtureSpec` of every (epoch, index).

    Args:
        targets (`datasets.Dataset`): target utterances; index i is row i.
        interferers (`datasets.Dataset`, *optional*): interfering utterances; None for clean speech.
        enrollments (`datasets.Dataset`, *optional*): utterances to enroll with; `targets` if None.
        seed (`int`): mixing seed.
        gender_state (`str`): "any", "same" or "different" genders of target and interferer.
        snr_range_db (`tuple[float, float]`): the SNR is drawn uniformly between these.
        segment_seconds (`float`, *optional*): longer targets are cropped to this; None: never.
        enrollment_seconds (`float`, *optional*): longer enrollments are cropped to this.
        enrollment_emotion (`str`, *optional*): emotion of enrollments; None for any.
        trim_silence (`bool`): leave out silence before and after the speech of every utterance.
        speed_factors (`tuple[float, ...]`): speeds that are drawn uniformly, for target (its
            enrollment follows: a voice is a speaker at a speed) and interferer.

    Raises:
        CorpusError: no targets, a target without enrollment, or without an admissible interferer.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        targets: datasets.Dataset,
        interferers: datasets.Dataset | None,
        enrollments: datasets.Dataset | None = None,
        *,
        seed: int,
        gender_state: GenderState = "any",
        snr_range_db: tuple[float, float] = (0.0, 0.0),
        segment_seconds: float | None = None,
        enrollment_seconds: float | None = None,
        enrollment_emotion: str | None = "neutral",
        trim_silence: bool = False,
        speed_factors: tuple[float, ...] = (1.0,),
    ) -> None:
        if len(targets) == 0:
            raise CorpusError("no target utterances: check corpus, split and emotions")
        self.targets = UtteranceTable(targets)
        self.enrollments = self.targets if enrollments is None else UtteranceTable(enrollments)
        self.interferers = None if interferers is None else UtteranceTable(interferers)
        self.seed = seed
        self.gender_state = gender_state
        self.snr_range_db = _checked_range(snr_range_db)
        self.segment_samples = _checked_length("segment_seconds", segment_seconds)
        self.enrollment_samples = _checked_length("enrollment_seconds", enrollment_seconds)
        self.trim_silence = trim_silence
        self.speed_factors = _checked_speeds(speed_factors)
        self._enrollment_pool = EnrollmentPool(
            self.enrollments.utterance_ids,
            self.enrollments.speaker_ids,
            self.enrollments.emotions,
            enrollment_emotion,
        )
        self._enrollment_pool.check(
            zip(self.targets.utterance_ids, self.targets.speaker_ids, strict=True)
        )
        self._interferer_pool = None
        if self.interferers is not None:
            self._interferer_pool = InterfererPool(
                self.interferers.utterance_ids,
                self.interferers.speaker_ids,
                self.interferers.genders,
                gender_state,
            )
            self._interferer_pool.check(
                zip(self.targets.speaker_ids, self.targets.genders, strict=True)
            )

    def __len__(self) -> int:
        return len(self.targets)

    def plan(self, epoch: int, index: int) -> MixtureSpec:
        """Draws the mixture of a target in an epoch.

        Args:
            epoch (`int`): epoch, 0 for evaluation.
            index (`int`): index of the target, 0 to `len(planner) - 1`.

        Returns:
            `MixtureSpec`: the same record whenever it is asked for.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {len(self)} targets")
        rng = np.random.default_rng([self.seed, epoch, index])
        target_speed = self._draw_speed(rng)
        target_length = self._heard_samples(self.targets, index, target_speed)
        target_start, num_samples = _draw_crop(target_length, self.segment_samples, rng)
        enrollment_row = self._enrollment_pool.draw(
            self.targets.utterance_ids[index], self.targets.speaker_ids[index], rng
        )
        enrollment_length = self._heard_samples(self.enrollments, enrollment_row, target_speed)
        enrollment_start, enrollment_num_samples = _draw_crop(
            enrollment_length, self.enrollment_samples, rng
        )
        interferer_id, snr_db, offset, interferer_speed = self._draw_interferer(
            index, num_samples, rng
        )
        return MixtureSpec(
            target_id=self.targets.utterance_ids[index],
            interferer_id=interferer_id,
            enrollment_id=self.enrollments.utterance_ids[enrollment_row],
            snr_db=snr_db,
            target_start=target_start,
            num_samples=num_samples,
            interferer_offset=offset,
            enrollment_start=enrollment_start,
            enrollment_num_samples=enrollment_num_samples,
            target_speed=target_speed,
            interferer_speed=interferer_speed,
            trim_silence=self.trim_silence,
            epoch=epoch,
            index=index,
        )

    def _draw_interferer(
        self, index: int, num_samples: int, rng: np.random.Generator
    ) -> tuple[str | None, float | None, int, float]:
        if self.interferers is None or self._interferer_pool is None:
            return None, None, 0, 1.0
        row = self._interferer_pool.draw(
            self.targets.speaker_ids[index], self.targets.genders[index], rng
        )
        speed = self._draw_speed(rng)
        spare = num_samples - self._heard_samples(self.interferers, row, speed)
        # Shorter than the mixture: placed anywhere within it. Longer: cropped anywhere.
        offset = int(rng.integers(min(spare, 0), max(spare, 0) + 1))
        snr_db = float(rng.uniform(*self.snr_range_db))
        return self.interferers.utterance_ids[row], snr_db, offset, speed

    def _draw_speed(self, rng: np.random.Generator) -> float:
        return self.speed_factors[int(rng.integers(len(self.speed_factors)))]

    def _heard_samples(self, table: UtteranceTable, row: int, speed: float) -> int:
        start, stop = table.region(row, self.trim_silence)
        return samples_at_speed(stop - start, speed)


def speed_ratio(speed: float) -> Fraction:
    """A speed as a ratio of small integers.

    Args:
        speed (`float`): speed factor.

    Returns:
        `Fraction`: the nearest ratio with a denominator of at most 20.
    """
    return Fraction(speed).limit_denominator(MAX_SPEED_DENOMINATOR)


def samples_at_speed(num_samples: int, speed: float) -> int:
    """Length of an utterance that is played at another speed.

    Args:
        num_samples (`int`): length at speed 1.
        speed (`float`): speed factor.

    Returns:
        `int`: number of samples, as `scipy.signal.resample_poly` gives it.
    """
    if speed == 1.0:
        return num_samples
    ratio = speed_ratio(speed)
    return -(-num_samples * ratio.denominator // ratio.numerator)


def _draw_crop(length: int, limit: int | None, rng: np.random.Generator) -> tuple[int, int]:
    if limit is None or length <= limit:
        return 0, length
    return int(rng.integers(length - limit + 1)), limit


def _to_samples(seconds: list[float]) -> np.ndarray:
    return np.round(np.asarray(seconds, dtype=np.float64) * SAMPLING_RATE).astype(np.int64)


def _checked_range(snr_range_db: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(value) for value in snr_range_db)
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(
            f"snr_range_db: expected two finite numbers low <= high, got {low}, {high}"
        )
    return low, high


def _checked_length(name: str, seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not seconds > 0:
        raise ValueError(f"{name}: expected a positive number of seconds or none, got {seconds}")
    return round(seconds * SAMPLING_RATE)


def _checked_speeds(speed_factors: tuple[float, ...]) -> tuple[float, ...]:
    speeds = tuple(float(speed) for speed in speed_factors)
    in_range = all(0.5 <= speed <= 2.0 for speed in speeds)
    if not speeds or not in_range or any(float(speed_ratio(s)) != s for s in speeds):
        raise ValueError(
            f"speed_factors: expected ratios of integers up to {MAX_SPEED_DENOMINATOR} between 0.5 "
            f"and 2, such as 0.9 or 1.1, got {list(speed_factors)}"
        )
    return speeds
