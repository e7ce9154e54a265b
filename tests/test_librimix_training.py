"""An extractor is trained on virtual LibriMix by recipe keys, or on mixtures drawn by ourselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from corpus_layouts import write_librispeech
from librimix_layout import SUBSET, read_table, write_librimix
from tiny_training import (
    TrainingEndedError,
    killed_after,
    log_history,
    same_weights,
    write_model_configs,
)

import train
from data_builders.librimix.mixtures import LibriMixDataset
from data_builders.option_reader import OptionError
from data_builders.options import DECIDED_BY_LIBRIMIX
from data_builders.schema import CorpusError
from tse_ser.options import read_training_options
from tse_ser.training.load_datasets import Examples, load_datasets

QUIET = ("--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "true")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of corpora: librimix/metadata/Libri2Mix/*.csv and librispeech/LibriSpeech/."""
    lab = tmp_path_factory.mktemp("lab")
    metadata = write_librimix(lab / "drawn")
    published = lab / "librimix" / "metadata" / "Libri2Mix"
    published.mkdir(parents=True)
    for path in (metadata, metadata.with_name(f"{metadata.stem}_info.csv")):
        path.rename(published / path.name)
    (lab / "librispeech").mkdir()
    (lab / "drawn" / "LibriSpeech").rename(lab / "librispeech" / "LibriSpeech")
    (lab / "drawn" / "wham_noise").rename(lab / "wham_noise")
    return lab


def recipe(corpora: Path, **changes: Any) -> dict[str, Any]:
    """An extraction recipe on the tiny LibriMix, whose one subset also validates."""
    return {
        "stage": "extraction",
        "librimix_subset": SUBSET,
        "librimix_eval_subset": SUBSET,
        "corpus_dir": str(corpora),
        "segment_seconds": 0.5,
        "enrollment_seconds": 0.5,
        "output_dir": "unused",
        **changes,
    }


def datasets_of(tmp_path: Path, settings: dict[str, Any]) -> tuple[Examples, Examples | None]:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    _, data_args, training_args = read_training_options(["--config", str(path), *QUIET])
    return load_datasets(data_args, training_args)


def test_the_published_mixtures_are_met_exactly(corpora: Path, tmp_path: Path) -> None:
    settings = recipe(corpora, segment_seconds=None, enrollment_seconds=None)
    train_set, validation = datasets_of(tmp_path, settings)
    metadata = corpora / "librimix" / "metadata" / "Libri2Mix" / f"libri2mix_{SUBSET}.csv"
    published = LibriMixDataset(metadata, corpora / "librispeech" / "LibriSpeech")
    assert validation is not None
    assert len(train_set) == len(validation) == 2 * len(read_table(metadata))  # type: ignore[arg-type]
    for dataset in (train_set, validation):
        example = dataset[3]
        assert np.array_equal(example["mixture"], published[1]["mixture"])
        assert np.array_equal(example["target"], published[1]["sources"][1])
        assert example["spec"]["mixture_id"] == published[1]["mixture_id"]


def test_training_crops_and_draws_anew_and_validation_does_neither(
    corpora: Path, tmp_path: Path
) -> None:
    train_set, validation = datasets_of(tmp_path, recipe(corpora))
    assert validation is not None
    assert len(train_set[0]["mixture"]) == 8_000
    assert len(validation[0]["mixture"]) > 8_000
    changed = []
    for dataset in (train_set, validation):
        first = [dataset[index]["spec"] for index in range(6)]
        dataset.set_epoch(1)  # type: ignore[attr-defined]
        second = [dataset[index]["spec"] for index in range(6)]
        pairs = zip(first, second, strict=True)
        changed.append([{**a, "epoch": 0} != {**b, "epoch": 0} for a, b in pairs])
    assert all(changed[0])
    assert not any(changed[1])
    frozen, _ = datasets_of(tmp_path, recipe(corpora, fresh_mixtures=False))
    before = frozen[0]["spec"]
    frozen.set_epoch(1)  # type: ignore[attr-defined]
    assert frozen[0]["spec"] == before


