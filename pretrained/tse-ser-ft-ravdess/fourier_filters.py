"""
Filters that start as a short-time Fourier transform, for extractors that learn from few hours.

Random filters have to become a filter bank before anything above them can learn. These are one from
the start: what a rectified encoder gives is the spectrum, and a mask of ones gives the signal back.
"""

import math

import torch
from torch import Tensor


def fourier_filters(kernel_size: int) -> Tensor:
    r"""
    The Fourier basis under a sine window, each function once with either sign.

    Behind a rectifier the two signs keep what a linear encoder would give: \(a = max(a, 0) -
    max(-a, 0)\).

    Args:
        kernel_size (`int`): even length of a filter in samples.

    Returns:
        `torch.Tensor` of shape `(2 * kernel_size, kernel_size)`, float64.
    """
    time = torch.arange(kernel_size, dtype=torch.float64)
    phase = 2 * math.pi / kernel_size * time * torch.arange(kernel_size // 2 + 1)[:, None]
    # The sines of zero and of half the sampling rate vanish.
    basis = torch.cat([phase.cos(), phase.sin()[1:-1]])
    basis = basis / basis.norm(dim=1, keepdim=True)
    basis = basis * torch.sin(math.pi / kernel_size * (time + 0.5))
    return torch.cat([basis, -basis])


def fourier_synthesis(kernel_size: int, stride: int) -> Tensor:
    """
    The filters that add the frames of [`fourier_filters`] up to the signal again.

    Args:
        kernel_size (`int`): even length of a filter in samples.
        stride (`int`): hop in samples; `2 * stride` divides `kernel_size`.

    Returns:
        `torch.Tensor` of shape `(2 * kernel_size, kernel_size)`, float64.
    """
    # So many windows overlap at each sample, and their squares add up to half their number.
    return fourier_filters(kernel_size) * (2 * stride / kernel_size)
