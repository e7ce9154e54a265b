"""
What tells TD-SpeakerBeam whom to extract: the filter bank that encodes waveforms, eq. (5), the
auxiliary network, eq. (3), and what stands in its place behind a speaker encoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .frame_layers import FrameAnalysis
from .temporal_conv_network import ACTIVATIONS, TemporalConvNetwork


def frame_mask_from_lengths(lengths: Tensor, max_frames: int, dtype: torch.dtype) -> Tensor:
    """1 for valid frames: `(batch_size, 1, max_frames)` from `(batch_size,)` frame counts."""
    positions = torch.arange(max_frames, device=lengths.device)
    return (positions < lengths[:, None]).to(dtype)[:, None]


class FilterBank(FrameAnalysis):
    """Encoder E of eq. (5), `(batch_size, 1, num_samples)` to frames of `num_filters` channels."""

    def __init__(self, config: TdSpeakerBeamConfig, activation: str | None):
        super().__init__(config.num_filters, config.kernel_size, config.stride)
        self.activation = ACTIVATIONS[activation or "linear"]()

    def forward(self, waveform: Tensor) -> Tensor:
        return self.activation(super().forward(waveform))


def encode_waveform(
    filters: FilterBank, values: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Frames `(batch_size, num_filters, num_frames)` of a filter bank; the mask of valid ones."""
    values = values.to(filters.weight.dtype)  # of a model loaded in half precision
    if mask is None:
        return filters(values[:, None]), None
    frames = filters((values * mask)[:, None])
    lengths = (mask.sum(dim=-1) - filters.kernel_size[0]) // filters.stride[0] + 1
    return frames, frame_mask_from_lengths(lengths, frames.shape[-1], frames.dtype)


class AuxiliaryNetwork(nn.Module):
    """h of eq. (3): one stack over the encoded enrollment, averaged over its frames."""

    def __init__(self, config: TdSpeakerBeamConfig):
        super().__init__()
        if not config.share_encoder:
            self.encoder = FilterBank(config, activation=None)
        self.network = TemporalConvNetwork(
            config,
            num_repeats=1,
            out_channels=config.embedding_size,
            causal=False,
            adaptation_layers=[],
        )

    def forward(self, frames: Tensor, frame_mask: Tensor | None) -> Tensor:
        output = self.network(frames, frame_mask)
        if frame_mask is None:
            return output.mean(dim=-1)
        # Half precision can neither count thousands of frames nor add them up.
        dtype = torch.promote_types(output.dtype, torch.float32)
        frame_sums = (output * frame_mask).sum(dim=-1, dtype=dtype)
        return frame_sums / frame_mask.sum(dim=-1, dtype=dtype)


class EmbeddingProjection(nn.Linear):
    """h of eq. (3) behind a speaker encoder: one linear layer on its embedding."""

    def __init__(self, config: TdSpeakerBeamConfig):
        super().__init__(config.external_embedding_dim, config.embedding_size)
        self.adaptation_type = config.adaptation_type
        self.part_size = config.speaker_embedding_dim

    def identity_bias(self) -> Tensor:
        """The bias that leaves adapted blocks as they are: factors of one, offsets of zero."""
        part = torch.zeros(self.part_size)
        if self.adaptation_type == "mul":
            part.fill_(1)
        elif self.adaptation_type == "muladd":
            part[: self.part_size // 2] = 1
        return part.repeat(self.out_features // self.part_size)


class SimilarityProjection(nn.Linear):
    """Where speaker embeddings are compared; as they are, before it is trained."""

    def __init__(self, embedding_size: int):
        super().__init__(embedding_size, embedding_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """`(..., embedding_size)` to the same shape and type, whatever that of the weights."""
        with torch.autocast(embeddings.device.type, enabled=False):
            weight, bias = self.weight.to(embeddings.dtype), self.bias.to(embeddings.dtype)
            return F.linear(embeddings, weight, bias)


__all__ = [
    "AuxiliaryNetwork",
    "EmbeddingProjection",
    "FilterBank",
    "SimilarityProjection",
    "encode_waveform",
]
