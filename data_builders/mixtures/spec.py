"""Specs: plain records that say, to the sample, what a mixture is made of.

A spec and the corpora it names are all that rendering needs, so that a test set can be published as
a table of specs and rendered again years later. Sample counts are at 16 kHz and as heard: after the
change of speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RoomTarget = Literal["direct", "reverberant"]


@dataclass(frozen=True)
class InterfererSpec:
    """One interferer of a mixture.

    Attributes:
        utterance_id (`str`): its utterance.
        snr_db (`float`, *optional*): power of target to interferer in dB, whole utterances; None
            where `gain` is given.
        gain (`float`, *optional*): factor on the interferer's amplitude, under the loudness law.
        offset (`int`): mixture sample at which the utterance begins; negative when its beginning is
            cut.
        speed (`float`): tempo and pitch factor, 1.0 is unchanged.
    """

    utterance_id: str
    snr_db: float | None
    gain: float | None
    offset: int
    speed: float


@dataclass(frozen=True)
class NoiseSpec:
    """The background noise of a mixture.

    Attributes:
        path (`str`): recording, relative to the noise folder, with forward slashes.
        start (`int`): sample of the recording that the mixture begins with; where the recording
            ends, it is continued with its own beginning.
        snr_db (`float`): power of target (its whole utterance) to noise (as heard) in dB.
    """

    path: str
    start: int
    snr_db: float


@dataclass(frozen=True)
class RoomSpec:
    """A shoebox room around microphone and speakers; lengths and coordinates in metres.

    Attributes:
        dimensions (`tuple[float, ...]`): length, width and height.
        rt60_seconds (`float`): time in which the sound decays by 60 dB.
        microphone (`tuple[float, ...]`): its place.
        sources (`tuple[tuple[float, ...], ...]`): places of the target and of each interferer.
        target (`str`): "direct" or "reverberant", what the target of the extraction is.
    """

    dimensions: tuple[float, ...]
    rt60_seconds: float
    microphone: tuple[float, ...]
    sources: tuple[tuple[float, ...], ...]
    target: RoomTarget


@dataclass(frozen=True)
class MixtureSpec:
    """One mixture.

    Attributes:
        target_id (`str`): utterance id of the target.
        interferers (`tuple[InterfererSpec, ...]`): the other speakers; empty for clean speech.
        enrollment_id (`str`): utterance id of the enrollment.
        target_start (`int`): sample of the target's utterance that the mixture begins with; below 0
            where the target is silent at first.
        num_samples (`int`): length of mixture and target, with the target's pauses.
        target_gain (`float`): factor on the target's amplitude, 1.0 except under the loudness law.
        enrollment_start (`int`): first sample of the enrollment's utterance.
        enrollment_num_samples (`int`): length of the enrollment.
        target_speed (`float`): tempo and pitch factor on target and enrollment, 1.0 is unchanged.
        trim_silence (`bool`): utterances count from their first to their last active time.
        target_absent (`bool`): the target is silent; its utterance gives length and level only.
        noise (`NoiseSpec`, *optional*): background noise.
        room (`RoomSpec`, *optional*): the room in which everybody speaks.
        epoch (`int`): epoch it was drawn for.
        index (`int`): index of the target among the planner's targets.
        lowpass_hz (`float`, *optional*): cut-off of the low-pass that target, interferers, noise
            and enrollment are heard through; None, as in older plans, without.
    """

    target_id: str
    interferers: tuple[InterfererSpec, ...]
    enrollment_id: str
    target_start: int
    num_samples: int
    target_gain: float
    enrollment_start: int
    enrollment_num_samples: int
    target_speed: float
    trim_silence: bool
    target_absent: bool
    noise: NoiseSpec | None
    room: RoomSpec | None
    epoch: int
    index: int
    lowpass_hz: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values (numbers, strings, sequences, dictionaries) by field name."""
        # Several times as fast as `dataclasses.asdict`, which every example would wait for.
        return {
            **vars(self),
            "interferers": [dict(vars(one)) for one in self.interferers],
            "noise": None if self.noise is None else dict(vars(self.noise)),
            "room": None if self.room is None else dict(vars(self.room)),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MixtureSpec:
        """Restores a record from what `to_dict` gave."""
        noise, room = values["noise"], values["room"]
        return cls(
            **{
                **values,
                "interferers": tuple(InterfererSpec(**one) for one in values["interferers"]),
                "noise": None if noise is None else NoiseSpec(**noise),
                "room": None if room is None else RoomSpec(**_with_tuples(room)),
            }
        )


def _with_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record whose tuples, of tuples too, have become lists."""

    def restored(value: Any) -> Any:
        return tuple(map(restored, value)) if isinstance(value, list | tuple) else value

    return {name: restored(value) for name, value in record.items()}
