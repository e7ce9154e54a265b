"""The losses of extraction: exact values, what they reward, and where their gradients vanish."""

from __future__ import annotations

import math

import pytest
import torch

from modeling.signal_losses import extraction_losses, si_snr

RATE = 16000


def tone(frequency_hz: float, num_samples: int = 4000) -> torch.Tensor:
    """A sine of unit power and zero mean; two of whole periods are orthogonal."""
    time = torch.arange(num_samples, dtype=torch.float64) / RATE
    return math.sqrt(2) * torch.sin(2 * math.pi * frequency_hz * time)[None]


TARGET, OTHER = tone(400), tone(800)
MIXTURE = TARGET + OTHER


@pytest.mark.parametrize("noise_db", [-60.0, -30.0, -10.0, 0.0, 20.0])
@pytest.mark.parametrize("loss_type", ["si_snr", "snr"])
def test_the_reward_ends_softly_at_the_greatest_ratio(noise_db: float, loss_type: str) -> None:
    estimate = TARGET + 10 ** (noise_db / 20) * OTHER
    losses = extraction_losses(estimate, TARGET, MIXTURE, None, loss_type, 30.0)
    expected = 10 * math.log10(10 ** (noise_db / 10) + 10**-3)
    assert losses.item() == pytest.approx(expected, abs=1e-6)


def test_without_a_greatest_ratio_it_is_the_papers_loss() -> None:
    estimate = 3 * TARGET + 0.1 * OTHER
    losses = extraction_losses(estimate, TARGET, MIXTURE)
    assert losses.item() == pytest.approx(-si_snr(estimate, TARGET).item(), abs=1e-12)


def test_only_the_snr_asks_for_the_level_of_the_target() -> None:
    twice = 2 * TARGET + 0.1 * OTHER
    once = TARGET + 0.05 * OTHER
    assert extraction_losses(twice, TARGET, MIXTURE, None, "si_snr", 30.0).item() == pytest.approx(
        extraction_losses(once, TARGET, MIXTURE, None, "si_snr", 30.0).item(), abs=1e-9
    )
    snr = extraction_losses(twice, TARGET, MIXTURE, None, "snr", 30.0).item()
    assert snr == pytest.approx(10 * math.log10(1 + 0.01 + 1e-3), abs=1e-6)


@pytest.mark.parametrize("level_db", [0.0, -20.0, -30.0, -80.0])
def test_an_absent_target_is_charged_for_the_energy_of_the_output(level_db: float) -> None:
    # The mixture has the power of both voices, 2.
    estimate = math.sqrt(2) * 10 ** (level_db / 20) * OTHER
    for silence in (torch.zeros_like(TARGET), 1e-17 * TARGET):
        losses = extraction_losses(estimate, silence, MIXTURE, None, "snr", 30.0)
        expected = 10 * math.log10(10 ** (level_db / 10) + 10**-3)
        assert losses.item() == pytest.approx(expected, abs=1e-6)


def test_every_example_has_a_gradient_that_points_the_right_way() -> None:
    estimates = torch.cat([0.5 * MIXTURE, 0.5 * MIXTURE]).requires_grad_()
    targets = torch.cat([TARGET, torch.zeros_like(TARGET)])
    mixtures = torch.cat([MIXTURE, MIXTURE])
    extraction_losses(estimates, targets, mixtures, None, "snr", 30.0).sum().backward()
    assert estimates.grad is not None
    present, absent = estimates.grad
    # Towards the target and away from the other voice; towards silence.
    assert (present * TARGET[0]).sum() < 0 < (present * OTHER[0]).sum()
    assert (absent * MIXTURE[0]).sum() > 0.1


def test_what_is_clean_already_pulls_no_harder_than_what_is_not() -> None:
    def gradient_norm(noise_db: float, max_snr_db: float | None) -> float:
        estimate = (TARGET + 10 ** (noise_db / 20) * OTHER).requires_grad_()
        extraction_losses(estimate, TARGET, MIXTURE, None, "si_snr", max_snr_db).sum().backward()
        assert estimate.grad is not None
        return estimate.grad.norm().item()

    # Without the threshold an example at 60 dB pulls a thousand times as hard as one at 0 dB.
    assert gradient_norm(-60, None) > 500 * gradient_norm(0, None)
    assert gradient_norm(-60, 30.0) < 1.1 * gradient_norm(0, 30.0)
    assert gradient_norm(-90, 30.0) < 0.1 * gradient_norm(0, 30.0)


def test_padding_changes_nothing_and_silence_stays_finite() -> None:
    estimate = TARGET + 0.3 * OTHER
    alone = extraction_losses(estimate, TARGET, MIXTURE, None, "snr", 30.0)
    padded = [torch.cat([one, 7 * torch.ones(1, 50)], dim=1) for one in (estimate, TARGET, MIXTURE)]
    mask = torch.cat([torch.ones(1, 4000), torch.zeros(1, 50)], dim=1)
    in_padding = extraction_losses(padded[0], padded[1], padded[2], mask, "snr", 30.0)
    assert in_padding.item() == pytest.approx(alone.item())
    nothing = torch.zeros(1, 100, requires_grad=True)
    for target in (torch.zeros(1, 100), torch.ones(1, 100)):
        losses = extraction_losses(nothing, target, torch.zeros(1, 100), None, "snr", 30.0)
        losses.sum().backward()
        assert losses.isfinite().all() and nothing.grad is not None
        assert nothing.grad.isfinite().all()


def test_signals_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        extraction_losses(TARGET, TARGET[:, :-1], MIXTURE)
