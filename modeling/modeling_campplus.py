"""
CAM++ (H. Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using
Context-Aware Masking", Interspeech 2023): one embedding for an utterance of any length.
"""

import math
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .speaker_encoders import FrozenSpeakerEncoder

FRAME_SAMPLES = 400
HOP_SAMPLES = 160
FFT_SAMPLES = 512
NUM_MEL_BINS = 80
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
PREEMPHASIS = 0.97
POVEY_EXPONENT = 0.85
HEAD_CHANNELS = 32
INITIAL_CHANNELS = 128
GROWTH_CHANNELS = 32
BOTTLENECK_CHANNELS = 128
DENSE_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of each
HEAD_SPAN_FRAMES = 64  # that the head hears at once
HEAD_CONTEXT_FRAMES = 10  # on either side of a frame that its ten convolutions reach
SPECTRUM_SPAN_FRAMES = 100  # that are transformed at once, to save memory
SEGMENT_FRAMES = 100  # of 20 ms: what the context of a frame is averaged over, beside the whole
SINGLE_FRAME_DEVIATION = 1e-2  # in place of the deviation over time, which one frame has not


class FrozenBatchNorm(nn.Module):
    """Batch normalization by stored statistics alone, over `(batch_size, num_channels, ...)`."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor
    eps = 1e-5

    def __init__(self, num_channels: int, affine: bool = True) -> None:
        super().__init__()
        self.register_parameter(
            "weight", nn.Parameter(torch.ones(num_channels)) if affine else None
        )
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_channels)) if affine else None)
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    def forward(self, hidden: Tensor) -> Tensor:
        return F.batch_norm(
            hidden, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions over mel bins and frames; `stride` thins out the bins."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        channels = HEAD_CHANNELS
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), padding=1, bias=False)
        self.bn1 = FrozenBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(channels, channels, 1, (stride, 1), bias=False))
            self.shortcut.append(FrozenBatchNorm(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        residual = self.shortcut(hidden)
        hidden = F.relu(self.bn1(self.conv1(hidden)), inplace=True)
        hidden = self.bn2(self.conv2(hidden))
        return F.relu(hidden.add_(residual), inplace=True)


class ConvolutionHead(nn.Module):
    """The front end in two dimensions: an eighth of the mel bins, `HEAD_CHANNELS` of each."""

    out_channels = HEAD_CHANNELS * NUM_MEL_BINS // 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, HEAD_CHANNELS, 3, padding=1, bias=False)
        self.bn1 = FrozenBatchNorm(HEAD_CHANNELS)
        self.layer1 = nn.Sequential(ResidualBlock(stride=2), ResidualBlock(stride=1))
        self.layer2 = nn.Sequential(ResidualBlock(stride=2), ResidualBlock(stride=1))
        self.conv2 = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, (2, 1), padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(HEAD_CHANNELS)

    def forward(self, features: Tensor) -> Tensor:
        """
        `(batch_size, 80, num_frames)` to `(batch_size, out_channels, num_frames)`.

        Long speech goes through span by span, each with all that its own frames depend on: the
        result is that of the whole, in less memory and time.
        """
        num_frames, parts = features.shape[-1], []
        for start in range(0, num_frames, HEAD_SPAN_FRAMES):
            left = max(start - HEAD_CONTEXT_FRAMES, 0)
            stop = min(start + HEAD_SPAN_FRAMES, num_frames)
            hidden = self._convolve(features[..., left : stop + HEAD_CONTEXT_FRAMES])
            parts.append(hidden[..., start - left : stop - left])
        return torch.cat(parts, dim=-1)

    def _convolve(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(features[:, None])), inplace=True)
        # On a CPU the next convolutions are faster so, those of a batch by a fifth.
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        hidden = self.layer2(self.layer1(hidden))
        hidden = F.relu(self.bn2(self.conv2(hidden)), inplace=True)
        return hidden.flatten(1, 2)


class Nonlinearity(nn.Module):
    """Normalization and ReLU, under the public name of the former."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.batchnorm = FrozenBatchNorm(num_channels)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.relu(self.batchnorm(hidden), inplace=True)


