"""A low-pass that all sources of a mixture share: what is heard, at which level, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from mixture_bytes import recorded, tiny_mixtures

from data_builders.mixtures.lowpass import HALF_LENGTH, lowpass
from data_builders.mixtures.mixing import mean_power, mix, snr_gain
from data_builders.mixtures.noise import NoiseFolder

CUTOFF_HZ = 5500.0
SETTINGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "cropped": {"segment_seconds": 0.5, "enrollment_seconds": 0.3, "trim_silence": True},
    "perturbed": {"segment_seconds": 0.5, "speed_factors": (0.9, 1.1), "num_speakers": 3},
    "loud": {"snr_distribution": "loudness"},
    "rooms": {"reverberation": "reverberant"},
}


def share_above(samples: np.ndarray, frequency_hz: float) -> float:
    """Share of the energy above a frequency."""
    energy = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    return float(
        energy[np.fft.rfftfreq(len(samples), 1 / 16_000) > frequency_hz].sum() / energy.sum()
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_is_heard_above_the_cutoff_and_the_same_is_drawn(name: str, corpora: Path) -> None:
    noise = {"noise_dir": corpora / "noise"}
    usual = tiny_mixtures(corpora, **SETTINGS[name], **noise)
    low = tiny_mixtures(corpora, **SETTINGS[name], **noise, lowpass_hz=CUTOFF_HZ)
    for index in range(0, len(low), 9):
        before, after = usual[index], low[index]
        for signal in ("mixture", "target", "enrollment"):
            assert share_above(before[signal], CUTOFF_HZ + 400) > 0.1
            assert share_above(after[signal], CUTOFF_HZ + 400) < 1e-6
        assert after["spec"]["lowpass_hz"] == CUTOFF_HZ
        same = {**after["spec"], "lowpass_hz": None}
        if name != "loud":  # whose gains follow from what is heard
            assert same == before["spec"]


def test_a_crop_is_the_crop_of_the_whole_filtered_utterance(corpora: Path) -> None:
    whole = tiny_mixtures(corpora, interferers=None, lowpass_hz=CUTOFF_HZ)
    crops = tiny_mixtures(corpora, interferers=None, lowpass_hz=CUTOFF_HZ, segment_seconds=0.3)
    dry = tiny_mixtures(corpora, interferers=None)
    for index in range(0, len(whole), 7):
        spec = crops.plan(index)
        stretch = slice(spec.target_start, spec.target_start + spec.num_samples)
        filtered = whole[index]["target"]
        np.testing.assert_allclose(crops[index]["target"], filtered[stretch], atol=1e-7)
        np.testing.assert_array_equal(filtered, lowpass(dry[index]["target"], CUTOFF_HZ))


def test_ratios_are_those_of_what_is_heard(corpora: Path) -> None:
    noise_dir = corpora / "noise"
    mixtures = tiny_mixtures(
        corpora,
        snr_range_db=(3.0, 3.0),
        noise_dir=noise_dir,
        noise_snr_range_db=(6.0, 6.0),
        lowpass_hz=1000.0,
    )
    folder = NoiseFolder(noise_dir, corpora / "cache")
    for index in range(0, len(mixtures), 11):
        example, spec = mixtures[index], mixtures.plan(index)
        (one,) = spec.interferers
        assert spec.noise is not None
        heard = lowpass(recorded(mixtures, one.utterance_id), 1000.0)
        gain = snr_gain(mean_power(example["target"]), mean_power(heard), 3.0)
        expected = mix(example["target"], heard * np.float32(gain), one.offset)
        whole_noise, _ = soundfile.read(folder.file_of(spec.noise.path), dtype="float32")
        noise_power = mean_power(lowpass(whole_noise, 1000.0))
        noise_gain = snr_gain(mean_power(example["target"]), noise_power, 6.0)
        noise = folder.read(spec.noise.path, spec.noise.start, spec.num_samples, 1000.0)
        np.testing.assert_allclose(
            example["mixture"], expected + noise * np.float32(noise_gain), atol=1e-6
        )


def test_the_filter_delays_nothing_and_leaves_what_is_below() -> None:
    times = np.arange(16_000) / 16_000
    inner = slice(2 * HALF_LENGTH, -2 * HALF_LENGTH)
    for frequency_hz, kept in ((300, 1.0), (5000, 1.0), (6000, 0.0)):
        tone = np.sin(2 * np.pi * frequency_hz * times).astype(np.float32)
        np.testing.assert_allclose(lowpass(tone, CUTOFF_HZ)[inner], kept * tone[inner], atol=2e-4)
    assert lowpass(tone, None) is tone
