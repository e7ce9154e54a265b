"""Rendering: from the record of a mixture to its waveforms.

What is rendered depends on the record and the recordings alone. Of a recording, the part that is
heard is decoded; the first time, all of it, as levels are those of whole utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from data_builders.audio import read_audio
from data_builders.corpora.utterance_table import LevelMeasure, UtteranceTable
from data_builders.mixtures.lowpass import lowpass, read_lowpassed
from data_builders.mixtures.mixing import mean_power, mix, snr_gain
from data_builders.mixtures.noise import NoiseFolder
from data_builders.mixtures.rooms import reflections, reverberate
from data_builders.mixtures.spec import InterfererSpec, MixtureSpec, NoiseSpec
from data_builders.mixtures.speed import read_at_speed, samples_at_speed
from data_builders.schema import GENDERS, IGNORED_LABEL, SAMPLING_RATE, CorpusError

MIN_SEEK_SAMPLES = 16_000


class Planner(Protocol):
    """What draws mixtures, or reads those of a plan, and has the recordings that they name.

    There are no interferers in clean speech, and there may be no noise. `target_samples` gives the
    lengths of the mixtures, of shape `(num_mixtures,)`, in samples.
    """

    @property
    def targets(self) -> UtteranceTable: ...
    @property
    def enrollments(self) -> UtteranceTable: ...
    @property
    def interferers(self) -> UtteranceTable | None: ...
    @property
    def noise(self) -> NoiseFolder | None: ...
    def label_of(self, emotion: str) -> int: ...
    def __len__(self) -> int: ...
    def target_samples(self) -> np.ndarray: ...
    def plan(self, epoch: int, index: int) -> MixtureSpec: ...


class Voice:
    """An utterance as it is heard in a mixture: at a speed, trimmed or not, and through a low-pass.

    Raises `CorpusError` where there is no such utterance in the table.
    """

    def __init__(
        self,
        table: UtteranceTable,
        utterance_id: str,
        speed: float,
        trim_silence: bool,
        lowpass_hz: float | None = None,
    ) -> None:
        row = table.row_of_id.get(utterance_id)
        if row is None:
            raise CorpusError(f"{utterance_id} is not among the utterances of this dataset")
        self.row = row
        self.table = table
        self.path = table.paths[row]
        self._region = table.region(row, trim_silence)
        self._speed = speed
        self._trim_silence = trim_silence
        self._lowpass_hz = lowpass_hz
        # The whole utterance, where it had to be decoded for its level.
        self._whole: np.ndarray | None = None

    @property
    def num_samples(self) -> int:
        """Length as heard."""
        return samples_at_speed(self._region[1] - self._region[0], self._speed)

    def power(self) -> float:
        """Mean square of the whole utterance, at its own speed.

        Raises `CorpusError` where it is silent.
        """
        power = self.level("power", mean_power)
        if power == 0.0:
            raise CorpusError(
                f"{self.path} is silent, so that no SNR can be reached: leave it out of the corpus"
            )
        return power

    def level(self, measure: LevelMeasure, compute: Callable[[np.ndarray], float]) -> float:
        """A level of the whole utterance, at its own speed, which is measured once.

        `compute` measures it of a waveform; see `UtteranceTable.levels` for what it may be.
        """
        levels = self.table.levels(measure, self._trim_silence, self._lowpass_hz)
        if levels[self.row] == 0.0:
            levels[self.row] = compute(lowpass(self._decode_whole(), self._lowpass_hz))
        return float(levels[self.row])

    def read(self, start: int, num_samples: int) -> np.ndarray:
        """Reads a stretch, in samples as heard: float32 of shape `(num_samples,)`."""
        total = self._region[1] - self._region[0]

        def read(first: int, length: int) -> np.ndarray:
            return read_at_speed(self._read_part, total, first, length, self._speed)

        return read_lowpassed(read, self.num_samples, start, num_samples, self._lowpass_hz)

    def read_in_room(
        self, response: np.ndarray, start: int, num_samples: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads a stretch, and adds what the room makes of it and of what was said before.

        The stretch may go beyond the end of the utterance. Returns the direct sound, float32 of at
        most `num_samples`, and the reverberant sound, float32 of shape `(num_samples,)`.
        """
        before = min(start, len(response) - 1)
        stop = min(start + num_samples, self.num_samples)
        dry = self.read(start - before, stop - (start - before))
        return dry[before:], reverberate(dry, response, before, before + num_samples)

    def _decode_whole(self) -> np.ndarray:
        if self._whole is None:
            self._whole = _read_stretch(self.path, *self._region)
        return self._whole

    def _read_part(self, first: int, last: int) -> np.ndarray:
        if self._whole is not None:
            return self._whole[first:last]
        return _read_stretch(self.path, self._region[0] + first, self._region[0] + last)


