"""The dilated convolutions of Conv-TasNet, for the mask estimator and the auxiliary network."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_td_speakerbeam import TdSpeakerBeamConfig

GLOBAL_NORM_EPSILON = 1e-8


class GlobalLayerNorm(nn.Module):
    """Normalise over all channels and valid frames at once (Luo and Mesgarani 2019)."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        if frame_mask is None:
            # One group over all channels is the same function, in one fused kernel.
            return F.group_norm(hidden_states, 1, self.weight, self.bias, GLOBAL_NORM_EPSILON)
        # Written for few passes over the signal: they cost more than the arithmetic.
        # Half precision can neither count the frames nor hold their energy.
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        count = frame_mask.sum(dim=(1, 2), keepdim=True, dtype=dtype) * hidden_states.shape[1]
        frame_sums = hidden_states @ frame_mask.transpose(1, 2)
        mean = frame_sums.sum(dim=1, keepdim=True, dtype=dtype) / count
        centered = torch.addcmul(-mean * frame_mask, hidden_states, frame_mask)
        energy = torch.linalg.vector_norm(centered, dim=(1, 2), keepdim=True, dtype=dtype).square()
        scale = torch.rsqrt(energy / count + GLOBAL_NORM_EPSILON) * self.weight[:, None]
        return torch.addcmul(self.bias[:, None] * frame_mask, centered, scale)


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
    """Normalise each frame over all frames up to it: a global norm without look-ahead."""

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
    """Batch norm that leaves padding at zero; in training its statistics count every frame."""

    def forward(self, hidden_states: Tensor, frame_mask: Tensor | None = None) -> Tensor:
        normalized = super().forward(hidden_states)
        return normalized if frame_mask is None else normalized * frame_mask


NORMS: dict[str, type[nn.Module]] = {
    "gln": GlobalLayerNorm,
    "cln": ChannelwiseLayerNorm,
    "cgln": CumulativeLayerNorm,
    "bn": FrameBatchNorm,
}


class DilatedDepthwiseConv(nn.Conv1d):
    """
    Depthwise convolution over `dilation`-spaced frames, as many frames out as in.

    The frames are laid out in rows of `dilation`, where the same sum is an undilated convolution
    down
    the columns: its backward pass is several times faster on a CPU than a dilated one.
    """

    def __init__(self, num_channels: int, kernel_size: int, dilation: int, causal: bool):
        super().__init__(
            num_channels, num_channels, kernel_size, dilation=dilation, groups=num_channels
        )
        self.rows_before = kernel_size - 1 if causal else kernel_size // 2
        self.rows_after = kernel_size - 1 - self.rows_before

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch_size, num_channels, num_frames)` to the same shape."""
        batch_size, num_channels, num_frames = hidden_states.shape
        dilation = self.dilation[0]
        missing = -num_frames % dilation
        rows = F.pad(
            hidden_states, (self.rows_before * dilation, self.rows_after * dilation + missing)
        ).view(batch_size, num_channels, -1, dilation)
        output = F.conv2d(rows, self.weight[..., None], self.bias, groups=self.groups)
        return output.reshape(batch_size, num_channels, -1)[..., :num_frames]


class ConvBlock(nn.Module):
    """
    1x1 convolution, PReLU, norm, dilated depthwise convolution, PReLU, norm, then one 1x1
    convolution a branch.

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
        self.input_conv = nn.Conv1d(in_channels, hidden_channels, 1)
        self.input_activation = nn.PReLU()
        self.input_norm = NORMS[norm_type](hidden_channels)
        self.depthwise_conv = DilatedDepthwiseConv(hidden_channels, kernel_size, dilation, causal)
        self.depthwise_activation = nn.PReLU()
        self.depthwise_norm = NORMS[norm_type](hidden_channels)
        self.residual_conv = nn.Conv1d(hidden_channels, in_channels, 1) if has_residual else None
        self.skip_conv = nn.Conv1d(hidden_channels, skip_channels, 1) if skip_channels else None

    def forward(
        self, hidden_states: Tensor, frame_mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The residual and the skip branch, `(batch_size, channels, num_frames)` or `None`."""
        hidden_states = self.input_norm(
            self.input_activation(self.input_conv(hidden_states)), frame_mask
        )
        hidden_states = self.depthwise_conv(hidden_states)
        hidden_states = self.depthwise_norm(self.depthwise_activation(hidden_states), frame_mask)
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
        config: TdSpeakerBeamConfig,
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
        # Where skip branches are summed up, nothing reads the last block's residual branch.
        unread_layer = num_layers - 1 if config.skip_channels else None
        self.blocks = nn.ModuleList(
            ConvBlock(
                config.bottleneck_channels,
                config.hidden_channels,
                config.skip_channels,
                config.conv_kernel_size,
                dilation=2 ** (index % config.num_blocks),
                norm_type=config.norm_type,
                causal=causal,
                has_residual=index != unread_layer,
            )
            for index in range(num_layers)
        )
        if adaptation_layer is not None:
            self.adaptation = AdaptationLayer(config, adaptation_layer != unread_layer)
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
            if index == self.adaptation_layer:
                branches = [residual] if skip is None else [residual, skip]
                residual, *skips = self.adaptation(branches, embedding)
                skip = skips[0] if skips else None
            if residual is not None:
                hidden_states = hidden_states + residual
            if skip is not None:
                skip_sum = skip if skip_sum is None else skip_sum + skip
        output = hidden_states if skip_sum is None else skip_sum
        return self.output_conv(self.output_activation(output))
