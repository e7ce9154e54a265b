"""The dilated convolutions of Conv-TasNet, for the mask estimator and the auxiliary network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .frame_layers import (
    DilatedDepthwiseConv,
    PointwiseConv,
    SharedSlopePrelu,
    keep_freed_memory,
)
from .frame_norms import (
    ChannelwiseLayerNorm,
    CumulativeLayerNorm,
    FrameBatchNorm,
    FrameLayerNorm,
    GlobalLayerNorm,
)

NORMS: dict[str, type[FrameLayerNorm] | type[FrameBatchNorm]] = {
    "gln": GlobalLayerNorm,
    "cln": ChannelwiseLayerNorm,
    "cgln": CumulativeLayerNorm,
    "bn": FrameBatchNorm,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": SharedSlopePrelu,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
}


def normalize_activated(
    activation: SharedSlopePrelu, norm: nn.Module, hidden_states: Tensor, frame_mask: Tensor | None
) -> Tensor:
    """`norm(activation(hidden_states))`, in one function where there is one."""
    if isinstance(norm, GlobalLayerNorm) and not torch.compiler.is_exporting():
        return norm(hidden_states, frame_mask, prelu_slope=activation.weight)
    return norm(activation(hidden_states), frame_mask)


class ConvBlock(GradientCheckpointingLayer):
    """
    1x1 convolution, PReLU, norm, dilated depthwise convolution, PReLU, norm, then one 1x1
    convolution a branch.

    `has_residual=False` leaves the residual branch out: nothing would read that of the last block.
    """

    def __init__(
        self, config: TdSpeakerBeamConfig, dilation: int, causal: bool, has_residual: bool
    ):
        super().__init__()
        outer, inner = config.bottleneck_channels, config.hidden_channels
        norm, bias = NORMS[config.norm_type], config.conv_bias
        self.input_conv = PointwiseConv(outer, inner, bias)
        self.input_activation = SharedSlopePrelu()
        self.input_norm = norm(inner, config.norm_eps)
        self.depthwise_conv = DilatedDepthwiseConv(
            inner, config.conv_kernel_size, dilation, causal, bias
        )
        self.depthwise_activation = SharedSlopePrelu()
        self.depthwise_norm = norm(inner, config.norm_eps)
        self.residual_conv = PointwiseConv(inner, outer, bias) if has_residual else None
        skip = config.skip_channels
        self.skip_conv = PointwiseConv(inner, skip, bias) if skip else None

    def forward(
        self, hidden_states: Tensor, frame_mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The residual and the skip branch, `(batch_size, channels, num_frames)` or `None`."""
        hidden_states = normalize_activated(
            self.input_activation, self.input_norm, self.input_conv(hidden_states), frame_mask
        )
        hidden_states = normalize_activated(
            self.depthwise_activation,
            self.depthwise_norm,
            self.depthwise_conv(hidden_states),
            frame_mask,
        )
        residual = self.residual_conv(hidden_states) if self.residual_conv is not None else None
        skip = self.skip_conv(hidden_states) if self.skip_conv is not None else None
        return residual, skip


class AdaptationLayer(nn.Module):
    """
    Bring the speaker embedding into the branches of one block: the adaptation of eq. (6).

    `has_residual=False` builds nothing for the residual branch, as in the last block.
    """

    def __init__(self, config: TdSpeakerBeamConfig, has_residual: bool):
        super().__init__()
        self.adaptation_type = config.adaptation_type
        if config.adaptation_type == "concat":
            num_channels = config.bottleneck_channels
            self.branch_layers = nn.ModuleDict(
                {
                    str(index): nn.Linear(num_channels + config.speaker_embedding_dim, num_channels)
                    for index in range(0 if has_residual else 1, config.num_branches)
                }
            )

    def forward(self, branches: list[Tensor | None], embedding: Tensor) -> list[Tensor | None]:
        """
        Args:
            branches: residual and, where there is one, skip, each `(batch_size, num_channels,
                num_frames)`, or `None` for a branch that nothing reads.
            embedding: E_0 of shape `(batch_size, embedding_dim * len(branches))`, one part a
                branch.

        Returns:
            The branches adapted.
        """
        parts = embedding[..., None].chunk(len(branches), dim=1)
        return [
            None if branch is None else self._adapt(index, branch, part)
            for index, (branch, part) in enumerate(zip(branches, parts, strict=True))
        ]

    def _adapt(self, index: int, branch: Tensor, part: Tensor) -> Tensor:
        if self.adaptation_type == "mul":
            return branch * part
        if self.adaptation_type == "muladd":
            factor, offset = part.chunk(2, dim=1)
            return branch * factor + offset
        stacked = torch.cat([branch, part.expand(-1, -1, branch.shape[-1])], dim=1)
        return self.branch_layers[str(index)](stacked.transpose(1, 2)).transpose(1, 2)


