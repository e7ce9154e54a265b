"""Functions with a hand-written backward pass: equal to their plain forms, gradients included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import relative_error
from torch import Tensor
from torch.nn import functional as F

from modeling.frame_layers import (
    MAX_VALUES_WITHOUT_ONEDNN,
    DepthwiseTaps,
    DilatedDepthwiseConv,
    FrameAnalysis,
    FrameSynthesis,
    PointwiseConv,
    Prelu,
    PreluGlobalNorm,
    SharedSlopePrelu,
    mean_and_deviation,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def check_against(
    function: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Any]
) -> None:
    """Outputs and gradients of both in float64, and the gradients by finite differences."""
    given = [value for value in inputs if value is not None]
    output, expected = function(*inputs), plain(*inputs)
    assert relative_error(output, expected) < 1e-12
    weights = torch.randn_like(expected)
    actual_gradients = torch.autograd.grad((output * weights).sum(), given)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), given)
    for actual, wanted in zip(actual_gradients, expected_gradients, strict=True):
        assert relative_error(actual, wanted) < 1e-11
    assert torch.autograd.gradcheck(function, inputs)


def plain_norm(epsilon: float, mask: Tensor | None) -> Callable[..., Tensor]:
    """The formulas of [`PreluGlobalNorm`], word for word."""

    def norm(frames: Tensor, slope: Tensor | None, gain: Tensor, offset: Tensor) -> Tensor:
        valid = torch.ones_like(frames[..., :1]) if mask is None else mask
        count = valid.sum(dim=(1, 2), keepdim=True) * frames.shape[2]
        activated = frames if slope is None else torch.where(frames > 0, frames, slope * frames)
        mean = (activated * valid).sum(dim=(1, 2), keepdim=True) / count
        centered = (activated - mean) * valid
        deviation = (centered.square().sum(dim=(1, 2), keepdim=True) / count + epsilon).sqrt()
        return valid * (gain * centered / deviation + offset)

    return norm


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("slope", [None, 0.25, 0.0, -0.5, 1.0])
def test_prelu_and_global_norm_are_their_formulas(slope: float | None, masked: bool) -> None:
    mask = torch.ones(2, 7, 1, dtype=torch.float64)
    mask[1, 4:] = 0
    frame_mask = mask if masked else None
    slopes = None if slope is None else torch.tensor([slope]).double().requires_grad_()
    check_against(
        lambda *inputs: PreluGlobalNorm.apply(*inputs, frame_mask, 1e-3),
        plain_norm(1e-3, frame_mask),
        [random(2, 7, 5), slopes, random(5, seed=1), random(5, seed=2)],
    )


def test_prelu_is_the_one_of_torch() -> None:
    slope = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    check_against(Prelu.apply, F.prelu, [random(2, 7, 5), slope])


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("num_frames", [1, 3, 4, 9])
@pytest.mark.parametrize("offsets", [(-4, -2, 0, 2, 4), (-6, -3, 0), (0,)])
def test_depthwise_taps_are_a_dilated_convolution(
    offsets: tuple[int, ...], num_frames: int, has_bias: bool
) -> None:
    dilation = offsets[1] - offsets[0] if len(offsets) > 1 else 1

    def plain(frames: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
        padded = F.pad(frames.transpose(1, 2), (-offsets[0], offsets[-1]))
        groups = frames.shape[2]
        output = F.conv1d(padded, taps.T[:, None], bias, dilation=dilation, groups=groups)
        return output.transpose(1, 2)

    check_against(
        lambda *inputs: DepthwiseTaps.apply(*inputs, offsets),
        plain,
        [
            random(2, num_frames, 3),
            random(len(offsets), 3),
            random(3, seed=1) if has_bias else None,
        ],
    )


@pytest.mark.parametrize("sizes", [(12, 5), (5, 12)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_pointwise_convolution_of_a_long_signal_is_a_linear_layer(
    sizes: tuple[int, int], has_bias: bool
) -> None:
    layer = PointwiseConv(*sizes, bias=has_bias)
    frames = random(2, sizes[0], 2 * MAX_VALUES_WITHOUT_ONEDNN // sizes[0]).detach().float()
    inputs = [frames.requires_grad_(), *layer.parameters()]
    output, expected = layer(frames), F.conv1d(frames, layer.weight, layer.bias)
    assert relative_error(output, expected) < 1e-6
    actual = torch.autograd.grad(output.square().sum(), inputs)
    for gradient, wanted in zip(
        actual, torch.autograd.grad(expected.square().sum(), inputs), strict=True
    ):
        assert relative_error(gradient, wanted) < 1e-5


def test_statistics_keep_their_digits_far_from_zero() -> None:
    """A mean of thirty deviations, over half a million values in single precision."""
    frames = 30 + random(1, 1000, 512)
    mean, deviation = mean_and_deviation(frames.float(), None, 0.0)
    assert mean.dtype == torch.float32
    assert relative_error(mean, frames.mean()) < 1e-6
    assert relative_error(deviation, frames.std(correction=0)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("contiguous", [False, True])
def test_layers_are_those_of_torch_in_any_layout(dtype: torch.dtype, contiguous: bool) -> None:
    layers: list[tuple[Any, Any, tuple[int, ...]]] = [
        (PointwiseConv(6, 4), lambda layer, x: F.conv1d(x, layer.weight, layer.bias), (2, 6, 33)),
        (SharedSlopePrelu(), lambda layer, x: F.prelu(x, layer.weight), (2, 6, 33)),
        (
            DilatedDepthwiseConv(6, 3, 4, causal=False),
            lambda layer, x: F.conv1d(x, layer.weight, layer.bias, 1, 4, 4, 6),
            (2, 6, 33),
        ),
        (FrameAnalysis(6, 10, 4), lambda layer, x: F.conv1d(x, layer.weight, None, 4), (2, 1, 95)),
        (
            FrameSynthesis(6, 10, 4),
            lambda layer, x: F.conv_transpose1d(x, layer.weight, None, 4),
            (2, 6, 33),
        ),
    ]
    tolerance = 4 * torch.finfo(dtype).eps
    for layer, plain, shape in layers:
        layer.to(dtype)
        values = random(*shape).detach().to(dtype)
        if not contiguous:
            values = values.transpose(1, 2).contiguous().transpose(1, 2)
        assert relative_error(layer(values).double(), plain(layer, values).double()) < tolerance


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    inputs = random(2, 7, 5), random(1), random(5, seed=1), random(5, seed=2)
    output = PreluGlobalNorm.apply(*inputs, None, 1e-3).square().sum()
    (gradient,) = torch.autograd.grad(output, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
