"""Corpora without audio, and all that a planner draws of them."""

from __future__ import annotations

from typing import Any

import datasets
from corpus_layouts import utterances

from data_builders import InterfererSpec, MixturePlanner, MixtureSpec

EMOTIONS_OF_TAKES = ("neutral", "neutral", "happy", "angry")


def voices(
    corpus: str, genders: str, takes: int = 4, duration_seconds: float = 2.0
) -> datasets.Dataset:
    """A corpus of one speaker a letter of `genders` (f, m), the first two takes neutral."""
    return utterances(
        {
            "utterance_id": f"{corpus}/{number}_{take}",
            "speaker_id": f"{corpus}_{number}",
            "gender": {"f": "female", "m": "male"}[gender],
            "emotion": EMOTIONS_OF_TAKES[take % 4],
            "duration_seconds": duration_seconds + 0.1 * take,
            "speech_end_seconds": duration_seconds - 0.5,
        }
        for number, gender in enumerate(genders)
        for take in range(takes)
    )


def all_specs(planner: MixturePlanner, epochs: int = 10) -> list[MixtureSpec]:
    return [planner.plan(epoch, index) for epoch in range(epochs) for index in range(len(planner))]


def interferer(spec: MixtureSpec) -> InterfererSpec:
    """The only interferer of a mixture of two."""
    (one,) = spec.interferers
    return one


def rows_of(*corpora: datasets.Dataset) -> dict[str | None, dict[str, Any]]:
    return {row["utterance_id"]: row for corpus in corpora for row in corpus}
