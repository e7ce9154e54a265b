"""What a training heard, and words for its facts; `model_cards/stage.md.jinja` tells them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tse_ser.publishing.corpora import listed

NOISE = "noise"


def corpora_of(facts: Mapping[str, Any]) -> list[str]:
    """The corpora that a training heard, as its facts name them, targets first; none of a
    conversion."""
    names = targets_of(facts)
    if is_conversion(facts):
        return names
    data = facts["data"]
    # Clean speech is heard alone, whatever the recipe names besides; LibriMix has its own others.
    if facts["training"]["condition"] != "clean" and not data.get("librimix_subset"):
        names += listed(data["interferers"])
    if data.get("noise_dir"):
        names.append(NOISE)
    return names


def targets_of(facts: Mapping[str, Any]) -> list[str]:
    """The corpora of a training's target speakers; none of a conversion."""
    if is_conversion(facts):
        return []
    data = facts["data"]
    return ["librispeech"] if data.get("librimix_subset") else listed(data["targets"])


def is_conversion(facts: Mapping[str, Any]) -> bool:
    """Whether facts are those of a converted checkpoint, which was trained elsewhere."""
    return "form" in facts


def snr_words(options: Mapping[str, Any]) -> str:
    """The law of the SNR between target and interferer, such as "0 dB" or "-5 to 5 dB"."""
    law = options.get("snr_distribution", "uniform")
    if law == "loudness":
        return "by LibriMix's law of loudness"
    if law == "normal":
        mean, deviation = options["snr_mean_std_db"]
        return f"{number(mean)} ± {number(deviation)} dB"
    return span(options["snr_range_db"])


def span(bounds: Iterable[float], unit: str = "dB") -> str:
    """A range with its unit: "0 dB" or "-5 to 5 dB"."""
    low, high = bounds
    return f"{number(low)} {unit}" if low == high else f"{number(low)} to {number(high)} {unit}"


def number(value: float) -> str:
    """A number without a fraction that says nothing: 3.0 is 3, 0.0005 is 0.0005."""
    return f"{value:g}"
