"""Filters that start as a Fourier transform: what they give back, and what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from modeling import TdSpeakerBeamConfig, TdSpeakerBeamForSpeechExtraction
from modeling.frame_layers import fourier_filters, fourier_synthesis

FIELDS: dict[str, Any] = {
    "initial_filters": "fourier",
    "encoder_activation": "relu",
    "num_filters": 64,
    "kernel_size": 32,
    "stride": 16,
}


@pytest.mark.parametrize(("kernel_size", "stride"), [(32, 16), (64, 16), (8, 1)])
def test_a_mask_of_ones_gives_the_signal_back(kernel_size: int, stride: int) -> None:
    signal = torch.randn(1, 1, 40 * kernel_size, dtype=torch.float64)
    spectrum = F.conv1d(signal, fourier_filters(kernel_size)[:, None], stride=stride).relu()
    synthesis = fourier_synthesis(kernel_size, stride)[:, None]
    restored = F.conv_transpose1d(spectrum, synthesis, stride=stride)
    inside = slice(kernel_size, -kernel_size)  # the windows do not add up at the ends
    assert torch.allclose(restored[..., inside], signal[..., inside], atol=1e-12)


def test_half_of_the_filters_are_the_spectrum_of_the_windowed_signal() -> None:
    signal = torch.randn(32, dtype=torch.float64)
    window = torch.sin(torch.pi / 32 * (torch.arange(32, dtype=torch.float64) + 0.5))
    expected = torch.fft.rfft(signal * window).abs().square() / 32
    coefficients = fourier_filters(32)[:32] @ signal
    cosines, sines = coefficients[:17], F.pad(coefficients[17:], (1, 1))
    power = cosines.square() + sines.square()
    # The basis functions have unit length: twice the power of the two-sided transform.
    power[1:-1] /= 2
    assert torch.allclose(power, expected)


def test_an_extractor_starts_with_them_and_loads_what_it_learned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**FIELDS))
    assert torch.equal(model.encoder.weight[:, 0], fourier_filters(32).float())
    assert torch.equal(model.decoder.weight[:, 0], fourier_synthesis(32, 16).float())
    with torch.no_grad():
        model.encoder.weight.mul_(2)
    model.save_pretrained(tmp_path)
    loaded = TdSpeakerBeamForSpeechExtraction.from_pretrained(tmp_path)
    assert torch.equal(loaded.encoder.weight, model.encoder.weight)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder_activation": None}, "`encoder_activation` must be 'relu'"),
        ({"num_filters": 32}, "`num_filters` must be 64"),
        ({"stride": 10}, "`kernel_size` must be a multiple of twice the `stride`"),
        ({"initial_filters": "wavelet"}, "`initial_filters`"),
    ],
)
def test_what_they_need_is_said(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TdSpeakerBeamConfig(**(FIELDS | wrong))
