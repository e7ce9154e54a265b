"""The model of a stage, from a checkpoint or from JSON files of its sizes."""

from __future__ import annotations

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedConfig, PreTrainedModel

from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerForEmotionClassification,
)
from modeling.frozen_speaker_encoder import FrozenSpeakerEncoder
from tse_ser.training.arguments import ModelArguments, Stage
from tse_ser.training.recipe_parser import RecipeError

Config = TypeVar("Config", bound=PreTrainedConfig)
Model = TypeVar("Model", bound=PreTrainedModel)

MODEL_CLASSES: dict[str, type[PreTrainedModel]] = {
    "extraction": TdSpeakerBeamForSpeechExtraction,
    "classification": ShiftCnnForEmotionClassification,
    "joint": TseSerForEmotionClassification,
}


def build_model(model_args: ModelArguments, stage: Stage) -> PreTrainedModel:
    """Builds or loads the model that a stage trains.

    Args:
        model_args (`ModelArguments`): checkpoints and config files.
        stage (`str`): "extraction", "classification" or "joint".

    Returns:
        `PreTrainedModel`: the stage's model; new parts have random weights from torch's generator.

    Raises:
        RecipeError: an argument that the stage needs is missing or does not fit, or a config file
            is wrong.
    """
    if model_args.model_name_or_path is not None:
        model = load_pretrained(MODEL_CLASSES[stage], model_args, "model_name_or_path")
    elif stage == "extraction":
        model = _build_extractor(model_args)
    elif stage == "classification":
        model = _build_classifier(model_args)
    else:
        model = _build_joint(model_args)
    if model_args.trainable_encoder_layers is not None:
        _open_upper_layers(model, model_args.trainable_encoder_layers)
    return model


def _open_upper_layers(model: PreTrainedModel, num_layers: int) -> None:
    classifier = getattr(model, "classifier", model)
    if not isinstance(classifier, ShiftCnnForEmotionClassification):
        raise RecipeError("trainable_encoder_layers is for the stages that classify: leave it out")
    num_there = len(getattr(classifier.encoder, "layers", ()))
    if not 1 <= num_layers <= num_there:
        raise RecipeError(
            f"trainable_encoder_layers: the speech encoder has {num_there} transformer layers, got "
            f"{num_layers}"
        )
    # In the config too, so that the checkpoint says it and a later stage goes on with it.
    classifier.config.freeze_encoder = False
    classifier.config.trainable_encoder_layers = num_layers
    classifier.train(classifier.training)


def _build_extractor(model_args: ModelArguments) -> TdSpeakerBeamForSpeechExtraction:
    if model_args.extractor_name_or_path is not None:
        return load_pretrained(
            TdSpeakerBeamForSpeechExtraction, model_args, "extractor_name_or_path"
        )
    if model_args.extractor_config is None:
        raise RecipeError(
            "an extractor needs --extractor_config (sizes) or --extractor_name_or_path"
        )
    model = TdSpeakerBeamForSpeechExtraction(
        read_config(model_args.extractor_config, TdSpeakerBeamConfig)
    )
    encoder = getattr(model, "speaker_encoder", None)
    if isinstance(encoder, FrozenSpeakerEncoder):
        if model_args.speaker_encoder_dir is None:
            raise RecipeError(
                f"{model_args.extractor_config} builds on the speaker encoder "
                f"'{model.config.speaker_encoder}', which is not trained here: pass its weights by "
                "--speaker_encoder_dir"
            )
        try:
            encoder.load_pretrained(model_args.speaker_encoder_dir)
        except ValueError as error:
            raise RecipeError(f"--speaker_encoder_dir: {error}") from error
    return model


def _build_classifier(model_args: ModelArguments) -> ShiftCnnForEmotionClassification:
    if model_args.classifier_name_or_path is not None:
        return load_pretrained(
            ShiftCnnForEmotionClassification, model_args, "classifier_name_or_path"
        )
    if model_args.classifier_config is None:
        raise RecipeError(
            "a classifier needs --classifier_config (sizes) or --classifier_name_or_path"
        )
    config = read_config(model_args.classifier_config, ShiftCnnConfig)
    if model_args.encoder_name_or_path is None:
        return ShiftCnnForEmotionClassification(config)
    fields = _read_json(model_args.classifier_config)
    fields.pop("encoder_config", None)
    try:
        return ShiftCnnForEmotionClassification.from_encoder_pretrained(
            model_args.encoder_name_or_path, **fields
        )
    except OSError as error:
        raise _not_there("encoder_name_or_path", model_args.encoder_name_or_path) from error


def _build_joint(model_args: ModelArguments) -> PreTrainedModel:
    weights = {
        name: value
        for name in ("extraction_loss_weight", "classification_loss_weight")
        if (value := getattr(model_args, name)) is not None
    }
    return TseSerForEmotionClassification.from_sub_models_pretrained(
        _build_extractor(model_args), _build_classifier(model_args), **weights
    )


def load_pretrained(model_class: type[Model], arguments: Any, name: str) -> Model:
    """Loads the checkpoint that an argument names.

    Args:
        model_class (`type`): class of the model.
        arguments (`Any`): argument dataclass.
        name (`str`): its field that holds a folder or hub id.

    Returns:
        `PreTrainedModel`: the model.

    Raises:
        RecipeError: there is no such checkpoint.
    """
    try:
        return model_class.from_pretrained(getattr(arguments, name))
    except OSError as error:
        raise _not_there(name, getattr(arguments, name)) from error


def _not_there(name: str, value: str) -> RecipeError:
    return RecipeError(
        f"--{name} {value}: no model is there. Name the output folder of a finished training, "
        "another model folder, or a hub id that can be reached"
    )


def read_config(path: str, config_class: type[Config]) -> Config:
    """Reads a model config from JSON and refuses keys that it does not have.

    Args:
        path (`str`): JSON file of fields.
        config_class (`type`): class of the config.

    Returns:
        `PreTrainedConfig`: the config.

    Raises:
        RecipeError: the file cannot be read, holds an unknown key, or a field is out of range.
    """
    fields = _read_json(path)
    try:
        config = config_class(**fields)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{path}: {error}") from error
    _check_fields(path, fields, config)
    return config


def _read_json(path: str) -> dict[str, Any]:
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise RecipeError(f"{path}: expected an object of fields, got {type(fields).__name__}")
    return fields


def _check_fields(path: str, fields: dict[str, Any], config: PreTrainedConfig) -> None:
    # Configs keep keys that they do not know, so a misspelt one would pass in silence.
    known = {field.name for field in dataclasses.fields(config)} | {"model_type", "num_labels"}
    for name, value in fields.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2)
            hint = f": did you mean {' or '.join(close)}?" if close else ""
            raise RecipeError(f"{path}: {type(config).__name__} has no field '{name}'{hint}")
        sub_config = getattr(config, name)
        if isinstance(value, dict) and isinstance(sub_config, PreTrainedConfig):
            _check_fields(path, value, sub_config)
