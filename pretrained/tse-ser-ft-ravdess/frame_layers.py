"""
1x1 and depthwise convolutions, PReLU and filter banks, fast on a CPU.

All take and return `(batch_size, num_channels, num_frames)`, but with the channels of a frame side
by side in memory, as `frame_functions` wants them. Whatever comes in another layout is copied.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .frame_functions import DepthwiseTaps, Prelu

# PyTorch computes convolutions of so few values by itself, and a hundred times slower.
MAX_VALUES_WITHOUT_ONEDNN = 20480
# The largest block that glibc may take from its heap, by mallopt(3), less the block's own header.
LARGEST_HEAP_BLOCK_BYTES = 32 * 2**20 - 2**16


def keep_freed_memory() -> None:
    """
    Let the C library keep up to 64 MiB of freed memory for the next tensor of the same size.

    Until it has seen a block of this size freed, glibc gives back what a layer frees and asks for
    it again in the next: on a CPU, clearing those pages took as long as an extraction itself. The
    block here is never touched and costs nothing; elsewhere than on Linux this does nothing.
    """
    torch.empty(LARGEST_HEAP_BLOCK_BYTES, dtype=torch.uint8, device="cpu")


def frame_major(hidden_states: Tensor) -> Tensor:
    """`(batch_size, num_channels, num_frames)` as `(batch_size, num_frames, num_channels)`."""
    return hidden_states.transpose(1, 2).contiguous()


class PointwiseConv(nn.Conv1d):
    """1x1 convolution: one matrix for all frames."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True):
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch_size, in_channels, num_frames)` to `(batch_size, out_channels, num_frames)`."""
        if torch.compiler.is_exporting():
            return super().forward(hidden_states)
        frames = frame_major(hidden_states)
        if frames.device.type != "cpu" or frames.numel() <= MAX_VALUES_WITHOUT_ONEDNN:
            return F.linear(frames, self.weight[..., 0], self.bias).transpose(1, 2)
        # As a convolution, oneDNN computes it; a matrix product goes to MKL, which runs at half of
        # the rate on AMD processors. PyTorch would not ask oneDNN in a process of one thread, but
        # does for a dilated filter, and one of a single tap has nothing to dilate.
        batch_size, num_frames, num_channels = frames.shape
        images = frames.view(batch_size, 1, num_frames, num_channels).permute(0, 3, 1, 2)
        return F.conv2d(images, self.weight[..., None], self.bias, dilation=2).squeeze(2)


class SharedSlopePrelu(nn.PReLU):
    """PReLU with one slope for all channels."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        # Autocast would make the output another type than the input that the gradient is for.
        with torch.autocast(device_type=hidden_states.device.type, enabled=False):
            return Prelu.apply(hidden_states, self.weight)


class DilatedDepthwiseConv(nn.Conv1d):
    """Depthwise convolution over `dilation`-spaced frames, as many frames out as in."""

    def __init__(
        self, num_channels: int, kernel_size: int, dilation: int, causal: bool, bias: bool = True
    ):
        super().__init__(
            num_channels,
            num_channels,
            kernel_size,
            dilation=dilation,
            groups=num_channels,
            bias=bias,
        )
        taps_before = kernel_size - 1 if causal else kernel_size // 2
        self.offsets = tuple((tap - taps_before) * dilation for tap in range(kernel_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(batch_size, num_channels, num_frames)` to the same shape."""
        if torch.compiler.is_exporting():
            return super().forward(F.pad(hidden_states, (-self.offsets[0], self.offsets[-1])))
        frames = frame_major(hidden_states)
        output = DepthwiseTaps.apply(frames, self.weight[:, 0].T, self.bias, self.offsets)
        return output.transpose(1, 2)


class FrameAnalysis(nn.Conv1d):
    """`num_filters` filters over a waveform `(batch_size, 1, num_samples)`, one frame a hop."""

    def __init__(self, num_filters: int, kernel_size: int, stride: int):
        super().__init__(1, num_filters, kernel_size, stride, bias=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Returns `(batch_size, num_filters, num_frames)`."""
        if torch.compiler.is_exporting():
            return super().forward(waveform)
        windows = waveform[:, 0].unfold(-1, self.kernel_size[0], self.stride[0])
        return F.linear(windows, self.weight[:, 0]).transpose(1, 2)


class FrameSynthesis(nn.Module):
    """The waveform `(batch_size, 1, num_samples)` of frames: their filters overlap and add up."""

    def __init__(self, num_filters: int, kernel_size: int, stride: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_filters, 1, kernel_size))
        nn.init.xavier_normal_(self.weight)
        self.stride = stride

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Takes `(batch_size, num_filters, num_frames)`."""
        if torch.compiler.is_exporting():
            return F.conv_transpose1d(hidden_states, self.weight, stride=self.stride)
        windows = F.linear(hidden_states.transpose(1, 2), self.weight[:, 0].T).transpose(1, 2)
        kernel_size, num_frames = windows.shape[1:]
        num_samples = (num_frames - 1) * self.stride + kernel_size
        return F.fold(windows, (1, num_samples), (1, kernel_size), stride=(1, self.stride))[:, 0]
