"""The head of ShiftCNN: convolutions over an encoder's frames, some channels shifted in time."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_shift_cnn import ShiftCnnConfig


def temporal_shift(
    hidden_states: Tensor,
    stride: int = 1,
    divisor: int = 16,
    bidirectional: bool = False,
    padding: str = "zero",
) -> Tensor:
    """
    Shift the first of `divisor` parts of the channels forward in time, and the second back where
    `bidirectional`.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, num_frames, num_channels)`): frames.
        stride: frames to shift by.
        divisor: one of this many channels is shifted in each direction.
        bidirectional: shift a second part the other way.
        padding: what enters at the ends: `zero`, or `repeat` for the frames that stood there.

    Returns:
        `torch.Tensor` of the same shape; the input is left as it is.
    """
    num_frames, num_channels = hidden_states.shape[1:]
    fold = num_channels // divisor
    stride = min(stride, num_frames)
    shifted = hidden_states.clone()
    if padding == "zero":
        shifted[:, :stride, :fold] = 0
    shifted[:, stride:, :fold] = hidden_states[:, : num_frames - stride, :fold]
    if bidirectional:
        back = slice(fold, 2 * fold)
        if padding == "zero":
            shifted[:, num_frames - stride :, back] = 0
        shifted[:, : num_frames - stride, back] = hidden_states[:, stride:, back]
        if padding == "zero" and divisor == 2:
            # Halves of an odd number of channels leave one over: zeros, as published.
            shifted[:, :, 2 * fold :] = 0
    return shifted


class ShiftCnnBlock(GradientCheckpointingLayer):
    """Depthwise convolution, layer norm, two 1x1 convolutions; added to the shifted input."""

    def __init__(self, config: ShiftCnnConfig, num_channels: int, shift_placement: str):
        super().__init__()
        self.config = config
        self.shift_placement = shift_placement
        self.depthwise_conv = nn.Conv1d(
            num_channels,
            num_channels,
            config.conv_kernel_size,
            padding=config.conv_kernel_size // 2,
            groups=num_channels,
        )
        self.norm = nn.LayerNorm(num_channels)
        self.expand_conv = nn.Conv1d(num_channels, 4 * num_channels, 1)
        self.project_conv = nn.Conv1d(4 * num_channels, num_channels, 1)

    def forward(self, hidden_states: Tensor, frame_mask: Tensor) -> Tensor:
        """Frames `(batch_size, num_frames, num_channels)`, mask `(batch_size, num_frames, 1)`."""
        hidden_states = hidden_states * frame_mask
        identity = hidden_states
        if self.shift_placement != "none":
            identity = temporal_shift(
                hidden_states,
                self.config.shift_stride,
                self.config.shift_divisor,
                self.config.bidirectional_shift,
            )
            # The last valid frames move into the padding, where the convolution would see them.
            identity = identity * frame_mask
        if self.shift_placement == "inplace":
            hidden_states = identity
        update = self.depthwise_conv(hidden_states.transpose(1, 2)).transpose(1, 2)
        update = self.expand_conv(self.norm(update).transpose(1, 2))
        return identity + self.project_conv(F.gelu(update)).transpose(1, 2)


class ShiftCnnHead(nn.Module):
    """
    The classifier on a speech encoder's frames.

    Args:
        config: sizes and forms.
        hidden_size: channels of the encoder's frames.
    """

    frame_mean: Tensor
    frame_deviation: Tensor

    def __init__(self, config: ShiftCnnConfig, hidden_size: int):
        super().__init__()
        self.config = config
        if config.standardize_frames:
            self.register_buffer("frame_mean", torch.zeros(hidden_size))
            self.register_buffer("frame_deviation", torch.ones(hidden_size))
        if config.head_hidden_size is not None:
            self.projection = nn.Linear(hidden_size, config.head_hidden_size)
            hidden_size = config.head_hidden_size
        self.blocks = nn.ModuleList(
            # The second block alone shifts, as published.
            ShiftCnnBlock(config, hidden_size, config.shift_placement if index == 1 else "none")
            for index in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(hidden_size, cast(int, config.num_labels))
        if config.apply_spec_augment and config.mask_time_prob > 0:
            self.masked_spec_embed = nn.Parameter(torch.empty(hidden_size).uniform_())

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, num_frames, hidden_size)`): the
                encoder's frames.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): 1 for
                valid frames.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels)`: logits.
        """
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2])
        frame_mask = attention_mask.to(hidden_states.dtype)[..., None]
        if not self.config.mask_padding:
            frame_mask = torch.ones_like(frame_mask)
        if self.config.standardize_frames:
            hidden_states = (hidden_states - self.frame_mean) / self.frame_deviation
        if self.config.head_hidden_size is not None:
            hidden_states = self.projection(hidden_states)
        if self.training and self.config.apply_spec_augment:
            lengths = attention_mask.sum(dim=-1, dtype=torch.long)
            hidden_states = self._spec_augment(hidden_states, lengths)
        for block in self.blocks:
            if block.gradient_checkpointing and not hidden_states.requires_grad:
                # A reentrant checkpoint has a gradient only where its input asks for one, which
                # frames of a frozen encoder do not.
                hidden_states = hidden_states.detach().requires_grad_(torch.is_grad_enabled())
            hidden_states = block(hidden_states, frame_mask)
        hidden_states = self.norm(hidden_states) * frame_mask
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        num_frames = frame_mask.sum(dim=1, dtype=dtype).clamp(min=1)
        pooled = (hidden_states.sum(dim=1, dtype=dtype) / num_frames).to(hidden_states.dtype)
        return self.classifier(self.dropout(pooled))

    def _spec_augment(self, hidden_states: Tensor, lengths: Tensor) -> Tensor:
        """Replace random spans of valid frames by a learned vector, and of channels by zero."""
        config = self.config
        batch_size, num_frames, num_channels = hidden_states.shape
        if config.mask_time_prob > 0:
            spans = random_spans(
                lengths,
                num_frames,
                config.mask_time_prob,
                config.mask_time_length,
                config.mask_time_min_masks,
            )
            vector = self.masked_spec_embed.to(hidden_states.dtype)
            hidden_states = torch.where(spans[..., None], vector, hidden_states)
        if config.mask_feature_prob > 0:
            spans = random_spans(
                lengths.new_full((batch_size,), num_channels),
                num_channels,
                config.mask_feature_prob,
                config.mask_feature_length,
                config.mask_feature_min_masks,
            )
            hidden_states = hidden_states.masked_fill(spans[:, None], 0.0)
        return hidden_states


def random_spans(
    lengths: Tensor, max_length: int, probability: float, span: int, min_spans: int
) -> Tensor:
    """
    Draw the spans of SpecAugment as wav2vec 2.0 does (Baevski et al. 2020, appendix A): a number of
    starts without replacement; spans may overlap.

    Args:
        lengths (`torch.Tensor` of shape `(batch_size,)`): valid positions of each row.
        max_length: positions of a row.
        probability: `probability * length / span` spans a row, rounded up or down at random.
        span: positions of a span; a row shorter than that has none.
        min_spans: spans of a row at least, as far as they fit in side by side.

    Returns:
        Boolean `torch.Tensor` of shape `(batch_size, max_length)`, drawn from torch's generator, as
        dropout draws from it.
    """
    draws = torch.rand(lengths.shape[0], max_length + 1, device=lengths.device)
    counts = (probability * lengths / span + draws[:, -1]).floor().clamp(min=min_spans)
    counts = counts.minimum(lengths // span)
    positions = torch.arange(max_length, device=lengths.device)
    scores = draws[:, :-1].masked_fill(positions > (lengths - span)[:, None], 2.0)
    starts = scores.argsort(dim=1).argsort(dim=1) < counts[:, None]
    covered = F.max_pool1d(F.pad(starts.float(), (span - 1, 0))[:, None], span, stride=1)
    return covered[:, 0] > 0


__all__ = ["ShiftCnnBlock", "ShiftCnnHead", "random_spans", "temporal_shift"]
