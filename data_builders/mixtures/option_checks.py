"""Checks of the drawing options, so that an impossible one is named before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from data_builders.mixtures.rooms import RT60_LIMITS_SECONDS
from data_builders.mixtures.spec import RoomTarget
from data_builders.mixtures.speed import MAX_SPEED_DENOMINATOR, speed_ratio
from data_builders.options import DrawingOptions

MIN_SPEAKERS, MAX_SPEAKERS = 2, 5
SNR_DISTRIBUTIONS = ("uniform", "normal", "loudness")
REVERBERATIONS = ("none", *get_args(RoomTarget))


def check_options(options: DrawingOptions) -> None:
    """Raises unless every option is within its range.

    Args:
        options (`DrawingOptions`): the options.

    Raises:
        ValueError: one is not; the message names it and the range.
    """
    speaker_range(options.num_speakers)
    for name, value, known in (
        ("snr_distribution", options.snr_distribution, SNR_DISTRIBUTIONS),
        ("reverberation", options.reverberation, REVERBERATIONS),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: use one of {', '.join(known)}")
    check_range("snr_range_db", options.snr_range_db)
    check_range("noise_snr_range_db", options.noise_snr_range_db)
    _check_mean_std(options.snr_mean_std_db)
    for name in ("segment_seconds", "enrollment_seconds"):
        seconds = getattr(options, name)
        if seconds is not None and not seconds > 0:
            raise ValueError(
                f"{name}: expected a positive number of seconds or none, got {seconds}"
            )
    _check_speeds(options.speed_factors)
    low, high = check_range("rt60_range_seconds", options.rt60_range_seconds)
    shortest, longest = RT60_LIMITS_SECONDS
    if not shortest <= low <= high <= longest:
        raise ValueError(
            f"rt60_range_seconds: expected reverberation times from {shortest} to {longest} s, got "
            f"{low}, {high}"
        )
    _check_shares(options.clean_share, options.absent_share)


def speaker_range(num_speakers: int | Sequence[int]) -> tuple[int, int]:
    """Fewest and most speakers of a mixture.

    Args:
        num_speakers (`int` or `Sequence[int]`): one number, or the lowest and the highest.

    Returns:
        `tuple[int, int]`: lowest and highest.

    Raises:
        ValueError: it is neither, or not within 2 to 5.
    """
    numbers = (num_speakers,) * 2 if isinstance(num_speakers, int) else tuple(num_speakers)
    whole = len(numbers) == 2 and all(isinstance(number, int) for number in numbers)
    if not whole or not MIN_SPEAKERS <= numbers[0] <= numbers[1] <= MAX_SPEAKERS:
        raise ValueError(
            f"num_speakers: expected a number from {MIN_SPEAKERS} to {MAX_SPEAKERS}, or the lowest "
            f"and the highest, got {num_speakers}"
        )
    return numbers[0], numbers[1]


def check_range(name: str, span: Sequence[float]) -> tuple[float, float]:
    """Two finite numbers in ascending order.

    Args:
        name (`str`): option, for the message.
        span (`Sequence[float]`): its value.

    Returns:
        `tuple[float, float]`: the numbers.

    Raises:
        ValueError: they are something else.
    """
    if len(span) != 2 or not np.isfinite(span).all() or span[0] > span[1]:
        raise ValueError(
            f"{name}: expected two finite numbers low <= high, got {', '.join(map(str, span))}"
        )
    return float(span[0]), float(span[1])


def _check_mean_std(mean_std: Sequence[float]) -> None:
    if len(mean_std) != 2 or not np.isfinite(mean_std).all() or mean_std[1] < 0:
        raise ValueError(
            f"snr_mean_std_db: expected a finite mean and a standard deviation of at least 0, got "
            f"{', '.join(map(str, mean_std))}"
        )


def _check_speeds(speed_factors: Sequence[float]) -> None:
    in_range = all(0.5 <= speed <= 2.0 for speed in speed_factors)
    if not speed_factors or not in_range or any(float(speed_ratio(s)) != s for s in speed_factors):
        raise ValueError(
            f"speed_factors: expected ratios of integers up to {MAX_SPEED_DENOMINATOR} between 0.5 "
            f"and 2, such as 0.9 or 1.1, got {list(speed_factors)}"
        )


def _check_shares(clean_share: float, absent_share: float) -> None:
    for name, share in (("clean_share", clean_share), ("absent_share", absent_share)):
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name}: expected a share from 0 to 1, got {share}")
    if clean_share + absent_share > 1.0:
        raise ValueError(
            f"clean_share and absent_share: expected at most 1 together, got {clean_share} and "
            f"{absent_share}"
        )
