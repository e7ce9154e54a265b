"""Integrated loudness of a mono recording, as ITU-R BS.1770 defines it.

LibriMix's metadata draws its levels in this unit. The two filters of the K-weighting are designed
for the sampling rate at hand (the recommendation prints them for 48 kHz only) from the parameters
that pyloudnorm uses by default, the library LibriMix was made with: its numbers are met to
rounding.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.signal

BLOCK_SECONDS = 0.4
# Blocks overlap by 75 %.
BLOCK_STEP_SECONDS = 0.1
ABSOLUTE_GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
# Constant of the recommendation: a full-scale 997 Hz sine reads -3.01 LUFS.
LOUDNESS_OFFSET_DB = -0.691

SHELF_GAIN_DB = 4.0
SHELF_FREQUENCY_HZ = 1500.0
SHELF_QUALITY = 1 / np.sqrt(2)
HIGH_PASS_FREQUENCY_HZ = 38.0
HIGH_PASS_QUALITY = 0.5


def integrated_loudness(samples: np.ndarray, sampling_rate: int) -> float:
    """Measures the gated loudness of a recording (ITU-R BS.1770-4, eq. (2) to (7)).

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): waveform, full scale 1.0.
        sampling_rate (`int`): rate in Hz.

    Returns:
        `float`: loudness in LUFS; `-inf` where no block of 0.4 s is louder than -70 LUFS.

    Raises:
        ValueError: the recording has several channels, or is shorter than one block.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 1:
        raise ValueError(
            f"samples: expected one channel, shape (num_samples,), got shape {samples.shape}"
        )
    if len(samples) < BLOCK_SECONDS * sampling_rate:
        raise ValueError(
            f"samples: loudness needs at least {BLOCK_SECONDS} s, got "
            f"{len(samples) / sampling_rate:.3f} s; pad the recording with zeros"
        )
    weighted = scipy.signal.sosfilt(_k_weighting(sampling_rate), samples)
    power = _block_powers(weighted, sampling_rate)
    audible = power[_to_lufs(power) >= ABSOLUTE_GATE_LUFS]
    if not len(audible):
        return -np.inf
    relative_gate = _to_lufs(audible.mean()) + RELATIVE_GATE_LU
    gated = audible[_to_lufs(audible) > relative_gate]
    return float(_to_lufs(gated.mean()))


def _block_powers(weighted: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Mean square of each block; a last step that is at least half full counts."""
    duration = len(weighted) / sampling_rate
    num_blocks = round((duration - BLOCK_SECONDS) / BLOCK_STEP_SECONDS) + 1
    times = np.arange(num_blocks) * BLOCK_STEP_SECONDS
    starts = np.rint(times * sampling_rate).astype(np.int64)
    stops = np.rint((times + BLOCK_SECONDS) * sampling_rate).astype(np.int64)
    energy = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    covered = energy[np.minimum(stops, len(weighted))] - energy[starts]
    return covered / (BLOCK_SECONDS * sampling_rate)


def _to_lufs(power: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return LOUDNESS_OFFSET_DB + 10 * np.log10(power)


@lru_cache
def _k_weighting(sampling_rate: int) -> np.ndarray:
    """High shelf (the head) and high pass (RLB), as second-order sections of bilinear biquads."""
    amplitude = 10 ** (SHELF_GAIN_DB / 40)
    angle = 2 * np.pi * SHELF_FREQUENCY_HZ / sampling_rate
    cosine, alpha = np.cos(angle), np.sin(angle) / (2 * SHELF_QUALITY)
    root = 2 * np.sqrt(amplitude) * alpha
    up, down = amplitude + 1, amplitude - 1
    shelf = [
        amplitude * (up + down * cosine + root),
        -2 * amplitude * (down + up * cosine),
        amplitude * (up + down * cosine - root),
        up - down * cosine + root,
        2 * (down - up * cosine),
        up - down * cosine - root,
    ]
    angle = 2 * np.pi * HIGH_PASS_FREQUENCY_HZ / sampling_rate
    cosine, alpha = np.cos(angle), np.sin(angle) / (2 * HIGH_PASS_QUALITY)
    edge = (1 + cosine) / 2
    high_pass = [edge, -2 * edge, edge, 1 + alpha, -2 * cosine, 1 - alpha]
    sections = np.array([shelf, high_pass])
    return sections / sections[:, 3:4]
