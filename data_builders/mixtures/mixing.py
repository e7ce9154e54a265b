"""Mixing of a target and an interferer, eq. (1) of the paper, in float32."""

from __future__ import annotations

import numpy as np


def mean_power(samples: np.ndarray) -> float:
    """Mean square of a waveform of shape `(num_samples,)`, accumulated in float64."""
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def snr_gain(target_power: float, interferer_power: float, snr_db: float) -> float:
    """Factor on the amplitude of an interferer that brings it to a signal-to-noise ratio in dB.

    The powers are mean squares of the whole utterances. Raises `ValueError` where one of the two is
    silent, so that no factor gives the ratio.
    """
    if not (target_power > 0.0 and interferer_power > 0.0):
        raise ValueError(
            "a silent source has no SNR: leave silent recordings out of targets and interferers"
        )
    return float(np.sqrt(target_power / interferer_power * 10.0 ** (-snr_db / 10.0)))


def mix(target: np.ndarray, interferer: np.ndarray, offset: int = 0) -> np.ndarray:
    """Adds an interferer to a target; the mixture keeps the length of the target, eq. (1).

    Both are waveforms of shape `(num_samples,)`, the interferer scaled. `offset` is the mixture
    sample at which it begins, negative when its beginning lies before the mixture; what reaches
    beyond the mixture is cut. Returns float32.
    """
    mixture = target.astype(np.float32, copy=True)
    first = max(offset, 0)
    last = min(offset + len(interferer), len(target))
    if first < last:
        mixture[first:last] += interferer[first - offset : last - offset]
    return mixture
