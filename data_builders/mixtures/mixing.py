"""Mixing of a target and an interferer, eq. (1) of the paper, in float32."""

from __future__ import annotations

import numpy as np


def mean_power(samples: np.ndarray) -> float:
    """Mean square of a waveform, accumulated in float64.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): waveform.

    Returns:
        `float`: its power.
    """
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def snr_gain(target_power: float, interferer_power: float, snr_db: float) -> float:
    """Factor that brings an interferer to a signal-to-noise ratio.

    Args:
        target_power (`float`): mean square of the whole target utterance.
        interferer_power (`float`): mean square of the whole interfering utterance.
        snr_db (`float`): wanted ratio of target to interferer in dB.

    Returns:
        `float`: the factor on the interferer's amplitude.

    Raises:
        ValueError: one of the two is silent, so that no factor gives the ratio.
    """
    if not (target_power > 0.0 and interferer_power > 0.0):
        raise ValueError(
            "a silent source has no SNR: leave silent recordings out of targets and interferers"
        )
    return float(np.sqrt(target_power / interferer_power * 10.0 ** (-snr_db / 10.0)))


def mix(target: np.ndarray, interferer: np.ndarray, offset: int = 0) -> np.ndarray:
    """Adds an interferer to a target; the mixture keeps the target's length, eq. (1).

    Args:
        target (`np.ndarray` of shape `(num_samples,)`): target speech.
        interferer (`np.ndarray` of shape `(num_interferer_samples,)`): scaled interfering speech.
        offset (`int`): mixture sample at which the interferer begins; negative when its beginning
            lies before the mixture. What reaches beyond the mixture is cut.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32 mixture.
    """
    mixture = target.astype(np.float32, copy=True)
    first = max(offset, 0)
    last = min(offset + len(interferer), len(target))
    if first < last:
        mixture[first:last] += interferer[first - offset : last - offset]
    return mixture
