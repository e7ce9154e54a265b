"""Log-mel spectrograms computed in the graph, so that a loss behind them reaches the waveform."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

LOG_FLOOR = 1e-10


class LogMelSpectrogram(nn.Module):
    """
    log10 mel power spectrogram with Slaney's mel scale and norm, one frame a hop, centred.

    Args:
        num_mel_bins: mel bands up to half the sampling rate.
        window_length: Hann window and FFT length in samples.
        hop_length: hop in samples.
        sampling_rate: in Hz.
        pad_mode: what lies beyond the ends: `reflect`, as Whisper has it, or `constant` (silence),
            which padding in a batch cannot be told from.
    """

    mel_filters: Tensor
    window: Tensor

    def __init__(
        self,
        num_mel_bins: int,
        window_length: int,
        hop_length: int,
        sampling_rate: int,
        pad_mode: str,
    ):
        super().__init__()
        self.num_mel_bins = num_mel_bins
        self.window_length = window_length
        self.hop_length = hop_length
        self.sampling_rate = sampling_rate
        self.pad_mode = pad_mode
        # In single precision even where a model is loaded in half.
        filters = torch.empty(window_length // 2 + 1, num_mel_bins, dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        window = torch.empty(window_length, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Compute the buffers, which `from_pretrained` leaves unset as they are not saved."""
        filters: np.ndarray = mel_filter_bank(
            self.window_length // 2 + 1,
            self.num_mel_bins,
            0.0,
            self.sampling_rate / 2,
            self.sampling_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.mel_filters.copy_(torch.from_numpy(filters))
        self.window.copy_(torch.hann_window(self.window_length, dtype=torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LogMelSpectrogram":
        super()._apply(fn, recurse)
        # `model.half()` would round the filters, and half precision has no Fourier transform.
        if self.window.dtype in (torch.float16, torch.bfloat16):
            self.mel_filters, self.window = self.mel_filters.float(), self.window.float()
            self.fill_buffers()
        return self

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames that lie inside a waveform of so many samples."""
        return num_samples // self.hop_length

    def forward(self, waveform: Tensor) -> Tensor:
        """
        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`).

        Returns:
            `torch.Tensor` of shape `(batch_size, num_mel_bins, num_samples // hop_length)`: log10
            of the mel power, in float32 (float64 in a model of float64).
        """
        padding = self.window_length // 2
        # Half precision has neither the range nor the digits for power spectra.
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            waveform = waveform.to(self.window.dtype)
            waveform = F.pad(waveform[:, None], (padding, padding), mode=self.pad_mode)[:, 0]
            spectrum = torch.stft(
                waveform,
                self.window_length,
                self.hop_length,
                window=self.window,
                center=False,
                return_complex=True,
            )
            # real^2 + imag^2, not abs()^2: its gradient is finite where the spectrum is zero.
            power = torch.view_as_real(spectrum[..., :-1]).square().sum(dim=-1)
            mel_power = self.mel_filters.T @ power
            return torch.log10(mel_power.clamp(min=LOG_FLOOR))
