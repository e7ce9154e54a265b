"""Test mixtures of a finished study, with what its joint model extracts and hears."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import PreTrainedModel

from tse_ser.evaluation.evaluate_checkpoint import load_condition, load_model
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.evaluation.prediction import run_model
from tse_ser.evaluation.results import RUN, Results
from tse_ser.options import EvaluationOptions

PLACES = ("corpus_dir", "corpus_dirs", "cache_dir")


@dataclass(frozen=True)
class Example:
    """One test mixture, what was extracted from it, and the emotions heard."""

    # `mixture`, `extracted`, `target` of shape `(num_samples,)` and `enrollment`, at 16 kHz; the
    # extracted one is scaled to fit the target best
    waveforms: dict[str, np.ndarray]
    si_sdr_db: dict[str, float]  # of `mixture` and `extracted`
    # Probability of each emotion, most likely first, that the model's classifier hears in
    # `mixture` and `extracted`
    heard: dict[str, dict[str, float]]
    true_emotion: str  # of the target
    title: str  # what was mixed


def find_test(
    results: Results, places: Mapping[str, Any] | None = None, **labels: str
) -> EvaluationOptions | None:
    """What the first test of a study with the given labels scored on what.

    Args:
        results (`Results`): in the folder where the study ran.
        places (mapping, optional): where the corpora lie on this machine: of `corpus_dir`,
            `corpus_dirs` and `cache_dir` what is needed.
        labels (`str`): of the test, such as `method="TSE-SER-ft"`, on the tables' mixtures.

    Returns:
        `EvaluationOptions`: its settings; None where there is no such test, or the models that it
        scored are not there any more.
    """
    runs = results.runs[results.runs["condition_label"].isna()]
    for name, wanted in labels.items():
        runs = runs[runs[name] == wanted]
    known = {field.name for field in fields(EvaluationOptions)}
    for test, fold, seed in runs[RUN].itertuples(index=False):
        path = results.path.parent / "tests" / test / f"fold-{fold}_seed-{seed}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        named = {"model": content["checkpoint"], "classifier": content["classifier_checkpoint"]}
        models: dict[str, Any] = {
            key: _from_here(path, name) for key, name in named.items() if name is not None
        }
        if None not in models.values():
            settings = {name: content[name] for name in known & content.keys()}
            return EvaluationOptions(**settings, **(places or {}), **models)
    return None


def _from_here(path: Path, name: str) -> str | None:
    """A model that a test names as seen from its file: a folder or hub id; None if it is gone."""
    if not name.startswith(".."):
        return name
    folder = path.parent / name
    return os.path.relpath(folder) if folder.is_dir() else None


def extract_examples(
    results: Results, indices: Sequence[int] = (0,), places: Mapping[str, Any] | None = None
) -> list[Example]:
    """Runs the joint model of a study on some of its test mixtures, in the folder where it ran;
    one example for each index, none where there is no such model. `places` say where the
    corpora lie, see `find_test`."""
    settings = find_test(results, places, method="TSE-SER-ft")
    if settings is None:
        return []
    dataset: Any = load_condition(settings)
    model = load_model(settings.model, settings.classifier)
    return [extract_example(model, dataset[index % len(dataset)]) for index in indices]


def extract_example(model: PreTrainedModel, example: Mapping[str, Any]) -> Example:
    """Runs a combined model on one example of the contract between data and models."""
    emotions = emotions_of(model)
    outputs = run_model(model, [example])
    bypassed = run_model(cast(PreTrainedModel, model.classifier), [example])
    target = example["target"]
    extracted = outputs["extracted_values"][0].double().numpy()[: target.size]
    scale = extracted @ target / max(extracted @ extracted, np.finfo(float).tiny)
    waveforms = {name: example[name] for name in ("mixture", "target", "enrollment")}
    waveforms["extracted"] = (scale * extracted).astype(np.float32)
    return Example(
        waveforms=waveforms,
        si_sdr_db={
            name: scale_invariant_sdr(waveforms[name], target) for name in ("mixture", "extracted")
        },
        heard={
            "mixture": probabilities(bypassed, emotions),
            "extracted": probabilities(outputs, emotions),
        },
        true_emotion=emotions[example["label"]],
        title=f"{example['utterance_id']} with {example['interferer_id']}",
    )


def emotions_of(model: PreTrainedModel) -> list[str]:
    """The emotions that a model tells apart, in the order of their labels."""
    return list((model.config.id2label or {}).values())


def probabilities(outputs: Mapping[str, Any], emotions: Sequence[str]) -> dict[str, float]:
    """The probability of each emotion, most likely first.

    Args:
        outputs (mapping): with `logits` of shape `(1, num_labels)`.
        emotions (`Sequence[str]`): the model's, in the order of their labels.
    """
    shares = outputs["logits"][0].softmax(-1).tolist()
    return dict(sorted(zip(emotions, shares, strict=True), key=lambda pair: -pair[1]))


def add_places(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where the corpora lie."""
    parser.add_argument("--corpus_dir", help="folder that holds a folder <name> for each corpus")
    parser.add_argument(
        "--corpus_dirs", nargs="+", help="folders of single corpora, as iemocap=/data/IEMOCAP"
    )
    parser.add_argument("--cache_dir", help="folder for resampled and generated speech")


def places_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `add_places` was given."""
    return {name: getattr(arguments, name) for name in PLACES}
