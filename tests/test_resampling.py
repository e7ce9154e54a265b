"""Our resampling is torchaudio's, without torchaudio."""

from __future__ import annotations

import pytest
import torch
import torchaudio

from modeling.resampling import resample

RATES = [(48_000, 16_000), (44_100, 16_000), (8_000, 16_000), (22_050, 16_000), (16_000, 44_100)]


@pytest.mark.parametrize(("source", "target"), RATES)
@pytest.mark.parametrize("length", [1, 1_000, 44_101])
def test_it_gives_what_torchaudio_gives(source: int, target: int, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(length, generator=generator, dtype=torch.float64)
    expected = torchaudio.functional.resample(waveform, source, target)
    torch.testing.assert_close(resample(waveform, source, target), expected, rtol=0, atol=1e-9)
    single = resample(waveform.float(), source, target)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=5e-6)


def test_a_tone_keeps_its_frequency_and_its_level() -> None:
    seconds = torch.arange(48_000, dtype=torch.float64) / 48_000
    tone = torch.sin(2 * torch.pi * 440 * seconds)
    expected = torch.sin(2 * torch.pi * 440 * torch.arange(16_000, dtype=torch.float64) / 16_000)
    actual = resample(tone, 48_000, 16_000)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual[50:-50], expected[50:-50], rtol=0, atol=2e-3)


def test_what_the_new_rate_cannot_hold_is_removed() -> None:
    seconds = torch.arange(48_000) / 48_000
    tone = torch.sin(2 * torch.pi * 11_000 * seconds)
    assert resample(tone, 48_000, 16_000)[50:-50].abs().max() < 0.01
