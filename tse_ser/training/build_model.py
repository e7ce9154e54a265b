"""The model of a stage, from a checkpoint or from JSON files of its sizes."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from data_builders.option_reader import OptionError
from data_builders.schema import EMOTIONS
from modeling import (
    EXTRACTOR_CONFIGS,
    EXTRACTORS,
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TseSerConfig,
    TseSerForEmotionClassification,
)
from modeling.configuration_tse_ser import CALIBRATED
from modeling.speaker_encoders import FrozenSpeakerEncoder
from tse_ser.options import ModelOptions, Stage
from tse_ser.resources import find

Config = TypeVar("Config", bound=PreTrainedConfig)

# An extractor may be of any type in `EXTRACTORS`.
MODEL_CLASSES: dict[str, Any] = {
    "extraction": AutoModel,
    "classification": ShiftCnnForEmotionClassification,
    "joint": TseSerForEmotionClassification,
}


def build_model(
    options: ModelOptions, stage: Stage, classes: Sequence[str] = EMOTIONS
) -> PreTrainedModel:
    """Builds or loads the model that a stage trains.

    Args:
        options (`ModelOptions`): checkpoints and config files.
        stage (`str`): "extraction", "classification" or "joint".
        classes (`Sequence[str]`): emotions in the order of their labels.

    Returns:
        `PreTrainedModel`: the stage's model; new parts have random weights from torch's generator.

    Raises:
        OptionError: an option that the stage needs is missing or does not fit, a config file is
            wrong, or a trained classifier knows other classes.
    """
    if options.model_name_or_path is not None:
        model = load_pretrained(MODEL_CLASSES[stage], options, "model_name_or_path")
        if isinstance(model.config, TseSerConfig):
            for name in CALIBRATED:
                setattr(model.config, name, getattr(TseSerConfig, name))
    elif stage == "extraction":
        model = _build_extractor(options)
    elif stage == "classification":
        model = _build_classifier(options, classes)
    else:
        model = _build_joint(options, classes)
    if stage != "extraction":
        _check_classes(model, classes)
    if options.trainable_encoder_layers is not None:
        _open_upper_layers(model, options.trainable_encoder_layers)
    if options.extractor_output_choice is not None:
        _choose_outputs_by(model, options.extractor_output_choice)
    if options.train_similarity_projection:
        _train_similarity_projection(model)
    return model


def _check_classes(model: PreTrainedModel, classes: Sequence[str]) -> None:
    names = list((model.config.id2label or {}).values())
    if names != list(classes):
        raise OptionError(
            f"emotions: the classifier knows the classes {', '.join(names)}, the targets are "
            f"{', '.join(classes)}: name the same in the same order, or start from a new classifier"
        )


def _open_upper_layers(model: PreTrainedModel, num_layers: int) -> None:
    classifier = getattr(model, "classifier", model)
    if not isinstance(classifier, ShiftCnnForEmotionClassification):
        raise OptionError("trainable_encoder_layers is for the stages that classify: leave it out")
    num_there = len(getattr(classifier.encoder, "layers", ()))
    if not 1 <= num_layers <= num_there:
        raise OptionError(
            f"trainable_encoder_layers: the speech encoder has {num_there} transformer layers, got "
            f"{num_layers}"
        )
    # In the config too, so that the checkpoint says it and a later stage goes on with it.
    classifier.config.freeze_encoder = False
    classifier.config.trainable_encoder_layers = num_layers
    classifier.train(classifier.training)


def _choose_outputs_by(model: PreTrainedModel, choice: str) -> None:
    extractor = getattr(model, "extractor", model)
    if not hasattr(extractor.config, "output_choice"):
        raise OptionError("extractor_output_choice is for a TD-SpeakerBeam extractor: leave it out")
    try:
        # The fields have to fit each other.
        type(extractor.config).from_dict({**extractor.config.to_dict(), "output_choice": choice})
    except ValueError as error:
        raise OptionError(f"extractor_output_choice: {error}") from error
    extractor.config.output_choice = choice


def _train_similarity_projection(model: PreTrainedModel) -> None:
    extractor: Any = getattr(model, "extractor", model)
    if not hasattr(extractor, "train_similarity_projection"):
        raise OptionError(
            "train_similarity_projection is for a TD-SpeakerBeam extractor: leave it out"
        )
    model.requires_grad_(False)
    try:
        extractor.train_similarity_projection()
    except ValueError as error:
        raise OptionError(f"train_similarity_projection: {error}") from error


def _build_extractor(options: ModelOptions) -> PreTrainedModel:
    if options.extractor_name_or_path is not None:
        return load_pretrained(AutoModel, options, "extractor_name_or_path")
    if options.extractor_config is None:
        raise OptionError(
            "an extractor needs --extractor_config (sizes) or --extractor_name_or_path"
        )
    model_type = _read_json(options.extractor_config).get("model_type", "td_speakerbeam")
    if model_type not in EXTRACTORS:
        raise OptionError(
            f"{options.extractor_config}: unknown extractor {model_type!r}: choose one of "
            f"{', '.join(EXTRACTORS)}"
        )
    config = read_config(options.extractor_config, EXTRACTOR_CONFIGS[model_type])
    model = EXTRACTORS[model_type](config)
    encoder = getattr(model, "speaker_encoder", None)
    if isinstance(encoder, FrozenSpeakerEncoder):
        if options.speaker_encoder_dir is None:
            raise OptionError(
                f"{options.extractor_config} builds on the speaker encoder "
                f"'{model.config.speaker_encoder}', which is not trained here: pass its weights by "
                "--speaker_encoder_dir"
            )
        try:
            encoder.load_pretrained(options.speaker_encoder_dir)
        except ValueError as error:
            raise OptionError(f"--speaker_encoder_dir: {error}") from error
    return model


def _build_classifier(
    options: ModelOptions, classes: Sequence[str]
) -> ShiftCnnForEmotionClassification:
    if options.classifier_name_or_path is not None:
        return load_pretrained(ShiftCnnForEmotionClassification, options, "classifier_name_or_path")
    if options.classifier_config is None:
        raise OptionError(
            "a classifier needs --classifier_config (sizes) or --classifier_name_or_path"
        )
    names = {"id2label": dict(enumerate(classes))}
    config = read_config(options.classifier_config, ShiftCnnConfig, **names)
    if options.encoder_name_or_path is None:
        return ShiftCnnForEmotionClassification(config)
    fields = _read_json(options.classifier_config)
    fields.pop("encoder_config", None)
    try:
        return ShiftCnnForEmotionClassification.from_encoder_pretrained(
            options.encoder_name_or_path, **{**fields, **names}
        )
    except OSError as error:
        raise _not_there("encoder_name_or_path", options.encoder_name_or_path) from error


def _build_joint(options: ModelOptions, classes: Sequence[str]) -> PreTrainedModel:
    weights = {
        name: value
        for name in ("extraction_loss_weight", "classification_loss_weight")
        if (value := getattr(options, name)) is not None
    }
    return TseSerForEmotionClassification.from_sub_models_pretrained(
        _build_extractor(options), _build_classifier(options, classes), **weights
    )


def load_pretrained(model_class: Any, arguments: Any, name: str) -> Any:
    """Loads the checkpoint, a folder or hub id, that a field of an argument dataclass names, by
    a model's class or an Auto class. Raises `OptionError` where there is none."""
    try:
        return model_class.from_pretrained(getattr(arguments, name))
    except OSError as error:
        raise _not_there(name, getattr(arguments, name)) from error


