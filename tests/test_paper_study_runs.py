"""Parts of the paper study, tiny, in this process; tests/test_study_end_to_end.py has it whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from paper_corpora import NOISE, write_paper_corpora, write_tiny_paper_study
from tiny_models import encoder_config, save_encoder
from transformers import AutoModel

import train
from tse_ser.evaluation.evaluate_checkpoint import evaluate_checkpoint
from tse_ser.evaluation.study import Cell, Step, load_study, plan_study, select_units
from tse_ser.training import denoise_corpus

PAPER = Path(__file__).resolve().parent.parent / "recipes" / "paper"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpora of the paper, and noise."""
    root = write_paper_corpora(tmp_path_factory.mktemp("corpora"))
    (root / "wham_noise" / "tt").mkdir(parents=True)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 48_000)
    soundfile.write(root / "wham_noise" / "tt" / "a.wav", noise, 16_000)
    return root


def planned(name: str, only: list[str], corpora: Path, folder: Path) -> list[Step | Cell]:
    """The steps and cells of a study of recipes/paper, with tiny models and few examples."""
    study = load_study(write_tiny_paper_study(folder / "study", name))
    machine = {"corpus_dir": str(corpora), "cache_dir": str(corpora / ".cache")}
    return select_units(plan_study(study, folder, overrides=machine), only)


def run(unit: Step | Cell, folder: Path) -> dict[str, Any]:
    """Runs a step or cell as the runner would, in this process; gives the cell's result."""
    if isinstance(unit, Cell):
        return evaluate_checkpoint(unit.labels, output=str(unit.path), **unit.arguments)
    path = folder / f"{unit.name}.yaml"
    path.write_text(yaml.safe_dump({**unit.config, "output_dir": str(unit.output_dir)}))
    main = train.train if unit.program == "train" else denoise_corpus.main
    main(["--config", str(path)])
    return {}


def facts_of(step_folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((step_folder / "training_facts.json").read_text())
    return facts


def test_a_row_of_table_four_and_one_of_table_six_are_computed(
    corpora: Path, tmp_path: Path
) -> None:
    plan = planned("study", ["sb_plus_sc", "VI/sb_sc_different_on_same"], corpora, tmp_path)
    steps = [unit.name for unit in plan if isinstance(unit, Step)]
    assert steps == ["extractor", "sb_plus_sc", "denoised_different", "sb_sc_different"]
    results = {unit.key: run(unit, tmp_path) for unit in plan}
    joint, crossed = (result for result in results.values() if result)
    assert (joint["method"], crossed["method"]) == ("TSE-SER-ft", "TSE-SER-base")
    for result in (joint, crossed):
        assert (result["num_examples"], result["protocol"]) == (8, "paper")
        assert np.isfinite(result["si_sdri_db"])
    assert {one["interferer_corpus"] for one in joint["utterances"]} == {"librispeech"}
    assert {one["interferer_corpus"] for one in crossed["utterances"]} == {"esd"}
    assert {one["gender_state"] for one in crossed["utterances"]} == {"same"}
    extractor, classifier = (
        facts_of(tmp_path / "steps" / name)
        for name in ("shared/extractor", "fold1_seed0/sb_sc_different")
    )
    assert extractor["data"]["librimix_subset"] == "train-clean-100"
    assert extractor["num_examples"] == {"train": 8, "validation": 4}
    # No validation split: the last epoch is the result.
    assert classifier["num_examples"]["validation"] == 0
    assert classifier["best_step"] is None


def test_cells_beyond_the_tables_are_computed(corpora: Path, tmp_path: Path) -> None:
    names = ["sb_plus_sc_absent", "sb_plus_sc_noise_reverberant", "sb_plus_sc_alone"]
    plan = planned("beyond", names, corpora, tmp_path)
    assert [unit.name for unit in plan if isinstance(unit, Step)] == ["extractor", "sb_plus_sc"]
    results = {unit.name: run(unit, tmp_path) for unit in plan}
    assert results["sb_plus_sc_absent"]["condition_value"] == 0.5
    assert results["sb_plus_sc_absent"]["detection"] is not None
    reverberant = results["sb_plus_sc_noise_reverberant"]
    assert (reverberant["reverberation"], reverberant["noise_dir"]) == ("reverberant", "wham_noise")
    assert results["sb_plus_sc_alone"]["condition"] == "clean"
    assert all(results[name]["num_examples"] == 8 for name in names)


def test_the_extractor_is_trained_without_metadata_too(corpora: Path, tmp_path: Path) -> None:
    [extractor] = planned("study_librispeech", ["extractor"], corpora, tmp_path)
    run(extractor, tmp_path)
    facts = facts_of(tmp_path / "steps" / "shared" / "extractor")
    assert facts["data"]["librimix_subset"] is None
    assert "release_splits=true" in facts["data"]["interferers"][0]
    assert facts["num_examples"] == {"train": 8, "validation": 4}


def test_the_second_form_of_the_classifier_is_fine_tuned(corpora: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = save_encoder(AutoModel.from_config(encoder_config("wav2vec2_group")), tmp_path / "w")
    [tiny] = planned("study", ["sc_clean"], corpora, tmp_path)[:1]
    assert isinstance(tiny, Step)
    sizes = ("num_train_epochs", "max_train_examples", "per_device_train_batch_size", "use_cpu")
    settings = {
        **yaml.safe_load((PAPER / "1_classification_wav2vec2.yaml").read_text()),
        **{name: tiny.config[name] for name in (*sizes, "corpus_dir", "cache_dir", "report_to")},
        "dataloader_num_workers": 0,
        "interferers": NOISE,
        "encoder_name_or_path": encoder,
        "output_dir": str(tmp_path / "out"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    train.train(["--config", str(tmp_path / "recipe.yaml")])
    counts = facts_of(tmp_path / "out")["num_parameters"]
    # All but the convolutions and the mask embedding inside the encoder.
    assert 0.5 * counts["all"] < counts["trained"] < counts["all"]
