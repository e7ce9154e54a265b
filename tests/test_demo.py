"""What the demonstration finds in a study and what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny_models import tiny_classifier, tiny_tse_ser
from transformers import PreTrainedModel, pipeline

from data_builders.schema import EMOTIONS
from modeling import TseSerFeatureExtractor
from tse_ser.evaluation.demo import BASELINE, JOINT, find_cell, main, probabilities, write_waveforms
from tse_ser.evaluation.study import REPOSITORY, Cell, StudyError, load_study, plan_study


def test_the_generated_study_has_the_cells_that_the_demonstration_shows(tmp_path: Path) -> None:
    plan = plan_study(load_study(REPOSITORY / "recipes/generated/study.yaml"), tmp_path)
    for labels in (JOINT, BASELINE):
        with pytest.raises(StudyError, match=r"is missing: run `python -m tse_ser\.eval"):
            find_cell(plan, labels)
    for unit in plan:
        if isinstance(unit, Cell) and unit.name in ("sb_plus_sc", "sc_noisy_on_noisy"):
            unit.path.parent.mkdir(exist_ok=True)
            unit.path.write_text("{}")
    assert find_cell(plan, JOINT).name == "sb_plus_sc"
    assert find_cell(plan, BASELINE).name == "sc_noisy_on_noisy"
    with pytest.raises(StudyError, match=r"the study has no cell with"):
        find_cell(plan, {"model": "SB"})


def test_waveforms_can_be_compared_by_ear(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal(1600).astype(np.float32)
    given = {"target": target, "extracted": 1e-3 * target, "mixture": 3 * target}
    write_waveforms(given, tmp_path)

    written = {name: soundfile.read(tmp_path / f"{name}.wav")[0] for name in given}
    assert max(np.abs(waveform).max() for waveform in written.values()) == pytest.approx(0.9)
    np.testing.assert_allclose(written["extracted"], written["target"], rtol=1e-5)
    np.testing.assert_allclose(written["mixture"], 3 * written["target"], rtol=1e-5)


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Path]:
    """A study of two tiny random models that counts as run, and the folder of its results."""
    feature_extractor = TseSerFeatureExtractor()
    models: list[tuple[str, PreTrainedModel]] = [
        ("joint", tiny_tse_ser()),
        ("baseline", tiny_classifier()),
    ]
    for name, model in models:
        model.config.id2label = dict(enumerate(EMOTIONS))
        model.config.label2id = {emotion: index for index, emotion in enumerate(EMOTIONS)}
        model.save_pretrained(tmp_path / name)
        feature_extractor.save_pretrained(tmp_path / name)
    cells = [
        {
            "name": name,
            "tables": ["IV"],
            **cell_labels,
            "arguments": {"model": str(tmp_path / name), "condition": "noisy", "max_examples": 2},
        }
        for name, cell_labels in (
            ("joint", {"model": "SB+SC", **JOINT}),
            ("baseline", BASELINE),
        )
    ]
    step = {"name": "extractor", "train": "recipes/generated/1_extraction.yaml"}
    study: dict[str, Any] = {
        "name": "tiny",
        "folds": [1],
        "seeds": [0],
        "data": {"targets": ["generated"], "interferers": ["generated_pool"]},
        "steps": [step],
        "cells": cells,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    plan = plan_study(load_study(tmp_path / "study.yaml"), tmp_path / "results")
    for unit in plan:
        if isinstance(unit, Cell):
            unit.path.parent.mkdir(parents=True, exist_ok=True)
            unit.path.write_text("{}")
    return tmp_path / "study.yaml", tmp_path / "results"


def test_the_saved_checkpoint_works_as_a_pipeline_on_its_own_sample(
    generated_corpus: datasets.Dataset,
    finished: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    study, results = finished
    main(["--study", str(study), "--output_dir", str(results)])
    printed = capsys.readouterr().out

    checkpoint = results / "checkpoint"
    assert f"pipeline(model={str(checkpoint)!r}, trust_remote_code=True)" in printed
    recognize = pipeline(None, model=str(checkpoint), trust_remote_code=True, device="cpu")
    assert type(recognize).__name__ == "TargetSpeakerEmotionPipeline"
    sample = {name: checkpoint / "sample" / f"{name}.wav" for name in ("mixture", "enrollment")}
    for path in sample.values():
        assert soundfile.info(path).subtype == "PCM_16"
    heard = recognize(sample)
    assert {entry["label"] for entry in heard} == set(EMOTIONS)
    after = next(line for line in printed.splitlines() if line.strip().startswith("after:"))
    assert heard[0]["label"] in after.partition("(")[0]
    (baseline,) = [line for line in printed.splitlines() if "SC trained on mixtures" in line]
    assert any(emotion in baseline for emotion in EMOTIONS)


def test_the_most_likely_emotion_stands_first() -> None:
    shown = probabilities({"logits": torch.log(torch.tensor([[0.1, 0.2, 0.6, 0.1]]))})
    assert shown.split() == [
        "sad",
        "(sad",
        "60%,",
        "happy",
        "20%,",
        "neutral",
        "10%,",
        "angry",
        "10%)",
    ]