class SpecRenderer:
    """Renders records of mixtures, of the recordings that a planner has."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def voices(self, spec: MixtureSpec) -> tuple[Voice, list[Voice]]:
        """The voices of target and interferers.

        Raises `CorpusError` where there are no such utterances.
        """
        planner, settings = self._planner, (spec.trim_silence, spec.lowpass_hz)
        if spec.interferers and planner.interferers is None:
            raise CorpusError(f"the mixture of {spec.target_id} has interferers, this dataset none")
        target = Voice(planner.targets, spec.target_id, spec.target_speed, *settings)
        return target, [
            Voice(planner.interferers, one.utterance_id, one.speed, *settings)
            for one in spec.interferers
            if planner.interferers is not None
        ]

    def render(self, spec: MixtureSpec) -> dict[str, Any]:
        """Renders a mixture, see `MixtureDataset.render`."""
        target, others = self.voices(spec)
        table, row = target.table, target.row
        reference, mixture = self.mix(spec, target, others)
        enrollment = Voice(
            self._planner.enrollments,
            spec.enrollment_id,
            spec.target_speed,
            spec.trim_silence,
            spec.lowpass_hz,
        )
        absent = spec.target_absent
        corpora = {one.utterance_id.partition("/")[0] for one in spec.interferers}
        return {
            "mixture": mixture,
            "enrollment": enrollment.read(spec.enrollment_start, spec.enrollment_num_samples),
            "target": np.zeros_like(reference) if absent else reference,
            "sampling_rate": SAMPLING_RATE,
            "label": IGNORED_LABEL if absent else self._planner.label_of(table.emotions[row]),
            "utterance_id": spec.target_id,
            "speaker_id": table.speaker_ids[row],
            "interferer_id": "+".join(one.utterance_id for one in spec.interferers),
            "interferer_corpus": "+".join(sorted(corpora)),
            "gender_state": gender_state(
                table.genders[row], [voice.table.genders[voice.row] for voice in others]
            ),
            "snr_db": _total_snr_db(spec, target, others),
            "noise_snr_db": float("nan") if spec.noise is None else spec.noise.snr_db,
            "target_absent": absent,
            "spec": spec.to_dict(),
        }

    def mix(
        self, spec: MixtureSpec, target: Voice, others: Sequence[Voice]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adds up target, interferers and noise, eq. (1).

        Returns what is to be extracted, were the target present, and the mixture; both float32 of
        shape `(num_samples,)`. Raises `CorpusError` where a recording is missing, silent or cannot
        be read any more.
        """
        # Levels come first: who has to decode a whole utterance for them keeps it for reading.
        gains = [
            _gain(one, target, voice) for one, voice in zip(spec.interferers, others, strict=True)
        ]
        reference, heard = _read_target(spec, target)
        mixture = np.zeros_like(heard) if spec.target_absent else heard
        for source, (one, voice, gain) in enumerate(
            zip(spec.interferers, others, gains, strict=True), start=1
        ):
            samples, offset = _read_interferer(spec, source, one, voice)
            mixture = mix(mixture, samples * np.float32(gain), offset)
        if spec.noise is not None:
            mixture = mixture + self._read_noise(spec, spec.noise, target)
        return reference, mixture.copy() if mixture is reference else mixture

    def _read_noise(self, spec: MixtureSpec, one: NoiseSpec, target: Voice) -> np.ndarray:
        noise = self._planner.noise
        if noise is None:
            raise CorpusError(f"the mixture of {spec.target_id} has noise: give its noise_dir")
        power = target.power() * spec.target_gain**2
        gain = snr_gain(power, noise.power(one.path, spec.lowpass_hz), one.snr_db)
        samples = noise.read(one.path, one.start, spec.num_samples, spec.lowpass_hz)
        return samples * np.float32(gain)


