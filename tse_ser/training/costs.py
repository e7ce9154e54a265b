"""What the trainings of a study will cost: optimizer steps, hours of audio and disk.

    snakemake costs -s studies/paper/Snakefile --cores 1 --config corpus_dir=DIR

The rule calls this module with the `study.json` of the study. The counts come from the recipes and
the corpora; what cannot be known from here is said to be unknown. Beside them stand the minutes of
the steps that have run.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig

from data_builders import MixtureDataset
from data_builders.schema import SAMPLING_RATE
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
)
from tse_ser.options import ModelOptions, read_training_options
from tse_ser.training.build_model import read_config
from tse_ser.training.denoise_corpus import parse_arguments as read_denoising_options
from tse_ser.training.denoise_corpus import plan_jobs
from tse_ser.training.load_datasets import load_datasets

BYTES_PER_WEIGHT = 4
# Adam keeps two numbers for each trained weight.
BYTES_PER_TRAINED_WEIGHT = 8
UNKNOWN = float("nan")
# The parts of the model of each stage.
PARTS = {
    "extraction": ("extractor",),
    "classification": ("classifier",),
    "joint": ("extractor", "classifier"),
}


@dataclass
class Cost:
    """What one run of a step costs; NaN where it cannot be known."""

    updates: float = UNKNOWN  # optimizer steps; 0 for what trains nothing
    hours: float = UNKNOWN  # of audio that is heard in training, or extracted
    gigabytes: float = UNKNOWN  # of models, checkpoints and audio


class CostEstimator:
    """Estimates one run of each step of a study, in their order.

    Args:
        places (sequence of `str`): arguments that say where corpora lie on this machine.

    Attributes:
        problems (`dict[str, None]`): why something is unknown, each reason once.
    """

    def __init__(self, places: Sequence[str] = ()) -> None:
        self._places = places
        self.problems: dict[str, None] = {}
        # Of what an earlier step writes, by its folder.
        self._lengths: dict[str, list[int]] = {}
        self._sizes: dict[str, dict[str, tuple[int, int]]] = {}

    def cost(self, step: Mapping[str, Any]) -> Cost:
        """What could be found out about one run of a step: its `program` ("train" or
        "denoise"), the `arguments` of its command and its `folder`."""
        estimate = self._training if step["program"] == "train" else self._denoising
        return estimate([*step["arguments"], *self._places], step["folder"])

    def _training(self, arguments: Sequence[str], folder: str) -> Cost:
        options = read_training_options(arguments)
        model, data, training = options.model, options.data, options.training
        cost = Cost()
        lengths = self._lengths.get(str(data.denoised_dir))
        if lengths is None or data.condition != "denoised":
            try:
                lengths = _lengths(load_datasets(data, training)[0], data.segment_seconds)
            except (ValueError, OSError) as error:  # a corpus is not there
                self.problems[str(error).split("\n")[0]] = None
                lengths = None
        batch_size = training.per_device_train_batch_size * training.gradient_accumulation_steps
        if training.max_steps > 0:
            cost.updates = training.max_steps
        elif lengths is not None:
            # Full batches only, as train.py has it.
            batches = len(lengths) // training.per_device_train_batch_size
            epochs = math.ceil(training.num_train_epochs)
            cost.updates = epochs * math.ceil(batches / training.gradient_accumulation_steps)
        if lengths:
            mean_seconds = sum(lengths) / len(lengths) / SAMPLING_RATE
            cost.hours = cost.updates * batch_size * mean_seconds / 3600
        sizes = self._sizes[folder] = self._sizes_of(model, training.stage)
        if sizes.keys() == {*PARTS[training.stage]}:
            weights, trained = (sum(size[kind] for size in sizes.values()) for kind in (0, 1))
            checkpoints = (training.save_total_limit or 1) + 1  # and the model itself
            size = BYTES_PER_WEIGHT * weights * checkpoints
            size += BYTES_PER_TRAINED_WEIGHT * trained * (checkpoints - 1)
            cost.gigabytes = size / 1e9
        return cost

    def _denoising(self, arguments: Sequence[str], folder: str) -> Cost:
        data, denoising = read_denoising_options(arguments)
        try:
            jobs = plan_jobs(data, denoising.mixtures_per_utterance)
        except (ValueError, OSError) as error:
            self.problems[str(error).split("\n")[0]] = None
            return Cost(updates=0)
        lengths = {id(job): _lengths(job.dataset, None) for job in jobs}
        self._lengths[folder] = [
            length for job in jobs if job.split == "train" for length in lengths[id(job)]
        ]
        num_samples = sum(map(sum, lengths.values()))
        hours = num_samples / SAMPLING_RATE / 3600
        return Cost(0, hours, num_samples * BYTES_PER_WEIGHT / 1e9)

    def _sizes_of(self, model: ModelOptions, stage: str) -> dict[str, tuple[int, int]]:
        """Weights of each part, all and trained; a part of unknown size is missing."""
        sizes = {}
        for part in PARTS[stage]:
            source = getattr(model, f"{part}_name_or_path") or model.model_name_or_path
            try:
                sizes[part] = self._size_of(part, source, model)
            except (ValueError, OSError, KeyError) as error:
                self.problems[f"size of the {part}: {str(error).splitlines()[0]}"] = None
        return sizes

    def _size_of(self, part: str, source: str | None, model: ModelOptions) -> tuple[int, int]:
        if source in self._sizes:
            return self._sizes[source][part]
        if source is not None:
            config = AutoConfig.from_pretrained(source, local_files_only=True)
            config = getattr(config, f"{part}_config", config)  # of a joint model
        elif part == "extractor":
            config = read_config(str(model.extractor_config), TdSpeakerBeamConfig)
        else:
            config = read_config(str(model.classifier_config), ShiftCnnConfig)
            if model.encoder_name_or_path is not None:
                # Nothing is fetched for an estimate.
                encoder = AutoConfig.from_pretrained(
                    model.encoder_name_or_path, local_files_only=True
                )
                config = ShiftCnnConfig(**{**config.to_dict(), "encoder_config": encoder.to_dict()})
        with torch.device("meta"):
            if part == "extractor":
                parameters = TdSpeakerBeamForSpeechExtraction(config).parameters()
            else:
                parameters = ShiftCnnForEmotionClassification(config).parameters()
        counted = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
        return sum(size for size, _ in counted), sum(size for size, trained in counted if trained)


def cost_table(
    study: Mapping[str, Any], folder: Path, places: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """The costs of all runs, a row a step.

    Args:
        study (mapping): content of `study.json`; each of its `steps` has `step`, `program`, `runs`,
            `folder`, and the `arguments` of its first run.
        folder (`Path`): of the study, for the minutes of what has run.
        places (sequence of `str`): see `CostEstimator`.

    Returns:
        `tuple`: the table with its total, and why something is unknown.
    """
    estimator = CostEstimator(places)
    rows = []
    for step in study["steps"]:
        cost = estimator.cost(step)
        minutes = [
            json.loads(path.read_text(encoding="utf-8"))["minutes"]
            for path in folder.glob(f"steps/{step['step']}/*/training_facts.json")
        ]
        rows.append(
            {
                "Step": step["step"],
                "Runs": step["runs"],
                "Optimizer steps": step["runs"] * cost.updates,
                "Hours of audio": step["runs"] * cost.hours,
                "Disk (GB)": step["runs"] * cost.gigabytes,
                "Minutes so far": sum(minutes) if minutes else UNKNOWN,
            }
        )
    table = pd.DataFrame(rows)
    totals = table.drop(columns="Step").sum(skipna=False).to_dict()
    totals["Minutes so far"] = table["Minutes so far"].sum(min_count=1)
    return pd.concat([table, pd.DataFrame([{"Step": "total", **totals}])]), [*estimator.problems]


def _lengths(dataset: Any, segment_seconds: float | None) -> list[int]:
    """Samples that are heard of each example in an epoch."""
    if isinstance(dataset, MixtureDataset):
        planner = dataset.planner
        return [planner.plan(0, index).num_samples for index in range(len(planner))]
    # The lengths of LibriMix are in no metadata; crops are what is heard.
    if segment_seconds is None:
        raise ValueError("librimix: hours are unknown without segment_seconds")
    return [round(segment_seconds * SAMPLING_RATE)] * len(dataset)


def _words(values: Iterable[float], digits: int) -> list[str]:
    return ["unknown" if math.isnan(value) else f"{value:,.{digits}f}" for value in values]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the costs of the study that the command line names."""
    parser = argparse.ArgumentParser(
        description="Print what the trainings of a study will cost.",
        epilog="Further options are handed on to each step, such as --corpus_dir DIR.",
    )
    parser.add_argument("--study", required=True, type=Path, help="its study.json")
    arguments, places = parser.parse_known_args(argv)
    study = json.loads(arguments.study.read_text(encoding="utf-8"))
    table, problems = cost_table(study, arguments.study.parent, places)
    digits = {"Runs": 0, "Optimizer steps": 0, "Hours of audio": 2, "Disk (GB)": 3}
    for column, count in digits.items():
        table[column] = _words(table[column], count)
    table["Minutes so far"] = table["Minutes so far"].map("{:.1f}".format).replace("nan", "")
    print(table.to_string(index=False))
    print(f"Beside them {len(study['results'])} tests, which train nothing.")
    if problems:
        print("Unknown, because:", *problems, sep="\n  ")


if __name__ == "__main__":
    main()
