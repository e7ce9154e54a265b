"""Scores one checkpoint on one test condition and writes the numbers as JSON.

    python -m tse_ser.evaluation.evaluate_checkpoint --model CHECKPOINT --condition noisy --fold 1 \
        --gender_state same --interferers generated_pool --output cell.json

The file, a cell of a table, holds a record of each utterance too, for paired comparisons later.
`--classifier` scores an extractor and a classifier, trained apart, as one model (TSE-SER-base).
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet
import torch
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    HfArgumentParser,
    PreTrainedModel,
)

from data_builders import load_mixtures
from data_builders.corpora.denoised import METADATA_FILE
from data_builders.mixing_arguments import MixingArguments
from data_builders.schema import EMOTIONS
from modeling import TdSpeakerBeamForSpeechExtraction, TseSerForEmotionClassification
from tse_ser.evaluation.prediction import SI_SDR_FIELDS, extracts, predict
from tse_ser.evaluation.scoring import (
    score_detection,
    score_groups,
    score_predictions,
    utterance_records,
)

CONDITIONS = ("clean", "noisy", "denoised")
PLACES = (
    "model",
    "classifier",
    "output",
    "corpus_dir",
    "corpus_dirs",
    "cache_dir",
    "denoised_dir",
)
LIBRARIES = ("torch", "torchaudio", "transformers", "datasets", "numpy")
# Where a training under `best_on_test` keeps the epoch with the best WA; its own weights are those
# of the epoch with the best UA.
BEST_WA_FOLDER = "best_wa"


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
        default=None,
        metadata={"help": "Denoised set, as tse_ser.training.denoise_corpus writes it."},
    )
    split: Literal["train", "validation", "test"] = "test"
    absent_share: float = field(
        default=0.0, metadata={"help": "Share of mixtures in which the target is silent."}
    )
    speaker_similarity: bool = field(
        default=False,
        metadata={"help": "Compare extracted speech and enrollment, as where targets are absent."},
    )
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
                "`python -m tse_ser.training.denoise_corpus` wrote."
            )
        if not 0 <= self.absent_share <= 1:
            raise ValueError(f"absent_share: expected 0 to 1, got {self.absent_share}")
        if self.absent_share and self.condition != "noisy":
            raise ValueError(
                f"absent_share is for condition 'noisy': in {self.condition!r} nobody else speaks."
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
        `by_gender_state`; `detection`, see `score_detection`, where similarities were asked for;
        `minutes`, `versions`, `machine`; `utterances`, see `utterance_records`. Under protocol
        `best_on_test` `wa` is that of another epoch, in `wa_checkpoint`, than everything else, and
        `optimistic` is true.

    Raises:
        ValueError: a condition that is unknown or lacks what it needs, a model whose classes are
            not the corpora's, or one that cannot do what is asked of it.
    """
    started = time.monotonic()
    settings = EvaluationArguments(**arguments)
    model = load_model(settings.model, settings.classifier)
    rows = _predict(model, settings)
    result: dict[str, Any] = {
        **(cell or {}),
        **_described(settings),
        # A denoised set has no gender state to mix by, but its label may tell the mixtures'.
        **(cell or {}),
        "classes": list(EMOTIONS),
        **score_predictions(rows),
        "by_interferer_corpus": score_groups(rows, "interferer_corpus"),
        "by_gender_state": score_groups(rows, "gender_state"),
        "detection": _score_similarities(rows),
        "optimistic": settings.protocol == "best_on_test",
    }
    if settings.protocol == "best_on_test" and result["wa"] is not None:
        result |= _score_best_wa(settings)
    result |= {
        "minutes": round((time.monotonic() - started) / 60, 3),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
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
    noisy = settings.condition == "noisy"
    keywords = settings.mixing_keywords(noisy=noisy)
    if noisy:
        keywords["absent_share"] = settings.absent_share
    if settings.condition == "denoised":
        keywords["targets"] = "denoised"
        keywords["corpus_dirs"] |= {"denoised": settings.denoised_dir}
        # What was extracted already needs no enrollment, so any will do.
        keywords["enrollment_emotion"] = None
    return load_mixtures(split=settings.split, max_examples=settings.max_examples, **keywords)


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


def _predict(model: PreTrainedModel, settings: EvaluationArguments) -> list[dict[str, Any]]:
    if settings.condition == "denoised" and extracts(model):
        raise ValueError("The denoised set is extracted already: evaluate a classifier on it.")
    compare_speakers = settings.speaker_similarity or settings.absent_share > 0
    if compare_speakers and not extracts(model):
        raise ValueError(
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


def _score_best_wa(settings: EvaluationArguments) -> dict[str, Any]:
    """WA of the epoch that has the best one: with `best_on_test` it is chosen for itself."""
    folder = Path(settings.classifier or settings.model) / BEST_WA_FOLDER
    if not folder.is_dir():
        raise ValueError(
            f"Protocol 'best_on_test' takes WA from the epoch in {folder}, which is missing: "
            "train with --protocol best_on_test."
        )
    if settings.classifier is None:
        best = replace(settings, model=str(folder))
    else:
        best = replace(settings, classifier=str(folder))
    rows = _predict(load_model(best.model, best.classifier), best)
    return {
        "wa": score_predictions(rows)["wa"],
        "wa_checkpoint": _seen_from(settings.output, str(folder)),
    }


def _described(settings: EvaluationArguments) -> dict[str, Any]:
    described = {
        "checkpoint": _seen_from(settings.output, settings.model),
        "classifier_checkpoint": _seen_from(settings.output, settings.classifier),
        **asdict(settings),
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
    path.parent.mkdir(parents=True, exist_ok=True)
    # A line a record: a test set of thousands stays a file that can be read.
    records = [json.dumps(record, allow_nan=False) for record in result["utterances"]]
    text = json.dumps({**result, "utterances": []}, indent=2, allow_nan=False)
    head, _, end = text.rpartition("[]")
    lines = ",\n".join(f"    {record}" for record in records)
    # A cell that is there counts as done, so it appears whole or not at all.
    partial = path.with_suffix(".json.partial")
    partial.write_text(f"{head}[\n{lines}\n  ]{end}\n", encoding="utf-8")
    partial.replace(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line, scores the checkpoint, prints the main numbers."""
    parser = HfArgumentParser(EvaluationArguments)  # type: ignore[arg-type]
    (arguments,) = parser.parse_args_into_dataclasses(args=argv)
    result = evaluate_checkpoint(**vars(arguments))
    shown = ["num_examples", "wa", "ua", *SI_SDR_FIELDS, "minutes"]
    shown += [name for name in ("detection", "optimistic") if result[name]]
    print(json.dumps({name: result[name] for name in shown}, indent=2))


if __name__ == "__main__":
    main()
