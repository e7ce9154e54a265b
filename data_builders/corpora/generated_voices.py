"""The speakers of the generated corpus, and how each of them sounds in an emotion.

A voice is a pitch, a vocal tract and an accent; an emotion changes rate, pitch, pitch range,
contour and tension relative to the voice. Both end as lines of an espeak-ng voice file.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_builders.corpora.espeak import SpeechRequest
from data_builders.corpora.generated_sentences import SESSION_SENTENCES
from data_builders.schema import GENDERS

NUM_POOL_VOICES = 28

# espeak-ng's file of an accent -> its language tag.
_ACCENTS = {
    "gmw/en-US": "en-US",
    "gmw/en": "en-GB",
    "gmw/en-GB-scotland": "en-GB-scotland",
    "gmw/en-GB-x-rp": "en-GB",
    "gmw/en-US-nyc": "en-US",
}
_PITCH_HZ = {"female": (170.0, 230.0), "male": (84.0, 132.0)}
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
_VOCAL_TRACT = {"female": (1.08, 1.26), "male": (0.90, 1.06)}


@dataclasses.dataclass(frozen=True)
class Voice:
    """A speaker: what stays the same in all of the speaker's utterances."""

    speaker_id: str  # unique over all corpora
    gender: str
    session: str  # "1" to "5", "" for a voice of the pool
    accent: str  # espeak-ng's file of the pronunciation
    language: str  # language tag of the accent
    pitch_hz: float  # lowest pitch of a neutral utterance
    formant_scales: tuple[float, ...]  # factors on the frequencies of formants 1 to 5
    formant_gains: tuple[float, ...]  # factors on the strengths of formants 1 to 5
    brightness: float  # spectral tilt, from about -1 (dull) to 1 (bright)
    words_per_minute: float  # rate of a neutral utterance


@dataclasses.dataclass(frozen=True)
class Prosody:
    """How an utterance is spoken, relative to its voice."""

    rate: float  # factor on the words per minute
    pitch: float  # factor on the pitch
    pitch_range: float  # highest over lowest pitch, minus 1
    brightness: float  # added to the voice's
    roughness: float  # 0 (none) to 7 (creaky)
    breath: float  # strength of the breath noise, from 0


_PROSODY = {
    "neutral": Prosody(1.00, 1.00, 0.40, 0.00, 0.5, 2.0),
    "happy": Prosody(1.06, 1.26, 1.10, 0.25, 0.5, 1.5),
    "sad": Prosody(0.86, 0.93, 0.16, -0.50, 0.5, 6.5),
    "angry": Prosody(1.10, 1.06, 0.60, 0.50, 5.5, 1.0),
}
# Standard deviations of an utterance around its emotion: the emotions overlap, as they should.
_SPREAD = Prosody(0.05, 0.05, 0.09, 0.10, 0.8, 1.2)
# espeak-ng's contours of a sentence: falling (s), continuing (c), rising (q), emphatic (e).
_TUNES = {
    "neutral": ("s1", "s2", "c2"),
    "happy": ("q2", "q1", "e1"),
    "sad": ("s2", "c2", "s1"),
    "angry": ("e1", "s1", "s2"),
}


def emotional_voices() -> list[Voice]:
    """The ten speakers of `generated`: one female and one male voice a session, in their order."""
    return [
        _make_voice(f"generated_s{session}_{gender[0]}", gender, session, index)
        for index, session in enumerate(SESSION_SENTENCES)
        for gender in GENDERS
    ]


def pool_voices() -> list[Voice]:
    """The speakers of `generated_pool`, female and male in turn, none of them in `generated`."""
    voices = []
    for number in range(NUM_POOL_VOICES):
        index = len(SESSION_SENTENCES) + number // len(GENDERS)
        gender = GENDERS[number % len(GENDERS)]
        voices.append(_make_voice(f"generated_pool_{number + 1:02d}", gender, "", index))
    return voices


def speech_request(
    voice: Voice, emotion: str, text: str, rng: np.random.Generator
) -> SpeechRequest:
    """Draws how a voice says a sentence in an emotion, around the prosody of that emotion."""
    prosody = _draw_prosody(emotion, rng)
    tune = str(rng.choice(_TUNES[emotion]))
    return SpeechRequest(
        text=text,
        accent=voice.accent,
        voice_lines=_voice_lines(voice, prosody, tune),
        words_per_minute=round(voice.words_per_minute * prosody.rate),
    )


def _make_voice(speaker_id: str, gender: str, session: str, index: int) -> Voice:
    # An additive recurrence: the voices of a gender lie evenly apart in the unit cube.
    position = (0.5 + index * np.sqrt(_PRIMES)) % 1.0
    pitch, tract, first, second, bright, rate, *gains = position.tolist()
    low_hz, high_hz = _PITCH_HZ[gender]
    smallest, largest = _VOCAL_TRACT[gender]
    scale = smallest + (largest - smallest) * tract
    # The first two formants also move on their own: voices differ in more than tract length.
    scales = (scale * (0.93 + 0.14 * first), scale * (0.93 + 0.14 * second), scale, scale, scale)
    accent, language = list(_ACCENTS.items())[index % len(_ACCENTS)]
    return Voice(
        speaker_id=speaker_id,
        gender=gender,
        session=session,
        accent=accent,
        language=language,
        pitch_hz=low_hz * (high_hz / low_hz) ** pitch,
        formant_scales=scales,
        formant_gains=(1.0, *(0.6 + 0.8 * gain for gain in gains)),
        brightness=0.3 * (bright - 0.5),
        words_per_minute=165.0 + 30.0 * rate,
    )


def _draw_prosody(emotion: str, rng: np.random.Generator) -> Prosody:
    means = dataclasses.astuple(_PROSODY[emotion])
    # Cut at two deviations: nothing comes out that a voice could not do.
    noise = np.clip(rng.standard_normal(len(means)), -2.0, 2.0)
    return Prosody(*(np.array(means) + noise * dataclasses.astuple(_SPREAD)).tolist())


def _voice_lines(voice: Voice, prosody: Prosody, tune: str) -> tuple[str, ...]:
    lowest_hz = voice.pitch_hz * prosody.pitch
    highest_hz = lowest_hz * (1.0 + max(prosody.pitch_range, 0.05))
    brightness = voice.brightness + prosody.brightness
    # Gains (0 to 255) at 1200 and 2000 Hz, around espeak-ng's own 135 and 110.
    middle, high = round(135 * 1.5**brightness), round(110 * 2.2**brightness)
    roughness = min(max(round(prosody.roughness), 0), 7)
    breath = max(round(prosody.breath), 0)
    return (
        f"pitch {round(lowest_hz)} {round(highest_hz)}",
        *(
            f"formant {number} {round(100 * scale)} {round(100 * gain)} 100"
            for number, (scale, gain) in enumerate(
                zip(voice.formant_scales, voice.formant_gains, strict=True), start=1
            )
        ),
        f"tone 600 170 1200 {min(middle, 255)} 2000 {min(high, 255)}",
        f"roughness {roughness}",
        f"breath {breath} {breath} {breath} {breath}",
        f"tunes {tune} {tune} {tune} {tune}",
    )
