"""A model saved with all that loads it elsewhere: weights, code, preprocessor, and its facts."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

from modeling import EXTRACTORS, ShiftCnnConfig, TseSerConfig, TseSerFeatureExtractor

# What a training writes beside a model; whoever publishes or trains it further reads it.
TRAINING_FACTS_NAME = "training_facts.json"
# What a conversion writes beside a model, likewise.
CONVERSION_FACTS_NAME = "conversion_facts.json"
CLASSIFIERS = (ShiftCnnConfig.model_type, TseSerConfig.model_type)


def save_with_code(
    model: PreTrainedModel | str | os.PathLike,
    output_dir: str | os.PathLike,
    feature_extractor: TseSerFeatureExtractor | None = None,
) -> Path:
    """
    Save a model such that `trust_remote_code=True` loads it where this package is not installed.

    The facts of a training or of a conversion go along from folder to folder.

    Args:
        model (`PreTrainedModel`, `str` or `os.PathLike`): one of the three models, or its folder.
        output_dir (`str` or `os.PathLike`): the folder to write; it is made.
        feature_extractor (`TseSerFeatureExtractor`, *optional*): by default the one in the model's
            folder, or a new one at the model's rate where a model is given.

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: the folder holds no model of this package, or no feature extractor.
    """
    folder = Path(output_dir)
    if not isinstance(model, PreTrainedModel):
        source, (model, saved) = Path(model), load_saved(model)
        feature_extractor = feature_extractor or saved
        _copy_facts(source, folder)
    elif feature_extractor is None:
        feature_extractor = TseSerFeatureExtractor(sampling_rate=model.config.sampling_rate)
    with _folders_forgotten(model.config):
        model.save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
    return folder


def load_saved(folder: str | os.PathLike) -> tuple[PreTrainedModel, TseSerFeatureExtractor]:
    """
    Load one of the three models, and what prepares its input, from safetensors.

    Args:
        folder (`str` or `os.PathLike`): folder of a saved model.

    Returns:
        `tuple[PreTrainedModel, TseSerFeatureExtractor]`: the two.

    Raises:
        ValueError: the folder holds no model of this package, no safetensors, or no feature
            extractor.
    """
    folder = Path(folder)
    return _load_model(folder), _load_feature_extractor(folder)


def _load_model(folder: Path) -> PreTrainedModel:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no config.json: name the folder of a saved model.")
    model_type = AutoConfig.from_pretrained(folder).model_type
    if model_type not in (*EXTRACTORS, *CLASSIFIERS):
        raise ValueError(
            f"{folder} holds a model of type {model_type!r}: expected one of "
            f"{', '.join(sorted((*EXTRACTORS, *CLASSIFIERS)))}."
        )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} holds no safetensors: load the model and save it by save_pretrained. "
            "Pickled weights (.bin, .pt, .ckpt) are not read."
        )
    auto_class = AutoModel if model_type in EXTRACTORS else AutoModelForAudioClassification
    model: PreTrainedModel = auto_class.from_pretrained(folder, use_safetensors=True)
    return model


def _load_feature_extractor(folder: Path) -> TseSerFeatureExtractor:
    if not (folder / "preprocessor_config.json").is_file():
        raise ValueError(
            f"{folder} holds no preprocessor_config.json: save a TseSerFeatureExtractor there, as "
            "trainings do."
        )
    return TseSerFeatureExtractor.from_pretrained(folder)


def _copy_facts(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TRAINING_FACTS_NAME, CONVERSION_FACTS_NAME):
        if (source / name).is_file() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)


@contextmanager
def _folders_forgotten(config: PreTrainedConfig) -> Iterator[None]:
    """Where parts were loaded from says nothing elsewhere, and tells the names of folders here; the
    model at hand keeps it."""
    configs = list(_with_sub_configs(config))
    names = [one.name_or_path for one in configs]
    try:
        for one in configs:
            one.name_or_path = ""
        yield
    finally:
        for one, name in zip(configs, names, strict=True):
            one.name_or_path = name


def _with_sub_configs(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    yield config
    for name in config.sub_configs:
        yield from _with_sub_configs(getattr(config, name))


__all__ = ["load_saved", "save_with_code"]
