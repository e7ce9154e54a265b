"""Norms over the frames of a convolutional network; none of them looks at padding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .frame_layers import PreluGlobalNorm, frame_major


class FrameLayerNorm(nn.Module):
    """Gain and offset of each channel, for the layer norms below."""

    def __init__(self, num_channels: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))


class GlobalLayerNorm(FrameLayerNorm):
    """
    Normalise over all channels and valid frames at once (Luo and Mesgarani 2019).

    With `prelu_slope` of shape `(1,)`, normalises what a PReLU of this slope makes of its input.
    """

    def forward(
        self,
        hidden_states: Tensor,
        frame_mask: Tensor | None = None,
        prelu_slope: Tensor | None = None,
    ) -> Tensor:
        if torch.compiler.is_exporting() and frame_mask is None and prelu_slope is None:
            # The same function, and a single operator of the graph.
            return F.group_norm(hidden_states, 1, self.weight, self.bias, self.epsilon)
        mask = None if frame_mask is None else frame_mask.transpose(1, 2)
        frames = frame_major(hidden_states)
        with torch.autocast(device_type=frames.device.type, enabled=False):
            normalized = PreluGlobalNorm.apply(
                frames, prelu_slope, self.weight, self.bias, mask, self.epsilon
            )
        return normalized.transpose(1, 2)


class PooledGlobalNorm(GlobalLayerNorm):
    """
    A [`GlobalLayerNorm`] for a signal that comes in windows, which share their statistics.

    While `is_pooling`, each window is normalised by itself and its sums are added up; from then on
    all windows are normalised by the statistics of the sums.
    """

    def __init__(self, norm: GlobalLayerNorm):
        nn.Module.__init__(self)
        self.weight, self.bias, self.epsilon = norm.weight, norm.bias, norm.epsilon
        self.is_pooling = True
        # Count, sum and sum of squares. Made here and not anew with each window: small blocks that
        # stay between large ones which come and go cost a window's memory three times over.
        self.sums = torch.zeros(3, dtype=torch.float64, device=norm.weight.device)

    def forward(
        self,
        hidden_states: Tensor,
        frame_mask: Tensor | None = None,
        prelu_slope: Tensor | None = None,
    ) -> Tensor:
        if prelu_slope is not None:
            hidden_states = F.prelu(hidden_states, prelu_slope.to(hidden_states.dtype))
        sums = self.sums
        if self.is_pooling:
            sums = torch.empty_like(self.sums)
            sums[0] = hidden_states.numel()
            sums[1] = hidden_states.sum(dtype=torch.float64)
            sums[2] = hidden_states.float().square().sum(dtype=torch.float64)
            self.sums += sums
        count, total, squares = sums
        mean = total / count
        scale = torch.rsqrt((squares / count - mean.square()).clamp(min=0) + self.epsilon)
        dtype = hidden_states.dtype
        gain, offset = (
            self.weight * scale.to(dtype),
            self.bias - self.weight * (mean * scale).to(dtype),
        )
        return torch.addcmul(offset[:, None], hidden_states, gain[:, None])


class ChannelwiseLayerNorm(FrameLayerNorm):
    """Normalise each frame over its channels."""

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        frames = frame_major(hidden_states)
        # The one kernel keeps its statistics in single precision.
        normalized = F.layer_norm(
            frames, frames.shape[-1:], self.weight, self.bias, self.epsilon
        ).transpose(1, 2)
        return normalized if frame_mask is None else normalized * frame_mask


class CumulativeLayerNorm(FrameLayerNorm):
    """Normalise each frame over all frames up to it: a global norm without look-ahead."""

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        normalized = self.normalize(hidden_states, self.cumulative_sums(hidden_states))
        return normalized if frame_mask is None else normalized * frame_mask

    def cumulative_sums(self, hidden_states: Tensor) -> Tensor:
        """Count, sum and sum of squares up to each frame, float64 `(batch_size, 3, num_frames)`."""
        # Running sums over a long recording lose their digits in single precision.
        sums = hidden_states.sum(dim=1, dtype=torch.float64)
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        squares = hidden_states.to(dtype).square().sum(dim=1, dtype=torch.float64)
        counts = torch.full_like(sums, hidden_states.shape[1])
        return torch.stack([counts, sums, squares], dim=1).cumsum(dim=-1)

    def normalize(self, hidden_states: Tensor, cumulative_sums: Tensor) -> Tensor:
        """Bring each frame to zero mean and unit variance of the frames up to it."""
        count, total, squares = cumulative_sums.chunk(3, dim=1)
        mean = total / count
        # Rounding may leave equal values a variance below zero.
        variance = (squares / count - mean.square()).clamp(min=0)
        scale = torch.rsqrt(variance + self.epsilon)
        dtype = hidden_states.dtype
        normalized = (hidden_states - mean.to(dtype)) * scale.to(dtype)
        return normalized * self.weight[:, None] + self.bias[:, None]


class FrameBatchNorm(nn.BatchNorm1d):
    """Batch norm over the valid frames, in training as in evaluation; its epsilon is torch's."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, num_channels: int, epsilon: float):
        super().__init__(num_channels)

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        if frame_mask is None:
            return super().forward(hidden_states)
        if not self.training:
            return super().forward(hidden_states) * frame_mask
        # Half precision can neither count the frames nor hold their energy.
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        count = frame_mask.sum(dtype=dtype)
        mean = (hidden_states * frame_mask).sum(dim=(0, 2), dtype=dtype) / count
        centered = (hidden_states - mean[:, None]) * frame_mask
        variance = centered.square().sum(dim=(0, 2)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        normalized = (centered * scale[:, None] + self.bias[:, None]) * frame_mask
        return normalized.to(hidden_states.dtype)
