"""Scores one checkpoint on one test condition and writes the numbers as JSON.

    python -m tse_ser.evaluation.evaluate_checkpoint --model CHECKPOINT --condition noisy --fold 1 \
        --gender_state same --interferers generated_pool --output test.json
    python -m tse_ser.evaluation.evaluate_checkpoint --model CHECKPOINT --config RECIPE.yaml

The second scores the test split of a recipe; every option of its data is a flag too, which wins.
The file holds a record of each utterance too, for paired comparisons later.
`--classifier` scores an extractor and a classifier, trained apart, as one model (TSE-SER-base).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from huggingface_hub.errors import HFValidationError
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    PreTrainedModel,
)

from data_builders import load_mixtures
from data_builders.corpora.denoised import METADATA_FILE
from data_builders.files import check_output
from data_builders.option_reader import OptionError
from data_builders.schema import EMOTIONS, CorpusError
from modeling import EXTRACTORS, TseSerForEmotionClassification
from tse_ser.evaluation.prediction import extracts, predict
from tse_ser.evaluation.scoring import (
    score_detection,
    score_groups,
    score_predictions,
    utterance_records,
)
from tse_ser.machine import describe_machine, describe_versions
from tse_ser.options import (
    EvaluationOptions,
    data_facts,
    read_evaluation_options,
    with_sources,
)

PLACES = (
    *("model", "classifier", "output"),
    *("corpus_dir", "corpus_dirs", "cache_dir", "denoised_dir"),
)
# Where a training under `best_on_test` keeps the epoch with the best WA; its own weights are those
# of the epoch with the best UA.
BEST_WA_FOLDER = "best_wa"


def evaluate_checkpoint(**arguments: Any) -> dict[str, Any]:
    """Scores a checkpoint on one split and condition.

    Args:
        arguments: the fields of `EvaluationOptions`, `model` at least.

    Returns:
        What is written to `output`: `checkpoint`,
        `classifier_checkpoint`; `condition`, `split`, `fold`, `protocol`, `seed`, `gender_state`,
        `targets`, `interferers`, `snr_range_db`, `mixing_seed` and the other settings; `classes`;
        the numbers of `score_predictions`, again under `by_interferer_corpus` and
        `by_gender_state`; `detection`, see `score_detection`, where similarities were asked for;
        `minutes`, `versions`, `machine`; `utterances`, see `utterance_records`. Under protocol
        `best_on_test` `wa` is that of another epoch, in `wa_checkpoint`, than everything else, and
        `optimistic` is true.

    Raises:
        OptionError: an option is out of its range, a condition lacks what it needs, or the model
            cannot do what is asked of it.
        CorpusError: a corpus cannot be used.
    """
    started = time.monotonic()
    settings = with_sources(EvaluationOptions(**arguments))
    if settings.output is not None:
        check_output(settings.output)
    model = load_model(settings.model, settings.classifier)
    settings = replace(settings, emotions=classes_of(model, settings))
    rows = _predict(model, settings)
    result: dict[str, Any] = {
        **_described(settings),
        "classes": list(settings.classes),
        **score_predictions(rows, settings.classes),
        "by_interferer_corpus": score_groups(rows, "interferer_corpus", settings.classes),
        "by_gender_state": score_groups(rows, "gender_state", settings.classes),
        "detection": _score_similarities(rows),
        "optimistic": settings.protocol == "best_on_test",
    }
    if settings.protocol == "best_on_test" and result["wa"] is not None:
        result |= _score_best_wa(settings)
    result |= {
        "minutes": round((time.monotonic() - started) / 60, 3),
        "versions": describe_versions(),
        "machine": describe_machine(model.device),
        "utterances": utterance_records(rows),
    }
    if settings.output is not None:
        _write_results(Path(settings.output), result)
    return result


def load_model(model: str, classifier: str | None = None) -> PreTrainedModel:
    """Any of the three models from a folder or the Hub, or an extractor and a classifier as one.

    Args:
        model (`str`): folder or hub id; with `classifier`, the extractor's.
        classifier (`str`, optional): folder or hub id of the classifier to put behind it.

    Returns:
        `PreTrainedModel`: in evaluation mode, on a GPU where there is one.

    Raises:
        OptionError: one of them is not there.
    """
    network: PreTrainedModel
    try:
        if classifier is not None:
            network = TseSerForEmotionClassification.from_sub_models_pretrained(model, classifier)
        elif AutoConfig.from_pretrained(model).model_type in EXTRACTORS:
            network = AutoModel.from_pretrained(model)
        else:
            network = AutoModelForAudioClassification.from_pretrained(model)
    except (OSError, HFValidationError) as error:
        named = model if classifier is None else f"{model} --classifier {classifier}"
        raise OptionError(
            f"--model {named}: no model is there ({str(error).splitlines()[0]}): name the output "
            f"folder of a finished training, or a hub id that can be reached"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device).eval()  # type: ignore[arg-type]


def classes_of(model: PreTrainedModel, settings: EvaluationOptions) -> tuple[str, ...] | None:
    """The emotions that are scored, in the order of their labels.

    Args:
        model (`PreTrainedModel`): its classes, where it has any.
        settings (`EvaluationOptions`): its `emotions`, where they are given.

    Returns:
        `tuple[str, ...]`: the emotions; None for all, of an extractor.

    Raises:
        OptionError: others are asked for than the model tells apart.
    """
    asked = settings.emotions
    if model.config.model_type in EXTRACTORS:
        return EMOTIONS if asked == () else asked
    names = tuple((model.config.id2label or {}).values())
    if asked != () and {*(asked or ("all",))} != {*names}:
        raise OptionError(
            f"emotions: {settings.model} tells {', '.join(names)} apart, asked for are "
            f"{', '.join(asked or ('all',))}: leave --emotions out, or score another model"
        )
    return names


def load_condition(settings: EvaluationOptions) -> Dataset[dict[str, Any]]:
    """The examples that a model is scored on, the plan of epoch 0; `mixture` is what it hears:
    the utterance itself in the conditions `clean` and `denoised`."""
    return load_mixtures(split=settings.split, **settings.keywords())


def _predict(model: PreTrainedModel, settings: EvaluationOptions) -> list[dict[str, Any]]:
    if settings.condition == "denoised" and extracts(model):
        raise OptionError("The denoised set is extracted already: evaluate a classifier on it.")
    compare_speakers = settings.speaker_similarity or settings.absent_share > 0
    if compare_speakers and not extracts(model):
        raise OptionError(
            "absent_share and speaker_similarity need an extractor, alone or in front of a "
            "classifier: this model has none."
        )
    rows = predict(
        model,
        load_condition(settings),
        condition=settings.condition,
        batch_size=settings.batch_size,
        compare_speakers=compare_speakers,
    )
    if settings.condition == "denoised" and settings.denoised_dir is not None:
        sources = _sources(Path(settings.denoised_dir))
        rows = [row | {"source_utterance_id": sources.get(row["utterance_id"])} for row in rows]
    return rows


def _sources(denoised_dir: Path) -> dict[str, str]:
    """Which utterance each one of a denoised set was extracted for, so that they can be paired."""
    columns = ["utterance_id", "source_utterance_id"]
    table = pyarrow.parquet.read_table(denoised_dir / METADATA_FILE, columns=columns)
    return dict(zip(*(table[name].to_pylist() for name in columns), strict=True))


def _score_similarities(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    compared = [row for row in rows if row["speaker_similarity"] is not None]
    if not compared:
        return None
    similarities = np.array([row["speaker_similarity"] for row in compared])
    present = np.array([not row["target_absent"] for row in compared])
    means = {
        f"mean_similarity_{name}": float(similarities[chosen].mean()) if chosen.any() else None
        for name, chosen in (("present", present), ("absent", ~present))
    }
    return score_detection(similarities, present) | means


def _score_best_wa(settings: EvaluationOptions) -> dict[str, Any]:
    """WA of the epoch that has the best one: with `best_on_test` it is chosen for itself."""
    folder = Path(settings.classifier or settings.model) / BEST_WA_FOLDER
    if not folder.is_dir():
        raise OptionError(
            f"Protocol 'best_on_test' takes WA from the epoch in {folder}, which is missing: "
            "train with --protocol best_on_test."
        )
    if settings.classifier is None:
        best = replace(settings, model=str(folder))
    else:
        best = replace(settings, classifier=str(folder))
    rows = _predict(load_model(best.model, best.classifier), best)
    return {
        "wa": score_predictions(rows, best.classes)["wa"],
        "wa_checkpoint": _seen_from(settings.output, str(folder)),
    }


def _described(settings: EvaluationOptions) -> dict[str, Any]:
    described = {
        "checkpoint": _seen_from(settings.output, settings.model),
        "classifier_checkpoint": _seen_from(settings.output, settings.classifier),
        **data_facts(settings),
    }
    # Where files lie on this machine says nothing about the numbers.
    for name in PLACES:
        del described[name]
    if settings.noise_dir is not None:
        described["noise_dir"] = Path(settings.noise_dir).name
    return described


def _seen_from(output: str | None, checkpoint: str | None) -> str | None:
    # Relative to the file that it is written in: a folder of results can be moved.
    if output is None or checkpoint is None or not os.path.isdir(checkpoint):
        return checkpoint
    return os.path.relpath(checkpoint, Path(output).parent)


def _write_results(path: Path, result: Mapping[str, Any]) -> None:
    # A line a record: a test set of thousands stays a file that can be read.
    records = [json.dumps(record, allow_nan=False) for record in result["utterances"]]
    text = json.dumps({**result, "utterances": []}, indent=2, allow_nan=False)
    head, _, end = text.rpartition("[]")
    lines = ",\n".join(f"    {record}" for record in records)
    # A file that is there counts as done, so it appears whole or not at all.
    partial = path.with_suffix(".json.partial")
    partial.write_text(f"{head}[\n{lines}\n  ]{end}\n", encoding="utf-8")
    partial.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the checkpoint and prints the main numbers; returns the exit code, 2 where an
    option or a corpus cannot be used."""
    try:
        result = evaluate_checkpoint(**vars(read_evaluation_options(argv)))
    except (OptionError, CorpusError) as error:
        print(f"tse-ser evaluate: error: {error}", file=sys.stderr)
        return 2
    names = score_predictions([])  # those of every test
    shown = [name for name in names if not isinstance(result[name], dict | list)]
    shown += ["minutes", *(name for name in ("detection", "optimistic") if result[name])]
    print(json.dumps({name: result[name] for name in shown}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
