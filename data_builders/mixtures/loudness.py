"""Integrated loudness of a mono recording (ITU-R BS.1770-4), by pyloudnorm.

LibriMix's metadata draws its levels in this unit, and was made with this library.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyloudnorm

BLOCK_SECONDS = 0.4


def integrated_loudness(samples: np.ndarray, sampling_rate: int) -> float:
    """Measures the gated loudness of a recording.

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
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_meter(sampling_rate).integrated_loudness(samples))


@lru_cache
def _meter(sampling_rate: int) -> pyloudnorm.Meter:
    return pyloudnorm.Meter(sampling_rate, block_size=BLOCK_SECONDS)
