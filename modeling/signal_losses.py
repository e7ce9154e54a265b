"""
Signal-to-noise ratios and the losses of extraction, over valid samples only.

Energies are summed in single precision or better: over seconds of audio they overflow or lose
digits in half.
"""

import torch
from torch import Tensor

EPSILON = 1e-8
# A target 80 dB below its mixture is absent: there is nothing to extract.
ABSENT_ENERGY_SHARE = 1e-8
# How far below its mixture an absent target's output is worth pushing where nothing else is said.
ABSENT_FLOOR_DB = 30.0


def masked_center(values: Tensor, mask: Tensor | None) -> Tensor:
    """
    Subtract each signal's mean over its valid samples, and set the other samples to zero.

    Args:
        values (`torch.Tensor` of shape `(batch_size, num_samples)`): signals.
        mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for valid samples.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_samples)`.
    """
    if mask is None:
        return values - values.mean(dim=-1, keepdim=True)
    mask = mask.to(values.dtype)
    mean = (values * mask).sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return (values - mean) * mask


def si_snr(estimate: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """
    SI-SNR of each estimate in dB (Le Roux et al. 2019, "SDR - half-baked or well done?").

    Both signals are brought to zero mean. Silence and exact copies stay finite: 1e-8 is added to
    the target's energy, to the noise's and to their ratio, so that a silent estimate gives -80 dB.

    Args:
        estimate (`torch.Tensor` of shape `(batch_size, num_samples)`): extracted signals.
        target (`torch.Tensor` of shape `(batch_size, num_samples)`): clean signals.
        mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for valid samples.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`, in float32 (float64 for float64 input).

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(estimate, target)
    with torch.autocast(device_type=estimate.device.type, enabled=False):
        target_energy, noise_energy = _scale_invariant_energies(*_centered(mask, estimate, target))
        return 10 * torch.log10(target_energy / (noise_energy + EPSILON) + EPSILON)


def negative_si_snr(estimate: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """The paper's extraction loss: `-si_snr`, shape `(batch_size,)`, in dB."""
    return -si_snr(estimate, target, mask)


def extraction_losses(
    estimate: Tensor,
    target: Tensor,
    mixture: Tensor,
    mask: Tensor | None = None,
    loss_type: str = "si_snr",
    max_snr_db: float | None = None,
) -> Tensor:
    r"""
    The extraction loss of each example in dB, whether its target is there or absent.

    A target that is there: `-SI-SNR`, or `-SNR`. With `max_snr_db` the ratio of noise to target is
    floored softly, \(10 \log_{10}(E_{noise} / E_{target} + 10^{-max/10})\) (Wisdom et al. 2020,
    "Unsupervised sound separation using mixture invariant training", there for the SNR), so that
    what is already clean teaches no more. An absent target: the energy of the output over that of
    the mixture, floored alike, \(10 \log_{10}(E_{output} / E_{mixture} + 10^{-max/10})\) (Wisdom
    et al. 2021, "What's all the fuss about free universal sound separation data?").

    Args:
        estimate (`torch.Tensor` of shape `(batch_size, num_samples)`): extracted signals.
        target (`torch.Tensor` of shape `(batch_size, num_samples)`): clean signals; 80 dB below the
            mixture counts as absent.
        mixture (`torch.Tensor` of shape `(batch_size, num_samples)`): what they were extracted of.
        mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 for valid samples.
        loss_type (`str`): `si_snr`, or `snr`, which also asks for the target's level.
        max_snr_db (`float`, *optional*): beyond about this there is no reward; `None` for the
            paper's loss, with 30 dB for absent targets.

    Returns:
        `torch.Tensor` of shape `(batch_size,)`, in float32 (float64 for float64 input).

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(estimate, target)
    _check_shapes(estimate, mixture)
    with torch.autocast(device_type=estimate.device.type, enabled=False):
        estimate, target, mixture = _centered(mask, estimate, target, mixture)
        energies = _scale_invariant_energies if loss_type == "si_snr" else _energies
        target_energy, noise_energy = energies(estimate, target)
        if max_snr_db is None:
            present = -10 * torch.log10(target_energy / (noise_energy + EPSILON) + EPSILON)
        else:
            ratio = noise_energy / (target_energy + EPSILON)
            present = 10 * torch.log10(ratio + 10 ** (-max_snr_db / 10))
        floor_db = ABSENT_FLOOR_DB if max_snr_db is None else max_snr_db
        mixture_energy = mixture.square().sum(dim=-1)
        share = estimate.square().sum(dim=-1) / (mixture_energy + EPSILON)
        absent = 10 * torch.log10(share + 10 ** (-floor_db / 10))
        is_absent = target.square().sum(dim=-1) <= ABSENT_ENERGY_SHARE * mixture_energy
        return torch.where(is_absent, absent, present)


def _check_shapes(estimate: Tensor, target: Tensor) -> None:
    if estimate.shape != target.shape:
        raise ValueError(
            "`estimate` and `target` must have one shape, got "
            f"{tuple(estimate.shape)} and {tuple(target.shape)}."
        )


def _centered(mask: Tensor | None, *signals: Tensor) -> list[Tensor]:
    dtype = torch.promote_types(signals[0].dtype, torch.float32)
    return [masked_center(signal.to(dtype), mask) for signal in signals]


def _energies(estimate: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Energies of the target, and of what the estimate differs by."""
    return target.square().sum(dim=-1), (estimate - target).square().sum(dim=-1)


def _scale_invariant_energies(estimate: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the target at the level that is nearest to the estimate."""
    projection = (estimate * target).sum(dim=-1, keepdim=True)
    scaled_target = projection * target / (target.square().sum(dim=-1, keepdim=True) + EPSILON)
    return _energies(estimate, scaled_target)
