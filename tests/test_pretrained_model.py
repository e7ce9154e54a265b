"""The models in pretrained/: small, complete, as good on test actors as their cards say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
import yaml
from documented_blocks import read_blocks
from safetensors.torch import load_file
from subprocesses import run_program
from transformers import AutoConfig

from data_builders import load_mixtures
from modeling import TdSpeakerBeamForSpeechExtraction
from tse_ser.evaluation.evaluate_checkpoint import evaluate_checkpoint
from tse_ser.publishing.calibration import read_calibration
from tse_ser.saving import load_saved

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "pretrained" / "tse-ser-ft"
LABELS = ("neutral", "happy", "sad", "angry")
MAX_BYTES = 50_000_000
STUDY = yaml.safe_load((REPOSITORY / "studies/people/config.yaml").read_text(encoding="utf-8"))
# RAVDESS of the study: actors who were in no training, mixed with each other.
MIXING: dict[str, Any] = {**STUDY["data"], **STUDY["conditions"]["corpus"]["values"]["RAVDESS"]}


def measured() -> dict[str, Any]:
    """The cell of RAVDESS behind the numbers of the card."""
    cells = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    (cell,) = (
        cell
        for cell in cells
        if cell["condition"] == "noisy" and cell.get("condition_value") == "RAVDESS"
    )
    return dict(cell)


def test_it_is_small_in_half_precision_and_computes_in_float32() -> None:
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size <= MAX_BYTES
    assert {t.dtype for t in load_file(weights).values() if t.is_floating_point()} == {
        torch.float16
    }
    model, _ = load_saved(FOLDER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_its_card_gives_licence_data_protocol_numbers_and_limits() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "license: other" in card
    for words in (
        "non-commercial research only",
        "RAVDESS",
        "CREMA-D",
        "nEMO",
        "emotiontts",
        "EMO-DB",
        "Asterisk",
        "validated",
        "Limits",
    ):
        assert words in card, words
    assert f"{100 * measured()['ua']:.2f}" in card


def test_its_card_gives_the_calibration_that_its_config_has() -> None:
    results = REPOSITORY / "docs" / "results"
    files = (results / "calibration_validation.json", results / "calibration_test.json")
    found = read_calibration(files, AutoConfig.from_pretrained(FOLDER))
    assert found is not None
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for low, high, in_validation, in_test in found.reliability:
        assert f"| {low} to {high} | {in_validation} | {in_test} |" in card


def test_the_lines_of_the_readme_recognize_real_speech(data_dir: Path, tmp_path: Path) -> None:
    (block,) = (
        block
        for block in read_blocks(REPOSITORY / "README.md")
        if block.language == "python" and str(FOLDER.relative_to(REPOSITORY)) in block.text
    )
    example = load_mixtures(split="test", corpus_dir=data_dir, max_examples=1, **MIXING)[0]
    for name, role in (("meeting", "mixture"), ("alice", "enrollment")):
        soundfile.write(tmp_path / f"{name}.wav", example[role], 16000, subtype="FLOAT")
    (tmp_path / "pretrained").symlink_to(FOLDER.parent)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    printed = run_program([sys.executable, "-c", block.text], tmp_path, environment)
    answers = dict(line.split() for line in printed.splitlines())
    assert answers.keys() == set(LABELS)
    assert sum(map(float, answers.values())) == pytest.approx(1, abs=0.03)


def test_its_numbers_are_those_of_the_test_actors(data_dir: Path) -> None:
    again = evaluate_checkpoint(
        model=str(FOLDER), condition="noisy", corpus_dir=str(data_dir), **MIXING
    )
    cell = measured()
    assert again["num_examples"] == cell["num_examples"] == 112
    # Other processors round otherwise: one utterance of sixteen may change.
    assert abs(again["ua"] - cell["ua"]) <= 1 / 64 + 1e-9
    assert abs(again["si_sdri_db"] - cell["si_sdri_db"]) < 0.01


@pytest.mark.parametrize(
    ("name", "license_id"),
    [("td-speakerbeam-read", "cc-by-sa-4.0"), ("td-speakerbeam-voices", "other")],
)
def test_an_extractor_of_voices_is_small_and_its_card_complete(name: str, license_id: str) -> None:
    folder = REPOSITORY / "pretrained" / name
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= 25_000_000
    extractor = TdSpeakerBeamForSpeechExtraction.from_pretrained(folder)
    assert {parameter.dtype for parameter in extractor.parameters()} == {torch.float32}
    voice = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        extracted = extractor(voice, enrollment_values=voice).extracted_values
    assert extracted.shape == voice.shape and extracted.isfinite().all()
    card = (folder / "README.md").read_text(encoding="utf-8")
    measured = (REPOSITORY / "docs" / "extraction" / "extraction.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:] for line in measured.splitlines() if f"| {name} " in line]
    shown = [line.split("|")[2:] for line in card.splitlines() if f"| {name} " in line]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert len(cells) == 4 and cells == [[cell.strip() for cell in row] for row in shown]
    assert f"license: {license_id}" in card


def test_the_extractor_of_read_speech_has_heard_no_acted_emotions() -> None:
    # Stage 1 of the paper hears no emotional corpus of the studies, and no terms forbid its use.
    folder = REPOSITORY / "pretrained" / "td-speakerbeam-read"
    facts = (folder / "training_facts.json").read_text(encoding="utf-8")
    assert not any(name in facts.lower() for name in ("ravdess", "cremad", "nemo", "emotiontts"))
