"""Training options: the upper layers of a speech encoder, and clean speech among the noisy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import encoder_config, save_encoder, tiny_classifier
from tiny_training import EXTRACTOR_FIELDS, JOINT_TRAINING, write_model_configs
from transformers import AutoModel, set_seed

import train
from data_builders.option_reader import OptionError
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TseSerForEmotionClassification,
)
from tse_ser.options import ModelOptions, read_training_options
from tse_ser.training.build_model import build_model

HEAD = {"conv_kernel_size": 3, "apply_spec_augment": False, "max_duration_seconds": 1.0}


@pytest.fixture(scope="module", params=["hubert_group", "whisper"])
def encoder_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny encoder of three layers with random weights, on disk as a pretrained one is."""
    torch.manual_seed(0)
    model = AutoModel.from_config(encoder_config(request.param))
    return save_encoder(model, tmp_path_factory.mktemp(request.param))


def configs(folder: Path, **fields: Any) -> dict[str, Any]:
    """JSON files of a tiny extractor and of a head for a pretrained encoder."""
    paths = {name: folder / f"{name}.json" for name in ("extractor_config", "classifier_config")}
    paths["extractor_config"].write_text(json.dumps(EXTRACTOR_FIELDS))
    paths["classifier_config"].write_text(json.dumps({**HEAD, **fields}))
    return {name: str(path) for name, path in paths.items()}


def joint_flags(folder: Path, encoder: str, output_dir: Path, *more: str) -> list[str]:
    flags = [*JOINT_TRAINING, "--encoder_name_or_path", encoder, "--output_dir", str(output_dir)]
    for name, path in configs(folder).items():
        flags += [f"--{name}", path]
    steps = ("--max_steps", "2", "--per_device_train_batch_size", "4", "--max_eval_examples", "2")
    return [*flags, *steps, "--eval_strategy", "no", "--load_best_model_at_end", "false", *more]


def test_joint_training_moves_the_upper_layers_and_no_others(
    generated_corpus: datasets.Dataset, encoder_folder: str, tmp_path: Path
) -> None:
    flags = joint_flags(tmp_path, encoder_folder, tmp_path / "out")
    flags += ["--trainable_encoder_layers", "1", "--clean_share", "0.5"]
    train.train(flags)
    model_args, _, training_args = read_training_options(flags)
    set_seed(training_args.seed)
    before = build_model(model_args, "joint").state_dict()
    after = load_file(tmp_path / "out" / "model.safetensors")
    changed = {name for name in after if not after[name].equal(before[name])}
    in_encoder = {name for name in changed if name.startswith("classifier.encoder.")}
    assert in_encoder
    assert all(".layers.2." in name for name in in_encoder)
    assert any(name.startswith("extractor.encoder") for name in changed)
    assert any(name.startswith("classifier.head.") for name in changed)
    facts = json.loads((tmp_path / "out" / "training_facts.json").read_text())
    assert facts["model"]["trainable_encoder_layers"] == 1
    assert facts["num_parameters"]["trained"] < facts["num_parameters"]["all"]


def test_a_later_stage_goes_on_with_the_same_layers(encoder_folder: str, tmp_path: Path) -> None:
    arguments = ModelOptions(
        **configs(tmp_path), encoder_name_or_path=encoder_folder, trainable_encoder_layers=2
    )
    classifier: Any = build_model(arguments, "classification")
    classifier.save_pretrained(tmp_path / "classifier")
    again: Any = build_model(
        ModelOptions(
            extractor_config=configs(tmp_path)["extractor_config"],
            classifier_name_or_path=str(tmp_path / "classifier"),
        ),
        "joint",
    )
    again.save_pretrained(tmp_path / "joint")
    loaded = TseSerForEmotionClassification.from_pretrained(tmp_path / "joint").train()
    for model in (classifier, again.classifier.train(), loaded.classifier):
        trained = {name for name, p in model.encoder.named_parameters() if p.requires_grad}
        assert trained
        assert all(".layers.1." in name or ".layers.2." in name for name in trained)
    whole = {name for name, _ in classifier.encoder.layers[1:].named_parameters()}
    assert len(trained) == len(whole)


def test_a_frozen_classifier_can_be_opened_for_the_joint_stage(
    encoder_folder: str, tmp_path: Path
) -> None:
    frozen = ShiftCnnForEmotionClassification.from_encoder_pretrained(encoder_folder, **HEAD)
    assert frozen.config.freeze_encoder
    frozen.save_pretrained(tmp_path / "frozen")
    arguments = ModelOptions(
        extractor_config=configs(tmp_path)["extractor_config"],
        classifier_name_or_path=str(tmp_path / "frozen"),
        trainable_encoder_layers=1,
    )
    model: Any = build_model(arguments, "joint").train()
    trained = {name for name, p in model.classifier.encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(".layers.2." in name for name in trained)


def test_layers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`trainable_encoder_layers` must be at most 3"):
        tiny_classifier("hubert", freeze_encoder=False, trainable_encoder_layers=4)
    with pytest.raises(ValueError, match="needs `freeze_encoder=False`"):
        ShiftCnnConfig(trainable_encoder_layers=1)
    with pytest.raises(ValueError, match="transformer layers, which log_mel is not"):
        tiny_classifier("log_mel", freeze_encoder=False, trainable_encoder_layers=1)
    with pytest.raises(ValueError, match="`trainable_encoder_layers` must be at least 1"):
        ShiftCnnConfig(freeze_encoder=False, trainable_encoder_layers=0)
    flags = write_model_configs(tmp_path)
    named: dict[str, Any] = {"extractor_config": flags[1], "classifier_config": flags[3]}
    arguments = ModelOptions(**named, trainable_encoder_layers=1)
    with pytest.raises(OptionError, match="has 0 transformer layers, got 1"):
        build_model(arguments, "joint")
    with pytest.raises(OptionError, match="is for the stages that classify"):
        build_model(arguments, "extraction")
