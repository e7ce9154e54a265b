"""
A mask estimator of recurrent layers over log magnitudes, beside the paper's convolutions.

Kolbaek et al. 2017 and Zmolikova et al. 2019 estimate masks of a spectrum this way. It learns from
fewer hours: `docs/experiments.md` compares the two.
"""

from typing import cast

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_td_speakerbeam import TdSpeakerBeamConfig
from .frame_layers import PointwiseConv
from .frame_norms import GlobalLayerNorm
from .temporal_conv_network import AdaptationLayer

# Added to magnitudes before the logarithm; the mean square of all frames is 1 there.
MAGNITUDE_FLOOR = 1e-3


def pair_magnitudes(frames: Tensor) -> Tensor:
    """
    The magnitudes of a Fourier transform whose cosines and sines are channels of their own.

    Args:
        frames: `(batch_size, kernel_size, num_frames)` of filters in the order of
            `fourier_filters`: the cosines of `kernel_size // 2 + 1` frequencies, then the sines of
            all but the first and the last.

    Returns:
        `(batch_size, kernel_size // 2 + 1, num_frames)`.
    """
    num_bins = frames.shape[1] // 2 + 1
    squares = frames.to(torch.promote_types(frames.dtype, torch.float32)).square()
    ends, pairs = squares[:, [0, num_bins - 1]], squares[:, 1 : num_bins - 1]
    pairs = pairs + squares[:, num_bins:]
    # Epsilon: the root has no gradient at zero.
    return torch.cat([ends[:, :1], pairs, ends[:, 1:]], dim=1).add(1e-12).sqrt()


def for_each_pair(masks: Tensor) -> Tensor:
    """Masks of `(batch_size, num_bins, num_frames)` for the filters of [`pair_magnitudes`]."""
    return torch.cat([masks, masks[:, 1:-1]], dim=1)


class RecurrentLayer(GradientCheckpointingLayer):
    """
    Norm of each frame, an LSTM in either direction, and a linear layer back to the channels.

    The LSTM that runs backwards gets each utterance turned round, padding last as before: packed
    sequences take three times as long on a CPU.
    """

    def __init__(self, num_channels: int, hidden_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(num_channels)
        self.lstm = nn.LSTM(num_channels, hidden_channels, batch_first=True)
        self.backward_lstm = nn.LSTM(num_channels, hidden_channels, batch_first=True)
        self.output = nn.Linear(2 * hidden_channels, num_channels)

    def forward(self, hidden_states: Tensor, turned: Tensor) -> Tensor:
        """`(batch_size, num_channels, num_frames)` to the same shape; see `turned_frames`."""
        frames = self.norm(hidden_states.transpose(1, 2))
        onward = run_lstm(self.lstm, frames)
        back = turn_frames(run_lstm(self.backward_lstm, turn_frames(frames, turned)), turned)
        return self.output(torch.cat([onward, back], dim=-1)).transpose(1, 2)


def run_lstm(lstm: nn.LSTM, frames: Tensor) -> Tensor:
    """The outputs of an LSTM; on a CPU, autocast to float16 leaves it out, as there is none."""
    device_type = frames.device.type
    dtype = torch.get_autocast_dtype(device_type)
    is_missing = device_type == "cpu" and dtype == torch.float16
    is_enabled = torch.is_autocast_enabled(device_type) and not is_missing
    with torch.autocast(device_type, dtype=dtype, enabled=is_enabled):
        return lstm(frames if is_enabled else frames.to(cast(Tensor, lstm.weight_hh_l0)))[0]


def turned_frames(frames: Tensor, frame_mask: Tensor | None) -> Tensor:
    """
    Which frame stands where when each utterance is turned round and its padding stays behind it:
    `(batch_size, num_frames)` for `frames` of shape `(batch_size, num_channels, num_frames)`.
    """
    batch_size, _, num_frames = frames.shape
    positions = torch.arange(num_frames, device=frames.device)
    if frame_mask is None:
        return positions.flip(0).expand(batch_size, -1)
    lengths = frame_mask[:, 0].sum(dim=-1, dtype=torch.long)
    return (lengths[:, None] - 1 - positions) % num_frames


def turn_frames(frames: Tensor, turned: Tensor) -> Tensor:
    """`(batch_size, num_frames, num_channels)` in the order of [`turned_frames`], or back again."""
    return frames.gather(1, turned[..., None].expand(-1, -1, frames.shape[-1]))


class RecurrentNetwork(nn.Module):
    """
    Log magnitudes, [`RecurrentLayer`]s with residual connections, and a mask for each frequency.

    Args:
        config: sizes, as [`TdSpeakerBeamConfig`].
    """

    def __init__(self, config: TdSpeakerBeamConfig):
        super().__init__()
        num_bins = config.kernel_size // 2 + 1
        self.num_outputs = config.num_outputs
        self.adaptation_layers = config.adaptation_layers
        self.input_norm = GlobalLayerNorm(config.num_filters, config.norm_eps)
        self.magnitude_norm = GlobalLayerNorm(num_bins, config.norm_eps)
        self.bottleneck = PointwiseConv(num_bins, config.bottleneck_channels, config.conv_bias)
        self.layers = nn.ModuleList(
            RecurrentLayer(config.bottleneck_channels, config.hidden_channels)
            for _ in range(config.num_blocks * config.num_repeats)
        )
        self.adaptation = AdaptationLayer(config, has_residual=True)
        self.output_conv = PointwiseConv(
            config.bottleneck_channels, num_bins * config.num_outputs, config.conv_bias
        )

    def forward(self, frames: Tensor, frame_mask: Tensor | None, embedding: Tensor) -> Tensor:
        """
        Args:
            frames: of a linear encoder, `(batch_size, num_filters, num_frames)`.
            frame_mask: `(batch_size, 1, num_frames)`, 1 for valid frames, or `None` where all are.
            embedding: `(batch_size, embedding_size)`.

        Returns:
            `(batch_size, num_outputs * num_filters, num_frames)`.
        """
        magnitudes = pair_magnitudes(self.input_norm(frames, frame_mask))
        features = (magnitudes + MAGNITUDE_FLOOR).log().to(frames.dtype)
        hidden_states = self.bottleneck(self.magnitude_norm(features, frame_mask))
        turned = turned_frames(frames, frame_mask)
        parts = dict(
            zip(
                self.adaptation_layers,
                embedding.chunk(len(self.adaptation_layers), dim=1),
                strict=True,
            )
        )
        for index, layer in enumerate(self.layers):
            residual = layer(hidden_states, turned)
            if index in parts:
                (residual,) = self.adaptation([residual], parts[index])
            hidden_states = hidden_states + residual
        masks = self.output_conv(hidden_states).chunk(self.num_outputs, dim=1)
        return torch.cat([for_each_pair(mask) for mask in masks], dim=1)
