"""Checks of config fields and of forward arguments; each error names the field and the fix."""

from collections.abc import Collection

import torch
from torch import Tensor
from transformers import PreTrainedConfig


class AudioError(ValueError):
    """
    Audio that cannot be used; the message names the fix.

    Args:
        message: for people.
        reason: for programs: `unreadable`, `too_long`, `too_short`, `silent`, `damaged` or
            `unusable`.
    """

    def __init__(self, message: str, reason: str = "unusable"):
        super().__init__(message)
        self.reason = reason


def check_choice(config: PreTrainedConfig, name: str, choices: Collection[str | None]) -> None:
    """
    Refuse a field that is none of `choices`.

    Raises:
        ValueError: it is not.
    """
    value = getattr(config, name)
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"`{name}` must be one of {known}, got {value!r}.")


def check_at_least(config: PreTrainedConfig, minimum: float, *names: str) -> None:
    """
    Refuse fields below `minimum`.

    Raises:
        ValueError: one of them is.
    """
    for name in names:
        if getattr(config, name) < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}, got {getattr(config, name)}.")


def check_probability(config: PreTrainedConfig, *names: str) -> None:
    """
    Refuse fields outside 0 to 1.

    Raises:
        ValueError: one of them is.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(config, name)}.")


def check_waveform(name: str, values: Tensor, mask: Tensor | None, min_samples: int) -> None:
    """
    Refuse a waveform that no model can use.

    Args:
        name: the forward argument.
        values: should have shape `(batch_size, num_samples)`.
        mask: should have the shape of `values`, 1 for valid samples.
        min_samples: valid samples that each row needs.

    Raises:
        ValueError: wrong rank, empty, too short, NaN or infinite, a mask of another shape.
    """
    if values.dim() != 2:
        raise ValueError(
            f"`{name}` must have shape (batch_size, num_samples), got {tuple(values.shape)}: "
            "average the channels of stereo audio, and add a batch axis to a single waveform."
        )
    if values.shape[0] == 0 or values.shape[1] < min_samples:
        raise ValueError(
            f"`{name}` must hold at least {min_samples} samples a row, got shape "
            f"{tuple(values.shape)}: pass a longer recording."
        )
    check_finite(name, values)
    if mask is None:
        return
    if mask.shape != values.shape:
        raise ValueError(
            f"The attention mask of `{name}` must have its shape {tuple(values.shape)}, got "
            f"{tuple(mask.shape)}."
        )
    # A compiled graph cannot branch on values.
    if not torch.compiler.is_compiling():
        shortest = int(mask.sum(dim=-1).min())
        if shortest < min_samples:
            raise ValueError(
                f"`{name}` must hold at least {min_samples} valid samples a row, but its attention "
                f"mask leaves {shortest} in one: pass a longer recording."
            )


def check_finite(name: str, values: Tensor) -> None:
    """
    Refuse NaN and infinite values, which one step of training would carry into every parameter.

    Raises:
        ValueError: there is one.
    """
    # A compiled graph cannot branch on values.
    if not torch.compiler.is_compiling() and not values.detach().isfinite().all():
        raise ValueError(
            f"`{name}` must be finite, but holds NaN or infinite values: check the recording and "
            "what was computed from it."
        )


def check_batch_size(name: str, values: Tensor, batch_size: int) -> None:
    """
    Refuse an argument that has not one row a mixture.

    Raises:
        ValueError: the batch sizes differ.
    """
    if values.dim() == 0 or values.shape[0] != batch_size:
        raise ValueError(
            f"`{name}` must have one row for each of the {batch_size} rows of `input_values`, got "
            f"shape {tuple(values.shape)}."
        )
