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


@lru_cache
def _meter() -> pyloudnorm.Meter:
    return pyloudnorm.Meter(SAMPLING_RATE, block_size=BLOCK_SECONDS)


def loudness_lufs(samples: np.ndarray) -> float:
    """Gated loudness of a waveform at 16 kHz, of shape `(num_samples,)` and full scale 1.0.

    It is `-inf` where no block of 0.4 s is louder than -70 LUFS. What is shorter than a block is
    padded with silence.
    """
    missing = round(BLOCK_SECONDS * SAMPLING_RATE) - len(samples)
    padded = np.pad(samples.astype(np.float64), (0, max(missing, 0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(_meter().integrated_loudness(padded))


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
    measured_lufs = voice.level("loudness", loudness_lufs)
    if not np.isfinite(measured_lufs):
        raise CorpusError(
            f"{voice.path} is too quiet for a loudness: leave it out, or draw the SNR otherwise"
        )
    gain = 10 ** ((float(wanted_lufs) - measured_lufs) / 20)
    peak = voice.level("peak", _measure_peak)
    return MAX_AMPLITUDE / peak if peak * gain >= 1.0 else gain


def _measure_peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max())
