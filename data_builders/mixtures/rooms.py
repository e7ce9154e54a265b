"""Rooms: reflections of shoebox rooms by the image source method (Allen and Berkley, 1979).

A room is drawn for a mixture as a few numbers (`RoomSpec`) and simulated from them whenever the
mixture is rendered, in some milliseconds. Time and level count from a speaker's direct sound: it
arrives at once and unchanged, and the reflections follow it. The "direct" target is therefore the
dry recording, sample for sample, and an SNR is that of the direct sounds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.signal

from data_builders.mixtures.spec import RoomSpec, RoomTarget
from data_builders.schema import SAMPLING_RATE

SPEED_OF_SOUND = 343.0  # metres a second

# Rooms as WHAMR! draws them; lengths in metres. The microphone stands near the middle.
LENGTH_RANGE = (5.0, 10.0)
WIDTH_RANGE = (5.0, 10.0)
HEIGHT_RANGE = (3.0, 4.0)
MICROPHONE_SHIFT_RANGE = (-0.2, 0.2)
SPEAKER_DISTANCE_RANGE = (0.66, 2.0)
HEAD_HEIGHT_RANGE = (0.9, 1.8)

# Arrivals are laid on a grid finer than the samples, then low-pass filtered.
OVERSAMPLING = 8
# All reflections are positive, which piles up below the voice: taken out as Allen and Berkley did.
HIGH_PASS_HZ = 50.0
KEPT_RESPONSES = 64


def draw_room(
    num_sources: int,
    rt60_range_seconds: tuple[float, float],
    target: RoomTarget,
    rng: np.random.Generator,
) -> RoomSpec:
    """Draws a room, with places for the target and the other sources.

    The reverberation time is drawn uniformly from its range; `target` is "direct" or "reverberant",
    what is to be extracted.
    """
    length, width, height = (
        float(rng.uniform(*span)) for span in (LENGTH_RANGE, WIDTH_RANGE, HEIGHT_RANGE)
    )
    rt60_seconds = float(rng.uniform(*rt60_range_seconds))
    shift = rng.uniform(*MICROPHONE_SHIFT_RANGE, size=2)
    microphone = (
        length / 2 + float(shift[0]),
        width / 2 + float(shift[1]),
        float(rng.uniform(*HEAD_HEIGHT_RANGE)),
    )
    sources = []
    for _ in range(num_sources):
        distance = rng.uniform(*SPEAKER_DISTANCE_RANGE)
        angle = rng.uniform(0.0, 2 * np.pi)
        sources.append(
            (
                float(microphone[0] + distance * np.cos(angle)),
                float(microphone[1] + distance * np.sin(angle)),
                float(rng.uniform(*HEAD_HEIGHT_RANGE)),
            )
        )
    return RoomSpec((length, width, height), rt60_seconds, microphone, tuple(sources), target)


def reflections(room: RoomSpec, source: int) -> np.ndarray:
    """Simulates what follows the direct sound of a speaker: 0 for the target, then the interferers.

    Returns a float64 impulse response of shape `(num_samples,)`, from the arrival of the direct
    sound on, which is left out and has the amplitude 1; not to be written to.
    """
    return _reflections(room.dimensions, room.rt60_seconds, room.microphone, room.sources[source])


@lru_cache(KEPT_RESPONSES)
def _reflections(
    dimensions: tuple[float, ...],
    rt60_seconds: float,
    microphone: tuple[float, ...],
    source: tuple[float, ...],
) -> np.ndarray:
    direct = float(np.linalg.norm(np.subtract(source, microphone)))
    reach = direct + SPEED_OF_SOUND * rt60_seconds
    wall = np.sqrt(1.0 - _absorption(dimensions, rt60_seconds))
    axes = zip(dimensions, source, microphone, strict=True)
    (x, x_gain), (y, y_gain), (z, z_gain) = (_images(*axis, reach, wall) for axis in axes)
    across = (x[:, None] ** 2 + y[None, :] ** 2).ravel()
    across_gain = (x_gain[:, None] * y_gain[None, :]).ravel()
    squared = across[:, None] + z[None, :] ** 2
    near = squared <= reach**2
    distance = np.sqrt(squared[near])
    gain = (across_gain[:, None] * z_gain[None, :])[near] * direct / distance
    delay = (distance - direct) * (SAMPLING_RATE * OVERSAMPLING / SPEED_OF_SOUND)
    # The image nearest of all is the direct sound itself.
    gain[np.argmin(distance)] = 0.0
    # Each arrival is shared out between the two nearest points of the fine grid.
    point = delay.astype(np.int64)
    late = delay - point
    num_samples = round(rt60_seconds * SAMPLING_RATE)
    num_points = (num_samples + 1) * OVERSAMPLING + 2
    fine = np.bincount(point, gain * (1.0 - late), num_points)
    fine += np.bincount(point + 1, gain * late, num_points)
    response = scipy.signal.resample_poly(fine, 1, OVERSAMPLING)[:num_samples] * OVERSAMPLING
    high_pass = scipy.signal.butter(2, HIGH_PASS_HZ, "high", fs=SAMPLING_RATE, output="sos")
    response = scipy.signal.sosfilt(high_pass, response)
    response.flags.writeable = False
    return response


def _absorption(dimensions: tuple[float, ...], rt60_seconds: float) -> float:
    """Share of the energy that a wall swallows, by Sabine's formula."""
    length, width, height = dimensions
    volume = length * width * height
    surface = 2 * (length * width + width * height + height * length)
    return 24 * np.log(10) * volume / (SPEED_OF_SOUND * surface * rt60_seconds)


def _images(
    length: float, source: float, microphone: float, reach: float, wall: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror images along one axis: their distances from the microphone, and their gains."""
    last = int(reach // (2 * length)) + 1
    room = np.arange(-last, last + 1)
    places = np.concatenate([2 * room * length + source, 2 * room * length - source])
    bounces = np.concatenate([2 * np.abs(room), np.abs(2 * room - 1)])
    near = np.abs(places - microphone) <= reach
    return places[near] - microphone, wall ** bounces[near]


def reverberate(dry: np.ndarray, response: np.ndarray, first: int, last: int) -> np.ndarray:
    """Adds its reflections to a voice, the direct sound, that is silent before and after.

    `response` is what `reflections` gave. Returns float32 from sample `first` to before `last`,
    which may lie beyond the end of the voice.
    """
    heard = np.zeros(last - first)
    tail = scipy.signal.fftconvolve(dry.astype(np.float64), response)[first:last]
    heard[: len(tail)] = tail
    direct = dry[first:last]
    heard[: len(direct)] += direct
    return heard.astype(np.float32)