def _not_there(name: str, value: str) -> OptionError:
    return OptionError(
        f"--{name} {value}: no model is there. Name the output folder of a finished training, "
        "another model folder, or a hub id that can be reached"
    )


def read_config(path: str, config_class: type[Config], **settled: Any) -> Config:
    """Reads a model config from JSON and refuses keys that it does not have.

    Args:
        path (`str`): JSON file of fields.
        config_class (`type`): class of the config.
        **settled: fields that are decided elsewhere, and win.

    Returns:
        `PreTrainedConfig`: the config.

    Raises:
        OptionError: the file cannot be read, holds an unknown key, or a field is out of range.
    """
    fields = _read_json(path)
    try:
        config = config_class(**{**fields, **settled})
    except (TypeError, ValueError) as error:
        raise OptionError(f"{path}: {error}") from error
    _check_fields(path, fields, config)
    return config


def _read_json(path: str) -> dict[str, Any]:
    try:
        fields = json.loads(find(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise OptionError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise OptionError(f"{path}: expected an object of fields, got {type(fields).__name__}")
    return fields


def _check_fields(path: str, fields: dict[str, Any], config: PreTrainedConfig) -> None:
    # Configs keep keys that they do not know, so a misspelt one would pass in silence.
    known = {field.name for field in dataclasses.fields(config)} | {"model_type", "num_labels"}
    for name, value in fields.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=2)
            hint = f": did you mean {' or '.join(close)}?" if close else ""
            raise OptionError(f"{path}: {type(config).__name__} has no field '{name}'{hint}")
        sub_config = getattr(config, name)
        if isinstance(value, dict) and isinstance(sub_config, PreTrainedConfig):
            _check_fields(path, value, sub_config)
