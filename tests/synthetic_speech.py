"""Signals that are like speech in what a detector looks for: voiced syllables and pauses."""

from __future__ import annotations

import io

import numpy as np
import pytest

RATE = 16000


def speech(
    seed: int, seconds: float = 1.5, rate: int = RATE, pitch_hz: float | None = None
) -> np.ndarray:
    """Harmonics of a gliding pitch in syllables of a fifth of a second, float32, peak about 0.3."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    pitch = (pitch_hz or rng.uniform(100, 220)) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * times))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = rng.uniform(0.3, 1.0, size=20) / np.arange(1, 21) ** 0.5
    voiced = sum(weight * np.sin(k * phase) for k, weight in enumerate(formants, 1))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * times + rng.uniform(0, 0.5)), 0, None) ** 0.7
    waveform = voiced * syllables + 1e-4 * rng.standard_normal(len(times))
    return (0.3 * waveform / np.abs(waveform).max()).astype(np.float32)


def silence(seconds: float, rate: int = RATE, level: float = 1e-5, seed: int = 0) -> np.ndarray:
    """The noise of a quiet room."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (level * noise).astype(np.float32)


def by_av(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    """A file as phones and browsers write it; samples `(num_samples, num_channels)`."""
    av = pytest.importorskip("av")
    file = io.BytesIO()
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        fifo.write(frame)
        while part := fifo.read(960, partial=True):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()
