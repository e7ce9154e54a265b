"""Speed perturbation: an utterance that is played faster or slower, tempo and pitch together."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
import scipy.signal

MAX_SPEED_DENOMINATOR = 20
# Low-pass of the resampler: a sinc of ten zero crossings to each side under a Kaiser window.
FILTER_ZERO_CROSSINGS = 10
FILTER_KAISER_BETA = 5.0


@lru_cache
def speed_ratio(speed: float) -> Fraction:
    """A speed factor as the nearest ratio of integers with a denominator of at most 20."""
    return Fraction(speed).limit_denominator(MAX_SPEED_DENOMINATOR)


def samples_at_speed(num_samples: int, speed: float) -> int:
    """Length of an utterance at another speed, as `scipy.signal.resample_poly` gives it."""
    if speed == 1.0:
        return num_samples
    ratio = speed_ratio(speed)
    return -(-num_samples * ratio.denominator // ratio.numerator)


def read_at_speed(
    read: Callable[[int, int], np.ndarray], total: int, start: int, num_samples: int, speed: float
) -> np.ndarray:
    """Reads a stretch, float32 of shape `(num_samples,)`, of an utterance at another speed.

    Start and length are in samples at the new speed, `total` is the length at speed 1; `read` gives
    the samples at speed 1 from its first number to before its second. Only what the stretch is made
    of is read and resampled; it is the same, bit for bit, as that stretch of the whole utterance
    after `scipy.signal.resample_poly`.
    """
    if speed == 1.0:
        return read(start, start + num_samples)
    up, down = speed_ratio(speed).denominator, speed_ratio(speed).numerator
    half = FILTER_ZERO_CROSSINGS * max(up, down)
    # A sample at the new speed needs the old ones within `half`, counted at `up` times the rate.
    # Those begin at a multiple of `down`, where the filter's phases begin anew.
    first = max(start * down - half, 0) // (up * down) * down
    last = min(-(-((start + num_samples) * down + half) // up), total)
    resampled = scipy.signal.resample_poly(
        read(first, last), up, down, window=_low_pass(max(up, down))
    )
    skipped = start - first * up // down
    return resampled[skipped : skipped + num_samples]


@lru_cache
def _low_pass(max_rate: int) -> np.ndarray:
    """The filter that `resample_poly` would design for float32 at each call."""
    taps = scipy.signal.firwin(
        2 * FILTER_ZERO_CROSSINGS * max_rate + 1,
        1 / max_rate,
        window=("kaiser", FILTER_KAISER_BETA),
    )
    return taps.astype(np.float32)
