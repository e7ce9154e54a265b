"""Rooms: reflections that arrive when geometry says so, and decay as asked for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.signal

from data_builders.mixtures import rooms as reverberation
from data_builders.mixtures.rooms import (
    SPEED_OF_SOUND,
    draw_room,
    reflections,
    reverberate,
)
from data_builders.mixtures.spec import RoomSpec

ROOM = RoomSpec((7.0, 5.5, 3.2), 0.4, (3.4, 2.6, 1.2), ((2.0, 3.0, 1.5), (4.6, 2.0, 1.4)), "direct")


def decay_seconds(response: np.ndarray) -> float:
    """Reverberation time from the slope of the energy that is left, -5 to -25 dB (ISO 3382)."""
    left = np.cumsum(np.square(response)[::-1])[::-1]
    level = 10 * np.log10(left / left[0])
    first, last = int(np.argmax(level < -5)), int(np.argmax(level < -25))
    return 3 * (last - first) / 16_000


@pytest.mark.parametrize("rt60_seconds", [0.2, 0.4, 0.6])
def test_sound_decays_about_as_fast_as_sabine_says(rt60_seconds: float) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(5):
        room = draw_room(1, (rt60_seconds, rt60_seconds), "direct", rng)
        found.append(decay_seconds(reflections(room, 0)))
    # Shoebox rooms deviate from the formula, which knows no shape.
    assert np.mean(found) == pytest.approx(rt60_seconds, rel=0.35)


def test_reflections_are_the_sum_over_all_mirror_images() -> None:
    """Image by image and in the frequency domain, where a delay is exact."""
    room = replace(ROOM, rt60_seconds=0.2)
    length, width, height = room.dimensions
    surface = 2 * (length * width + width * height + height * length)
    absorption = 24 * np.log(10) / SPEED_OF_SOUND * length * width * height / (surface * 0.2)
    source, microphone = np.asarray(room.sources[1]), np.asarray(room.microphone)
    direct = np.linalg.norm(source - microphone)
    gains, delays = [], []
    for cell in itertools.product(range(-8, 9), range(-10, 11), range(-15, 16)):
        for mirrored in itertools.product((0, 1), repeat=3):
            flipped = source * (1 - 2 * np.asarray(mirrored))
            image = flipped + 2 * np.asarray(cell) * room.dimensions
            bounces = sum(
                abs(number - flip) + abs(number)
                for number, flip in zip(cell, mirrored, strict=True)
            )
            distance = np.linalg.norm(image - microphone)
            if bounces and distance <= direct + SPEED_OF_SOUND * 0.2:
                gains.append((1 - absorption) ** (bounces / 2) * direct / distance)
                delays.append((distance - direct) / SPEED_OF_SOUND)
    frequencies = np.arange(200.0, 4000.0, 100.0)
    phases = np.exp(-2j * np.pi * frequencies[:, None] * np.asarray(delays))
    high_pass = scipy.signal.butter(2, 50, "high", fs=16_000, output="sos")
    _, filtered = scipy.signal.sosfreqz(high_pass, frequencies, fs=16_000)
    expected = phases @ np.asarray(gains) * filtered
    response = reflections(room, 1)
    steps = np.exp(-2j * np.pi * frequencies[:, None] * np.arange(len(response)) / 16_000)
    error = np.abs(steps @ response - expected)
    assert np.sqrt(np.mean(error**2) / np.mean(np.abs(expected) ** 2)) < 0.02


def test_rooms_are_drawn_within_their_walls() -> None:
    rng = np.random.default_rng(0)
    times = []
    for _ in range(200):
        room = draw_room(3, (0.2, 0.5), "reverberant", rng)
        assert room.target == "reverberant"
        assert len(room.sources) == 3
        times.append(room.rt60_seconds)
        for place in (room.microphone, *room.sources):
            for coordinate, length in zip(place, room.dimensions, strict=True):
                assert 0.1 < coordinate < length - 0.1
        for place in room.sources:
            assert 0.6 < np.linalg.norm(np.subtract(place, room.microphone)) < 2.2
    assert 0.2 <= min(times) < 0.22 and 0.48 < max(times) <= 0.5


def test_the_same_numbers_give_the_same_reflections() -> None:
    first = reflections(ROOM, 1)
    again = replace(ROOM)
    reverberation._reflections.cache_clear()
    np.testing.assert_array_equal(reflections(again, 1), first)
    assert not np.array_equal(reflections(ROOM, 0)[:1000], first[:1000])


def test_reverberation_is_linear_and_outlasts_the_voice() -> None:
    rng = np.random.default_rng(0)
    dry = rng.standard_normal(4000).astype(np.float32)
    response = reflections(ROOM, 0)
    heard = reverberate(dry, response, 0, 6000)
    expected = np.convolve(dry, np.concatenate([[1.0], np.zeros(len(response) - 1)]) + response)
    np.testing.assert_allclose(heard, expected[:6000], atol=1e-4)
    assert heard[4000:].any()
    np.testing.assert_array_equal(reverberate(dry, response, 500, 4500), heard[500:4500])
    # Beyond the tail there is silence.
    assert not reverberate(dry, response, 0, 40_000)[4000 + len(response) :].any()
