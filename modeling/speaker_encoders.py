"""
Speaker encoders: one embedding for an utterance of any length. CAM++ has a file of its own.

The published ones are loaded and never trained; the statistics have no parameters.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank

from .log_mel import LogMelSpectrogram

# Of GE2E and of the statistics.
NUM_MEL_BINS = 40
FFT_SAMPLES = 400
HOP_SAMPLES = 160
# Of GE2E.
WINDOW_FRAMES = 160
WINDOW_HOP_FRAMES = 77  # 1.3 windows a second, as the published encoder cuts an utterance
TARGET_DBFS = -30.0
MIN_WINDOW_COVERAGE = 0.75
# Of the statistics.
DYNAMIC_RANGE = 4.0  # log10 units of power below an utterance's peak: 40 dB
VARIANCE_FLOOR = 1e-12  # the root of zero has no finite gradient
STATISTICS_DIM = 2 * NUM_MEL_BINS


class FrozenSpeakerEncoder(nn.Module):
    """
    A speaker encoder that stays frozen and in evaluation mode, over mel spectra at 16 kHz.

    A subclass computes `mel_filters` and `window` in `fill_buffers`, and embeds waveforms with
    `forward(waveform, lengths)`.
    """

    title: str
    embedding_dim: int
    mel_filters: Tensor
    window: Tensor

    def __init__(self, num_fft_bins: int, num_mel_bins: int, window_samples: int) -> None:
        super().__init__()
        # In single precision even where a model is loaded in half.
        filters = torch.empty(num_fft_bins, num_mel_bins, dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        window = torch.empty(window_samples, dtype=torch.float32)
        self.register_buffer("window", window, persistent=False)
        self.fill_buffers()

    def fill_buffers(self) -> None:
        """Compute the buffers, which `from_pretrained` leaves unset as they are not saved."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # `model.half()` would round the filters, and half precision has no Fourier transform.
        if self.window.dtype in (torch.float16, torch.bfloat16):
            self.mel_filters, self.window = self.mel_filters.float(), self.window.float()
            self.fill_buffers()
        return self

    def load_pretrained(self, weights_dir: str | Path) -> None:
        """
        Fill the encoder with published weights.

        Args:
            weights_dir: folder that holds `model.safetensors` under the public names.

        Raises:
            ValueError: there is no such file, or it holds another model.
        """
        path = Path(weights_dir) / "model.safetensors"
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist: name the folder of the {self.title} encoder's weights."
            )
        try:
            self.load_state_dict(load_file(path))
        except (RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{path} does not hold a {self.title} speaker encoder: {error}"
            ) from error

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, frozen."""
        # Again here, as `from_pretrained` makes all parameters trainable before it calls `eval`.
        self.requires_grad_(False)
        return super().train(False)


class Ge2eSpeakerEncoder(FrozenSpeakerEncoder):
    """
    GE2E (Wan et al. 2018): three LSTM layers over 40-band mel power spectrograms at 16 kHz, in
    windows of 1.6 s that overlap by about half.

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


class LogMelStatisticsEncoder(nn.Module):
    """
    Mean and standard deviation over time of a 40-band log-mel spectrogram at 16 kHz.

    It tells clean, unlike voices apart from the first training step on, where a learned auxiliary
    network needs hours to begin. Level does not matter: the mean over bands is taken out.
    """

    embedding_dim = STATISTICS_DIM

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMelSpectrogram(
            NUM_MEL_BINS, FFT_SAMPLES, HOP_SAMPLES, 16000, pad_mode="constant"
        )

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): speech at 16 kHz, zero
                after its end.
            lengths (`torch.Tensor` of shape `(batch_size,)`): valid samples of each row.

        Returns:
            `torch.Tensor` of shape `(batch_size, 80)`, of unit length.

        Raises:
            ValueError: a row is shorter than a hop, and so has no frame.
        """
        # A compiled graph cannot branch on values.
        if not torch.compiler.is_compiling() and int(lengths.min()) < HOP_SAMPLES:
            raise ValueError(
                f"`enrollment_values` must hold at least {HOP_SAMPLES} valid samples a row for "
                f"`speaker_encoder='log_mel_statistics'`, got {int(lengths.min())}: pass a longer "
                "recording."
            )
        # Single precision throughout, whatever the model around it computes in.
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            return self._statistics(self.log_mel(waveform), lengths).to(waveform.dtype)

    def _statistics(self, spectrum: Tensor, lengths: Tensor) -> Tensor:
        frames = torch.arange(spectrum.shape[-1], device=spectrum.device)
        mask = (frames < self.log_mel.num_frames(lengths)[:, None])[:, None]
        peak = spectrum.masked_fill(~mask, -torch.inf).amax(dim=(1, 2), keepdim=True)
        spectrum = torch.maximum(spectrum, peak - DYNAMIC_RANGE) * mask
        count = mask.sum(dim=-1).clamp(min=1)
        mean = spectrum.sum(dim=-1) / count
        variance = ((spectrum - mean[..., None]) * mask).square().sum(dim=-1) / count
        centered = mean - mean.mean(dim=-1, keepdim=True)
        deviation = variance.clamp(min=VARIANCE_FLOOR).sqrt()
        return F.normalize(torch.cat([centered, deviation], dim=-1), dim=-1)
