"""The stacked dilated convolutions of Conv-TasNet, shared by the mask estimator and the auxiliary network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GLOBAL_NORM_EPSILON = 1e-8


class GlobalLayerNorm(nn.Module):
    """Normalise over channels and frames at once (Luo and Mesgarani 2019), over valid frames only."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        if frame_mask is None:
            # One group over all channels is the same function, in one fused kernel.
            return F.group_norm(hidden_states, 1, self.weight, self.bias, GLOBAL_NORM_EPSILON)
        count = frame_mask.sum(dim=(1, 2), keepdim=True) * hidden_states.shape[1]
        mean = (hidden_states * frame_mask).sum(dim=(1, 2), keepdim=True) / count
        centered = (hidden_states - mean) * frame_mask
        variance = centered.square().sum(dim=(1, 2), keepdim=True) / count
        normalized = centered * torch.rsqrt(variance + GLOBAL_NORM_EPSILON)
        return (normalized * self.weight[:, None] + self.bias[:, None]) * frame_mask


class ChannelwiseLayerNorm(nn.Module):
    """Normalise each frame over its channels."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        variance, mean = torch.var_mean(hidden_states, dim=1, keepdim=True, correction=0)
        normalized = (hidden_states - mean) * torch.rsqrt(variance + GLOBAL_NORM_EPSILON)
        normalized = normalized * self.weight[:, None] + self.bias[:, None]
        return normalized if frame_mask is None else normalized * frame_mask


class CumulativeLayerNorm(nn.Module):
    """Normalise each frame over all channels of all frames up to it: a global norm without look-ahead."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        num_channels, num_frames = hidden_states.shape[1:]
        # Running sums over a long recording lose their digits in single precision.
        sums = hidden_states.sum(dim=1, dtype=torch.float64).cumsum(dim=-1)
        squares = hidden_states.square().sum(dim=1, dtype=torch.float64).cumsum(dim=-1)
        count = num_channels * torch.arange(1, num_frames + 1, device=hidden_states.device)
        mean = (sums / count)[:, None]
        variance = (squares / count)[:, None] - mean.square()
        scale = torch.rsqrt(variance + GLOBAL_NORM_EPSILON)
        dtype = hidden_states.dtype
        normalized = (hidden_states - mean.to(dtype)) * scale.to(dtype)
        normalized = normalized * self.weight[:, None] + self.bias[:, None]
        return normalized if frame_mask is None else normalized * frame_mask


class FrameBatchNorm(nn.BatchNorm1d):
    """Batch norm that leaves padding at zero; its statistics in training count every frame of the batch."""

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        normalized = super().forward(hidden_states)
        return normalized if frame_mask is None else normalized * frame_mask


NORMS: dict[str, type[nn.Module]] = {
    "gln": GlobalLayerNorm,
    "cln": ChannelwiseLayerNorm,
    "cgln": CumulativeLayerNorm,
    "bn": FrameBatchNorm,
}


class ConvBlock(nn.Module):
    """
    1x1 convolution, PReLU, norm, dilated depthwise convolution, PReLU, norm, then one 1x1 convolution a branch.

    `has_residual=False` leaves the residual branch out: nothing would read that of the last block.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        skip_channels: int,
        kernel_size: int,
        dilation: int,
        norm_type: str,
        causal: bool,
        has_residual: bool,
    ):
        super().__init__()
        context = (kernel_size - 1) * dilation
        self.causal_trim = context if causal else 0
        self.input_conv = nn.Conv1d(in_channels, hidden_channels, 1)
        self.input_activation = nn.PReLU()
        self.input_norm = NORMS[norm_type](hidden_channels)
        self.depthwise_conv = nn.Conv1d(
            hidden_channels,
            hidden_channels,
            kernel_size,
            padding=context if causal else context // 2,
            dilation=dilation,
            groups=hidden_channels,
        )
        self.depthwise_activation = nn.PReLU()
        self.depthwise_norm = NORMS[norm_type](hidden_channels)
        self.residual_conv = nn.Conv1d(hidden_channels, in_channels, 1) if has_residual else None
        self.skip_conv = nn.Conv1d(hidden_channels, skip_channels, 1) if skip_channels else None

    def forward(
        self, hidden_states: Tensor, frame_mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the residual and the skip branch, each `(batch_size, channels, num_frames)` or `None`."""
        hidden_states = self.input_norm(
            self.input_activation(self.input_conv(hidden_states)), frame_mask
        )
        hidden_states = self.depthwise_conv(hidden_states)
        if self.causal_trim:
            hidden_states = hidden_states[..., : -self.causal_trim]
        hidden_states = self.depthwise_norm(self.depthwise_activation(hidden_states), frame_mask)
        residual = self.residual_conv(hidden_states) if self.residual_conv is not None else None
        skip = self.skip_conv(hidden_states) if self.skip_conv is not None else None
        return residual, skip


