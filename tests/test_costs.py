"""What a study is said to cost, against counts that were made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from tse_ser.training.costs import cost_table, main

SPEECH = ["--targets", "generated", "--interferers", "generated_pool"]
EXTRACTION = [
    *("--config", "recipes/generated/1_extraction.yaml", "--max_train_examples", "18"),
    *("--num_train_epochs", "3", "--per_device_train_batch_size", "4"),
    *("--gradient_accumulation_steps", "2", "--segment_seconds", "0.5"),
]


def step(name: str, arguments: list[str], program: str = "train", runs: int = 1) -> dict[str, Any]:
    folder = f"steps/{name}/fold-1_seed-0"
    arguments = [*arguments, "--output_dir", folder]
    return {
        "step": name,
        "program": program,
        "runs": runs,
        "folder": folder,
        "arguments": arguments,
    }


@pytest.mark.usefixtures("generated_corpus")
def test_steps_hours_and_disk_are_those_of_the_recipes(tmp_path: Path) -> None:
    denoise = ["--config", "recipes/generated/denoise.yaml", "--mixtures_per_utterance", "2"]
    classifier = ["--config", "recipes/generated/1_classification.yaml", "--num_train_epochs", "1"]
    study = {
        "steps": [
            step("extractor", EXTRACTION, runs=5),
            step("denoised", [*denoise, "--max_train_examples", "24"], program="denoise"),
            step("sb_sc", [*classifier, "--condition", "denoised", "--denoised_dir",
                           "steps/denoised/fold-1_seed-0"]),
        ]
    }  # fmt: skip
    facts = tmp_path / "steps/extractor/fold-1_seed-0/training_facts.json"
    facts.parent.mkdir(parents=True)
    facts.write_text(json.dumps({"minutes": 7.5}))
    table, problems = cost_table(study, tmp_path)
    assert problems == []
    extractor, denoised, classified, total = table.to_dict("records")
    # Four full batches of 18 examples, two an update, three epochs, five runs.
    assert extractor["Optimizer steps"] == 5 * 3 * 2
    assert extractor["Hours of audio"] == pytest.approx(5 * 3 * 2 * 8 * 0.5 / 3600)
    assert extractor["Minutes so far"] == total["Minutes so far"] == 7.5
    # The set is not written yet: two mixtures of each of 24 targets, eight a batch.
    assert classified["Optimizer steps"] == 2 * 24 // 8
    assert denoised["Optimizer steps"] == 0
    seconds = denoised["Hours of audio"] * 3600
    assert denoised["Disk (GB)"] == pytest.approx(seconds * 16000 * 4 / 1e9)
    assert total["Optimizer steps"] == 30 + 6
    assert 0 < classified["Disk (GB)"] < extractor["Disk (GB)"] < total["Disk (GB)"]


def test_what_cannot_be_known_is_said_to_be_unknown(
    generated_corpus: datasets.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = ["--config", "recipes/ravdess/1_classification.yaml", "--condition", "clean"]
    elsewhere += ["--encoder_name_or_path", str(tmp_path / "no_encoder")]
    study = {"steps": [step("sc_clean", elsewhere)], "results": ["tests/a.json"]}
    (tmp_path / "study.json").write_text(json.dumps(study))
    main(["--study", str(tmp_path / "study.json"), "--corpus_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.count("unknown") == 2 * 3  # the step and the total, in three columns
    assert "1 tests" in printed
    reasons = printed.partition("Unknown, because:")[2]
    assert "ravdess" in reasons
    assert "size of the classifier" in reasons
