"""Results as HTML: probabilities side by side, and spectrograms with their axes."""

from __future__ import annotations

import base64
import io
import math
from functools import cache
from html import escape

import numpy as np
import torch
from PIL import Image

WINDOW_SECONDS = 0.032
HOP_SECONDS = 0.008
MAX_COLUMNS = 800
RANGE_DB = 70.0
MAX_TIME_STEPS = 6


def probability_table(separated: dict[str, float], unseparated: dict[str, float]) -> str:
    """HTML: a table of bars, an emotion a row, in the separated voice and in the whole
    recording."""
    rows = "".join(
        f'<tr><th scope="row">{escape(emotion.capitalize())}</th>'
        f"{_bar(separated[emotion], 'separated', separated)}"
        f"{_bar(unseparated[emotion], 'unseparated', unseparated)}</tr>"
        for emotion in separated
    )
    return (
        '<table class="probabilities"><caption>How likely each emotion is</caption><thead><tr>'
        '<td></td><th scope="col">This voice alone</th><th scope="col">Whole recording</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def spectrogram_figure(waveform: np.ndarray, sampling_rate: int, title: str) -> str:
    """HTML without other files: the spectrogram of a waveform of `(num_samples,)`, with seconds
    below and kHz beside it, as wide as the page lets it be."""
    seconds, top_khz = len(waveform) / sampling_rate, sampling_rate / 2000
    picture = base64.b64encode(indexed_png(spectrogram(waveform, sampling_rate))).decode("ascii")
    across = "".join(
        f'<span style="left:{100 * tick / seconds:.2f}%">{tick:g}</span>'
        for tick in time_ticks(seconds)
    )
    # Quarters: 0, 2, 4, 6, 8 kHz at the usual rate of 16 kHz.
    upwards = "".join(
        f'<span style="bottom:{25 * quarter}%">{top_khz * quarter / 4:g}</span>'
        for quarter in range(5)
    )
    about = f"{title}: {seconds:.1f} seconds, 0 to {top_khz:g} kHz. Bright is loud."
    return (
        f'<figure class="spectrogram">'
        f'<div class="axis upwards" aria-hidden="true">{upwards}<b>kHz</b></div>'
        f'<img alt="{escape(about)}" src="data:image/png;base64,{picture}">'
        f'<div class="axis across" aria-hidden="true">{across}<b>seconds</b></div></figure>'
    )


def spectrogram(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """
    Level over time and frequency, on the scale of the colours.

    Args:
        waveform: `(num_samples,)`.
        sampling_rate: in Hz.

    Returns:
        `np.ndarray` of uint8 and shape `(frequencies, times)`: 255 at the loudest point, 0 at
        70 dB below it; the highest frequency comes first.
    """
    window = round(WINDOW_SECONDS * sampling_rate)
    hop = max(round(HOP_SECONDS * sampling_rate), math.ceil(len(waveform) / MAX_COLUMNS))
    values = torch.stft(
        torch.as_tensor(waveform, dtype=torch.float32),
        n_fft=window,
        hop_length=hop,
        window=torch.hann_window(window),
        pad_mode="constant",
        return_complex=True,
    )
    power = values.abs().square()
    level_db = 10 * torch.log10((power / power.max().clamp(min=1e-12)).clamp(min=1e-12))
    levels = ((1 + level_db / RANGE_DB).clamp(min=0) * 255).round().to(torch.uint8)
    return levels.flip(0).numpy()


def time_ticks(seconds: float) -> list[float]:
    """Round times from 0 to the end, not too many to be read on a phone."""
    steps = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
    step = next((step for step in steps if seconds / step <= MAX_TIME_STEPS), steps[-1])
    return [round(index * step, 1) for index in range(int(seconds / step + 1e-9) + 1)]


def indexed_png(levels: np.ndarray) -> bytes:
    """A PNG file of uint8 levels of `(height, width)`, in the colours of `colour_map`."""
    picture = Image.fromarray(levels)
    picture.putpalette(colour_map().tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@cache
def colour_map() -> np.ndarray:
    """
    Night blue to pale yellow in steps that look equal.

    Lightness grows linearly in OKLab, a space made for that: equal differences of level look equal,
    in grey and to colour-blind eyes too.

    Returns:
        `np.ndarray` of uint8 and shape `(256, 3)`: red, green and blue.
    """
    position = np.linspace(0, 1, 256)
    lightness = 0.17 + 0.79 * position
    hue = np.radians(290 - 185 * position)
    chroma = 0.05 + 0.08 * np.sin(np.pi * position)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])
    to_cones = np.array([[1, 0.39634, 0.21580], [1, -0.10556, -0.06385], [1, -0.08948, -1.29149]])
    to_rgb = np.array(
        [
            [4.07674, -3.30771, 0.23097],
            [-1.26844, 2.60976, -0.34132],
            [-0.00420, -0.70342, 1.70761],
        ]
    )
    linear = (to_rgb @ (to_cones @ lab) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.00313, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.ascontiguousarray((255 * encoded).round().astype(np.uint8).T)


def _bar(probability: float, side: str, probabilities: dict[str, float]) -> str:
    percent = round(100 * probability)
    likeliest = " likeliest" if probability == max(probabilities.values()) else ""
    return (
        f'<td class="{side}{likeliest}"><span class="bar"><i style="width:{percent}%"></i></span>'
        f'<span class="percent">{percent} %</span></td>'
    )
