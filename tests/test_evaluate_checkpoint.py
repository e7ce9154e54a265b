"""Scoring of checkpoints, with tiny random models on synthetic or generated speech."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from data_builders.schema import EMOTIONS
from evaluation import evaluate_checkpoint as module
from evaluation.evaluate_checkpoint import (
    EvaluationArguments,
    evaluate_checkpoint,
    load_condition,
    load_model,
    main,
    predict,
    run_model,
    score_predictions,
)
from evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerForEmotionClassification,
)

LENGTHS = (9000, 12000, 8000, 11000, 9500)
NOISY: dict[str, Any] = {"condition": "noisy", "interferers": ["ravdess"]}


class FakeMixtures(torch.utils.data.Dataset):
    """Noise in the shape of the data rooms' examples; labels 0, 1, 2, 3, 0."""

    def __init__(self, interferers: Any) -> None:
        self.has_interferer = interferers is not None

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        target = rng.standard_normal(LENGTHS[index]).astype(np.float32)
        interferer = rng.standard_normal(LENGTHS[index]).astype(np.float32)
        return {
            "mixture": target + interferer if self.has_interferer else target,
            "target": target,
            "enrollment": rng.standard_normal(7000 + 500 * index).astype(np.float32),
            "label": index % 4,
            "utterance_id": f"fake/{index}",
            "speaker_id": f"fake_{index % 2}",
            "interferer_id": "ravdess/x" if self.has_interferer else "",
            "interferer_corpus": ("ravdess", "emodb")[index % 2] if self.has_interferer else "",
            "gender_state": ("same", "different")[index // 3] if self.has_interferer else "",
        }


@pytest.fixture
def load_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Puts `FakeMixtures` in the place of corpora and keeps what was asked for."""
    calls: list[dict[str, Any]] = []

    def fake_load_mixtures(**keywords: Any) -> FakeMixtures:
        calls.append(keywords)
        return FakeMixtures(keywords["interferers"])

    monkeypatch.setattr(module, "load_mixtures", fake_load_mixtures)
    return calls


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a tiny extractor, classifier and combined model with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    extractor = TdSpeakerBeamForSpeechExtraction(
        TdSpeakerBeamConfig(
            num_filters=16,
            bottleneck_channels=8,
            hidden_channels=12,
            skip_channels=8,
            num_blocks=2,
            num_repeats=2,
            adaptation_layer=1,
            speaker_embedding_dim=8,
        )
    )
    encoder = {"model_type": "log_mel", "num_mel_bins": 16, "hidden_size": 16}
    classifier = ShiftCnnForEmotionClassification(ShiftCnnConfig(encoder_config=encoder))
    combined = TseSerForEmotionClassification.from_sub_models_pretrained(extractor, classifier)
    models: dict[str, PreTrainedModel] = {
        "extractor": extractor,
        "classifier": classifier,
        "combined": combined,
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


def test_a_classifier_on_noisy_speech_has_accuracies_and_the_mixtures_si_sdr(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    result = evaluate_checkpoint(model=checkpoints["classifier"], batch_size=2, **NOISY)
    assert result["num_examples"] == 5
    assert np.trace(result["confusion"]) / 5 == pytest.approx(result["wa"])
    assert list(result["per_class_recall"]) == list(EMOTIONS) == result["classes"]
    mixtures = FakeMixtures("ravdess")
    examples = [mixtures[index] for index in range(5)]
    expected = np.mean([scale_invariant_sdr(e["mixture"], e["target"]) for e in examples])
    assert result["si_sdr_mixture_db"] == pytest.approx(expected)
    assert result["si_sdr_extracted_db"] is None
    assert result["si_sdri_db"] is None


def test_an_extractor_has_si_sdr_overall_by_corpus_and_by_gender_state(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    result = evaluate_checkpoint(model=checkpoints["extractor"], **NOISY)
    assert result["wa"] is None
    assert result["confusion"] is None
    improvement = result["si_sdr_extracted_db"] - result["si_sdr_mixture_db"]
    assert result["si_sdri_db"] == pytest.approx(improvement)
    corpora, states = result["by_interferer_corpus"], result["by_gender_state"]
    assert {name: group["num_examples"] for name, group in corpora.items()} == {
        "emodb": 2,
        "ravdess": 3,
    }
    assert {name: group["num_examples"] for name, group in states.items()} == {
        "different": 2,
        "same": 3,
    }
    total = sum(group["num_examples"] * group["si_sdri_db"] for group in corpora.values())
    assert total / 5 == pytest.approx(result["si_sdri_db"])


def test_extractor_and_classifier_given_apart_score_as_the_combined_model(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    combined = evaluate_checkpoint(model=checkpoints["combined"], **NOISY)
    apart = evaluate_checkpoint(
        model=checkpoints["extractor"], classifier=checkpoints["classifier"], **NOISY
    )
    for name in ("wa", "ua", "confusion", "si_sdr_extracted_db"):
        assert apart[name] == combined[name]
    assert Path(apart["checkpoint"]).name == "extractor"
    assert Path(apart["classifier_checkpoint"]).name == "classifier"
    assert combined["classifier_checkpoint"] is None


def test_padding_a_batch_changes_no_utterance(checkpoints: dict[str, str]) -> None:
    model = load_model(checkpoints["combined"])
    alone = predict(model, FakeMixtures("ravdess"), batch_size=1)
    batched = predict(model, FakeMixtures("ravdess"), batch_size=5)
    for one, other in zip(alone, batched, strict=True):
        assert one["si_sdr_extracted_db"] == pytest.approx(other["si_sdr_extracted_db"], abs=1e-2)
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_clean_and_denoised_hear_the_utterance_alone(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    model = checkpoints["classifier"]
    clean = evaluate_checkpoint(model=model, **{**NOISY, "condition": "clean"}, fold=2)
    assert load_calls[-1]["interferers"] is None
    assert load_calls[-1]["fold"] == 2
    assert clean["si_sdr_mixture_db"] is None
    assert clean["by_interferer_corpus"] == {}
    denoised = evaluate_checkpoint(
        model=model, condition="denoised", denoised_dir="some/folder", gender_state="same"
    )
    assert load_calls[-1]["targets"] == "denoised"
    assert load_calls[-1]["corpus_dirs"] == {"denoised": "some/folder"}
    # The gender state is that of the mixtures before: the denoised set has no interferer.
    assert "gender_state" not in load_calls[-1]
    assert denoised["gender_state"] == "same"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"condition": "quiet"}, "clean, noisy, denoised"),
        ({"condition": "denoised"}, "denoised_dir"),
        ({"condition": "noisy"}, "interferers"),
    ],
)
def test_a_condition_without_what_it_needs_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_checkpoint(model="unused", **arguments)


def test_the_denoised_set_is_not_extracted_again(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="extracted already"):
        evaluate_checkpoint(
            model=checkpoints["combined"], condition="denoised", denoised_dir="folder"
        )


def test_a_model_with_other_classes_is_refused(tmp_path: Path) -> None:
    encoder = {"model_type": "log_mel", "num_mel_bins": 16, "hidden_size": 16}
    config = ShiftCnnConfig(encoder_config=encoder, id2label=dict(enumerate("abcd")))
    ShiftCnnForEmotionClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="knows the classes"):
        load_model(str(tmp_path))


def test_the_files_hold_the_result_and_a_row_an_utterance(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str], tmp_path: Path
) -> None:
    output_file = tmp_path / "cells" / "sb_sc.json"
    cell = {"name": "sb_sc", "tables": ["IV"], "model": "SB_SC", "method": "TSE-SER-base"}
    result = evaluate_checkpoint(
        cell,
        model=checkpoints["combined"],
        targets=["fake"],
        interferers=["ravdess"],
        corpus_dir="/somewhere",
        seed=3,
        output=str(output_file),
    )
    written = json.loads(output_file.read_text())
    assert written == result
    assert written.items() >= cell.items()
    assert written["seed"] == 3
    assert written["targets"] == ["fake"]
    # No folder of this machine: checkpoints are named as seen from the file.
    assert "/somewhere" not in output_file.read_text()
    checkpoint = output_file.parent / written["checkpoint"]
    assert checkpoint.resolve() == Path(checkpoints["combined"]).resolve()
    assert not Path(written["checkpoint"]).is_absolute()
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["torch"] == torch.__version__.partition("+")[0]
    with (tmp_path / "cells" / "sb_sc.predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["utterance_id"] for row in rows] == [f"fake/{index}" for index in range(5)]
    probabilities = [float(rows[0][f"probability_{emotion}"]) for emotion in EMOTIONS]
    assert sum(probabilities) == pytest.approx(1.0)
    assert int(rows[0]["prediction"]) == int(np.argmax(probabilities))
    mean = np.mean([float(row["si_sdri_db"]) for row in rows])
    assert mean == pytest.approx(result["si_sdri_db"])
    correct = [row["label"] == row["prediction"] for row in rows]
    assert np.mean(correct) == pytest.approx(result["wa"])


def test_the_model_is_given_no_target(checkpoints: dict[str, str]) -> None:
    example = FakeMixtures("ravdess")[0]
    model = load_model(checkpoints["combined"])
    outputs = run_model(model, [example])
    assert outputs["extracted_values"].shape == (1, LENGTHS[0])
    blind = run_model(model, [{key: example[key] for key in ("mixture", "enrollment")}])
    assert torch.equal(outputs["logits"], blind["logits"])


def test_unlabelled_rows_count_for_si_sdr_only() -> None:
    signals = {"si_sdr_mixture_db": 0.0, "si_sdr_extracted_db": 5.0, "si_sdri_db": 5.0}
    rows = [{"label": 1, "prediction": 1, **signals}, {"label": -100, "prediction": 2, **signals}]
    scores = score_predictions(rows)
    assert scores["num_examples"] == 2
    assert scores["wa"] == 1.0
    assert scores["si_sdri_db"] == 5.0


def test_the_command_line_scores_the_generated_corpus(
    generated_corpus: datasets.Dataset,
    checkpoints: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output_file = tmp_path / "cell.json"
    command = ["--model", checkpoints["combined"], "--interferers", "generated_pool"]
    command += ["--gender_state", "different", "--max_examples", "3"]
    main([*command, "--output", str(output_file)])
    written = json.loads(output_file.read_text())
    assert '"num_examples": 3' in capsys.readouterr().out
    assert set(written["by_interferer_corpus"]) == {"generated_pool"}
    assert set(written["by_gender_state"]) == {"different"}
    # Power-based 0 dB over whole utterances, so the mixture's SI-SDR is near it.
    assert abs(written["si_sdr_mixture_db"]) < 8


def test_clean_condition_of_the_generated_corpus_hears_the_target(
    generated_corpus: datasets.Dataset,
) -> None:
    settings = EvaluationArguments(model="unused", condition="clean", max_examples=2)
    for index in range(2):
        example = load_condition(settings)[index]
        assert np.array_equal(example["mixture"], example["target"])
        assert EMOTIONS[example["label"]]
