"""Test mixtures of a finished study, with what its joint model extracts and hears."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import PreTrainedModel

from data_builders.schema import EMOTIONS
from tse_ser.evaluation.bootstrap import Cells
from tse_ser.evaluation.evaluate_checkpoint import EvaluationOptions, load_condition, load_model
from tse_ser.evaluation.prediction import run_model


@dataclass(frozen=True)
class ExtractionExample:
    """One test mixture, what was extracted from it, and the emotions heard.

    Args:
        mixture, extracted, target (`np.ndarray` of shape `(num_samples,)`): waveforms at 16 kHz;
            the extracted one is scaled to fit the target best.
        enrollment (`np.ndarray` of shape `(num_enrollment_samples,)`): waveform at 16 kHz.
        true_emotion, mixture_emotion, extracted_emotion (`str`): of the target, and heard by the
            model's classifier in the mixture and in the extracted speech.
        utterance_id, interferer_id (`str`): what was mixed.
    """

    mixture: np.ndarray
    extracted: np.ndarray
    target: np.ndarray
    enrollment: np.ndarray
    true_emotion: str
    mixture_emotion: str
    extracted_emotion: str
    utterance_id: str
    interferer_id: str


@dataclass(frozen=True)
class Places:
    """Where the corpora lie on this machine, which cells do not say.

    Attributes:
        corpus_dir (`str`, optional): folder that holds a folder <name> for each corpus.
        corpus_dirs (`list[str]`, optional): folders of single corpora, as iemocap=/data/IEMOCAP.
        cache_dir (`str`, optional): folder for resampled and generated speech.
    """

    corpus_dir: str | None = None
    corpus_dirs: list[str] | None = None
    cache_dir: str | None = None


def joint_cell(results_dir: str | os.PathLike[str], cells: Cells) -> Mapping[str, Any] | None:
    """The cell whose model extracts and recognises, and can still be run.

    Args:
        results_dir (path): folder of the study.
        cells (sequence of mappings): its cells.

    Returns:
        The jointly trained model's before that of a pair that was trained apart; None where no such
        cell has its checkpoint in the study's folder or on a hub.
    """
    found = [
        cell
        for cell in cells
        if cell["wa"] is not None
        and cell["si_sdri_db"] is not None
        and not cell.get("condition_label")
        and not cell.get("absent_share")
        # Of the noise, a cell keeps the folder's name alone.
        and not cell.get("noise_dir")
        and _is_there(results_dir, cell["checkpoint"])
        and _is_there(results_dir, cell["classifier_checkpoint"])
    ]
    return min(found, key=lambda cell: cell["classifier_checkpoint"] is not None, default=None)


def extract_examples(
    results_dir: str | os.PathLike[str],
    cell: Mapping[str, Any],
    indices: Sequence[int] = (0,),
    places: Places | None = None,
) -> list[ExtractionExample]:
    """Runs the joint model of a cell on some of its test mixtures.

    Args:
        results_dir (path): folder of the study; the cell names checkpoints from its `cells`.
        cell (mapping): result of `evaluate_checkpoint` for a combined model.
        indices (sequence of `int`): which test utterances.
        places (`Places`, optional): where the corpora lie.

    Returns:
        `list[ExtractionExample]`: one for each index.
    """
    names = {field.name for field in fields(EvaluationOptions)}
    classifier = cell["classifier_checkpoint"]
    settings = EvaluationOptions(
        **{
            **{name: cell[name] for name in names & cell.keys()},
            **vars(places or Places()),
            "model": _checkpoint(results_dir, cell["checkpoint"]),
            "classifier": classifier and _checkpoint(results_dir, classifier),
        }
    )
    dataset: Any = load_condition(settings)
    model = load_model(settings.model, settings.classifier)
    return [_extract(model, dataset[index % len(dataset)]) for index in indices]


def _extract(model: PreTrainedModel, example: Mapping[str, Any]) -> ExtractionExample:
    outputs = run_model(model, [example])
    before = run_model(cast(PreTrainedModel, model.classifier), [example])
    extracted = outputs["extracted_values"][0].double().numpy()[: example["target"].size]
    scale = extracted @ example["target"] / max(extracted @ extracted, np.finfo(float).tiny)
    return ExtractionExample(
        mixture=example["mixture"],
        extracted=(scale * extracted).astype(np.float32),
        target=example["target"],
        enrollment=example["enrollment"],
        true_emotion=EMOTIONS[example["label"]],
        mixture_emotion=EMOTIONS[int(before["logits"].argmax())],
        extracted_emotion=EMOTIONS[int(outputs["logits"].argmax())],
        utterance_id=example["utterance_id"],
        interferer_id=example["interferer_id"],
    )


def _checkpoint(results_dir: str | os.PathLike[str], name: str) -> str:
    folder = Path(results_dir) / "cells" / name
    return str(folder) if folder.is_dir() else name


def _is_there(results_dir: str | os.PathLike[str], name: str | None) -> bool:
    # What a training of the study wrote is named from `cells` on; else it is a hub id or a folder.
    if name is None or not name.startswith(".."):
        return True
    return os.path.isdir(_checkpoint(results_dir, name))
