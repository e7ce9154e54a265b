"""Figures, the page of a study, and what the demonstration shows of it."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
from tiny_models import tiny_classifier, tiny_tse_ser
from tiny_results import evaluation, labels, records, study, write_study
from transformers import PreTrainedModel, pipeline

from data_builders.schema import EMOTIONS
from modeling import TseSerFeatureExtractor
from tse_ser.evaluation import demo, report
from tse_ser.evaluation.examples import probabilities
from tse_ser.evaluation.figures import (
    si_sdri_curves,
    snr_curves,
    spectrogram_db,
    study_figures,
    write_figures,
)
from tse_ser.evaluation.results import confusion

JOINT = labels("SB+SC", "Noisy", "Noisy", "IV", method="TSE-SER-ft")
SC_NOISY = labels("SC", "Noisy", "Noisy", "II", "III")
MOST = [1, 1, 1, 0] * 10


def test_confusions_are_summed_over_folds(tmp_path: Path) -> None:
    runs = [evaluation(records(MOST), fold=fold) for fold in (1, 2)]
    results = study(tmp_path, {"joint": (JOINT, runs)})
    counts = confusion(results.utterances, results.facts["classes"])
    # Of the fourth class none is recognised: the record says the next one, the first.
    assert counts.tolist() == [[20, 0, 0, 0], [0, 20, 0, 0], [0, 0, 20, 0], [20, 0, 0, 0]]
    figure = dict(study_figures(results))["confusion_joint"]
    assert figure.axes[0].get_title("left") == "SB+SC: Noisy → Noisy"
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown[0] == "100 %\n(20)"


def test_curves_have_a_point_a_condition_and_hold_their_interval(tmp_path: Path) -> None:
    gains = np.linspace(0, 10, 40).tolist()
    tests = {"joint": (JOINT, [evaluation(records([*[0] * 20, *[1] * 20], si_sdri_db=gains))])}
    for value, right in (("10", MOST), ("-5", [1, 0] * 20)):
        named = {**JOINT, "tables": [], "condition_label": "snr_db", "condition_value": value}
        tests[f"snr_{value}"] = (named, [evaluation(records(right))])
    results = study(tmp_path, tests)
    curves = snr_curves(results)
    assert curves["x"].tolist() == [-5.0, 10.0]
    assert curves["ua"].tolist() == [0.5, 0.75]
    gained = si_sdri_curves(results)
    assert gained["x"].is_monotonic_increasing
    # Another seed of the same utterances tells nothing new of them.
    joint = [evaluation(tests["joint"][1][0]["utterances"], seed=seed) for seed in (0, 1, 2)]
    again = si_sdri_curves(study(tmp_path / "seeds", {"joint": (JOINT, joint)}))
    for end in ("low", "high"):
        np.testing.assert_allclose(again[end], gained[end], atol=0.12)
    assert (again["high"] - again["low"]).max() > 0.8 * (gained["high"] - gained["low"]).max()
    assert gained["ua"].tolist()[:2] == [0.0, 0.0]
    assert gained["ua"].tolist()[3:] == [1.0, 1.0]
    for points in (curves, gained):
        assert (points["low"] <= points["ua"]).all()
        assert (points["ua"] <= points["high"]).all()
    assert {"ua_against_snr", "ua_against_si_sdri"} <= dict(study_figures(results)).keys()


def test_learning_curves_are_those_of_the_longest_history_of_each_run(tmp_path: Path) -> None:
    history = [{"epoch": epoch, "loss": 1.0 / epoch, "eval_ua": 0.1 * epoch} for epoch in (1, 2, 3)]
    for fold in (1, 2):
        for step in (1, 3):
            folder = tmp_path / f"steps/sc_clean/fold-{fold}_seed-0/checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "trainer_state.json").write_text(json.dumps({"log_history": history[:step]}))
    results = study(tmp_path, {"joint": (JOINT, [evaluation(records(MOST))])})
    loss, accuracy = dict(study_figures(results))["learning_curves_sc_clean"].axes
    drawn = [np.asarray(line.get_xdata()).tolist() for line in loss.lines]
    assert [x for x in drawn if x] == [[1, 2, 3]] * 2
    assert accuracy.get_title("left") == "Accuracy in validation (%)"


def test_figures_are_written_as_files(tmp_path: Path) -> None:
    results = study(tmp_path, {"joint": (JOINT, [evaluation(records(MOST))])})
    (path,) = write_figures(results, tmp_path / "figures")  # no model is there to extract with
    assert path.name == "confusion_joint.png"
    assert path.stat().st_size > 1000


def test_a_tone_lies_at_its_frequency() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    level = spectrogram_db(tone)
    assert level.shape[0] == 257
    assert (level[:, 5:-5].argmax(axis=0) == 32).all()  # 1000 Hz of 31.25 Hz a row


def save(model: PreTrainedModel, folder: Path) -> str:
    model.config.id2label = dict(enumerate(EMOTIONS))
    model.config.label2id = {emotion: index for index, emotion in enumerate(EMOTIONS)}
    model.save_pretrained(folder)
    TseSerFeatureExtractor().save_pretrained(folder)
    return f"../../{folder.parent.name}/{folder.name}"


@pytest.fixture
def finished(tmp_path: Path, generated_corpus: datasets.Dataset) -> Path:
    """The results of a study of two tiny random models on the generated corpus, beside them."""
    speech = {"targets": ["generated"], "interferers": ["generated_pool"], "classes": [*EMOTIONS]}
    models = {"joint": (JOINT, tiny_tse_ser()), "baseline": (SC_NOISY, tiny_classifier())}
    tests: dict[str, Any] = {}
    for name, (test_labels, model) in models.items():
        checkpoint = save(model, tmp_path / "models" / name)
        scored = evaluation(records(MOST), **speech, checkpoint=checkpoint)
        tests[name] = (test_labels, [scored])
    return write_study(tmp_path, tests)


def test_the_page_needs_nothing_else_and_says_what_the_tables_say(tmp_path: Path) -> None:
    named = {**JOINT, "method": "<script>alert(1)</script>"}
    path = write_study(tmp_path, {"joint": (named, [evaluation(records(MOST))])})
    report.main([str(path), "--output", str(tmp_path / "report.html")])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "75.00" in page
    assert "Table IV. TSE-SER-base and TSE-SER-ft" in page
    assert "<script>" not in page
    assert "<audio" not in page  # speech of RAVDESS is embedded when it is asked for
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert 'http-equiv="Content-Security-Policy" content="default-src' in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len({*ids})
    again = tmp_path / "again.html"
    report.main([str(path), "--output", str(again)])
    assert again.read_text(encoding="utf-8") == page
    with pytest.raises(ValueError, match="no joint model beside it"):
        report.write_report([path], tmp_path / "audio.html", num_audio=2)


def test_generated_speech_can_be_heard_on_the_page(finished: Path) -> None:
    report.main([str(finished), "--output", str(finished.with_name("report.html"))])
    page = finished.with_name("report.html").read_text(encoding="utf-8")
    sources = re.findall(r'<audio[^>]*src="data:audio/flac;base64,([^"]+)"', page)
    assert len(sources) == 3 * 4
    clips = [soundfile.read(io.BytesIO(base64.b64decode(source)))[0] for source in sources[:3]]
    mixture, extracted, target = clips
    assert mixture.size == extracted.size == target.size
    assert max(np.abs(clip).max() for clip in clips) == pytest.approx(0.9, abs=1e-3)
    assert "Extracted: SI-SDR" in page


def test_the_demonstration_saves_a_checkpoint_that_works_on_its_own_sample(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.main([str(finished)])
    printed = capsys.readouterr().out
    checkpoint = finished.parent / "checkpoint"
    assert f"pipeline(model={str(checkpoint)!r}, trust_remote_code=True)" in printed
    assert str(finished.parent / "report.html") in printed
    recognize = pipeline(None, model=str(checkpoint), trust_remote_code=True, device="cpu")
    sample = {name: checkpoint / "sample" / f"{name}.wav" for name in ("mixture", "enrollment")}
    for path in sample.values():
        assert soundfile.info(path).subtype == "PCM_16"
    heard = recognize(sample)
    assert {entry["label"] for entry in heard} == set(EMOTIONS)
    after = next(line for line in printed.splitlines() if line.strip().startswith("after:"))
    assert heard[0]["label"] in after.partition("(")[0]
    (baseline,) = [
        line for line in printed.splitlines() if "before: SC trained on mixtures" in line
    ]
    assert any(emotion in baseline for emotion in EMOTIONS)


def test_a_study_without_what_is_shown_is_named(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_study(tmp_path / "other", {"joint": (JOINT, [evaluation(records(MOST))])})
    with pytest.raises(SystemExit, match="has no joint model"):
        demo.main([str(other)])


def test_the_order_of_the_systems_is_told_as_it_is(tmp_path: Path) -> None:
    most, half, few = [1, 1, 1, 1] * 8 + [1, 0] * 4, [1, 0] * 20, [0, 0, 1, 0] * 10
    base = labels("SB_SC", "Denoised", "Denoised", "IV", method="TSE-SER-base")
    tests = {"noisy": (SC_NOISY, few), "base": (base, most), "joint": (JOINT, half)}
    runs = {name: (words, [evaluation(records(right))]) for name, (words, right) in tests.items()}
    lines = demo.order_of_systems(study(tmp_path, runs))
    assert [line.split("%")[0].split() for line in lines[1:4]] == [
        ["SC", "trained", "on", "mixtures", "25.0"],
        ["SB_SC", "90.0"],
        ["SB+SC", "50.0"],
    ]
    assert "against SC trained on mixtures: better (+" in lines[2]
    assert "against SB_SC: worse (-" in lines[3]
    assert lines[4].startswith("Not shown here: SB+SC above SB_SC.") and len(lines) == 6
    same = {name: runs[other] for name, other in (("base", "base"), ("joint", "base"))}
    same["joint"] = (JOINT, same["joint"][1])
    lines = demo.order_of_systems(study(tmp_path / "same", same))
    assert "not told apart" in lines[2] and lines[3].startswith(
        "Not shown here: SB+SC above SB_SC."
    )
    alone = {"noisy": runs["noisy"], "base": runs["base"]}
    assert len(demo.order_of_systems(study(tmp_path / "alone", alone))) == 3  # all is shown


def test_the_most_likely_emotion_stands_first() -> None:
    import torch

    outputs = {"logits": torch.log(torch.tensor([[0.1, 0.2, 0.7]]))}
    shares = probabilities(outputs, ["fearful", "happy", "sad"])
    assert list(shares) == ["sad", "happy", "fearful"]
    assert demo.heard(shares) == "sad      (sad 70%, happy 20%, fearful 10%)"