class TemporalConvNetwork(nn.Module):
    """
    Norm and bottleneck, stacks of [`ConvBlock`], then an activation and a 1x1 convolution.

    Args:
        config: sizes, as [`TdSpeakerBeamConfig`].
        num_repeats: stacks.
        out_channels: channels of the output.
        causal: no look-ahead in the convolutions.
        adaptation_layers: 0-based blocks whose output the embedding adapts, in rising order.
    """

    def __init__(
        self,
        config: TdSpeakerBeamConfig,
        num_repeats: int,
        out_channels: int,
        causal: bool,
        adaptation_layers: Sequence[int],
    ):
        super().__init__()
        keep_freed_memory()
        self.adaptation_layers = list(adaptation_layers)
        input_norm = NORMS[config.input_norm_type or config.norm_type]
        self.input_norm = input_norm(config.num_filters, config.input_norm_eps or config.norm_eps)
        self.bottleneck = PointwiseConv(
            config.num_filters, config.bottleneck_channels, config.conv_bias
        )
        num_layers = config.num_blocks * num_repeats
        # Where skip branches are summed up, nothing reads the last block's residual branch.
        unread_layer = num_layers - 1 if config.skip_channels else None
        self.blocks = nn.ModuleList(
            ConvBlock(
                config,
                dilation=2 ** (index % config.num_blocks),
                causal=causal,
                has_residual=index != unread_layer,
            )
            for index in range(num_layers)
        )
        if self.adaptation_layers:
            # Only a lone block is adapted by weights; see `adaptation_type`.
            has_residual = unread_layer not in self.adaptation_layers
            self.adaptation = AdaptationLayer(config, has_residual)
        self.output_activation = ACTIVATIONS[config.pre_mask_activation]()
        self.output_conv = PointwiseConv(
            config.skip_channels or config.bottleneck_channels, out_channels, config.conv_bias
        )

    def forward(
        self, features: Tensor, frame_mask: Tensor | None, embedding: Tensor | None = None
    ) -> Tensor:
        """
        Args:
            features: `(batch_size, num_filters, num_frames)`.
            frame_mask: `(batch_size, 1, num_frames)`, 1 for valid frames, or `None` where all are.
            embedding: `(batch_size, embedding_size)`, where the network is adapted.

        Returns:
            `(batch_size, out_channels, num_frames)`.
        """
        hidden_states = self.bottleneck(self.input_norm(features, frame_mask))
        skip_sum: Tensor | None = None
        parts: dict[int, Tensor] = {}
        if embedding is not None:
            chunks = embedding.chunk(len(self.adaptation_layers), dim=1)
            parts = dict(zip(self.adaptation_layers, chunks, strict=True))
        for index, block in enumerate(self.blocks):
            residual, skip = block(hidden_states, frame_mask)
            if index in self.adaptation_layers:
                branches = [residual] if skip is None else [residual, skip]
                residual, *skips = self.adaptation(branches, parts[index])
                skip = skips[0] if skips else None
            if residual is not None:
                hidden_states = hidden_states + residual
            if skip is not None:
                skip_sum = skip if skip_sum is None else skip_sum + skip
        output = hidden_states if skip_sum is None else skip_sum
        return self.output_conv(self.output_activation(output))
