"""Scoring of checkpoints, with tiny random models on synthetic or generated speech."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tiny_models import tiny_tse_ser
from transformers import PreTrainedModel

from data_builders.option_reader import OptionError
from data_builders.schema import EMOTIONS
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
)
from tse_ser.evaluation import evaluate_checkpoint as module
from tse_ser.evaluation.evaluate_checkpoint import (
    BEST_WA_FOLDER,
    EvaluationOptions,
    classes_of,
    evaluate_checkpoint,
    load_model,
    main,
)
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.evaluation.prediction import run_model
from tse_ser.evaluation.scoring import score_detection, score_predictions

LENGTHS = (9000, 12000, 8000, 11000, 9500)
NOISY: dict[str, Any] = {"condition": "noisy", "interferers": ["ravdess"]}


class FakeMixtures(torch.utils.data.Dataset):
    """Noise in the shape of the data rooms' examples; labels 0, 1, 2, 3, 0."""

    def __init__(self, interferers: Any, absent_share: float = 0.0) -> None:
        self.has_interferer = interferers is not None
        self.absent_share = absent_share

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
            "snr_db": 1.25 * index if self.has_interferer else float("nan"),
            "noise_snr_db": float("nan"),
        } | self.absent(index, target, interferer)

    def absent(self, index: int, target: np.ndarray, interferer: np.ndarray) -> dict[str, Any]:
        if index / len(LENGTHS) >= self.absent_share:
            return {"target_absent": False}
        silence = {"mixture": interferer, "target": np.zeros_like(target), "label": -100}
        return silence | {"target_absent": True, "snr_db": float("nan")}


