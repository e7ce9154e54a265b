"""Training mixtures in which every voice comes through a channel of its own: more voices of few."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from data_builders import MixtureDataset
from data_builders.mixtures.dataset import Planner
from data_builders.mixtures.spec import MixtureSpec
from data_builders.schema import SAMPLING_RATE

# Where the equalizer has its faders; between them it is linear in the logarithm of the frequency.
FADERS_HZ = (60, 150, 300, 600, 1200, 2400, 4800, 8000)
# Between a telephone and what most recordings have.
CUTOFF_RANGE_HZ = (3400.0, 7000.0)
LOWPASS_ORDER = 12


class VoiceChannels(MixtureDataset):
    """Mixtures whose target and interference are equalized, each otherwise, at their drawn SNR.

    A voice through another channel is another voice to the network: it learns from few people
    what holds for many. Some mixtures go through one low-pass, so that voices are not told apart
    by what only one recording has above it. The enrollment stays as it is.

    Args:
        planner (`MixturePlanner`): draws the plans; without rooms, in which parts of the target
            belong to the interference.
        train (`bool`): see `MixtureDataset`.
        equalizer_db (`float`): standard deviation of the faders of both equalizers.
        random_lowpass_share (`float`): share of the mixtures with a low-pass.
    """

    def __init__(
        self, planner: Planner, train: bool, equalizer_db: float, random_lowpass_share: float
    ) -> None:
        super().__init__(planner, train)
        self.equalizer_db = equalizer_db
        self.random_lowpass_share = random_lowpass_share

    def render(self, spec: MixtureSpec) -> dict[str, Any]:
        """See `MixtureDataset.render`; one plan has one pair of channels."""
        example = super().render(spec)
        rng = np.random.default_rng(zlib.crc32(repr(spec).encode()))
        is_lowpassed = rng.random() < self.random_lowpass_share
        cutoff_hz = rng.uniform(*CUTOFF_RANGE_HZ) if is_lowpassed else None
        target, interference = (
            through_channel(voice, rng.normal(0.0, self.equalizer_db, len(FADERS_HZ)), cutoff_hz)
            for voice in (example["target"], example["mixture"] - example["target"])
        )
        return {**example, "target": target, "mixture": target + interference}


def through_channel(
    waveform: np.ndarray, faders_db: np.ndarray, cutoff_hz: float | None = None
) -> np.ndarray:
    """Equalizes a waveform without delay and leaves its power as it was.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): float32, at 16 kHz.
        faders_db (`np.ndarray` of shape `(8,)`): gains at `FADERS_HZ`.
        cutoff_hz (`float`, *optional*): of a low-pass; none if not given.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: float32.
    """
    # Half as long again: what a filter without delay spreads must not come around the ends.
    size = len(waveform) * 3 // 2
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLING_RATE)
    octaves = np.log2(np.maximum(frequencies, FADERS_HZ[0]))
    gains = 10 ** (np.interp(octaves, np.log2(FADERS_HZ), faders_db) / 20)
    if cutoff_hz is not None:
        gains /= np.sqrt(1 + (frequencies / cutoff_hz) ** (2 * LOWPASS_ORDER))
    filtered = np.fft.irfft(np.fft.rfft(waveform, size) * gains, size)[: len(waveform)]
    energies = [np.sum(np.square(each, dtype=np.float64)) for each in (waveform, filtered)]
    filtered *= np.sqrt(energies[0] / energies[1]) if energies[1] > 0 else 0.0
    return filtered.astype(np.float32)
