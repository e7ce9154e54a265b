"""
1x1 and depthwise convolutions, PReLU and filter banks, fast on a CPU, and the functions below them.

The functions have a backward pass of their own: fewer passes over the signal, less kept. Their
frames are `(batch_size, num_frames, num_channels)`, the channels of a frame side by side in memory:
so matrices multiply fastest, and a mask of frames or a gain of channels acts on whole vectors. Each
function is tested against its plain form, whose gradients PyTorch works out.

The layers take and return `(batch_size, num_channels, num_frames)` in that same memory. Whatever
comes in another layout is copied.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# PyTorch computes convolutions of so few values by itself, and a hundred times slower.
MAX_VALUES_WITHOUT_ONEDNN = 20480
# The largest block that glibc may take from its heap, by mallopt(3), less the block's own header.
LARGEST_HEAP_BLOCK_BYTES = 32 * 2**20 - 2**16


def connected_frames(num_frames: int, offset: int) -> tuple[slice, slice]:
    """The frames t, and the frames t + `offset`, for which both lie inside the signal."""
    first, length = max(-offset, 0), max(num_frames - abs(offset), 0)
    return slice(first, first + length), slice(first + offset, first + offset + length)


class DepthwiseTaps(torch.autograd.Function):
    """
    Depthwise convolution, one multiply-add over all frames for each of its few taps.

        output[t] = bias + sum_k taps[k] frames[t + offsets[k]],    zero outside the signal

    Args of `apply`:
        frames: as in the module's docstring.
        taps: `(kernel_size, num_channels)`.
        bias: `(num_channels,)` or `None`.
        offsets: one for each tap, 0 among them.
    """

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, taps: Tensor, bias: Tensor | None, offsets: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(frames, taps)
        ctx.offsets, ctx.has_bias = offsets, bias is not None
        taps = taps.to(frames.dtype).contiguous()
        output = frames * taps[offsets.index(0)]
        if bias is not None:
            output.add_(bias.to(frames.dtype))
        for tap, offset in zip(taps, offsets, strict=True):
            if offset != 0:
                here, there = connected_frames(frames.shape[1], offset)
                output[:, here].addcmul_(frames[:, there], tap)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        frames, taps = ctx.saved_tensors
        # What went from t + offset to t comes back from t to t + offset.
        mirrored = tuple(-offset for offset in ctx.offsets)
        frames_gradient = DepthwiseTaps.apply(gradient, taps, None, mirrored)
        tap_gradients = []
        for offset in ctx.offsets:
            here, there = connected_frames(frames.shape[1], offset)
            product = gradient[:, here] * frames[:, there]
            tap_gradients.append(product.sum(dim=(0, 1), dtype=taps.dtype))
        bias_gradient = gradient.sum(dim=(0, 1), dtype=taps.dtype) if ctx.has_bias else None
        return frames_gradient, torch.stack(tap_gradients), bias_gradient, None


def prelu_gradients(gradient: Tensor, inputs: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `inputs` and of the one `slope`, from that of the PReLU of `inputs`."""
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    slope_gradient = inputs.clamp(max=0).mul_(gradient).sum(dtype=dtype)
    # The backward pass of a ReLU: the gradient where the input is positive. `torch.where` and
    # PyTorch's own PReLU run through single values here, many times slower.
    through_positive = torch.ops.aten.threshold_backward(gradient, inputs, 0)
    input_gradient = through_positive.lerp_(gradient, slope.to(gradient.dtype))
    return input_gradient, slope_gradient.to(slope.dtype).expand(slope.shape)


class Prelu(torch.autograd.Function):
    """PReLU of `inputs` of any shape, with one `slope` of shape `(1,)`."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, slope)
        return F.prelu(inputs, slope.to(inputs.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return prelu_gradients(gradients[0], *ctx.saved_tensors)


def count_values(frames: Tensor, frame_mask: Tensor | None) -> Tensor | int:
    """Valid values of each utterance."""
    if frame_mask is None:
        return frames.shape[1] * frames.shape[2]
    # Half precision cannot count thousands of frames.
    dtype = torch.promote_types(frames.dtype, torch.float32)
    return frame_mask.sum(dim=1, keepdim=True, dtype=dtype) * frames.shape[2]


def mean_and_deviation(
    frames: Tensor, frame_mask: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Of the valid values of each utterance, both `(batch_size, 1, 1)`, in float32 at least."""
    dtype = torch.promote_types(frames.dtype, torch.float32)
    # The sums over one frame keep their digits in single precision, those over all would not.
    sums = frames.sum(dim=-1, keepdim=True, dtype=dtype).double()
    energies = torch.linalg.vector_norm(frames, dim=-1, keepdim=True, dtype=dtype).double().square()
    if frame_mask is not None:
        sums, energies = sums * frame_mask, energies * frame_mask
    count = count_values(frames, frame_mask)
    mean = sums.sum(dim=1, keepdim=True) / count
    variance = energies.sum(dim=1, keepdim=True) / count - mean.square()
    return mean.to(dtype), (variance.clamp(min=0) + epsilon).sqrt().to(dtype)


