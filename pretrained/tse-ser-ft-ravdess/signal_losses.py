"""Scale-invariant signal-to-noise ratio, over valid samples only."""

import torch
from torch import Tensor

EPSILON = 1e-8


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
    if estimate.shape != target.shape:
        raise ValueError(
            "`estimate` and `target` must have one shape, got "
            f"{tuple(estimate.shape)} and {tuple(target.shape)}."
        )
    with torch.autocast(device_type=estimate.device.type, enabled=False):
        # Energies over seconds of audio overflow or lose digits in half precision.
        dtype = torch.promote_types(estimate.dtype, torch.float32)
        estimate = masked_center(estimate.to(dtype), mask)
        target = masked_center(target.to(dtype), mask)
        projection = (estimate * target).sum(dim=-1, keepdim=True)
        scaled_target = projection * target / (target.square().sum(dim=-1, keepdim=True) + EPSILON)
        noise = estimate - scaled_target
        ratio = scaled_target.square().sum(dim=-1) / (noise.square().sum(dim=-1) + EPSILON)
        return 10 * torch.log10(ratio + EPSILON)


def negative_si_snr(estimate: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """The extraction loss of the first stage: `-si_snr`, shape `(batch_size,)`, in dB."""
    return -si_snr(estimate, target, mask)
