"""Speed perturbation: a stretch alone is bit for bit that stretch of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from data_builders.mixtures.speed import read_at_speed, samples_at_speed, speed_ratio


@pytest.mark.parametrize("speed", [0.5, 0.75, 0.9, 0.95, 1.05, 1.1, 1.25, 2.0])
@pytest.mark.parametrize("length", [1601, 8000])
def test_a_stretch_equals_that_stretch_of_the_resampled_whole(speed: float, length: int) -> None:
    samples = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    ratio = speed_ratio(speed)
    whole = scipy.signal.resample_poly(samples, ratio.denominator, ratio.numerator)
    assert len(whole) == samples_at_speed(length, speed)
    reads = []

    def read(first: int, last: int) -> np.ndarray:
        reads.append(last - first)
        return samples[first:last]

    for start, stop in ((0, len(whole)), (0, 200), (313, 700), (len(whole) - 123, len(whole))):
        part = read_at_speed(read, length, start, stop - start, speed)
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, whole[start:stop])
    # No more is read than the stretch is made of.
    assert reads[0] == length
    assert max(reads[1:]) < 900 * speed + 100


def test_the_usual_speed_reads_and_nothing_else() -> None:
    samples = np.arange(100, dtype=np.float32)
    part = read_at_speed(lambda first, last: samples[first:last], 100, 20, 30, 1.0)
    np.testing.assert_array_equal(part, samples[20:50])
