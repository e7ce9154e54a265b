"""The data of a YAML recipe, as keywords of `load_mixtures`.

Three kinds of files are read: a training recipe (it has a `stage`, and `eval_...` keys for all
splits but train), a study (its data stand under `data`), and a plain list of `load_mixtures`
keywords.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data_builders.options import MixtureOptions
from data_builders.schema import CorpusError

logger = logging.getLogger(__name__)

# Keys of training recipes that `load_mixtures` knows by another name, or not at all.
_TRAINING_KEYS = {
    "cache_dir",
    "condition",
    "denoised_dir",
    "eval_segment_seconds",
    "eval_snr_range_db",
    "fresh_mixtures",
    "librimix_eval_subset",
    "librimix_metadata_dir",
    "librimix_subset",
    "librispeech_dir",
    "max_eval_examples",
    "max_train_examples",
    "mixing_seed",
    "stage",
}
_TRAIN_ONLY = {"speed_factors", "clean_share", "absent_share"}
# Clean speech knows no interferer, no noise and no room.
_NOISY_ONLY = {
    "absent_share",
    "clean_share",
    "gender_state",
    "interferer_draw",
    "interferer_emotions",
    "interferer_languages",
    "noise_dir",
    "noise_snr_range_db",
    "num_speakers",
    "reverberation",
    "rt60_range_seconds",
    "snr_distribution",
    "snr_mean_std_db",
    "snr_range_db",
}


def read_data_recipe(path: str | Path) -> dict[str, Any]:
    """Reads what a YAML file says about data.

    Args:
        path (`str` or `Path`): training recipe, study or list of `load_mixtures` keywords.

    Returns:
        `dict[str, Any]`: its keys that are about data, lists as tuples, ${VARIABLES} filled in.

    Raises:
        CorpusError: the file cannot be read, a key is unknown, or a variable is not set.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CorpusError(f"{path}: is no readable YAML recipe ({error})") from error
    if not isinstance(content, dict):
        raise CorpusError(f"{path}: expected `key: value` lines, got {type(content).__name__}")
    if isinstance(content.get("data"), dict):
        shared = {key: content[key] for key in ("protocol",) if key in content}
        return _checked({**shared, **content["data"]}, f"{path}: data", of_a_program=False)
    # Recipes of train.py and of denoise_corpus say where to write, and much else.
    return _checked(content, str(path), of_a_program="output_dir" in content)


def mixture_keywords(recipe: dict[str, Any], split: str) -> dict[str, Any]:
    """What `load_mixtures` is to be called with for a split of a recipe.

    Args:
        recipe (`dict[str, Any]`): what `read_data_recipe` gave.
        split (`str`): "train", "validation" or "test". A training recipe has `eval_...` values for
            the second; the test is at the SNR of the second, of all utterances and uncropped.

    Returns:
        `dict[str, Any]`: keywords, all but `split`.

    Raises:
        CorpusError: the recipe takes the published mixtures of LibriMix.
    """
    if recipe.get("librimix_subset") is not None:
        raise CorpusError(
            "librimix_subset: the published mixtures of LibriMix are not drawn from corpora; there "
            "is no plan of them to read"
        )
    keywords = {key: value for key, value in recipe.items() if key not in _TRAINING_KEYS}
    if "cache_dir" in recipe:
        keywords["cache_dir"] = recipe["cache_dir"]
    if "mixing_seed" in recipe:
        keywords["seed"] = recipe["mixing_seed"]
    if "stage" in recipe:
        keywords |= _values_of_split(recipe, split)
        if split != "train":
            keywords = {key: keywords[key] for key in keywords if key not in _TRAIN_ONLY}
    if keywords.get("protocol") == "best_on_test":
        # The sessions of "paper"; it differs in the choice of an epoch.
        keywords["protocol"] = "paper"
    condition = recipe.get("condition", "noisy")
    if condition != "noisy":
        keywords = {key: keywords[key] for key in keywords if key not in _NOISY_ONLY}
        keywords["interferers"] = None
    if condition == "denoised":
        keywords["targets"] = ("denoised",)
        folders = {"denoised": recipe.get("denoised_dir")}
        keywords["corpus_dirs"] = {**keywords.get("corpus_dirs", {}), **folders}
    return keywords


def parse_folders(pairs: Sequence[str]) -> dict[str, str]:
    """Folders by corpus, as a command line or a recipe gives them.

    Args:
        pairs (`Sequence[str]`): such as "iemocap=/data/IEMOCAP".

    Returns:
        `dict[str, str]`: name of the corpus to folder.

    Raises:
        CorpusError: one is no such pair.
    """
    folders = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not (name and folder):
            raise CorpusError(
                f"corpus_dirs: expected entries such as iemocap=/data/IEMOCAP, got {pair!r}"
            )
        folders[name] = folder
    return folders


def _values_of_split(recipe: dict[str, Any], split: str) -> dict[str, Any]:
    """What a training recipe says under another name for each split."""
    if split == "train":
        return {"max_examples": recipe.get("max_train_examples")}
    validation = split == "validation"
    return {
        "snr_range_db": recipe.get("eval_snr_range_db", (0.0, 0.0)),
        "segment_seconds": recipe.get("eval_segment_seconds") if validation else None,
        "max_examples": recipe.get("max_eval_examples") if validation else None,
    }


def _checked(content: dict[str, Any], where: str, of_a_program: bool) -> dict[str, Any]:
    """The known keys; others are an error, or a message where they are another program's."""
    known = {field.name for field in dataclasses.fields(MixtureOptions)} | _TRAINING_KEYS
    strangers = [key for key in content if key not in known]
    for key in strangers:
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.8)
        if close or not of_a_program:
            hint = f"did you mean {close[0]!r}?" if close else f"use some of {sorted(known)}"
            raise CorpusError(f"{where}: unknown key {key!r}: {hint}")
    if strangers:
        logger.info("%s: not about data, left to training: %s", where, ", ".join(strangers))
    return {
        key: _spoken(key, _converted(value, f"{where}: {key}"))
        for key, value in content.items()
        if key in known
    }


def _spoken(key: str, value: Any) -> Any:
    """What a command line can say, which recipes share with it, as `load_mixtures` wants it."""
    if (key, value) in (("emotions", ("all",)), ("enrollment_emotion", "any")):
        return None
    if key == "num_speakers" and isinstance(value, tuple) and len(value) == 1:
        return value[0]
    if key == "corpus_dirs" and isinstance(value, tuple):
        return parse_folders(value)
    return value


def _converted(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(_converted(item, where) for item in value)
    if isinstance(value, dict):
        return {key: _converted(item, where) for key, item in value.items()}
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    missing = re.findall(r"\$\{(\w+)\}", expanded)
    if missing:
        raise CorpusError(f"{where} needs the environment variable {missing[0]}: export it")
    return expanded