class AdaptationLayer(nn.Module):
    """Bring the speaker embedding into the branches of one block: the adaptation of eq. (6)."""

    def __init__(
        self, adaptation_type: str, num_channels: int, embedding_dim: int, num_branches: int
    ):
        super().__init__()
        self.adaptation_type = adaptation_type
        if adaptation_type == "concat":
            self.branch_layers = nn.ModuleList(
                nn.Linear(num_channels + embedding_dim, num_channels) for _ in range(num_branches)
            )

    def forward(self, branches: list[Tensor], embedding: Tensor) -> list[Tensor]:
        """
        Args:
            branches: residual and skip, each `(batch_size, num_channels, num_frames)`.
            embedding: E_0 of shape `(batch_size, embedding_dim * len(branches))`, one part a branch.
        """
        parts = embedding[..., None].chunk(len(branches), dim=1)
        if self.adaptation_type == "mul":
            return [branch * part for branch, part in zip(branches, parts, strict=True)]
        if self.adaptation_type == "muladd":
            factors = [part.chunk(2, dim=1) for part in parts]
            return [
                branch * factor + offset
                for branch, (factor, offset) in zip(branches, factors, strict=True)
            ]
        adapted = []
        for branch, part, layer in zip(branches, parts, self.branch_layers, strict=True):
            stacked = torch.cat([branch, part.expand(-1, -1, branch.shape[-1])], dim=1)
            adapted.append(layer(stacked.transpose(1, 2)).transpose(1, 2))
        return adapted


class TemporalConvNetwork(nn.Module):
    """
    Norm and bottleneck, stacks of [`ConvBlock`], then PReLU and a 1x1 convolution.

    Args:
        config: sizes, as [`TdSpeakerBeamConfig`].
        num_repeats: stacks.
        out_channels: channels of the output.
        causal: no look-ahead in the convolutions.
        adaptation_layer: 0-based block whose output the embedding adapts, or `None`.
    """

    def __init__(
        self,
        config,
        num_repeats: int,
        out_channels: int,
        causal: bool,
        adaptation_layer: int | None,
    ):
        super().__init__()
        self.adaptation_layer = adaptation_layer
        self.input_norm = NORMS[config.norm_type](config.num_filters)
        self.bottleneck = nn.Conv1d(config.num_filters, config.bottleneck_channels, 1)
        num_layers = config.num_blocks * num_repeats
        self.blocks = nn.ModuleList(
            ConvBlock(
                config.bottleneck_channels,
                config.hidden_channels,
                config.skip_channels,
                config.conv_kernel_size,
                dilation=2 ** (index % config.num_blocks),
                norm_type=config.norm_type,
                causal=causal,
                has_residual=config.skip_channels == 0 or index < num_layers - 1,
            )
            for index in range(num_layers)
        )
        self.adaptation = None
        if adaptation_layer is not None:
            self.adaptation = AdaptationLayer(
                config.adaptation_type,
                config.bottleneck_channels,
                config.speaker_embedding_dim,
                config.num_branches,
            )
        self.output_activation = nn.PReLU()
        self.output_conv = nn.Conv1d(
            config.skip_channels or config.bottleneck_channels, out_channels, 1
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
        for index, block in enumerate(self.blocks):
            residual, skip = block(hidden_states, frame_mask)
            if self.adaptation is not None and index == self.adaptation_layer:
                residual, skip = self._adapt(residual, skip, embedding)
            if residual is not None:
                hidden_states = hidden_states + residual
            if skip is not None:
                skip_sum = skip if skip_sum is None else skip_sum + skip
        output = hidden_states if skip_sum is None else skip_sum
        return self.output_conv(self.output_activation(output))

    def _adapt(
        self, residual: Tensor | None, skip: Tensor | None, embedding: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        if skip is None:
            return self.adaptation([residual], embedding)[0], None
        if residual is None:
            # Adapting the last block: only its skip branch is read, with the skip's half of the embedding.
            return None, self.adaptation([skip, skip], embedding)[1]
        adapted_residual, adapted_skip = self.adaptation([residual, skip], embedding)
        return adapted_residual, adapted_skip
