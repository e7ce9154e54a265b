"""Resampling with windowed sinc functions: with torch alone, as torchaudio does it.

torchaudio has to be built for the very CUDA release of torch, and transformers does not start
beside one that is not: a model from the Hub should not ask for it.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# torchaudio's: zero crossings of the sinc function on either side, and the cut-off as a part of the
# lower one of the two Nyquist frequencies.
ZERO_CROSSINGS = 6
CUTOFF = 0.99


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """
    Bring a waveform to another rate.

    Args:
        waveform (`torch.Tensor` of shape `(num_samples,)`): floating point samples.
        source_rate (`int`): its rate in Hz, or any multiple of it, as only the ratio counts.
        target_rate (`int`): wanted rate in Hz, or the same multiple of it.

    Returns:
        `torch.Tensor` of shape `(ceil(num_samples * target_rate / source_rate),)`: in its type.
    """
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    # Every `source` samples in, `target` samples out: each of these has a filter of its own.
    cutoff = CUTOFF * min(1, target / source)
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    taps = torch.arange(-reach, reach + source, dtype=torch.float64)
    phases = torch.arange(target, dtype=torch.float64)[:, None] * source / target
    crossings = (cutoff * (taps - phases)).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(crossings * math.pi / ZERO_CROSSINGS / 2) ** 2
    filters = (cutoff * torch.sinc(crossings) * window).to(waveform)
    padded = F.pad(waveform, (reach, reach + source))
    blocks = F.conv1d(padded[None, None], filters[:, None], stride=source)
    return blocks[0].T.reshape(-1)[: math.ceil(len(waveform) * target / source)]


__all__ = ["resample"]
