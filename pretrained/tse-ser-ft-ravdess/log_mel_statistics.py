"""A speaker embedding without parameters: how a voice's log-mel spectrum lies and moves."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .log_mel import LogMelSpectrogram

NUM_MEL_BINS = 40
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
DYNAMIC_RANGE = 4.0  # log10 units of power below an utterance's peak: 40 dB
VARIANCE_FLOOR = 1e-12  # the root of zero has no finite gradient
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
