"""What a model's answers are worth, from the files that its calibration wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from tse_ser.publishing.errors import PublishingError
from tse_ser.publishing.lineage import read_json

SPLITS = ("validation", "test")
# What of a calibration is in the model's config, by its place in the file.
SETTINGS = {
    "temperature": ("temperature",),
    "presence_threshold": ("presence", "threshold"),
    "one_voice_threshold": ("one_voice", "threshold"),
}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was found on validation speakers, and measured on those of the test."""

    validation: Mapping[str, Any]  # what `calibrate` gives for that split
    test: Mapping[str, Any]

    @property
    def reliability(self) -> list[tuple[float, float, str, str]]:
        """Rows of the table: the bin's ends, and of both splits its mixtures and accuracy."""
        splits = [split["reliability"]["after"] for split in (self.validation, self.test)]
        cells = [
            {each["from"]: f"{each['num_examples']}: {each['accuracy']:.2f}" for each in bins}
            for bins in splits
        ]
        ends = sorted({(each["from"], each["to"]) for bins in splits for each in bins})
        return [(low, high, *(of.get(low, "0") for of in cells)) for low, high in ends]


def read_calibration(files: tuple[Path, ...], config: PreTrainedConfig) -> Calibration | None:
    """The files that calibration wrote of a model, in any order.

    Args:
        files (`tuple[Path, ...]`): one of the validation split and one of the test, or none.
        config (`PreTrainedConfig`): of the model; it holds what was found.

    Returns:
        `Calibration`, or None without files.

    Raises:
        PublishingError: they are no such pair, or the model has other settings.
    """
    if not files:
        return None
    splits = {content.get("split"): content for content in map(read_json, files)}
    if len(files) != len(SPLITS) or splits.keys() != set(SPLITS):
        raise PublishingError(
            "--calibration: expected two files that tse_ser.evaluation.calibration wrote, one of "
            f"--split validation and one of --split test; got {', '.join(map(str, splits))}"
        )
    for split, content in splits.items():
        for name, keys in SETTINGS.items():
            found: Any = content
            for key in keys:
                found = found and found[key]
            ours = getattr(config, name, None)
            # The config has four places.
            if found is not None and (ours is None or abs(found - ours) > 1e-4):
                raise PublishingError(
                    f"--calibration: the {split} file has a {name} of {found:g}, the model {ours}: "
                    "calibrate this model with --write, and measure it with --split test"
                )
    return Calibration(validation=splits["validation"], test=splits["test"])
