"""The one place that turns examples of the data rooms into forward arguments of the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data_builders.schema import common_rate
from modeling.feature_extraction_tse_ser import TseSerFeatureExtractor
from tse_ser.options import Condition, Stage
from tse_ser.training.speaker_embeddings import SpeakerEmbeddingCache, can_be_kept


@dataclass
class TseSerCollator:
    """Pads examples into a batch for one stage."""

    feature_extractor: TseSerFeatureExtractor  # checks and pads waveforms
    # "extraction" and "joint" get enrollment and target, "classification" and "joint" get labels
    stage: Stage
    # "clean" lets the model hear the target, the others the mixture (which of a denoised example
    # is the extracted speech)
    condition: Condition = "noisy"
    # embeds enrollments; the model does so in every step where none is given
    speaker_embeddings: SpeakerEmbeddingCache | None = None
    permutation_invariant: bool = False  # the model hears no enrollment

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collates examples.

        Args:
            examples (`Sequence[dict]`): each with "mixture", "enrollment" and "target" (float32
                arrays of shape `(num_samples,)` at "sampling_rate", 16 kHz where it is not told)
                and "label" (`int`, -100 for none).

        Returns:
            `dict[str, torch.Tensor]`: `input_values` and the other forward arguments of the stage's
            model, waveforms of shape `(batch_size, num_samples)`, labels of shape `(batch_size,)`.

        Raises:
            ValueError: the examples have another rate than the model, or a waveform is empty, too
                short, silent or holds NaN.
        """
        heard = "target" if self.condition == "clean" else "mixture"
        extracts = self.stage != "classification"
        # Drawn mixtures say which enrollment it is; those of LibriMix do not.
        embeds = self.speaker_embeddings is not None and can_be_kept(examples[0])
        enrolls = extracts and not self.permutation_invariant and not embeds
        features = self.feature_extractor(
            [example[heard] for example in examples],
            enrollments=[example["enrollment"] for example in examples] if enrolls else None,
            targets=[example["target"] for example in examples] if extracts else None,
            sampling_rate=common_rate(examples),
            return_tensors="pt",
        )
        batch = dict(features)
        if self.permutation_invariant:
            batch["permutation_invariant"] = True
        elif self.speaker_embeddings is not None and embeds and extracts:
            batch["speaker_embeddings"] = self.speaker_embeddings(examples)
        if self.stage != "extraction":
            batch["labels"] = torch.tensor([example["label"] for example in examples])
        return batch
