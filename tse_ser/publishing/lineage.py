"""Where a model comes from: the facts of its training, and of the trainings it started from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data_builders.corpora import known_options
from data_builders.options import RecipeOptions
from tse_ser.publishing.corpora import known_facts
from tse_ser.publishing.errors import PublishingError
from tse_ser.saving import CONVERSION_FACTS_NAME
from tse_ser.saving import TRAINING_FACTS_NAME as FACTS_NAME
from tse_ser.training.facts import EARLIER_KEY, PLACES, PROTOCOL_ARGUMENTS

# The arguments of a training that name our own models.
STAGE_ARGUMENTS = ("model_name_or_path", "extractor_name_or_path", "classifier_name_or_path")
HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")
# What is published of the facts of a training, besides the names of models and corpora. Where
# things lie on this machine is nobody's business; a fact that is not listed here stays here.
PLAIN_FACTS = (
    *("num_processes", "num_examples", "num_parameters", "minutes", "epochs", "steps"),
    *("best_step", "best_metric", "first_log", "last_log", "last_validation"),
    *("optimistic", "best_on_test", "versions"),
)
MODEL_FACTS = (
    *("trainable_encoder_layers", "extractor_output_choice", "train_similarity_projection"),
    *("extraction_loss_weight", "classification_loss_weight"),
)
MACHINE_FACTS = ("cpu", "cores", "gpu")
CORPUS_NAMES = ("targets", "interferers")
# Whether there was noise, and a recipe, is told.
NAMED_OTHERWISE = {*PLACES, *CORPUS_NAMES, "noise_dir", "config"}
DATA_FACTS = tuple(one.name for one in fields(RecipeOptions) if one.name not in NAMED_OTHERWISE)
# Words and numbers as options, versions and processors have them; no path has only these.
PLAIN_TEXT = re.compile(r"[^/\\~]*")


@dataclass(frozen=True)
class Lineage:
    """What led to a model."""

    # The facts of each training or conversion, as written, the earliest first, the model's own
    # last
    stages: tuple[dict[str, Any], ...]
    base_models: tuple[str, ...]  # hub ids of the models that others made


def read_lineage(
    model_dir: Path, earlier_stages: Sequence[Path] = (), base_models: Sequence[str] = ()
) -> Lineage:
    """Follows a model back through the trainings that it started from.

    Args:
        model_dir (`Path`): folder of the model, with `training_facts.json`.
        earlier_stages (`Sequence[Path]`): folders of earlier trainings that are no longer where
            the facts say; found by their names.
        base_models (`Sequence[str]`): hub ids of models that others made.

    Returns:
        `Lineage`: all of it.

    Raises:
        PublishingError: facts are missing, or a model that the training started from cannot be
            found.
    """
    found = _stages(model_dir, {path.name: path for path in earlier_stages}, base_models)
    unique = {json.dumps(stage, sort_keys=True): stage for _, stage in found}
    noted = [
        name for folder, stage in found for name in _made_by_others(folder, stage, base_models)
    ]
    return Lineage(tuple(unique.values()), tuple(dict.fromkeys([*base_models, *noted])))


def published_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a training or a conversion that go to the Hub: numbers and words under their
    names; of a file or folder the last name, of a corpus its name and options. Where data lie,
    and what is not listed here, is left out."""
    if "form" in facts:
        return {
            "form": plain_values(facts["form"]),
            "checkpoint": _last_name(facts["checkpoint"]),
            "license": plain_values(facts["license"]),
            "source_model": _model_name(facts["source_model"]),
        }
    told: dict[str, Any] = {}
    if "recipe" in facts:
        recipes = facts["recipe"]
        several = isinstance(recipes, list)
        told["recipe"] = list(map(_last_name, recipes)) if several else _last_name(recipes)
    if "model" in facts:
        model = facts["model"]
        named = [key for key in (*STAGE_ARGUMENTS, "encoder_name_or_path") if key in model]
        told["model"] = {key: _model_name(model[key]) for key in named}
        told["model"] |= _listed(model, MODEL_FACTS)
    if "data" in facts:
        data = facts["data"]
        told["data"] = {key: _corpus_names(data[key]) for key in CORPUS_NAMES if key in data}
        told["data"] |= _listed(data, DATA_FACTS)
        told["data"]["noise_dir"] = "noise" if data.get("noise_dir") else None
    if "training" in facts:
        told["training"] = _listed(facts["training"], (*PROTOCOL_ARGUMENTS, "condition"))
    if "machine" in facts:
        told["machine"] = _listed(facts["machine"], MACHINE_FACTS)
    return told | _listed(facts, PLAIN_FACTS)


