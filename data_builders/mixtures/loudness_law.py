"""LibriMix's levels: every voice gets a loudness of its own, and nothing clips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data_builders.mixtures.loudness import BLOCK_SECONDS, integrated_loudness
from data_builders.mixtures.rendering import SpecRenderer, Voice
from data_builders.mixtures.spec import MixtureSpec
from data_builders.schema import SAMPLING_RATE, CorpusError

LOUDNESS_RANGE_LUFS = (-33.0, -25.0)
MAX_AMPLITUDE = 0.9


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
    target, others = renderer.target_voice(spec), renderer.interfering_voices(spec)
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
    measured_lufs = voice.level("loudness", _measure_loudness)
    if not np.isfinite(measured_lufs):
        raise CorpusError(
            f"{voice.path} is too quiet for a loudness: leave it out, or draw the SNR otherwise"
        )
    gain = 10 ** ((float(wanted_lufs) - measured_lufs) / 20)
    peak = voice.level("peak", _measure_peak)
    return MAX_AMPLITUDE / peak if peak * gain >= 1.0 else gain


def _measure_loudness(samples: np.ndarray) -> float:
    missing = round(BLOCK_SECONDS * SAMPLING_RATE) - len(samples)
    return integrated_loudness(np.pad(samples, (0, max(missing, 0))), SAMPLING_RATE)


def _measure_peak(samples: np.ndarray) -> float:
    return float(np.abs(samples).max())