class ContextAwareMasking(nn.Module):
    """A dilated convolution, masked by what its utterance and its segment are like, section 2.2."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        channels = BOTTLENECK_CHANNELS
        self.linear_local = nn.Conv1d(
            channels, GROWTH_CHANNELS, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.linear1 = nn.Conv1d(channels, channels // 2, 1)
        self.linear2 = nn.Conv1d(channels // 2, GROWTH_CHANNELS, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        num_frames = hidden.shape[-1]
        segments = F.avg_pool1d(hidden, SEGMENT_FRAMES, SEGMENT_FRAMES, ceil_mode=True)
        context = F.relu(self.linear1(segments + hidden.mean(dim=-1, keepdim=True)))
        mask = torch.sigmoid(self.linear2(context))
        # All frames of a segment have one context, so that only now each gets its own copy.
        mask = mask.repeat_interleave(SEGMENT_FRAMES, dim=-1)[..., :num_frames]
        return self.linear_local(hidden) * mask


class DenseLayer(nn.Module):
    """A layer of a densely connected block: to the bottleneck, then masked to `GROWTH_CHANNELS`."""

    def __init__(self, in_channels: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = Nonlinearity(in_channels)
        self.linear1 = nn.Conv1d(in_channels, BOTTLENECK_CHANNELS, 1, bias=False)
        self.nonlinear2 = Nonlinearity(BOTTLENECK_CHANNELS)
        self.cam_layer = ContextAwareMasking(dilation)

    def forward(self, hidden: Tensor) -> Tensor:
        grown = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(hidden))))
        return torch.cat([hidden, grown], dim=1)


class Transit(nn.Module):
    """Normalization, ReLU and a linear layer that halves the channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.nonlinear = Nonlinearity(in_channels)
        self.linear = nn.Conv1d(in_channels, in_channels // 2, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.linear(self.nonlinear(hidden))


class FirstConvolution(nn.Module):
    """The convolution that halves the frame rate."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv1d(
            ConvolutionHead.out_channels, INITIAL_CHANNELS, 5, stride=2, padding=2, bias=False
        )
        self.nonlinear = Nonlinearity(INITIAL_CHANNELS)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.nonlinear(self.linear(hidden))


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time, `(batch_size, 2 * num_channels, 1)`."""

    def forward(self, hidden: Tensor) -> Tensor:
        mean = hidden.mean(dim=-1, keepdim=True)
        if hidden.shape[-1] == 1:
            return torch.cat([mean, torch.full_like(mean, SINGLE_FRAME_DEVIATION)], dim=1)
        return torch.cat([mean, hidden.std(dim=-1, keepdim=True)], dim=1)


class EmbeddingLayer(nn.Module):
    """
    The statistics' projection, normalized without scale and offset.

    No ReLU follows, as in the makers' own code; some copies of the network have one there.
    """

    def __init__(self, in_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(in_channels, embedding_dim, 1, bias=False)
        self.nonlinear = nn.ModuleDict({"batchnorm": FrozenBatchNorm(embedding_dim, affine=False)})

    def forward(self, statistics: Tensor) -> Tensor:
        return self.nonlinear["batchnorm"](self.linear(statistics)).squeeze(-1)


def densely_connected_network(embedding_dim: int) -> nn.Sequential:
    """The public checkpoint's `xvector`: the head's channels to an utterance's embedding."""
    network = nn.Sequential()
    network.add_module("tdnn", FirstConvolution())
    channels = INITIAL_CHANNELS
    for number, (num_layers, dilation) in enumerate(DENSE_BLOCKS, 1):
        block = nn.Sequential()
        for layer in range(1, num_layers + 1):
            block.add_module(f"tdnnd{layer}", DenseLayer(channels, dilation))
            channels += GROWTH_CHANNELS
        network.add_module(f"block{number}", block)
        network.add_module(f"transit{number}", Transit(channels))
        channels //= 2
    network.add_module("out_nonlinear", Nonlinearity(channels))
    network.add_module("stats", StatisticsPooling())
    network.add_module("dense", EmbeddingLayer(2 * channels, embedding_dim))
    return network


class CamPlusPlusSpeakerEncoder(FrozenSpeakerEncoder):
    """
    A two-dimensional convolution head and a densely connected time-delay network whose layers are
    masked by their context, over 80 Kaldi log-mel filterbank values a frame at 16 kHz.

    The parameters are frozen; the names are those of the public checkpoint.
    """

    title = "CAM++"
    embedding_dim = 192

    def __init__(self) -> None:
        super().__init__(FFT_SAMPLES // 2 + 1, NUM_MEL_BINS, FRAME_SAMPLES)
        self.head = ConvolutionHead()
        self.xvector = densely_connected_network(self.embedding_dim)
        self.train(False)

    def fill_buffers(self) -> None:
        self.mel_filters.copy_(_kaldi_mel_filters())
        hann = torch.hann_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64)
        self.window.copy_(hann**POVEY_EXPONENT)

    def forward(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """
        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): speech at 16 kHz, full
                scale at 1.
            lengths (`torch.Tensor` of shape `(batch_size,)`): valid samples of each row.

        Returns:
            `torch.Tensor` of shape `(batch_size, 192)`, of unit length.

        Raises:
            ValueError: a row is shorter than a frame of 25 ms.
        """
        if int(lengths.min()) < FRAME_SAMPLES:
            raise ValueError(
                f"`enrollment_values` must hold at least {FRAME_SAMPLES} valid samples a row for "
                f"`speaker_encoder='campplus'`, got {int(lengths.min())}: pass a longer recording."
            )
        # Power spectra need single precision.
        with torch.autocast(device_type=waveform.device.type, enabled=False):
            filterbank = self.log_mel_filterbank(waveform.to(self.window.dtype))
            embeddings = self._embed(filterbank, 1 + (lengths - FRAME_SAMPLES) // HOP_SAMPLES)
        return embeddings.to(waveform.dtype)

    def log_mel_filterbank(self, waveform: Tensor) -> Tensor:
        """
        Kaldi's log-mel filterbank without dither, over whole frames alone.

        Args:
            waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): full scale at 1.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_frames, 80)`: natural logarithms of powers.
        """
        spans = waveform.unfold(-1, FRAME_SAMPLES, HOP_SAMPLES).split(SPECTRUM_SPAN_FRAMES, dim=-2)
        power = torch.cat([self._power_spectra(frames) for frames in spans], dim=-2)
        return (power @ self.mel_filters).clamp(min=torch.finfo(torch.float32).eps).log()

    def _power_spectra(self, frames: Tensor) -> Tensor:
        """`(batch_size, num_frames, FRAME_SAMPLES)` to `(..., FFT_SAMPLES // 2 + 1)`."""
        frames = frames - frames.mean(dim=-1, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - PREEMPHASIS * previous) * self.window
        return torch.fft.rfft(frames, FFT_SAMPLES).abs().square()

    def _embed(self, filterbank: Tensor, num_frames: Tensor) -> Tensor:
        embeddings = filterbank.new_zeros(len(filterbank), self.embedding_dim)
        # Convolutions and averages see the padded end of a row, so only rows of one length go
        # together. On a CPU a batch is no faster than its rows in turn.
        for count in num_frames.unique().tolist():
            rows = (num_frames == count).nonzero().squeeze(1)
            features = filterbank[rows, :count]
            features = features - features.mean(dim=1, keepdim=True)
            hidden = self._run_network(features.transpose(1, 2))
            embeddings = embeddings.index_copy(0, rows, F.normalize(hidden, dim=-1))
        return embeddings

    def _run_network(self, features: Tensor) -> Tensor:
        """`(batch_size, 80, num_frames)` to `(batch_size, 192)`, as precise as the features."""
        hidden = features
        for part in (self.head, self.xvector):
            tensors = chain(part.named_parameters(), part.named_buffers())
            # Weights kept in half: a CPU would convolve them fifteen times as slowly as in single.
            widened = {n: t.to(features.dtype) for n, t in tensors if t.dtype != features.dtype}
            hidden = functional_call(part, widened, hidden) if widened else part(hidden)
        return hidden


def _kaldi_mel_filters() -> Tensor:
    """
    Triangles over the mel scale, `(num_fft_bins, num_mel_bins)`.

    In single precision as in Kaldi: the narrow ones differ by 1e-4 from those in double.
    """
    lowest, highest = (1127 * math.log1p(hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    places = torch.arange(NUM_MEL_BINS + 2, dtype=torch.float32)
    edges = lowest + places * ((highest - lowest) / (NUM_MEL_BINS + 1))
    hz = torch.arange(FFT_SAMPLES // 2 + 1, dtype=torch.float32) * (16000 / FFT_SAMPLES)
    mel = 1127 * (1 + hz / 700).log()[:, None]
    rising = (mel - edges[:-2]) / edges.diff()[:-1]
    falling = (edges[2:] - mel) / edges.diff()[1:]
    return torch.minimum(rising, falling).clamp(min=0)
