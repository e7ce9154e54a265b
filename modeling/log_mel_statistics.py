"""A speaker embedding without parameters: how a voice's log-mel spectrum lies and moves."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .log_mel import LogMelSpectrogram

NUM_MEL_BINS = 40
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
DYNAMIC_RANGE = 4.0  # log10 units of power below an utterance's peak: 40 dB
STATISTICS_DIM = 2 * NUM_MEL_BINS


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
            NUM_MEL_BINS, WINDOW_SAMPLES, HOP_SAMPLES, 16000, pad_mode="constant"
        )

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): speech at 16 kHz, zero
                after its end.
            lengths (`torch.Tensor` of shape `(batch_size,)`): valid samples of each row.

        Returns:
            `torch.Tensor` of shape `(batch_size, 80)`, of unit length.
        """
        spectrum = self.log_mel(waveform)
        frames = torch.arange(spectrum.shape[-1], device=spectrum.device)
        mask = (frames < self.log_mel.num_frames(lengths)[:, None])[:, None]
        peak = spectrum.masked_fill(~mask, -torch.inf).amax(dim=(1, 2), keepdim=True)
        spectrum = torch.maximum(spectrum, peak - DYNAMIC_RANGE) * mask
        count = mask.sum(dim=-1).clamp(min=1)
        mean = spectrum.sum(dim=-1) / count
        variance = ((spectrum - mean[..., None]) * mask).square().sum(dim=-1) / count
        centered = mean - mean.mean(dim=-1, keepdim=True)
        return F.normalize(torch.cat([centered, variance.sqrt()], dim=-1), dim=-1)
