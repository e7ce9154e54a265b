"""The figures of a study, from fake results and one tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="figures want matplotlib: pip install 'tse-ser[demo]'")

from matplotlib.image import imread

from evaluation.evaluate_checkpoint import evaluate_checkpoint
from evaluation.figures import (
    ExtractionExample,
    main,
    plot_confusion,
    plot_example,
    plot_learning_curves,
    spectrogram_db,
    write_figures,
)
from evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerForEmotionClassification,
)

HISTORY: list[dict[str, float]] = [
    {"loss": 1.4, "epoch": 0.5, "step": 5},
    {"eval_loss": 1.3, "eval_ua": 0.4, "eval_wa": 0.5, "epoch": 1.0, "step": 10},
    {"loss": 1.1, "epoch": 1.5, "step": 15},
    {"eval_loss": 1.2, "eval_ua": 0.55, "eval_wa": 0.6, "epoch": 2.0, "step": 20},
]


def noise(seed: int, num_samples: int = 16000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


def test_the_confusion_matrix_shows_shares_of_the_true_class_and_counts() -> None:
    confusion = np.array([[3, 1], [0, 0]])
    figure = plot_confusion(confusion, ["sad", "angry"], title="SC")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "75 %\n(3)",
        "25 %\n(1)",
        "0 %\n(0)",
        "0 %\n(0)",
    ]
    assert axes.get_xlabel() == "Predicted"
    assert axes.get_ylabel() == "True"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sad", "angry"]


def test_learning_curves_have_a_panel_for_each_kind_that_was_logged() -> None:
    figure = plot_learning_curves([HISTORY, HISTORY])
    loss, accuracy = figure.axes
    labels = [str(line.get_label()) for line in loss.lines]
    assert [label for label in labels if label[0] != "_"] == ["training", "validation"]
    assert len(loss.lines) == 4
    assert np.asarray(accuracy.lines[0].get_ydata()).tolist() == pytest.approx([40.0, 55.0])
    assert np.asarray(accuracy.lines[0].get_xdata()).tolist() == [1.0, 2.0]


def test_the_example_names_si_sdr_and_emotions_on_one_scale() -> None:
    target, other = noise(0), noise(1)
    example = ExtractionExample(
        mixture=target + other,
        extracted=target + 0.1 * other,
        target=target,
        true_emotion="happy",
        mixture_emotion="sad",
        extracted_emotion="happy",
        utterance_id="fake/a",
        interferer_id="fake/b",
    )
    figure = plot_example(example)
    axes = figure.axes[:3]
    titles = [panel.get_title(loc="left") for panel in axes]
    extracted_db = scale_invariant_sdr(example.extracted, target)
    assert titles[0].endswith("predicted sad")
    assert titles[1] == f"Extracted: SI-SDR {extracted_db:.1f} dB, predicted happy"
    assert titles[2] == "Target: true emotion happy"
    assert len({panel.images[0].get_clim() for panel in axes}) == 1


def test_a_tone_is_a_line_at_its_frequency() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000).astype(np.float32)
    levels = spectrogram_db(tone)
    assert levels.shape[0] == 257
    # Bins of 31.25 Hz.
    assert np.all(levels[:, 5:-5].argmax(axis=0) == 64)


def test_a_study_is_drawn_with_all_its_figures(
    generated_corpus: datasets.Dataset, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--results", str(study), "--example_index", "1"])
    names = ["confusion_sb+sc.png", "learning_curves_joint.png", "example.png"]
    assert capsys.readouterr().out.split() == [str(study / "figures" / name) for name in names]
    for name in names:
        image = imread(study / "figures" / name)
        assert min(image.shape[:2]) > 300
        assert image.std() > 0.05


def test_confusions_of_folds_are_summed_up_and_no_joint_model_means_no_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, Any]] = []

    def remember(**group: Any) -> Any:
        drawn.append(group)
        return plot_confusion(**group)

    monkeypatch.setattr("evaluation.figures.plot_confusion", remember)
    (tmp_path / "cells").mkdir()
    for fold in (1, 2):
        cell = {"name": "sc", "model": "SC", "train_set": "Clean", "test_set": "Noisy", "wa": 0.5}
        cell |= {"classes": ["a", "b"], "confusion": [[fold, 1], [0, 2]], "si_sdri_db": None}
        (tmp_path / "cells" / f"sc_fold{fold}.json").write_text(json.dumps(cell))
    written = write_figures(tmp_path, tmp_path / "drawn")
    assert written == [tmp_path / "drawn" / "confusion_sc.png"]
    assert drawn[0]["confusion"].tolist() == [[3, 2], [0, 4]]
    assert drawn[0]["title"] == "SC: Clean → Noisy"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A results folder with one joint cell of a tiny random model and a training's history."""
    torch.manual_seed(0)
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
    model = TseSerForEmotionClassification.from_sub_models_pretrained(extractor, classifier)
    step = tmp_path / "steps" / "fold1_seed0" / "joint"
    model.save_pretrained(step)
    state = {"log_history": HISTORY}
    (step / "trainer_state.json").write_text(json.dumps(state))
    evaluate_checkpoint(
        {"name": "sb+sc", "model": "SB+SC", "method": "TSE-SER-ft", "tables": ["IV"]},
        model=str(step),
        interferers=["generated_pool"],
        max_examples=4,
        output=str(tmp_path / "cells" / "sb+sc_fold1_seed0.json"),
    )
    return tmp_path
