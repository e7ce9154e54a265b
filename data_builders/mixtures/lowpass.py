"""One low-pass for all sources of a mixture, so that none is told by its bandwidth.

Recordings that were converted or telephoned end at 4 or 5.5 kHz. Mixed with others that reach
8 kHz, whatever lies above that limit belongs to the others, and a model learns just that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy.signal

from data_builders.option_reader import OptionError
from data_builders.schema import SAMPLING_RATE

# Linear phase, so that nothing is delayed: half the filter before a sample, half of it after. The
# edge is 310 Hz wide around the cut-off; beyond it the filter is 80 dB down.
HALF_LENGTH = 128
KAISER_BETA = 8.0


@lru_cache
def lowpass_filter(lowpass_hz: float) -> np.ndarray:
    """The filter: float64 taps of shape `(2 * HALF_LENGTH + 1,)`, not to be written to.

    The amplitude is halved at the cut-off. Raises `OptionError` where that is not between 0 and
    8000 Hz.
    """
    if not 0 < lowpass_hz < SAMPLING_RATE / 2:
        raise OptionError(
            f"lowpass_hz: expected a frequency between 0 and {SAMPLING_RATE // 2} Hz, or none, got "
            f"{lowpass_hz}"
        )
    taps = scipy.signal.firwin(
        2 * HALF_LENGTH + 1, lowpass_hz, window=("kaiser", KAISER_BETA), fs=SAMPLING_RATE
    )
    taps.flags.writeable = False
    return taps


def lowpass(samples: np.ndarray, lowpass_hz: float | None) -> np.ndarray:
    """Filters a whole recording at 16 kHz, of shape `(num_samples,)`, silent before and after.

    Without a cut-off the waveform is left as it is.
    """
    if lowpass_hz is None or not len(samples):
        return samples
    filtered = scipy.signal.oaconvolve(samples.astype(np.float64), lowpass_filter(lowpass_hz))
    return filtered[HALF_LENGTH : HALF_LENGTH + len(samples)].astype(np.float32)


def read_lowpassed(
    read: Callable[[int, int], np.ndarray],
    total: int,
    start: int,
    num_samples: int,
    lowpass_hz: float | None,
) -> np.ndarray:
    """Reads a stretch of a recording of `total` samples that is filtered as a whole.

    `read` gives a stretch by its first sample and length. Returns float32 of shape
    `(num_samples,)`.
    """
    if lowpass_hz is None:
        return read(start, num_samples)
    first = max(start - HALF_LENGTH, 0)
    last = min(start + num_samples + HALF_LENGTH, total)
    return lowpass(read(first, last - first), lowpass_hz)[start - first :][:num_samples]
