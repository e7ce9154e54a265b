"""The figures of a study, from fake results and one tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from tiny_study import HISTORY, make_study

pytest.importorskip("matplotlib", reason="figures want matplotlib: pip install 'tse-ser[demo]'")

from matplotlib.image import imread

from tse_ser.evaluation.curves import Point, si_sdri_curves, snr_curves
from tse_ser.evaluation.extraction_example import ExtractionExample, extract_examples, joint_cell
from tse_ser.evaluation.figures import main, write_figures
from tse_ser.evaluation.metrics.si_sdr.si_sdr import scale_invariant_sdr
from tse_ser.evaluation.plots import (
    plot_accuracy_curves,
    plot_confusion,
    plot_example,
    plot_learning_curves,
    spectrogram_db,
)


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
        enrollment=target,
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
    names = ["confusion_sb+sc.png", "ua_against_si_sdri.png", "learning_curves_joint.png"]
    names += ["example.png"]
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

    monkeypatch.setattr("tse_ser.evaluation.figures.plot_confusion", remember)
    (tmp_path / "cells").mkdir()
    for fold in (1, 2):
        cell = {"name": "sc", "model": "SC", "train_set": "Clean", "test_set": "Noisy", "wa": 0.5}
        cell |= {"fold": fold, "checkpoint": "../steps/gone", "optimistic": True}
        cell |= {"classes": ["a", "b"], "confusion": [[fold, 1], [0, 2]], "si_sdri_db": None}
        (tmp_path / "cells" / f"sc_fold{fold}.json").write_text(json.dumps(cell))
    written = write_figures(tmp_path, tmp_path / "drawn")
    assert written == [tmp_path / "drawn" / "confusion_sc.png"]
    assert drawn[0]["confusion"].tolist() == [[3, 2], [0, 4]]
    assert drawn[0]["title"] == "SC: Clean → Noisy (optimistic)"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A results folder with one joint cell of a tiny random model and a training's history."""
    return make_study(tmp_path)


def snr_cell(snr_db: float, correct: list[int], fold: int = 1, **changes: Any) -> dict[str, Any]:
    records = [
        {"utterance_id": str(index), "label": 0, "prediction": 0 if right else 1}
        for index, right in enumerate(correct)
    ]
    labels = {"model": "SB+SC", "condition_label": "snr_db", "condition_value": snr_db}
    return {"wa": 0.5, "fold": fold, "seed": 0, "utterances": records, **labels, **changes}


def test_ua_against_snr_is_in_order_with_an_interval_at_each_point() -> None:
    cells = [
        snr_cell(5, [1, 1, 1, 0]),
        snr_cell(-10, [0, 0, 0, 1]),
        snr_cell(-10, [0, 0, 1, 1], fold=2),
        snr_cell(0, [1, 0], model="SC", train_set="Noisy"),
        snr_cell(3, [1], condition_label="num_speakers"),
    ]
    curves = snr_curves(cells)
    assert {name: [point.x for point in points] for name, points in curves.items()} == {
        "SB+SC": [-10.0, 5.0],
        "SC trained on Noisy": [0.0],
    }
    # Folds are averaged.
    assert [point.ua for point in curves["SB+SC"]] == pytest.approx([0.375, 0.75])
    assert all(point.low <= point.ua <= point.high for point in curves["SB+SC"])


def test_ua_against_si_sdri_has_bins_of_as_many_utterances() -> None:
    rng = np.random.default_rng(0)
    records = []
    gains = rng.permutation(np.linspace(-2, 10, 400))
    for index in range(400):
        gain = float(gains[index])
        # The better the extraction, the surer the emotion.
        right = rng.random() < (gain + 2) / 12
        prediction = index % 4 if right else (index + 1) % 4
        record = {"utterance_id": str(index), "label": index % 4, "prediction": prediction}
        records.append(record | {"si_sdri_db": gain})
    cell = {"model": "SB+SC", "fold": 1, "seed": 0, "utterances": records}
    elsewhere = cell | {"condition_label": "snr_db", "model": "other"}
    same = cell | {"gender_state": "same", "model": "another"}
    curves = si_sdri_curves([cell, elsewhere, same, {"model": "old", "fold": 1, "seed": 0}])
    assert list(curves) == ["SB+SC"]
    points = curves["SB+SC"]
    assert len(points) == 5
    assert [point.x for point in points] == pytest.approx([-0.8, 1.6, 4.0, 6.4, 8.8], abs=0.02)
    assert [point.ua for point in points] == sorted(point.ua for point in points)
    assert points[0].high < points[-1].low


def test_accuracy_curves_have_a_line_and_a_band_a_model() -> None:
    curves = {"a": [Point(0.0, 0.5, 0.4, 0.6), Point(5.0, 0.7, 0.6, 0.8)], "b": [Point(0, 1, 1, 1)]}
    figure = plot_accuracy_curves(curves, "Input SNR (dB)", "UA")
    axes = figure.axes[0]
    assert np.asarray(axes.lines[0].get_ydata()).tolist() == [50.0, 70.0]
    assert len(axes.lines) == len(axes.collections) == 2
    assert axes.get_ylabel() == "UA (%)"


def test_examples_come_of_the_joint_model_before_the_pair_and_never_of_a_missing_one(
    generated_corpus: datasets.Dataset, study: Path
) -> None:
    (path,) = (study / "cells").glob("*.json")
    cell = json.loads(path.read_text())
    pair = cell | {"classifier_checkpoint": "../steps/fold1_seed0/joint"}
    assert joint_cell(study, [pair, cell]) == cell
    assert joint_cell(study, [pair]) == pair
    for change in (
        {"checkpoint": "../steps/gone"},
        {"condition_label": "snr_db"},
        {"noise_dir": "wham"},
        {"si_sdri_db": None},
    ):
        assert joint_cell(study, [cell | change]) is None
    first, second = extract_examples(study, cell, [0, 1])
    assert first.utterance_id != second.utterance_id
    assert first.extracted.shape == first.target.shape == first.mixture.shape
    assert first.enrollment.size
    records = {record["utterance_id"]: record for record in cell["utterances"]}
    record = records[first.utterance_id]
    assert cell["classes"][record["prediction"]] == first.extracted_emotion
    assert scale_invariant_sdr(first.extracted, first.target) == pytest.approx(
        record["si_sdr_extracted_db"], abs=0.01
    )
