"""Mixing: eq. (1), at the SNR that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from data_builders.mixtures.mixing import mean_power, mix, snr_gain


def scaled_to(target: np.ndarray, interferer: np.ndarray, snr_db: float) -> np.ndarray:
    gain = snr_gain(mean_power(target), mean_power(interferer), snr_db)
    return interferer * np.float32(gain)


@pytest.fixture
def sources() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = (0.1 * rng.standard_normal(4000)).astype(np.float32)
    interferer = (0.003 * rng.standard_normal(2500)).astype(np.float32)
    return target, interferer


@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 3.5, 20.0])
def test_powers_of_the_whole_utterances_have_the_snr(
    snr_db: float, sources: tuple[np.ndarray, np.ndarray]
) -> None:
    target, interferer = sources
    scaled = scaled_to(target, interferer, snr_db)
    assert scaled.dtype == np.float32
    measured = 10 * np.log10(mean_power(target) / mean_power(scaled))
    assert measured == pytest.approx(snr_db, abs=1e-4)
    # Scaled, nothing else.
    assert np.ptp(scaled / interferer) < 1e-5 * np.abs(scaled / interferer).max()


def test_very_quiet_sources_are_scaled_as_exactly(sources: tuple[np.ndarray, np.ndarray]) -> None:
    target, interferer = sources
    loud = scaled_to(target, interferer, 0.0)
    quiet = scaled_to(target * np.float32(2**-20), interferer, 0.0)
    np.testing.assert_allclose(quiet * 2**20, loud, rtol=1e-5)


@pytest.mark.parametrize("offset", [0, 700, 1500, 3999, 4000, 4500, -300, -2499, -2500])
def test_the_mixture_is_the_sum_and_has_the_length_of_the_target(
    offset: int, sources: tuple[np.ndarray, np.ndarray]
) -> None:
    target, interferer = sources
    placed = np.zeros(10_000, dtype=np.float32)
    placed[3000 + offset : 3000 + offset + len(interferer)] = interferer
    before = target.copy()
    mixture = mix(target, interferer, offset)
    np.testing.assert_array_equal(mixture, target + placed[3000 : 3000 + len(target)])  # eq. (1)
    assert mixture.dtype == np.float32
    np.testing.assert_array_equal(target, before)
    assert mixture is not target


def test_a_silent_source_has_no_snr(sources: tuple[np.ndarray, np.ndarray]) -> None:
    target, interferer = sources
    with pytest.raises(ValueError, match="silent source"):
        scaled_to(target, np.zeros_like(interferer), 0.0)
    with pytest.raises(ValueError, match="silent source"):
        scaled_to(np.zeros_like(target), interferer, 0.0)
    with pytest.raises(ValueError, match="silent source"):
        snr_gain(mean_power(target), mean_power(interferer[:0]), 0.0)
