"""The norms are their published formulas, over valid frames, in training as in evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import relative_error, scatter_parameters
from torch import Tensor, nn

from modeling.frame_norms import (
    ChannelwiseLayerNorm,
    CumulativeLayerNorm,
    FrameBatchNorm,
    FrameLayerNorm,
    GlobalLayerNorm,
)

EPSILON = 1e-2
Neighbourhood = Callable[[Tensor, int], Tensor]
# The values that a frame's mean and variance are taken over, of frames (num_channels, num_frames).
NEIGHBOURHOODS: list[tuple[type[FrameLayerNorm], Neighbourhood]] = [
    (GlobalLayerNorm, lambda frames, index: frames),
    (ChannelwiseLayerNorm, lambda frames, index: frames[:, index]),
    (CumulativeLayerNorm, lambda frames, index: frames[:, : index + 1]),
]


def frames_of(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64) + 0.7


def frame_mask(lengths: tuple[int, ...], num_frames: int) -> Tensor:
    mask = torch.zeros(len(lengths), 1, num_frames, dtype=torch.float64)
    for row, length in enumerate(lengths):
        mask[row, :, :length] = 1
    return mask


@pytest.mark.parametrize(
    ("norm_class", "neighbourhood"),
    NEIGHBOURHOODS,
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_norm_is_its_formula(
    norm_class: type[FrameLayerNorm], neighbourhood: Neighbourhood, masked: bool
) -> None:
    norm = norm_class(4, EPSILON).double()
    scatter_parameters(norm)
    frames = frames_of(2, 4, 7)
    lengths = (7, 5) if masked else (7, 7)
    actual = norm(frames, frame_mask(lengths, 7) if masked else None)
    for row, length in enumerate(lengths):
        for index in range(length):
            values = neighbourhood(frames[row, :, :length], index)
            variance = (values - values.mean()).square().mean()
            expected = (frames[row, :, index] - values.mean()) / (variance + EPSILON).sqrt()
            expected = expected * norm.weight + norm.bias
            assert relative_error(actual[row, :, index], expected) < 1e-12
        assert not actual[row, :, length:].any()


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_cumulative_sums_hold_over_a_long_recording(scale: float) -> None:
    frames = (frames_of(1, 3, 20000) * scale).float()
    norm = CumulativeLayerNorm(3, 1e-8)
    assert relative_error(norm(frames), norm.double()(frames.double())) < 1e-5


@pytest.mark.parametrize("level", [0.0, 1e4 / 3])
def test_equal_values_stay_finite(level: float) -> None:
    for norm_class, _ in NEIGHBOURHOODS:
        frames = torch.full((1, 3, 50), level, requires_grad=True)
        output = norm_class(3, 1e-8)(frames)
        output.sum().backward()
        assert output.isfinite().all()
        assert frames.grad is not None and frames.grad.isfinite().all()


def test_batch_norm_takes_its_statistics_from_valid_frames() -> None:
    """As torch's own does from those frames alone, running statistics and gradients included."""
    norm, plain = FrameBatchNorm(4, EPSILON).double(), nn.BatchNorm1d(4).double()
    scatter_parameters(norm)
    plain.load_state_dict(norm.state_dict())
    lengths = (7, 3, 5)
    frames, mask = frames_of(3, 4, 7).requires_grad_(), frame_mask(lengths, 7)
    valid = torch.cat([frames[row, :, :length].T for row, length in enumerate(lengths)])
    weights = frames_of(15, 4, seed=1)

    actual = norm(frames, mask)
    rows = torch.cat([actual[row, :, :length].T for row, length in enumerate(lengths)])
    expected = plain(valid)

    assert relative_error(rows, expected) < 1e-12
    assert not (actual * (1 - mask)).any()
    for name, statistic in plain.state_dict().items():
        assert relative_error(norm.state_dict()[name].double(), statistic.double()) < 1e-12, name
    parameters = (frames, norm.weight, norm.bias)
    gradients = torch.autograd.grad((rows * weights).sum(), parameters)
    references = torch.autograd.grad((expected * weights).sum(), (frames, plain.weight, plain.bias))
    for gradient, reference in zip(gradients, references, strict=True):
        assert relative_error(gradient, reference) < 1e-10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_batch_norm_counts_thousands_of_frames(dtype: torch.dtype) -> None:
    frames = frames_of(1, 4, 9000).to(dtype)
    mask = frame_mask((7000,), 9000).to(dtype)
    output = FrameBatchNorm(4, EPSILON)(frames, mask)
    assert output.dtype == dtype
    expected = FrameBatchNorm(4, EPSILON)(frames.float(), mask.float())
    assert relative_error(output.float(), expected) < 4 * torch.finfo(dtype).eps