def test_folders_limits_and_noise_are_as_the_recipe_says(corpora: Path, tmp_path: Path) -> None:
    settings = recipe(
        corpora,
        corpus_dir=None,
        librimix_metadata_dir=str(corpora / "librimix" / "metadata" / "Libri2Mix"),
        corpus_dirs=[f"librispeech={corpora}/librispeech/LibriSpeech"],
        max_train_examples=4,
        max_eval_examples=3,
        noise_dir=str(corpora / "wham_noise"),
    )
    train_set, validation = datasets_of(tmp_path, settings)
    assert validation is not None
    assert (len(train_set), len(validation)) == (4, 3)  # type: ignore[arg-type]
    indices = [train_set[place]["spec"]["index"] for place in range(4)]
    assert indices == [0, 4, 9, 13]  # of 18
    assert np.isfinite(train_set[0]["noise_snr_db"])
    with pytest.raises(IndexError):
        train_set[4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"librimix_subset": "train-clean-100"}, r"libri2mix_train-clean-100\.csv is missing: it"),
        ({"librimix_eval_subset": "dev-clean"}, r"dev-clean\.csv is missing: it has libri2mix_tes"),
        ({"num_speakers": [3]}, r"libri3mix_test-clean\.csv is missing: no metadata"),
        ({"corpus_dir": None}, "librimix: its folder is not known: pass --librimix_metadata_dir"),
        ({"librispeech_dir": "/nowhere"}, "/nowhere is not a folder: check --librispeech_dir"),
    ],
)
def test_what_is_missing_is_named_with_the_fix(
    corpora: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        datasets_of(tmp_path, recipe(corpora, **changes))


def test_a_librispeech_without_the_subset_is_named(corpora: Path, tmp_path: Path) -> None:
    (tmp_path / "LibriSpeech").mkdir()
    with pytest.raises(CorpusError, match=f"holds no folder {SUBSET} of LibriSpeech: extract"):
        datasets_of(tmp_path, recipe(corpora, librispeech_dir=str(tmp_path)))


def test_what_the_metadata_decide_is_refused(corpora: Path, tmp_path: Path) -> None:
    others = {
        "gender_state": "same",
        "interferer_draw": "speaker",
        "interferer_emotions": ["angry"],
        "interferer_languages": ["en"],
        "snr_distribution": "normal",
        "snr_range_db": [-5.0, 5.0],
        "reverberation": "direct",
        "trim_silence": True,
        "lowpass_hz": 5500,
        "target_pause_range_seconds": [0.1, 0.3],
        "speed_factors": [0.9, 1.1],
        "noise_snr_range_db": [0.0, 5.0],
        "noise_share": 0.5,
        "clean_share": 0.5,
        "absent_share": 0.5,
    }
    assert others.keys() == {*DECIDED_BY_LIBRIMIX}
    for name, value in others.items():
        with pytest.raises(OptionError, match=f"{name}: LibriMix's metadata decide"):
            datasets_of(tmp_path, recipe(corpora, **{name: value}))
    with pytest.raises(OptionError, match="num_speakers: LibriMix has mixtures of 2 or of 3"):
        datasets_of(tmp_path, recipe(corpora, num_speakers=[2, 3]))
    for change, fit in (
        ({"stage": "joint"}, "stage 'extr"),
        ({"condition": "clean"}, "condition 'n"),
    ):
        with pytest.raises(OptionError, match=f"librimix_subset is for {fit}"):
            datasets_of(tmp_path, recipe(corpora, **change))


def test_an_interrupted_training_on_librimix_resumes_to_the_same_weights(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(
        corpora,
        num_train_epochs=3,
        per_device_train_batch_size=6,
        learning_rate=1.0e-3,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"mode": "max", "factor": 0.5, "patience": 0},
        max_eval_examples=4,
        logging_steps=1,
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    flags = ["--config", str(tmp_path / "recipe.yaml"), *write_model_configs(tmp_path), *QUIET]
    with pytest.raises(TrainingEndedError):
        killed_after(5, monkeypatch, [*flags, "--output_dir", str(tmp_path / "killed")])
    assert (tmp_path / "killed" / "checkpoint-3").is_dir()
    assert not (tmp_path / "killed" / "training_facts.json").exists()
    curves = []
    for name in ("killed", "whole"):
        folder = tmp_path / name
        train.train([*flags, "--output_dir", str(folder), "--resume_from_checkpoint", "auto"])
        history = log_history(folder / "checkpoint-9")
        curves.append([entry["eval_si_sdr"] for entry in history if "eval_si_sdr" in entry])
    assert len(curves[0]) == 3
    assert curves[0] == curves[1]
    assert same_weights(tmp_path / "killed", tmp_path / "whole")
    facts = json.loads((tmp_path / "whole" / "training_facts.json").read_text())
    assert facts["data"]["librimix_subset"] == SUBSET
    assert facts["num_examples"] == {"train": 18, "validation": 4}


def test_without_metadata_mixtures_are_drawn_from_librispeech(tmp_path: Path) -> None:
    """The recipe for who has LibriSpeech and no metadata: all of train-clean-100, and dev."""
    write_librispeech(tmp_path / "librispeech" / "LibriSpeech")
    settings = {
        **yaml.safe_load(Path("recipes/paper/1_extraction_librispeech.yaml").read_text()),
        "corpus_dir": str(tmp_path),
        "cache_dir": str(tmp_path / "cache"),
        "dataloader_num_workers": 0,
    }
    train_set, validation = datasets_of(tmp_path, settings)
    assert validation is not None
    voices = [
        {dataset[index]["speaker_id"] for index in range(len(dataset))}  # type: ignore[arg-type]
        for dataset in (train_set, validation)
    ]
    assert voices[0] == {f"librispeech_{speaker}" for speaker in ("19", "26", "60", "103")}
    assert voices[1] == {"librispeech_84", "librispeech_174"}
    example = train_set[0]
    assert example["interferer_id"].startswith("librispeech/")
    assert example["interferer_id"] not in example["utterance_id"]
