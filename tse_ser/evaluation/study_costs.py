"""What a study will cost: optimizer steps, hours of audio and disk, for `--dry_run`.

The counts come from the recipes and, where the corpora are found, from what they really hold;
whatever cannot be known from here is said to be unknown.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoConfig

from data_builders.librimix.metadata import find_librimix_metadata, read_librimix_metadata
from data_builders.load import corpus_folder, read_corpora, split_corpus
from data_builders.schema import EMOTIONS, SAMPLING_RATE
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
)
from tse_ser.evaluation.study import REPOSITORY, Cell, Step

BYTES_PER_WEIGHT = 4
# Adam keeps two numbers for each trained weight.
BYTES_PER_TRAINED_WEIGHT = 8
# The defaults of train.py for what a recipe leaves out.
DEFAULT_EPOCHS, DEFAULT_BATCH_SIZE, DEFAULT_CHECKPOINTS = 3, 8, 2


@dataclass(frozen=True)
class Cost:
    """What one step or cell costs; None where it cannot be known.

    Args:
        optimizer_steps: of a training; 0 for what trains nothing.
        audio_hours: heard in training, extracted, or scored.
        disk_bytes: of models, checkpoints and audio.
    """

    optimizer_steps: int | None
    audio_hours: float | None
    disk_bytes: int | None


class CostEstimator:
    """Estimates the costs of the steps and cells of one plan.

    Args:
        plan: steps and cells.
        num_processes: that share each training.
    """

    def __init__(self, plan: Sequence[Step | Cell], num_processes: int) -> None:
        self.steps = {str(unit.output_dir): unit for unit in plan if isinstance(unit, Step)}
        self.num_processes = num_processes
        self.problems: dict[str, None] = {}  # in their order, each once

    def cost(self, unit: Step | Cell) -> Cost:
        """The cost of one step or cell.

        Args:
            unit: of the plan.

        Returns:
            What could be found out.
        """
        if isinstance(unit, Cell):
            seconds = self._seconds(unit.arguments, "test", unit.arguments.get("max_examples"))
            return Cost(0, None if seconds is None else float(seconds.sum()) / 3600, 0)
        return self._denoising(unit) if unit.program == "denoise" else self._training(unit)

    def _training(self, step: Step) -> Cost:
        config = step.config
        seconds = self._seconds(config, "train", config.get("max_train_examples"))
        per_update = config.get("gradient_accumulation_steps", 1)
        batch_size = config.get("per_device_train_batch_size", DEFAULT_BATCH_SIZE)
        batch_size *= self.num_processes
        updates = config.get("max_steps")
        if updates is None and seconds is not None:
            # Full batches only, as train.py has it.
            updates_per_epoch = math.ceil(len(seconds) // batch_size / per_update)
            updates = updates_per_epoch * math.ceil(config.get("num_train_epochs", DEFAULT_EPOCHS))
        hours = None
        if updates is not None and seconds is not None:
            longest = config.get("segment_seconds") or math.inf
            mean_seconds = float(np.minimum(seconds, longest).mean())
            hours = updates * per_update * batch_size * mean_seconds / 3600
        weights = self._weights(config)
        disk = None
        if weights is not None:
            every, trained = weights
            model = every * BYTES_PER_WEIGHT
            checkpoint = model + trained * BYTES_PER_TRAINED_WEIGHT
            disk = model + config.get("save_total_limit", DEFAULT_CHECKPOINTS) * checkpoint
        return Cost(updates, hours, disk)

    def _denoising(self, step: Step) -> Cost:
        found = [
            self._seconds(step.config, split, None)
            for split in ("train", "validation", "test")
            if split != "validation" or step.config.get("protocol") == "validated"
        ]
        if any(seconds is None for seconds in found):
            return Cost(0, None, None)
        train, *others = [float(seconds.sum()) for seconds in found if seconds is not None]
        seconds = train * step.config.get("mixtures_per_utterance", 1) + sum(others)
        return Cost(0, seconds / 3600, round(seconds * SAMPLING_RATE * BYTES_PER_WEIGHT))

    def _seconds(
        self, config: Mapping[str, Any], split: str, most: int | None
    ) -> np.ndarray | None:
        """Lengths of the examples of a split in seconds."""
        try:
            seconds = self._all_seconds(config, split)
        except (ValueError, OSError) as error:  # a corpus is not there
            self.problems[str(error).split("\n")[0]] = None
            return None
        if most is not None and most < len(seconds):
            seconds = seconds[np.arange(most) * len(seconds) // most]
        return seconds

    def _all_seconds(self, config: Mapping[str, Any], split: str) -> np.ndarray:
        if config.get("librimix_subset") and split == "train":
            return _librimix_seconds(config)
        denoised = self.steps.get(str(config.get("denoised_dir")))
        if config.get("condition") == "denoised" and denoised is not None:
            copies = denoised.config.get("mixtures_per_utterance", 1) if split == "train" else 1
            return np.tile(self._all_seconds(denoised.config, split), copies)
        protocol = "validated" if config.get("protocol") == "validated" else "paper"
        parts = []
        for corpus in _read(_names(config.get("targets", ["generated"])), *_folders(config)):
            part = split_corpus(corpus, config.get("fold", 1), protocol)[split]  # type: ignore[arg-type]
            parts.append(_durations(part, config))
        return np.concatenate(parts)

    def _weights(self, config: Mapping[str, Any]) -> tuple[int, int] | None:
        """Weights of the model of a training: all, and those that it trains."""
        parts = {"extraction": "e", "classification": "c", "joint": "ec"}
        counted = []
        for part in parts[config.get("stage", "extraction")]:
            prefix, count = COUNTED[part]
            source = self.steps.get(str(config.get(f"{prefix}_name_or_path")))
            try:
                counted.append(count(config if source is None else source.config))
            except (ValueError, OSError, TypeError, KeyError) as error:
                self.problems[f"size of the {prefix}: {str(error).splitlines()[0]}"] = None
                return None
        return sum(every for every, _ in counted), sum(trained for _, trained in counted)


def print_costs(plan: Sequence[Step | Cell], num_processes: int) -> None:
    """Prints the costs of a plan, a line for all folds and seeds of a step.

    Args:
        plan: steps and cells.
        num_processes: that share each training.
    """
    estimator = CostEstimator(plan, num_processes)
    groups: dict[str, list[Cost]] = {}
    for unit in plan:
        name = unit.name if isinstance(unit, Step) else "(all cells)"
        groups.setdefault(name, []).append(estimator.cost(unit))
    # The cells last, in one line.
    groups = {name: groups[name] for name in sorted(groups, key=lambda name: name[0] == "(")}
    print(f"\nEstimated costs of all of it, {num_processes} process(es) a training:")
    print(f"  {'step':32}{'runs':>6}{'optimizer steps':>18}{'hours of audio':>17}{'disk':>12}")
    for name, costs in groups.items():
        print(_line(name, costs))
    print(_line("total", [cost for costs in groups.values() for cost in costs]))
    if estimator.problems:
        print("Unknown, because:", *estimator.problems, sep="\n  ")


def _line(name: str, costs: Sequence[Cost]) -> str:
    steps = _total(cost.optimizer_steps for cost in costs)
    hours = _total(cost.audio_hours for cost in costs)
    disk = _total(cost.disk_bytes for cost in costs)
    shown = (
        "unknown" if steps is None else f"{steps:,.0f}",
        "unknown" if hours is None else f"{hours:,.2f}",
        "unknown" if disk is None else f"{disk / 1e9:,.3f} GB",
    )
    return f"  {name:32}{len(costs):>6}{shown[0]:>18}{shown[1]:>17}{shown[2]:>12}"


def _total(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _folders(config: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...], str | None]:
    folders = tuple(config.get("corpus_dirs") or ())
    return config.get("corpus_dir"), folders, config.get("cache_dir")


@functools.lru_cache(maxsize=32)
def _read(
    names: tuple[str, ...],
    corpus_dir: str | None,
    corpus_dirs: tuple[str, ...],
    cache_dir: str | None,
) -> list[datasets.Dataset]:
    return read_corpora(names, corpus_dir, _by_name(corpus_dirs), cache_dir)


def _by_name(corpus_dirs: Iterable[str]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in corpus_dirs]
    return {name: folder for name, _, folder in pairs}


def _durations(part: datasets.Dataset, config: Mapping[str, Any]) -> np.ndarray:
    emotions = config.get("emotions", EMOTIONS)
    durations = np.asarray(part["duration_seconds"][:], dtype=float)
    if config.get("trim_silence"):
        durations = np.asarray(part["speech_end_seconds"][:]) - part["speech_start_seconds"][:]
    if emotions is None or list(emotions) == ["all"]:
        return durations
    return durations[np.isin(np.asarray(part["emotion"][:]), list(emotions))]


def _librimix_seconds(config: Mapping[str, Any]) -> np.ndarray:
    """The lengths are in no metadata; crops are what is heard, and nearly all mixtures longer."""
    corpus_dir, corpus_dirs, _ = _folders(config)
    folder = config.get("librimix_metadata_dir") or corpus_folder(
        "librimix", corpus_dir, _by_name(corpus_dirs)
    )
    if folder is None:
        raise ValueError("librimix: its folder is not known: pass --data_root or --corpus_dirs")
    num_speakers = config.get("num_speakers", [2])[0]
    path = find_librimix_metadata(folder, config["librimix_subset"], num_speakers)
    num_examples = len(read_librimix_metadata(path)) * num_speakers
    if not config.get("segment_seconds"):
        raise ValueError("librimix: hours are unknown without segment_seconds")
    return np.full(num_examples, float(config["segment_seconds"]))


def _count_extractor(config: Mapping[str, Any]) -> tuple[int, int]:
    sizes = _read_sizes(config, "extractor_config")
    with torch.device("meta"):
        model = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**sizes))
    return _counted(model.parameters())


def _count_classifier(config: Mapping[str, Any]) -> tuple[int, int]:
    sizes = _read_sizes(config, "classifier_config")
    encoder = config.get("encoder_name_or_path")
    if encoder is not None:
        name = os.path.expandvars(encoder)
        if "${" in name:
            raise ValueError(f"{name}: export the variable")
        # Nothing is fetched for an estimate.
        sizes["encoder_config"] = AutoConfig.from_pretrained(name, local_files_only=True).to_dict()
    shift_cnn_config = ShiftCnnConfig(**sizes)
    with torch.device("meta"):
        model = ShiftCnnForEmotionClassification(shift_cnn_config)
    return _counted(model.parameters())


def _read_sizes(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    if config.get(key) is None:
        raise ValueError(f"{key} is not given: it starts from a checkpoint")
    sizes = json.loads((REPOSITORY / Path(config[key])).read_text(encoding="utf-8"))
    return dict(sizes)


def _counted(parameters: Iterable[torch.nn.Parameter]) -> tuple[int, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


COUNTED = {"e": ("extractor", _count_extractor), "c": ("classifier", _count_classifier)}
