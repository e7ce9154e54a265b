"""Plans: small records that say, to the sample, what each mixture is made of.

A plan is drawn from (seed, epoch, index) alone, so it does not matter which worker draws it, nor in
which order. Rendering a plan into waveforms is the business of `rendering`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import datasets
import numpy as np

from data_builders.audio import GATE_MARGIN_SECONDS
from data_builders.corpora.utterance_table import LevelMeasure, UtteranceTable
from data_builders.mixtures.enrollment import EnrollmentPool
from data_builders.mixtures.interference import InterfererPool
from data_builders.mixtures.loudness import draw_gains
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.rendering import SpecRenderer
from data_builders.mixtures.rooms import draw_room
from data_builders.mixtures.spec import InterfererSpec, MixtureSpec, NoiseSpec
from data_builders.mixtures.speed import samples_at_speed
from data_builders.option_reader import OptionError, refuse_unknown
from data_builders.options import DrawingOptions
from data_builders.schema import EMOTIONS, SAMPLING_RATE, CorpusError, emotion_label

SPEECH_MARGIN_SAMPLES = round(GATE_MARGIN_SECONDS * SAMPLING_RATE)


class MixturePlanner:
    """Draws the `MixtureSpec` of every (epoch, index).

    Args:
        targets (`datasets.Dataset`): target utterances; index i is row i.
        interferers (`datasets.Dataset`, *optional*): interfering utterances; None for clean speech.
        enrollments (`datasets.Dataset`, *optional*): utterances to enroll with; `targets` if None.
        noise (`NoiseFolder`, *optional*): background noise; None without.
        classes (`Sequence[str]`): emotions in the order of their labels.
        keywords: the fields of `DrawingOptions`, which documents them.

    Raises:
        CorpusError: no targets, a target without enrollment, or with too few interferers.
        OptionError: a keyword is unknown, or out of its range.
    """

    def __init__(
        self,
        targets: datasets.Dataset,
        interferers: datasets.Dataset | None,
        enrollments: datasets.Dataset | None = None,
        *,
        noise: NoiseFolder | None = None,
        classes: Sequence[str] = EMOTIONS,
        **keywords: Any,
    ) -> None:
        if len(targets) == 0:
            raise CorpusError("no target utterances: check corpus, split and emotions")
        refuse_unknown(keywords, [one.name for one in fields(DrawingOptions)])
        self.options = DrawingOptions(**keywords)
        if self.options.absent_share > 0 and interferers is None:
            raise OptionError(
                f"absent_share: {self.options.absent_share} of the mixtures would be empty, as "
                f"there are no interferers; name some, or set it to 0"
            )
        self.seed = self.options.mixing_seed
        self.classes = tuple(classes)
        self.targets = UtteranceTable(targets)
        self.enrollments = _table_of(enrollments, self.targets, targets)
        self.interferers = None
        self.noise = noise
        self._segment_samples = _to_samples(self.options.segment_seconds)
        self._enrollment_samples = _to_samples(self.options.enrollment_seconds)
        self._speeds = self.options.speed_factors
        self._speaker_range = self.options.speaker_range()
        self._enrollment_pool = EnrollmentPool(self.enrollments, self.options.enrollment_emotion)
        self._enrollment_pool.check(self.targets)
        self._interferer_pool = None
        if interferers is not None:
            self.interferers = _table_of(interferers, self.targets, targets)
            self._interferer_pool = InterfererPool(self.interferers, self.options)
            self._interferer_pool.check(self.targets, self._speaker_range[1] - 1)
        self._renderer = SpecRenderer(self)
        self._prepare()

    def __len__(self) -> int:
        return len(self.targets)

    def label_of(self, emotion: str) -> int:
        """Label of an emotion, see `emotion_label`."""
        return emotion_label(emotion, self.classes)

    def target_samples(self) -> np.ndarray:
        """Lengths of the mixtures before a change of speed and pauses, without drawing them.

        Returns:
            `np.ndarray` of shape `(num_targets,)`: samples.
        """
        rows = range(len(self))
        lengths = np.array([self._heard_samples(self.targets, row, 1.0) for row in rows])
        return lengths if self._segment_samples is None else lengths.clip(max=self._segment_samples)

    def plan(self, epoch: int, index: int) -> MixtureSpec:
        """Draws the mixture of a target in an epoch.

        Args:
            epoch (`int`): epoch, 0 for evaluation.
            index (`int`): index of the target, 0 to `len(planner) - 1`.

        Returns:
            `MixtureSpec`: the same record whenever it is asked for.

        Raises:
            CorpusError: under the loudness law, for which recordings are decoded: one cannot be.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {len(self)} targets")
        rng = np.random.default_rng([self.seed, epoch, index])
        trim_silence = self.options.trim_silence
        target_speed = self._draw_speed(rng)
        target_start, num_samples = self._draw_crop(
            self.targets, index, target_speed, self._segment_samples, rng, self._draw_pauses(rng)
        )
        target_id = self.targets.utterance_ids[index]
        enrollment_row = self._enrollment_pool.draw(target_id, self.targets.speaker_ids[index], rng)
        enrollment_start, enrollment_num_samples = self._draw_crop(
            self.enrollments, enrollment_row, target_speed, self._enrollment_samples, rng
        )
        spec = MixtureSpec(
            target_id=target_id,
            interferers=self._draw_interferers(index, num_samples, rng),
            enrollment_id=self.enrollments.utterance_ids[enrollment_row],
            target_start=target_start,
            num_samples=num_samples,
            target_gain=1.0,
            enrollment_start=enrollment_start,
            enrollment_num_samples=enrollment_num_samples,
            target_speed=target_speed,
            trim_silence=trim_silence,
            target_absent=False,
            noise=None,
            room=None,
            epoch=epoch,
            index=index,
            lowpass_hz=self.options.lowpass_hz,
        )
        return self._draw_conditions(spec, rng)

    def _prepare(self) -> None:
        """Checks the lengths, and makes room for levels now, so that workers will share it."""
        lowpass_hz = self.options.lowpass_hz
        measures: tuple[LevelMeasure, ...] = ("power",)
        if self.options.snr_distribution == "loudness":
            measures = ("power", "loudness", "peak")
        for table in (self.targets, self.enrollments, self.interferers):
            if table is not None:
                table.refuse_empty(self.options.trim_silence)
                for measure in measures:
                    table.levels(measure, self.options.trim_silence, lowpass_hz)

    def _draw_interferers(
        self, index: int, num_samples: int, rng: np.random.Generator
    ) -> tuple[InterfererSpec, ...]:
        if self.interferers is None or self._interferer_pool is None:
            return ()
        lowest, highest = self._speaker_range
        num_speakers = lowest if lowest == highest else int(rng.integers(lowest, highest + 1))
        taken: list[str] = []
        drawn = []
        for _ in range(num_speakers - 1):
            row = self._interferer_pool.draw(
                self.targets.speaker_ids[index], self.targets.genders[index], rng, taken
            )
            taken.append(self.interferers.speaker_ids[row])
            speed = self._draw_speed(rng)
            spare = num_samples - self._heard_samples(self.interferers, row, speed)
            # Shorter than the mixture: placed anywhere within it. Longer: cropped anywhere.
            offset = int(rng.integers(min(spare, 0), max(spare, 0) + 1))
            utterance_id = self.interferers.utterance_ids[row]
            drawn.append(InterfererSpec(utterance_id, self._draw_snr(rng), None, offset, speed))
        return tuple(drawn)

    def _draw_conditions(self, spec: MixtureSpec, rng: np.random.Generator) -> MixtureSpec:
        """What is drawn last and only when asked for, so that it leaves all other draws alone."""
        options = self.options
        changes: dict[str, Any] = {}
        if options.clean_share > 0 or options.absent_share > 0:
            place = rng.random()
            if place < options.clean_share:
                changes = {"interferers": (), **self._without_pauses(spec)}
            elif place < options.clean_share + options.absent_share:
                changes["target_absent"] = True
        if self.noise is not None and _happens(options.noise_share, rng):
            path, start = self.noise.draw(spec.num_samples, rng)
            changes["noise"] = NoiseSpec(
                path, start, float(rng.uniform(*options.noise_snr_range_db))
            )
        if options.reverberation != "none" and _happens(options.reverberation_share, rng):
            num_speakers = 1 + len(changes.get("interferers", spec.interferers))
            changes["room"] = draw_room(
                num_speakers, options.rt60_range_seconds, options.reverberation, rng
            )
        spec = replace(spec, **changes) if changes else spec
        if options.snr_distribution == "loudness":
            return draw_gains(spec, self._renderer, rng)
        return spec

    def _without_pauses(self, spec: MixtureSpec) -> dict[str, int]:
        """The stretch of the target's utterance alone: a pause is where others talk."""
        heard = self._heard_samples(self.targets, spec.index, spec.target_speed)
        start = max(spec.target_start, 0)
        stop = min(spec.target_start + spec.num_samples, heard)
        return {"target_start": start, "num_samples": stop - start}

    def _draw_snr(self, rng: np.random.Generator) -> float | None:
        if self.options.snr_distribution == "uniform":
            return float(rng.uniform(*self.options.snr_range_db))
        if self.options.snr_distribution == "normal":
            return float(rng.normal(*self.options.snr_mean_std_db))
        return None

    def _draw_speed(self, rng: np.random.Generator) -> float:
        return self._speeds[int(rng.integers(len(self._speeds)))]

    def _draw_pauses(self, rng: np.random.Generator) -> tuple[int, int]:
        """Samples of silence before and after the target; nothing is drawn where there are none."""
        lowest, highest = (
            round(each * SAMPLING_RATE) for each in self.options.target_pause_range_seconds
        )
        if highest == 0:
            return 0, 0
        before, after = rng.integers(lowest, highest + 1, size=2).tolist()
        return before, after

    def _draw_crop(
        self,
        table: UtteranceTable,
        row: int,
        speed: float,
        limit: int | None,
        rng: np.random.Generator,
        pauses: tuple[int, int] = (0, 0),
    ) -> tuple[int, int]:
        """Where a crop begins, and its length; it may begin anywhere, but holds speech.

        Pauses are silence before and after the utterance; in the first it begins below 0.
        One that lies before the speech or behind it is moved to where it holds half of it, or is
        half full: there may be nothing at all in a recording that was cut or coded.
        """
        before, after = pauses
        length = before + self._heard_samples(table, row, speed) + after
        if limit is None or length <= limit:
            return -before, length
        start = int(rng.integers(length - limit + 1))
        first, last = (before + end for end in self._speech(table, row, speed))
        if start + limit > first and start < last:
            return start - before, limit
        held = max(min(limit, last - first) // 2, 1)
        earliest = max(first + held - limit, 0)
        latest = min(last - held, length - limit)
        return earliest + start % (latest - earliest + 1) - before, limit

    def _speech(self, table: UtteranceTable, row: int, speed: float) -> tuple[int, int]:
        """Where the speech begins and ends, without the margin that the scan leaves around it."""
        begin, _ = table.region(row, self.options.trim_silence)
        first, last = int(table.speech_start[row]), int(table.speech_end[row])
        if first > 0:
            first += SPEECH_MARGIN_SAMPLES
        if last < table.num_samples[row]:
            last -= SPEECH_MARGIN_SAMPLES
        ends = (min(first, last), max(first, last))
        first, last = (samples_at_speed(max(end - begin, 0), speed) for end in ends)
        return first, last

    def _heard_samples(self, table: UtteranceTable, row: int, speed: float) -> int:
        start, stop = table.region(row, self.options.trim_silence)
        return samples_at_speed(stop - start, speed)


def _table_of(
    corpus: datasets.Dataset | None, targets: UtteranceTable, target_corpus: datasets.Dataset
) -> UtteranceTable:
    return targets if corpus is None or corpus is target_corpus else UtteranceTable(corpus)


def _happens(share: float, rng: np.random.Generator) -> bool:
    """Draws nothing where it always happens, so that plans without shares stay what they were."""
    return share >= 1 or rng.random() < share


def _to_samples(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SAMPLING_RATE)
