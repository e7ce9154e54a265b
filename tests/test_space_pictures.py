"""The pictures of the Space: spectrograms, their colours and axes, and the table of results."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from space_modules import RATE, pictures


def tone(frequency_hz: float, seconds: float = 1.0, level: float = 0.5) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * frequency_hz * time)).astype(np.float32)


def test_a_tone_stands_at_its_frequency() -> None:
    levels = pictures.spectrogram(tone(1000), RATE)

    assert levels.dtype == np.uint8
    middle = levels[:, levels.shape[1] // 2]
    # Rows go from 8 kHz down to 0.
    assert 8000 * (1 - middle.argmax() / (len(middle) - 1)) == pytest.approx(1000, abs=20)
    assert middle.max() == 255
    assert middle[: len(middle) // 2].max() == 0, "nothing above 4 kHz"


def test_colours_are_decibels() -> None:
    quieter_by_20_db = np.concatenate([tone(1000), tone(1000, level=0.05)])
    levels = pictures.spectrogram(quieter_by_20_db, RATE).max(axis=0)

    loud, quiet = levels[len(levels) // 4], levels[3 * len(levels) // 4]
    assert loud == 255
    assert quiet == pytest.approx(255 * (1 - 20 / pictures.RANGE_DB), abs=2)


def test_time_runs_from_left_to_right_and_long_recordings_stay_small() -> None:
    late = np.concatenate([np.zeros(RATE, np.float32), tone(1000)])
    brightest = pictures.spectrogram(late, RATE).max(axis=0)
    assert brightest[: len(brightest) // 2 - 4].max() == 0
    assert brightest[len(brightest) // 2 + 4 : -4].min() > 200

    half_a_minute = pictures.spectrogram(tone(1000, seconds=30.0), RATE)
    assert half_a_minute.shape[1] <= pictures.MAX_COLUMNS + 1


def test_silence_is_dark() -> None:
    assert pictures.spectrogram(np.zeros(RATE, np.float32), RATE).max() == 0


def test_the_png_holds_the_colours() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (21, 34)).astype(np.uint8)

    read = np.asarray(Image.open(io.BytesIO(pictures.indexed_png(levels))).convert("RGB"))

    np.testing.assert_array_equal(read, pictures.colour_map()[levels])


def test_equal_steps_of_level_look_equal() -> None:
    linear = pictures.colour_map() / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    # Lightness of CIE 1976, a scale other than the one that the colours are made on.
    lightness = np.where(luminance <= 0.008856, 903.3 * luminance, 116 * np.cbrt(luminance) - 16)
    steps = np.diff(lightness[::15])

    assert lightness[0] < 10 and lightness[-1] > 90
    assert steps.min() > 0.6 * steps.mean() and steps.max() < 1.6 * steps.mean()


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [
        (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (1.9, [0, 0.5, 1, 1.5]),
        (6.0, [0, 1, 2, 3, 4, 5, 6]),
        (30.0, [0, 5, 10, 15, 20, 25, 30]),
        (100.0, [0, 20, 40, 60, 80, 100]),
        (600.0, [0, 120, 240, 360, 480, 600]),
    ],
)
def test_times_are_round_and_few(seconds: float, ticks: list[float]) -> None:
    assert pictures.time_ticks(seconds) == ticks


def test_the_axes_name_their_units() -> None:
    figure = pictures.spectrogram_figure(tone(1000, seconds=2.0), RATE, "The <whole> recording")

    assert "<b>seconds</b>" in figure and "<b>kHz</b>" in figure
    upwards = re.findall(r'bottom:(\d+)%">([\d.]+)<', figure)
    assert upwards == [("0", "0"), ("25", "2"), ("50", "4"), ("75", "6"), ("100", "8")]
    assert re.findall(r'left:([\d.]+)%">([\d.]+)<', figure)[2] == ("50.00", "1")
    assert 'alt="The &lt;whole&gt; recording: 2.0 seconds, 0 to 8 kHz. Bright is loud."' in figure


def test_both_probabilities_of_an_emotion_stand_side_by_side() -> None:
    table = pictures.probability_table({"sad": 0.25, "<b>": 0.75}, {"sad": 0.904, "<b>": 0.096})

    rows = re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", table)
    assert [re.sub(r"<[^>]*>", " ", row).split() for row in rows] == [
        ["Sad", "25", "%", "90", "%"],
        ["&lt;b&gt;", "75", "%", "10", "%"],
    ]
    assert [re.findall(r'<td class="([^"]*)">', row) for row in rows] == [
        ["separated", "unseparated likeliest"],
        ["separated likeliest", "unseparated"],
    ]
    assert re.findall(r"width:(\d+)%", table) == ["25", "90", "75", "10"]
