"""Scores one checkpoint on one test condition and writes the numbers as JSON.

    python -m evaluation.evaluate_checkpoint --model CHECKPOINT --condition noisy --fold 1 \
        --gender_state same --interferers generated_pool --output cell.json

Beside `cell.json` goes `cell.predictions.csv`, a row an utterance, for paired comparisons later.
`--classifier` scores an extractor and a classifier, trained apart, as one model (TSE-SER-base).
"""

from __future__ import annotations

import csv
import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    HfArgumentParser,
    PreTrainedModel,
)

from data_builders import load_mixtures
from data_builders.mixing_arguments import MixingArguments
from data_builders.schema import EMOTIONS, IGNORED_LABEL
from evaluation.metrics.ser_accuracy.ser_accuracy import emotion_accuracies
from evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from modeling import (
    TdSpeakerBeamForSpeechExtraction,
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
)

CONDITIONS = ("clean", "noisy", "denoised")
_SI_SDR_FIELDS = ("si_sdr_mixture_db", "si_sdr_extracted_db", "si_sdri_db")
LIBRARIES = ("torch", "torchaudio", "transformers", "datasets", "numpy")
_ID_FIELDS = ("utterance_id", "speaker_id", "interferer_id", "interferer_corpus", "gender_state")


@dataclass(kw_only=True)
class EvaluationArguments(MixingArguments):
    """What is scored on what; corpora, folds and mixing as in `data_builders.load_mixtures`."""

    model: str = field(metadata={"help": "Folder or hub id of any of the three models."})
    output: str | None = field(default=None, metadata={"help": "JSON file to write."})
    classifier: str | None = field(
        default=None, metadata={"help": "Classifier to put behind `--model`, an extractor."}
    )
    condition: Literal["clean", "noisy", "denoised"] = field(
        default="noisy", metadata={"help": "What is heard: target, mixture or `denoised_dir`."}
    )
    denoised_dir: str | None = field(
        default=None, metadata={"help": "Denoised set, as training.denoise_corpus writes it."}
    )
    split: Literal["train", "validation", "test"] = "test"
    seed: int = field(default=0, metadata={"help": "Seed of the training, for the record."})
    max_examples: int | None = field(
        default=None, metadata={"help": "Score at most this many utterances."}
    )
    batch_size: int = field(default=8, metadata={"help": "Utterances in a forward pass."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition not in CONDITIONS:
            raise ValueError(
                f"Unknown condition {self.condition!r}: choose one of {', '.join(CONDITIONS)}."
            )
        if self.condition == "noisy" and not self.interferers:
            raise ValueError(
                "Condition 'noisy' needs interferers, the corpora of the interfering speech "
                "(for example generated_pool)."
            )
        if self.condition == "denoised" and self.denoised_dir is None:
            raise ValueError(
                "Condition 'denoised' needs denoised_dir, a folder that "
                "`python -m training.denoise_corpus` wrote."
            )


def evaluate_checkpoint(cell: Mapping[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    """Scores a checkpoint on one split and condition.

    Args:
        cell (mapping, optional): what a study's cell says of itself (name, tables, model, method,
            train_set, test_set), written in front of the numbers.
        arguments: the fields of `EvaluationArguments`, `model` at least.

    Returns:
        What is written to `output`: the fields of `cell`; `checkpoint`,
        `classifier_checkpoint`; `condition`, `split`, `fold`, `protocol`, `seed`, `gender_state`,
        `targets`, `interferers`, `snr_range_db`, `mixing_seed` and the other settings; `classes`;
        the numbers of `score_predictions`, again under `by_interferer_corpus` and
        `by_gender_state`; `minutes`, `versions`, `machine`.

    Raises:
        ValueError: a condition that is unknown or lacks what it needs, or a model whose classes
            are not the corpora's.
    """
    started = time.monotonic()
    settings = EvaluationArguments(**arguments)
    model = load_model(settings.model, settings.classifier)
    if settings.condition == "denoised" and _extracts(model):
        raise ValueError("The denoised set is extracted already: evaluate a classifier on it.")
    rows = predict(
        model,
        load_condition(settings),
        condition=settings.condition,
        batch_size=settings.batch_size,
    )
    result: dict[str, Any] = {
        **(cell or {}),
        **_described(settings),
        "classes": list(EMOTIONS),
        **score_predictions(rows),
        "by_interferer_corpus": _score_groups(rows, "interferer_corpus"),
        "by_gender_state": _score_groups(rows, "gender_state"),
        "minutes": round((time.monotonic() - started) / 60, 3),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        "machine": describe_machine(model.device),
    }
    if settings.output is not None:
        _write_results(Path(settings.output), result, rows)
    return result


def load_model(model: str, classifier: str | None = None) -> PreTrainedModel:
    """Any of the three models from a folder or the Hub, or an extractor and a classifier as one.

    Args:
        model (`str`): folder or hub id; with `classifier`, the extractor's.
        classifier (`str`, optional): folder or hub id of the classifier to put behind it.

    Returns:
        `PreTrainedModel`: in evaluation mode, on a GPU where there is one.

    Raises:
        ValueError: classes that are not `EMOTIONS`, in their order.
    """
    network: PreTrainedModel
    if classifier is not None:
        network = TseSerForEmotionClassification.from_sub_models_pretrained(model, classifier)
    elif AutoConfig.from_pretrained(model).model_type == "td_speakerbeam":
        network = TdSpeakerBeamForSpeechExtraction.from_pretrained(model)
    else:
        network = AutoModelForAudioClassification.from_pretrained(model)
    if network.config.model_type != "td_speakerbeam":
        names = tuple((network.config.id2label or {}).values())
        if names != EMOTIONS:
            raise ValueError(f"{model} knows the classes {names}, the corpora {EMOTIONS}.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return network.to(device).eval()  # type: ignore[arg-type]


def load_condition(settings: EvaluationArguments) -> Dataset[dict[str, Any]]:
    """The examples that a model is scored on; `mixture` is what it hears.

    Args:
        settings (`EvaluationArguments`): without interference in `clean` and `denoised`, whose
            `mixture` is the utterance itself.

    Returns:
        `MixtureDataset`: the plan of epoch 0.
    """
    keywords = settings.mixing_keywords(noisy=settings.condition == "noisy")
    if settings.condition == "denoised":
        keywords["targets"] = "denoised"
        keywords["corpus_dirs"] |= {"denoised": settings.denoised_dir}
        # What was extracted already needs no enrollment, so any will do.
        keywords["enrollment_emotion"] = None
    return load_mixtures(split=settings.split, max_examples=settings.max_examples, **keywords)


def predict(
    model: PreTrainedModel,
    dataset: Dataset[dict[str, Any]],
    *,
    condition: str = "noisy",
    batch_size: int = 8,
) -> list[dict[str, Any]]:
    """Runs a model over a dataset of mixtures, a batch in memory at a time.

    Args:
        model (`PreTrainedModel`): extractor, classifier or both.
        dataset (`MixtureDataset`): examples of the contract between data and models.
        condition (`str`): `noisy` has a mixture whose SI-SDR can be measured, the others have not.
        batch_size (`int`): examples in a forward pass.

    Returns:
        One row an example: ids, label, prediction, `probabilities` of shape `(num_labels,)`, SI-SDR
        of mixture and extracted speech in dB; None for what the model or condition does not have.
    """
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=batch_size, collate_fn=list)
    rows: list[dict[str, Any]] = []
    for examples in tqdm(loader, desc="evaluating", unit="batch"):
        outputs = run_model(model, examples)
        logits, extracted = outputs.get("logits"), outputs.get("extracted_values")
        for position, example in enumerate(examples):
            row = {name: example[name] for name in _ID_FIELDS} | {"label": int(example["label"])}
            probabilities = None if logits is None else logits[position].double().softmax(-1)
            row["probabilities"] = None if probabilities is None else probabilities.tolist()
            row["prediction"] = None if probabilities is None else int(probabilities.argmax())
            estimate = None if extracted is None else extracted[position].double().numpy()
            rows.append(row | _signal_scores(example, estimate, condition))
    return rows


@torch.inference_mode()
def run_model(model: PreTrainedModel, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One forward pass over examples of the contract between data and models.

    Args:
        model (`PreTrainedModel`): a classifier alone gets no enrollment.
        examples (sequence of mappings): examples with `mixture` and `enrollment`.

    Returns:
        The model's outputs that are there, as float32 tensors on the CPU.
    """
    features = TseSerFeatureExtractor()(
        [example["mixture"] for example in examples],
        enrollments=[example["enrollment"] for example in examples] if _extracts(model) else None,
        return_tensors="pt",
    ).to(model.device)
    outputs = model(**features)
    names = ("logits", "extracted_values")
    return {name: outputs[name].float().cpu() for name in names if outputs.get(name) is not None}


def score_predictions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies and mean SI-SDR of prediction rows.

    Args:
        rows (sequence of mappings): what `predict` returns.

    Returns:
        `num_examples`, `wa` and `ua` (0 to 1), `per_class_recall` by emotion, `confusion` (a row
        a true emotion), `si_sdr_mixture_db`, `si_sdr_extracted_db`, `si_sdri_db`; None where
        unknown.
    """
    scores: dict[str, Any] = {"num_examples": len(rows)}
    labelled = [
        row for row in rows if row["prediction"] is not None and row["label"] != IGNORED_LABEL
    ]
    scores |= dict.fromkeys(("wa", "ua", "per_class_recall", "confusion"))
    if labelled:
        predictions = [row["prediction"] for row in labelled]
        labels = [row["label"] for row in labelled]
        scores |= emotion_accuracies(predictions, labels, range(len(EMOTIONS)))
        scores["per_class_recall"] = dict(zip(EMOTIONS, scores["per_class_recall"], strict=True))
    for name in _SI_SDR_FIELDS:
        values = [row[name] for row in rows if row[name] is not None]
        scores[name] = float(np.mean(values)) if values else None
    return scores


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """What the numbers were computed on: CPU model, cores and, where used, the GPU."""
    cpu = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        cpu = names[0] if names else cpu
    on_gpu = device is not None and device.type == "cuda"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
    }


def _described(settings: EvaluationArguments) -> dict[str, Any]:
    described = {
        "checkpoint": _seen_from(settings.output, settings.model),
        "classifier_checkpoint": _seen_from(settings.output, settings.classifier),
        **asdict(settings),
    }
    # Where files lie on this machine says nothing about the numbers.
    for name in ("model", "classifier", "output", "corpus_dir", "cache_dir", "denoised_dir"):
        del described[name]
    return described


def _seen_from(output: str | None, checkpoint: str | None) -> str | None:
    # Relative to the file that it is written in: a folder of results can be moved.
    if output is None or checkpoint is None or not os.path.isdir(checkpoint):
        return checkpoint
    return os.path.relpath(checkpoint, Path(output).parent)


def _extracts(model: PreTrainedModel) -> bool:
    return model.config.model_type in ("td_speakerbeam", "tse_ser")


def _signal_scores(
    example: Mapping[str, Any], estimate: np.ndarray | None, condition: str
) -> dict[str, float | None]:
    scores: dict[str, float | None] = dict.fromkeys(_SI_SDR_FIELDS)
    target = example["target"]
    if condition == "noisy":
        scores["si_sdr_mixture_db"] = scale_invariant_sdr(example["mixture"], target)
    if estimate is not None:
        # The batch was padded; the valid samples are as many as the target has.
        scores["si_sdr_extracted_db"] = scale_invariant_sdr(estimate[: target.size], target)
    extracted_db, mixture_db = scores["si_sdr_extracted_db"], scores["si_sdr_mixture_db"]
    if extracted_db is not None and mixture_db is not None:
        scores["si_sdri_db"] = extracted_db - mixture_db
    return scores


def _score_groups(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    groups = sorted({row[key] for row in rows if row[key]})
    return {
        group: score_predictions([row for row in rows if row[key] == group]) for group in groups
    }


def _write_results(
    path: Path, result: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    predictions = path.with_suffix(".predictions.csv")
    probability_names = [f"probability_{emotion}" for emotion in EMOTIONS]
    with predictions.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        plain = (*_ID_FIELDS, "label", "prediction", *_SI_SDR_FIELDS)
        writer.writerow([*plain, *probability_names])
        for row in rows:
            probabilities = row["probabilities"] or [None] * len(EMOTIONS)
            writer.writerow([row[name] for name in plain] + probabilities)
    # A cell that is there counts as done, so it appears whole or not at all.
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, scores the checkpoint, prints the main numbers."""
    parser = HfArgumentParser(EvaluationArguments)  # type: ignore[arg-type]
    (arguments,) = parser.parse_args_into_dataclasses(args=argv)
    result = evaluate_checkpoint(**vars(arguments))
    shown = ("num_examples", "wa", "ua", *_SI_SDR_FIELDS, "minutes")
    print(json.dumps({name: result[name] for name in shown}, indent=2))


if __name__ == "__main__":
    main()
