"""SI-SNR: equal to the public loss, finite everywhere, over valid samples only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import padded_batch, ragged_waveforms, relative_error, tiny_extractor
from torch import Tensor

from modeling import negative_si_snr, si_snr
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr


@pytest.mark.parametrize(
    ("dtype", "prefix", "tolerance", "gradient_tolerance"),
    [(torch.float32, "", 1e-5, 1e-3), (torch.float64, "f64.", 1e-10, 1e-8)],
    ids=["float32", "float64"],
)
def test_values_and_gradients_equal_the_public_loss(
    vectors_dir: Path,
    dtype: torch.dtype,
    prefix: str,
    tolerance: float,
    gradient_tolerance: float,
) -> None:
    tensors = load_file(vectors_dir / "si_sdr" / "sisdr.safetensors")
    estimate = tensors["est"].to(dtype).requires_grad_()
    target = tensors["target"].to(dtype)

    losses = negative_si_snr(estimate, target)
    losses.sum().backward()

    expected = tensors[f"{prefix}singlesrc_neg_sisdr"]
    assert relative_error(losses, expected) < tolerance
    assert relative_error(losses.mean(), tensors[f"{prefix}singlesrc_neg_sisdr_mean"]) < tolerance
    assert estimate.grad is not None
    gradients = tensors[f"{prefix}singlesrc_neg_sisdr.grad_est"]
    for row, (gradient, reference) in enumerate(zip(estimate.grad, gradients, strict=True)):
        # A floor for the degenerate pairs, whose gradient is zero or rounding.
        assert relative_error(gradient, reference, floor=1e-3) < gradient_tolerance, row


def test_scale_and_offset_do_not_matter() -> None:
    estimate, target = torch.randn(2, 3, 1000, dtype=torch.float64).unbind()
    expected = si_snr(estimate, target)
    assert relative_error(si_snr(7 * estimate + 2, 0.5 * target - 3), expected) < 1e-6


def test_noise_at_a_known_ratio() -> None:
    target = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    noise = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    assert si_snr(target + 0.1 * noise, target).item() == pytest.approx(20.0, abs=1e-4)
    assert negative_si_snr(target + noise, target).item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("num_samples", [1, 2, 1000])
@pytest.mark.parametrize("kind", ["silence", "silent target", "silent estimate", "copy", "tiny"])
def test_degenerate_signals_stay_finite(kind: str, num_samples: int) -> None:
    signal = torch.randn(2, num_samples)
    silence = torch.zeros(2, num_samples)
    estimate, target = {
        "silence": (silence, silence),
        "silent target": (signal, silence),
        "silent estimate": (silence, signal),
        "copy": (signal, signal),
        "tiny": (1e-20 * signal, 1e-20 * signal),
    }[kind]
    estimate = estimate.clone().requires_grad_()
    values = si_snr(estimate, target)
    values.sum().backward()
    assert values.isfinite().all()
    assert estimate.grad is not None and estimate.grad.isfinite().all()
    if kind == "copy" and num_samples > 2:
        assert (values > 60).all()
    elif kind != "copy":
        assert torch.equal(values, torch.full((2,), -80.0))


def test_padding_changes_nothing() -> None:
    lengths = (900, 1000, 400)
    estimates, targets = ragged_waveforms(lengths, 1), ragged_waveforms(lengths, 2)
    padded_estimates, mask = padded_batch(estimates)
    padded_targets, _ = padded_batch(targets)
    padded_estimates.requires_grad_()
    values = si_snr(padded_estimates, padded_targets, mask)
    values.sum().backward()
    gradients = padded_estimates.grad
    assert gradients is not None
    for row, length in enumerate(lengths):
        alone = estimates[row][None].requires_grad_()
        expected = si_snr(alone, targets[row][None])
        expected.sum().backward()
        assert alone.grad is not None
        assert relative_error(values[row], expected[0]) < 1e-5
        assert relative_error(gradients[row, :length], alone.grad[0]) < 1e-5
        assert not gradients[row, length:].any()


def test_a_row_without_a_valid_sample_stays_finite() -> None:
    estimate, target = torch.randn(2, 2, 500).unbind()
    mask = torch.ones(2, 500)
    mask[1] = 0
    estimate.requires_grad_()
    values = si_snr(estimate, target, mask)
    values.sum().backward()
    assert values.isfinite().all() and values[1] == -80.0
    assert estimate.grad is not None and estimate.grad.isfinite().all()
    assert not estimate.grad[1].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    estimate, target = (100 * torch.randn(2, 1, 48000, generator=generator)).to(dtype).unbind()
    values = si_snr(estimate, target)
    assert values.dtype == torch.float32
    assert torch.equal(values, si_snr(estimate.float(), target.float()))
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(si_snr(estimate.float(), target.float()), values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_extractors_loss_is_single_precision_under_autocast(dtype: torch.dtype) -> None:
    model = tiny_extractor()
    # The energies of such levels are beyond half precision.
    mixture, enrollment, target = (100 * torch.randn(3, 2, 4003)).unbind()
    with torch.autocast("cpu", dtype=dtype):
        output = model(mixture, enrollment_values=enrollment, target_values=target)
    assert output.loss.dtype == output.si_snr.dtype == torch.float32
    assert torch.equal(output.si_snr, si_snr(output.extracted_values.float(), target))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("target", [torch.ones(2, 99), torch.ones(1, 100), torch.ones(100)])
def test_other_shapes_are_refused(target: Tensor) -> None:
    with pytest.raises(ValueError, match=r"`estimate` and `target` must have one shape"):
        si_snr(torch.ones(2, 100), target)


def test_it_is_the_si_sdr_of_the_metric() -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal((3, 2000)).astype(np.float32)
    estimate = target + 0.5 * rng.standard_normal((3, 2000)).astype(np.float32) + 0.2
    model_db = si_snr(torch.from_numpy(estimate), torch.from_numpy(target)).numpy()
    metric_db = [scale_invariant_sdr(e, t) for e, t in zip(estimate, target, strict=True)]
    np.testing.assert_allclose(model_db, metric_db, atol=1e-4)
