"""LibriMix's levels: every voice gets a loudness of its own, and nothing clips.

Loudness is that of ITU-R BS.1770-4 by pyloudnorm, with which LibriMix's metadata were made.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyloudnorm

from data_builders.mixtures.rendering import SpecRenderer, Voice
from data_builders.mixtures.spec import MixtureSpec
from data_builders.schema import SAMPLING_RATE, CorpusError

BLOCK_SECONDS = 0.4
LOUDNESS_RANGE_LUFS = (-33.0, -25.0)
MAX_AMPLITUDE = 0.9


def integrated_loudness(samples: np.ndarray, sampling_rate: int) -> float:
    """Gated loudness, in LUFS, of a waveform of shape `(num_samples,)`, full scale 1.0.

    It is `-inf` where no block of 0.4 s is louder than -70 LUFS. Raises `ValueError` where the
    recording has several channels, or is shorter than one block.
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


def padded_loudness(samples: np.ndarray) -> float:
    """Loudness of a recording at 16 kHz, however short, see `integrated_loudness`.

    What is shorter than a block is padded with silence.
    """
    missing = round(BLOCK_SECONDS * SAMPLING_RATE) - len(samples)
    return integrated_loudness(np.pad(samples, (0, max(missing, 0))), SAMPLING_RATE)


def draw_gains(spec: MixtureSpec, renderer: SpecRenderer, rng: np.random.Generator) -> MixtureSpec:
    """Draws the loudness of target and interferers (LibriMix, Cosentino et al., 2020).

    A voice whose peak would reach 1 is scaled to 0.9, and so is everybody where their sum exceeds
    it. The recordings have to be decoded for that. Noise and room come after the law.

    Args:
        spec (`MixtureSpec`): the mixture, without gains.
        renderer (`SpecRenderer`): gives the voices.
        rng (`np.random.Generator`): source of randomness.

    Returns:
        `MixtureSpec`: the mixture with the gains of target and interferers.

    Raises:
        CorpusError: an utterance cannot be read, or is too quiet for the measurement.
    """
    target, others = renderer.voices(spec)
    gains = [
        _gain(voice, loudness)
        for voice, loudness in zip(
            (target, *others), rng.uniform(*LOUDNESS_RANGE_LUFS, 1 + len(others)), strict=True
        )
    ]
    dry = replace(_with_gains(spec, gains), noise=None, room=None)
    _, mixture = renderer.mix(dry, target, others)
    peak = float(np.abs(mixture).max())
    if peak > MAX_AMPLITUDE:
        gains = [gain * MAX_AMPLITUDE / peak for gain in gains]
    return _with_gains(spec, gains)


def _with_gains(spec: MixtureSpec, gains: list[float]) -> MixtureSpec:
    interferers = tuple(
        replace(one, snr_db=None, gain=gain)
        for one, gain in zip(spec.interferers, gains[1:], strict=True)
    )
    return replace(spec, target_gain=gains[0], interferers=interferers)


def _gain(voice: Voice, wanted_lufs: float) -> float:
    measured_lufs = voice.level("loudness", padded_loudness)
    if not np.isfinite(measured_lufs):
        raise CorpusError(
            f"{voice.path} is too quiet for a loudness: leave it out, or draw the SNR otherwise"
        )
    gain = 10 ** ((float(wanted_lufs) - measured_lufs) / 20)
    peak = voice.level("peak", _measure_peak)
    return MAX_AMPLITUDE / peak if peak * gain >= 1.0 else gain


def _measure_peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max())