@pytest.fixture
def load_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Puts `FakeMixtures` in the place of corpora and keeps what was asked for."""
    calls: list[dict[str, Any]] = []

    def fake_load_mixtures(**keywords: Any) -> FakeMixtures:
        calls.append(keywords)
        return FakeMixtures(keywords["interferers"], keywords.get("absent_share", 0.0))

    monkeypatch.setattr(module, "load_mixtures", fake_load_mixtures)
    return calls


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a tiny extractor, classifier and combined model with random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")
    combined = tiny_tse_ser()
    models: dict[str, PreTrainedModel] = {
        "extractor": combined.extractor,
        "classifier": combined.classifier,
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


def test_clean_and_denoised_hear_the_utterance_alone(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str], tmp_path: Path
) -> None:
    model = checkpoints["classifier"]
    clean = evaluate_checkpoint(model=model, **{**NOISY, "condition": "clean"}, fold=2)
    assert load_calls[-1]["interferers"] is None
    assert load_calls[-1]["fold"] == 2
    assert clean["si_sdr_mixture_db"] is None
    assert clean["by_interferer_corpus"] == {}
    ids = {"utterance_id": ["fake/0", "fake/1"], "source_utterance_id": ["ravdess/a", "ravdess/b"]}
    datasets.Dataset.from_dict(ids).to_parquet(tmp_path / "metadata.parquet")
    denoised = evaluate_checkpoint(
        model=model, condition="denoised", denoised_dir=str(tmp_path), gender_state="same"
    )
    assert load_calls[-1]["targets"] == ("denoised",)
    assert load_calls[-1]["corpus_dirs"] == {"denoised": str(tmp_path)}
    # So that it can be paired with the same utterance in another test set.
    sources = [record.get("source_utterance_id") for record in denoised["utterances"]]
    assert sources == ["ravdess/a", "ravdess/b", None, None, None]
    # The gender state is that of the mixtures before: the denoised set has no interferer.
    assert load_calls[-1]["gender_state"] == "any"
    assert denoised["gender_state"] == "same"


def test_the_denoised_set_is_not_extracted_again(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="extracted already"):
        evaluate_checkpoint(
            model=checkpoints["combined"], condition="denoised", denoised_dir="folder"
        )


def test_a_model_with_other_classes_is_refused(tmp_path: Path) -> None:
    encoder = {"model_type": "log_mel", "num_mel_bins": 16, "hidden_size": 16}
    config = ShiftCnnConfig(encoder_config=encoder, id2label={0: "sad", 1: "fearful"})
    ShiftCnnForEmotionClassification(config).save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    asked: dict[str, Any] = {"model": str(tmp_path), "condition": "clean"}
    assert classes_of(model, EvaluationOptions(**asked)) == ("sad", "fearful")
    # The labels are the model's, in whatever order the emotions are named.
    same = EvaluationOptions(**asked, emotions=("fearful", "sad"))
    assert classes_of(model, same) == ("sad", "fearful")
    for emotions in (["sad"], ["sad", "angry"], ["all"]):
        with pytest.raises(OptionError, match="tells sad, fearful apart, asked for are"):
            classes_of(model, EvaluationOptions(**asked, emotions=tuple(emotions)))


@pytest.mark.parametrize("more", [{}, {"classifier": "lab/none"}])
def test_a_model_that_is_not_there_and_an_output_that_cannot_be_are_named(
    more: dict[str, Any], tmp_path: Path, checkpoints: dict[str, str]
) -> None:
    missing = str(tmp_path / "deep" / "er" / "model")
    with pytest.raises(OptionError, match=r"--model .*model.*: no model is there"):
        evaluate_checkpoint(model=missing, condition="clean", **more)
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file" / "cell.json", tmp_path):
        # Before anything is measured: the model is not even looked for.
        with pytest.raises(OptionError, match="--output"):
            evaluate_checkpoint(model=missing, condition="clean", output=str(output), **more)


def test_the_file_holds_the_result_and_a_record_an_utterance(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str], tmp_path: Path
) -> None:
    output_file = tmp_path / "tests" / "sb_sc.json"
    result = evaluate_checkpoint(
        model=checkpoints["combined"],
        targets=["fake"],
        interferers=["ravdess"],
        corpus_dir="/somewhere",
        corpus_dirs=["fake=/somewhere/fake"],
        noise_dir="/somewhere/wham",
        seed=3,
        output=str(output_file),
    )
    written = json.loads(output_file.read_text())
    assert written == result
    assert written["seed"] == 3
    assert written["targets"] == ["fake"]
    assert written["noise_dir"] == "wham"
    assert written["optimistic"] is False
    # No folder of this machine: checkpoints are named as seen from the file.
    assert "/somewhere" not in output_file.read_text()
    checkpoint = output_file.parent / written["checkpoint"]
    assert checkpoint.resolve() == Path(checkpoints["combined"]).resolve()
    assert not Path(written["checkpoint"]).is_absolute()
    assert written["machine"]["cores"] >= 1
    assert written["versions"]["torch"] == torch.__version__.partition("+")[0]
    records = written["utterances"]
    assert [record["utterance_id"] for record in records] == [f"fake/{i}" for i in range(5)]
    assert [record["snr_db"] for record in records] == [0.0, 1.25, 2.5, 3.75, 5.0]
    assert [record["interferer_corpus"] for record in records[:2]] == ["ravdess", "emodb"]
    assert sum(records[0]["probabilities"]) == pytest.approx(1.0, abs=1e-5)
    assert records[0]["prediction"] == int(np.argmax(records[0]["probabilities"]))
    mean = np.mean([record["si_sdri_db"] for record in records])
    assert mean == pytest.approx(result["si_sdri_db"], abs=1e-4)
    correct = [record["label"] == record["prediction"] for record in records]
    assert np.mean(correct) == pytest.approx(result["wa"])
    # What is unknown takes no room.
    assert not {"noise_snr_db", "target_absent", "speaker_similarity"} & records[0].keys()
    lines = output_file.read_text().splitlines()
    assert sum("utterance_id" in line for line in lines) == len(records)
    assert [path.name for path in output_file.parent.iterdir()] == ["sb_sc.json"]


def test_a_clean_test_has_records_without_what_it_does_not_know(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str], tmp_path: Path
) -> None:
    output_file = tmp_path / "test.json"
    evaluate_checkpoint(model=checkpoints["classifier"], condition="clean", output=str(output_file))
    records = json.loads(output_file.read_text())["utterances"]
    expected = {"utterance_id", "speaker_id", "label", "prediction", "probabilities"}
    assert [set(record) for record in records] == [expected] * 5


@pytest.mark.parametrize("name", ["extractor", "combined"])
def test_absent_targets_are_told_by_the_speaker_similarity(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str], name: str
) -> None:
    result = evaluate_checkpoint(model=checkpoints[name], absent_share=0.4, **NOISY)
    assert load_calls[-1]["absent_share"] == 0.4
    records = result["utterances"]
    assert [record.get("target_absent", False) for record in records] == [True] * 2 + [False] * 3
    # Nothing is right to extract or to recognise where nobody speaks.
    assert all("si_sdr_extracted_db" not in record for record in records[:2])
    assert all("si_sdri_db" in record for record in records[2:])
    detection = result["detection"]
    assert detection["num_present"] == 3 and detection["num_absent"] == 2
    similarities = np.array([record["speaker_similarity"] for record in records])
    wins = similarities[2:, None] > similarities[None, :2]
    assert detection["auc"] == pytest.approx(wins.mean())
    assert detection["mean_similarity_absent"] == pytest.approx(similarities[:2].mean(), abs=1e-5)
    if name == "combined":
        assert sum(map(sum, result["confusion"])) == 3


def test_similarities_need_an_extractor(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match="need an extractor"):
        evaluate_checkpoint(model=checkpoints["classifier"], speaker_similarity=True, **NOISY)
    result = evaluate_checkpoint(model=checkpoints["extractor"], speaker_similarity=True, **NOISY)
    assert result["detection"]["num_present"] == 5
    assert result["detection"]["auc"] is None
    assert evaluate_checkpoint(model=checkpoints["extractor"], **NOISY)["detection"] is None


def test_auc_and_equal_error_rate_of_known_similarities() -> None:
    present = np.array([True, True, True, True, False, False, False, False])
    apart = score_detection(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]), present)
    assert (apart["auc"], apart["eer"]) == (1.0, 0.0)
    assert 0.5 < apart["eer_threshold"] <= 0.6
    # One of four on the wrong side of the other: 15 of 16 pairs in order, one in four wrong.
    mixed = score_detection(np.array([0.9, 0.8, 0.7, 0.4, 0.5, 0.3, 0.2, 0.1]), present)
    assert (mixed["auc"], mixed["eer"]) == (15 / 16, 0.25)
    assert score_detection(np.zeros(8), present)["auc"] == 0.5
    assert score_detection(np.zeros(2), np.array([True, True]))["eer"] is None


def test_best_on_test_takes_wa_and_ua_of_their_own_epochs(
    load_calls: list[dict[str, Any]], checkpoints: dict[str, str], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"protocol": "best_on_test", **NOISY}
    with pytest.raises(ValueError, match="best_wa, which is missing"):
        evaluate_checkpoint(model=checkpoints["combined"], **arguments)

    best_ua = tmp_path / "sb_sc"
    other: Any = load_model(checkpoints["classifier"])
    other.save_pretrained(best_ua)
    with torch.no_grad():
        # Every utterance is called neutral: two of five are.
        other.head.classifier.bias[0] += 100.0
    other.save_pretrained(best_ua / BEST_WA_FOLDER)
    result = evaluate_checkpoint(
        model=checkpoints["extractor"], classifier=str(best_ua), **arguments
    )
    # The data of protocol 'paper', whose test session is the same.
    assert load_calls[-1]["protocol"] == "paper"
    assert (result["protocol"], result["optimistic"]) == ("best_on_test", True)
    assert result["wa"] == pytest.approx(0.4)
    assert Path(result["wa_checkpoint"]).name == BEST_WA_FOLDER
    alone = evaluate_checkpoint(
        model=checkpoints["extractor"], classifier=checkpoints["classifier"], **NOISY
    )
    assert alone["wa"] != result["wa"]
    assert result["ua"] == alone["ua"]
    assert result["confusion"] == alone["confusion"]


def test_the_model_is_given_no_target(checkpoints: dict[str, str]) -> None:
    example = FakeMixtures("ravdess")[0]
    model = load_model(checkpoints["combined"])
    outputs = run_model(model, [example])
    assert outputs["extracted_values"].shape == (1, LENGTHS[0])
    blind = run_model(model, [{key: example[key] for key in ("mixture", "enrollment")}])
    assert torch.equal(outputs["logits"], blind["logits"])


def test_unlabelled_rows_count_for_si_sdr_only() -> None:
    signals: dict[str, Any] = {
        "si_sdr_mixture_db": 0.0,
        "si_sdr_extracted_db": 5.0,
        "si_sdri_db": 5.0,
    }
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
    output_file = tmp_path / "test.json"
    command = ["--model", checkpoints["combined"], "--interferers", "generated_pool"]
    command += ["--gender_state", "different", "--max_examples", "3"]
    main([*command, "--output", str(output_file)])
    written = json.loads(output_file.read_text())
    shown = json.loads(capsys.readouterr().out)
    numbers = ("num_examples", "wa", "ua", "si_sdr_mixture_db", "si_sdr_extracted_db", "si_sdri_db")
    assert {name: shown[name] for name in numbers} == {name: written[name] for name in numbers}
    assert shown["num_examples"] == 3
    assert set(written["by_interferer_corpus"]) == {"generated_pool"}
    assert set(written["by_gender_state"]) == {"different"}
    # Power-based 0 dB over whole utterances, so the mixture's SI-SDR is near it.
    assert abs(written["si_sdr_mixture_db"]) < 8
