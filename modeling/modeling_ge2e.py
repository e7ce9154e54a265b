"""A GE2E speaker encoder (Wan et al. 2018): one embedding for an utterance of any length."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from .frozen_speaker_encoder import FrozenSpeakerEncoder

WINDOW_FRAMES = 160
WINDOW_HOP_FRAMES = 77  # 1.3 windows a second, as the published encoder cuts an utterance
HOP_SAMPLES = 160
FFT_SAMPLES = 400
NUM_MEL_BINS = 40
TARGET_DBFS = -30.0
MIN_WINDOW_COVERAGE = 0.75


class Ge2eSpeakerEncoder(FrozenSpeakerEncoder):
    """
    Three LSTM layers over 40-band mel power spectrograms at 16 kHz, in windows of 1.6 s that
    overlap by about half.

    The parameters are frozen; the names are those of the public checkpoint.
    """

    title = "GE2E"
    embedding_dim = 256

    def __init__(self) -> None:
        super().__init__(FFT_SAMPLES // 2 + 1, NUM_MEL_BINS, FFT_SAMPLES)
        self.lstm = nn.LSTM(NUM_MEL_BINS, self.embedding_dim, num_layers=3, batch_first=True)
        self.linear = nn.Linear(self.embedding_dim, self.embedding_dim)
        self.train(False)

    def fill_buffers(self) -> None:
        filters = mel_filter_bank(
            FFT_SAMPLES // 2 + 1,
            NUM_MEL_BINS,
            0.0,
            8000.0,
            16000,
            norm="slaney",
            mel_scale="slaney",
        )
        self.mel_filters.copy_(torch.from_numpy(filters))
        self.window.copy_(torch.hann_window(FFT_SAMPLES, dtype=torch.float32))

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): speech at 16 kHz, zero
                after its end.
            lengths (`torch.Tensor` of shape `(batch_size,)`): valid samples of each row.

        Returns:
            `torch.Tensor` of shape `(batch_size, 256)`, of unit length.
        """
        # Power spectra over seconds of speech need single precision.
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            embeddings = self._embed(waveform.to(self.window.dtype), lengths)
        return embeddings.to(waveform.dtype)

    def _embed(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        power = waveform.square().sum(dim=-1) / lengths
        gain = 10 ** (TARGET_DBFS / 20) * torch.rsqrt(power.clamp(min=1e-12))
        windows, owners = self._windows(waveform * gain[:, None], lengths)
        _, (hidden, _) = self.lstm(windows.to(self.linear.weight.dtype))
        embeddings = F.normalize(F.relu(self.linear(hidden[-1])).to(waveform.dtype), dim=-1)
        sums = embeddings.new_zeros(waveform.shape[0], self.embedding_dim)
        return F.normalize(sums.index_add(0, owners, embeddings), dim=-1)

    def _windows(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Cut each row's mel frames into windows; return them with the row each belongs to."""
        counts = [_num_windows(int(length)) for length in lengths]
        frames_needed = (max(counts) - 1) * WINDOW_HOP_FRAMES + WINDOW_FRAMES
        missing = frames_needed * HOP_SAMPLES - waveform.shape[-1]
        mel = self._mel_spectrogram(F.pad(waveform, (0, max(missing, 0))))
        all_windows = mel.unfold(1, WINDOW_FRAMES, WINDOW_HOP_FRAMES).transpose(2, 3)
        windows = [all_windows[row, :count] for row, count in enumerate(counts)]
        owners = torch.repeat_interleave(
            torch.arange(len(counts), device=waveform.device),
            torch.tensor(counts, device=waveform.device),
        )
        return torch.cat(windows), owners

    def _mel_spectrogram(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(
            waveform,
            FFT_SAMPLES,
            HOP_SAMPLES,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return spectrum.abs().square().transpose(1, 2) @ self.mel_filters


def _num_windows(num_samples: int) -> int:
    """Windows of an utterance, but a last one that it covers by less than three quarters."""
    num_frames = -(-(num_samples + 1) // HOP_SAMPLES)
    starts = range(0, max(num_frames - WINDOW_FRAMES + WINDOW_HOP_FRAMES + 1, 1), WINDOW_HOP_FRAMES)
    coverage = (num_samples - starts[-1] * HOP_SAMPLES) / (WINDOW_FRAMES * HOP_SAMPLES)
    if coverage < MIN_WINDOW_COVERAGE and len(starts) > 1:
        return len(starts) - 1
    return len(starts)