def _listed(facts: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: plain_values(facts[name]) for name in dict.fromkeys(names) if name in facts}


def plain_values(value: Any) -> Any:
    """Values as read from JSON, with None in place of every text that may be a path: with a
    slash, a backslash or a tilde."""
    if isinstance(value, Mapping):
        return {
            str(key): plain_values(one)
            for key, one in value.items()
            if plain_values(str(key)) is not None
        }
    if isinstance(value, list | tuple):
        return [plain_values(one) for one in value]
    if isinstance(value, str) and PLAIN_TEXT.fullmatch(value) is None:
        return None
    return value


def _last_name(path: str | None) -> str | None:
    """The last part of a path, of whichever system."""
    return None if path is None else re.split(r"[\\/]", path.rstrip("\\/"))[-1].lstrip("~")


def _model_name(name: str | None) -> str | None:
    """A model of the Hub by its id, a folder by its last name."""
    if name is None or (HUB_ID.fullmatch(name) and not Path(name).exists()):
        return name
    return _last_name(name)


def _corpus_names(names: str | Sequence[str] | None) -> Any:
    """Corpora with their options; of a table, wherever it lies, its last name."""
    if names is not None and not isinstance(names, str):
        return [_corpus_names(name) for name in names]
    if names is None or plain_values(names) is not None:
        return names
    corpus, _, text = names.partition(":")
    known = "|".join(known_options(corpus))
    options = []
    # A path may hold commas and equal signs of its own.
    for option in re.split(rf",(?=(?:{known})=)", text) if text else []:
        key, _, value = option.partition("=")
        is_id = key == "hub" and HUB_ID.fullmatch(value)
        options.append(f"{key}={value if is_id else _last_name(value)}")
    return ":".join([_last_name(corpus) or "", *[",".join(options)] * bool(options)])


def _stages(
    model_dir: Path,
    moved: Mapping[str, Path],
    given: Sequence[str],
    later: tuple[Path, ...] = (),
) -> list[tuple[Path, dict[str, Any]]]:
    """Facts of the model and of those before it, the earliest first, each with its folder."""
    facts = _read_facts(model_dir)
    before: list[dict[str, Any]] = facts.pop(EARLIER_KEY, None) or []
    found = [(model_dir, stage) for stage in before]
    for argument in () if before else STAGE_ARGUMENTS:
        name = facts.get("model", {}).get(argument)
        if not name:
            continue
        folder = moved.get(Path(name).name, Path(name))
        if folder.resolve() in (*later, model_dir.resolve()):
            raise PublishingError(
                f"{model_dir / FACTS_NAME}: the training went on in the folder that it started "
                f"from, {folder}, and wrote over the facts of the training before: keep those, "
                f"put them into a folder called {folder.name!r}, and name it by --earlier_stages"
            )
        if folder.is_dir():
            found += _stages(folder, moved, given, (*later, model_dir.resolve()))
        elif name not in given:
            raise PublishingError(
                f"{model_dir / FACTS_NAME}: `{argument}` is {name}, which is no folder here: name "
                f"the folder of that training by --earlier_stages (it has to be called "
                f"{Path(name).name!r}), or, for a model of the Hub, its id by --base_model"
            )
    return [*found, (model_dir, facts)]


def _made_by_others(
    model_dir: Path, facts: Mapping[str, Any], given: Sequence[str]
) -> Iterator[str]:
    """Hub ids of a converted checkpoint, and of the speech encoder below a classifier."""
    if facts.get("source_model"):
        yield facts["source_model"]
    name = facts.get("model", {}).get("encoder_name_or_path")
    if name in known_facts()["speech_encoders"] and not Path(name).is_dir():
        yield name
    elif name and not given:
        # A name such as encoders/hubert may be a model of the Hub, or a folder that is gone.
        raise PublishingError(
            f"{model_dir / FACTS_NAME}: the speech encoder came from {_model_name(name)}, "
            "which is no model of the Hub that is known here: name the model that it is by "
            "--base_model, for example --base_model openai/whisper-tiny.en"
        )


def _read_facts(model_dir: Path) -> dict[str, Any]:
    """The facts that a training, or a conversion, left beside a model, as written."""
    for name in (FACTS_NAME, CONVERSION_FACTS_NAME):
        path = model_dir / name
        if path.is_file():
            return dict(read_json(path))
    raise PublishingError(
        f"{model_dir} holds no {FACTS_NAME}: without it nobody can say what the model was trained "
        "on. Publish the folder that train.py wrote (--output_dir), not one of its checkpoints"
    )


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `PublishingError` where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PublishingError(f"{path} cannot be read as JSON ({error})") from error
