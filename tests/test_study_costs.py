"""The costs that `--dry_run` prints, against what is really loaded and built."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_layouts import write_esd, write_iemocap
from tiny_studies import write_study
from tiny_training import tiny_model, write_model_configs

from data_builders import load_mixtures
from tse_ser.evaluation import experiment
from tse_ser.evaluation.study import Step, load_study, plan_study
from tse_ser.evaluation.study_costs import Cost, CostEstimator


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_iemocap(root / "iemocap")
    write_esd(root / "esd")
    return root


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """A training of each stage, a denoised set, and a cell."""
    _, extractor, _, classifier = write_model_configs(tmp_path / "models")
    training = {"num_train_epochs": 3, "per_device_train_batch_size": 4}
    recipes: dict[str, dict[str, Any]] = {
        "1": {**training, "stage": "extraction", "extractor_config": extractor},
        "2": {**training, "stage": "classification", "classifier_config": classifier},
        "3": {**training, "stage": "joint", "classifier_config": classifier},
        "d": {"mixtures_per_utterance": 2},
    }
    for name, recipe in recipes.items():
        write_study(tmp_path / f"{name}.yaml", recipe)
    at = {name: str(tmp_path / f"{name}.yaml") for name in recipes}
    steps: list[dict[str, Any]] = [
        {"name": "extractor", "train": at["1"], "arguments": {"segment_seconds": 0.5}},
        {"name": "denoised", "denoise": at["d"]},
        {"name": "sc", "train": at["2"], "arguments": {"condition": "clean"}},
        {
            "name": "sb_sc",
            "train": at["2"],
            "arguments": {"condition": "denoised", "denoised_dir": "{denoised}"},
        },
        {
            "name": "joint",
            "train": at["3"],
            "arguments": {"extractor_name_or_path": "{extractor}", "max_steps": 7},
        },
    ]
    cells = [{"name": "cell", "arguments": {"model": "{joint}", "max_examples": 3}}]
    data = {"targets": ["iemocap"], "interferers": ["esd"]}
    study = {"name": "s", "folds": [2], "seeds": [0], "data": data, "steps": steps, "cells": cells}
    return write_study(tmp_path / "study.yaml", study)


def costs(study_file: Path, processes: int = 1, **machine: Any) -> dict[str, Cost]:
    plan = plan_study(load_study(study_file), study_file.parent / "out", overrides=machine)
    estimator = CostEstimator(plan, processes)
    return {unit.name: estimator.cost(unit) for unit in plan}


def lengths(data_root: Path, split: str) -> list[float]:
    """Lengths in seconds of the targets that a training really loads."""
    dataset = load_mixtures(
        split=split, targets="iemocap", interferers="esd", fold=2, corpus_dir=data_root
    )
    return [len(dataset[index]["target"]) / 16_000 for index in range(len(dataset))]


def test_steps_and_hours_are_those_of_the_corpora(study_file: Path, data_root: Path) -> None:
    found = costs(study_file, corpus_dir=str(data_root))
    train = lengths(data_root, "train")

    updates = 3 * (len(train) // 4)
    assert found["sc"].optimizer_steps == updates
    assert found["sc"].audio_hours == pytest.approx(updates * 4 * np.mean(train) / 3600)
    # Every utterance is longer than the crop.
    assert found["extractor"].audio_hours == pytest.approx(updates * 4 * 0.5 / 3600)
    assert found["sb_sc"].optimizer_steps == 3 * (2 * len(train) // 4)
    assert found["joint"].optimizer_steps == 7
    others = sum(lengths(data_root, "validation")) + sum(lengths(data_root, "test"))
    seconds = 2 * sum(train) + others
    assert found["denoised"].audio_hours == pytest.approx(seconds / 3600)
    assert found["denoised"].disk_bytes == pytest.approx(seconds * 16_000 * 4, abs=1)
    test = lengths(data_root, "test")
    scored = [test[index * len(test) // 3] for index in range(3)]
    assert found["cell"].audio_hours == pytest.approx(sum(scored) / 3600)

    shared = costs(study_file, processes=3, corpus_dir=str(data_root))
    assert shared["sc"].optimizer_steps == 3 * (len(train) // 12)


def test_the_disk_is_that_of_the_models_and_their_checkpoints(study_file: Path) -> None:
    found = costs(study_file)
    sizes = {
        "extractor": tiny_model("extraction").num_parameters(),
        "sc": tiny_model("classification").num_parameters(),
    }
    sizes["joint"] = sizes["extractor"] + sizes["sc"]
    for name, size in sizes.items():
        # The model and two checkpoints, which have two numbers more for each weight.
        assert found[name].disk_bytes == 4 * size + 2 * (4 + 8) * size


def test_what_cannot_be_known_is_said_to_be_unknown(
    study_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["--study", str(study_file), "--output_dir", str(tmp_path / "out"), "--dry_run"]
    experiment.main(command)

    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.split("Estimated")[1].splitlines() if line}
    assert lines["sc"].split()[1:4] == ["1", "unknown", "unknown"]
    assert lines["joint"].split()[1:4] == ["1", "7", "unknown"]
    assert lines["total"].split()[1:4] == ["6", "unknown", "unknown"]
    assert "iemocap: its folder is not known" in printed
    assert not (tmp_path / "out").exists()


def test_a_step_with_accumulated_gradients_counts_updates(
    study_file: Path, data_root: Path
) -> None:
    study = load_study(study_file)
    study["overrides"] = {"train": {"gradient_accumulation_steps": 3}}
    plan = plan_study(study, Path("out"), overrides={"corpus_dir": str(data_root)})
    step = next(unit for unit in plan if isinstance(unit, Step) and unit.name == "sc")
    batches = len(lengths(data_root, "train")) // 4
    assert CostEstimator(plan, 1).cost(step).optimizer_steps == 3 * math.ceil(batches / 3)