def _read_stretch(path: str, first: int, last: int) -> np.ndarray:
    """To seek in a FLAC file takes longer than to decode a second of it."""
    if first <= MIN_SEEK_SAMPLES:
        return read_audio(path, 0, last)[first:]
    return read_audio(path, first, last)


def _gain(one: InterfererSpec, target: Voice, voice: Voice) -> float:
    if one.gain is not None:
        return one.gain
    if one.snr_db is None:
        raise ValueError(f"{one.utterance_id}: an interferer needs snr_db or gain")
    return snr_gain(target.power(), voice.power(), one.snr_db)


def _read_target(spec: MixtureSpec, target: Voice) -> tuple[np.ndarray, np.ndarray]:
    """What is to be extracted, and what is heard of the target."""
    pause, start = max(-spec.target_start, 0), max(spec.target_start, 0)
    length = spec.num_samples - pause

    def placed(samples: np.ndarray) -> np.ndarray:
        after = length - len(samples)
        padded = np.pad(samples, (pause, after)) if pause or after else samples
        return _scaled(padded, spec.target_gain)

    if spec.room is None:
        heard = placed(target.read(start, min(length, target.num_samples - start)))
        return heard, heard
    direct, reverberant = map(placed, target.read_in_room(reflections(spec.room, 0), start, length))
    return (reverberant if spec.room.target == "reverberant" else direct), reverberant


def _scaled(samples: np.ndarray, gain: float) -> np.ndarray:
    return samples if gain == 1.0 else samples * np.float32(gain)


def _read_interferer(
    spec: MixtureSpec, source: int, one: InterfererSpec, voice: Voice
) -> tuple[np.ndarray, int]:
    """The part of an interferer that lies within the mixture, and where it begins there."""
    first = max(-one.offset, 0)
    last = spec.num_samples - one.offset
    if spec.room is None:
        last = min(last, voice.num_samples)
        return voice.read(first, last - first), one.offset + first
    _, reverberant = voice.read_in_room(reflections(spec.room, source), first, last - first)
    return reverberant, one.offset + first


def _total_snr_db(spec: MixtureSpec, target: Voice, others: Sequence[Voice]) -> float:
    """Power of the target over the sum of the interferers' powers, NaN without one of them."""
    if spec.target_absent or not others:
        return float("nan")
    if len(others) == 1 and spec.interferers[0].snr_db is not None:
        return spec.interferers[0].snr_db
    power = sum(
        voice.power() * _gain(one, target, voice) ** 2
        for one, voice in zip(spec.interferers, others, strict=True)
    )
    return float(10 * np.log10(target.power() * spec.target_gain**2 / power))


def gender_state(target_gender: str, interferer_genders: Sequence[str]) -> str:
    """How the genders of interferers relate to that of the target: "same", "different" or "mixed".

    It is "" without interferers or where a gender is unknown.
    """
    if not interferer_genders or not {target_gender, *interferer_genders} <= {*GENDERS}:
        return ""
    same = {gender == target_gender for gender in interferer_genders}
    if len(same) == 2:
        return "mixed"
    return "same" if same == {True} else "different"
