"""Embeddings of frozen speaker encoders, made once an enrollment and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

# What tells an enrollment from all others: its utterance, the stretch of it, and its speed.
ENROLLMENT_FIELDS = ("enrollment_id", "enrollment_start", "enrollment_num_samples", "target_speed")


def can_be_kept(example: dict[str, Any]) -> bool:
    """Whether an example says which enrollment it has: those of drawn mixtures do, those of
    LibriMix do not."""
    return all(name in example.get("spec", {}) for name in ENROLLMENT_FIELDS)


class SpeakerEmbeddingCache:
    """Embeds the enrollments of examples, each of them once.

    A training hears few enrollments often, and a speaker encoder of millions of parameters takes
    longer for one than a training step for a mixture.

    Args:
        embed (`Callable[[torch.Tensor], torch.Tensor]`): gives the embedding of shape
            `(1, embedding_dim)` of an enrollment of shape `(1, num_samples)`, a model's
            `get_speaker_embeddings` behind a frozen encoder.
        prepare (`Callable[[np.ndarray], np.ndarray]`): brings an enrollment to the level at which
            the model hears it.
    """

    def __init__(
        self,
        embed: Callable[[torch.Tensor], torch.Tensor],
        prepare: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._embed = embed
        self._prepare = prepare
        self._kept: dict[tuple[Any, ...], torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @torch.no_grad()
    def __call__(self, examples: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Embeds.

        Args:
            examples (`Sequence[dict]`): each with "enrollment" of shape `(num_samples,)` and
                "spec".

        Returns:
            `torch.Tensor` of shape `(num_examples, embedding_dim)`.
        """
        rows = []
        for example in examples:
            key = tuple(example["spec"][name] for name in ENROLLMENT_FIELDS)
            if key not in self._kept:
                waveform = torch.from_numpy(self._prepare(example["enrollment"]))
                self._kept[key] = self._embed(waveform[None])[0]
            rows.append(self._kept[key])
        return torch.stack(rows)