class PreluGlobalNorm(torch.autograd.Function):
    """
    PReLU and global layer norm, of which only the input is kept for the backward pass.

    With p the PReLU of slope a of the input y, m the mask of valid frames, <.> the mean over the
    valid values of an utterance and deviation^2 = <(p - <p>)^2> + epsilon:

        x = (p - <p>) / deviation,    z = m (gain x + offset)

    and, for the gradient g of z,

        d offset = sum m g,    d gain = sum m g x
        dp = m (gain g - <gain m g> - x <gain m g x>) / deviation
        dy = dp where y > 0, else a dp,    da = sum of y dp where y < 0

    Args of `apply`:
        frames: y, as in the module's docstring.
        slope: a, `(1,)`, or `None` for the norm alone.
        gain, offset: `(num_channels,)`.
        frame_mask: m, `(batch_size, num_frames, 1)`, or `None` where all frames are valid.
        epsilon: as above.
    """

    @staticmethod
    def forward(
        ctx: Any,
        frames: Tensor,
        slope: Tensor | None,
        gain: Tensor,
        offset: Tensor,
        frame_mask: Tensor | None,
        epsilon: float,
    ) -> Tensor:
        activated = frames if slope is None else F.prelu(frames, slope.to(frames.dtype))
        mean, deviation = mean_and_deviation(activated, frame_mask, epsilon)
        ctx.save_for_backward(frames, slope, gain, frame_mask, mean, deviation)
        scale = gain / deviation
        shift = offset - mean * scale
        # In place, but for what the caller still has.
        normalized = frames.clone() if slope is None else activated
        normalized.mul_(scale.to(frames.dtype)).add_(shift.to(frames.dtype))
        return normalized if frame_mask is None else normalized.mul_(frame_mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        frames, slope, gain, frame_mask, mean, deviation = ctx.saved_tensors
        (gradient,) = gradients
        if frame_mask is not None:
            gradient = gradient * frame_mask
        activated = frames if slope is None else F.prelu(frames, slope.to(frames.dtype))
        # Sums over time, `(batch_size, 1, num_channels)`: of g, and of g x by way of g p.
        offset_gradient = gradient.sum(dim=1, keepdim=True, dtype=mean.dtype)
        product = (gradient * activated).sum(dim=1, keepdim=True, dtype=mean.dtype)
        gain_gradient = (product - mean * offset_gradient) / deviation
        count = count_values(frames, frame_mask)
        mean_gradient = (gain * offset_gradient).sum(dim=-1, keepdim=True) / count
        mean_product = (gain * gain_gradient).sum(dim=-1, keepdim=True) / count
        # dp, as a sum of a multiple of g, a multiple of p and a constant.
        of_gradient, of_activated = gain / deviation, -mean_product / deviation.square()
        constant = -mean_gradient / deviation - mean * of_activated
        dtype = frames.dtype
        input_gradient = gradient * of_gradient.to(dtype)
        input_gradient.addcmul_(activated, of_activated.to(dtype)).add_(constant.to(dtype))
        if frame_mask is not None:
            input_gradient.mul_(frame_mask)
        slope_gradient = None
        if slope is not None:
            input_gradient, slope_gradient = prelu_gradients(input_gradient, frames, slope)
        gain_gradient, offset_gradient = gain_gradient.sum((0, 1)), offset_gradient.sum((0, 1))
        return input_gradient, slope_gradient, gain_gradient, offset_gradient, None, None


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


def fourier_filters(kernel_size: int) -> Tensor:
    r"""
    The Fourier basis under a sine window, each function once with either sign.

    Random filters have to become a filter bank before anything above them can learn. These are one
    from the start: what a rectified encoder gives is the spectrum, and a mask of ones gives the
    signal back.

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
