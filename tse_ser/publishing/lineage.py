"""Where a model comes from: the facts of its training, and of the trainings it started from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tse_ser.conversion.checkpoint_card import CONVERSION_FACTS_NAME
from tse_ser.publishing.errors import PublishingError
from tse_ser.saving import TRAINING_FACTS_NAME as FACTS_NAME

EARLIER_KEY = "earlier_stages"
# The arguments of a training that name our own models.
STAGE_ARGUMENTS = ("model_name_or_path", "extractor_name_or_path", "classifier_name_or_path")
HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")
# A folder from the root of a machine, wherever it stands in a text; no address of the web.
ABSOLUTE_PATH = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:\\|[/~])[^\s,;\"'=]+")
# Where the data lie here is nobody's business.
LOCAL_FOLDERS = ("corpus_dir", "corpus_dirs", "cache_dir")


@dataclass(frozen=True)
class Lineage:
    """What led to a model.

    Attributes:
        stages (`tuple[dict, ...]`): the facts of each training or conversion, as written, the
            earliest first, the model's own last.
        base_models (`tuple[str, ...]`): hub ids of the models that others made.
    """

    stages: tuple[dict[str, Any], ...]
    base_models: tuple[str, ...]


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
    return _Reader(earlier_stages, base_models).read(model_dir)


def without_local_paths(value: Any) -> Any:
    """The same facts with nothing in them that names a folder of this machine.

    Args:
        value (`Any`): plain values, as read from JSON.

    Returns:
        `Any`: paths from the root are cut to the file's name, folders of data are left out.
    """
    if isinstance(value, Mapping):
        kept = {key: one for key, one in value.items() if key not in LOCAL_FOLDERS}
        return {key: without_local_paths(one) for key, one in kept.items()}
    if isinstance(value, list):
        return [without_local_paths(one) for one in value]
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub(lambda found: re.split(r"[\\/]", found.group())[-1], value)
    return value


class _Reader:
    def __init__(self, earlier_stages: Iterable[Path], base_models: Sequence[str]) -> None:
        self._earlier = {path.name: path for path in earlier_stages}
        self._given = tuple(base_models)
        self._base_models: list[str] = list(base_models)

    def read(self, model_dir: Path) -> Lineage:
        stages = self._stages(model_dir)
        unique = {json.dumps(stage, sort_keys=True): stage for stage in stages}
        return Lineage(tuple(unique.values()), tuple(dict.fromkeys(self._base_models)))

    def _stages(self, model_dir: Path) -> list[dict[str, Any]]:
        """Facts of the folder's model and of those before it, the earliest first."""
        facts = read_facts(model_dir)
        before: list[dict[str, Any]] = facts.pop(EARLIER_KEY, None) or []
        if not before:
            model = facts.get("model", {})
            for argument in STAGE_ARGUMENTS:
                if model.get(argument):
                    before += self._started_from(model_dir, argument, model[argument])
        for stage in [*before, facts]:
            self._note_encoder(model_dir, stage)
        return [*before, facts]

    def _started_from(self, model_dir: Path, argument: str, name: str) -> list[dict[str, Any]]:
        folder = self._earlier.get(Path(name).name, Path(name))
        if folder.is_dir():
            return self._stages(folder)
        if name in self._given:
            return []
        raise PublishingError(
            f"{model_dir / FACTS_NAME}: `{argument}` is {name}, which is no folder here: name the "
            f"folder of that training by --earlier_stages (it has to be called "
            f"{Path(name).name!r}), or, for a model of the Hub, its id by --base_model"
        )

    def _note_encoder(self, model_dir: Path, facts: Mapping[str, Any]) -> None:
        """The speech encoder below a classifier, where the facts give its hub id."""
        if facts.get("source_model"):
            self._base_models.append(facts["source_model"])
        name = facts.get("model", {}).get("encoder_name_or_path")
        if not name:
            return
        if HUB_ID.fullmatch(name) and not Path(name).is_dir():
            self._base_models.append(name)
        elif not self._given:
            raise PublishingError(
                f"{model_dir / FACTS_NAME}: the speech encoder came from the folder "
                f"{Path(name).name}: name the model on the Hub that it is by --base_model, for "
                "example --base_model openai/whisper-tiny.en"
            )


def read_facts(model_dir: Path) -> dict[str, Any]:
    """The facts that a training, or a conversion, left beside a model.

    Args:
        model_dir (`Path`): folder of the model.

    Returns:
        `dict[str, Any]`: as written.

    Raises:
        PublishingError: there are none, or they cannot be read.
    """
    for name in (FACTS_NAME, CONVERSION_FACTS_NAME):
        path = model_dir / name
        if path.is_file():
            return dict(read_json(path))
    raise PublishingError(
        f"{model_dir} holds no {FACTS_NAME}: without it nobody can say what the model was trained "
        "on. Publish the folder that train.py wrote (--output_dir), not one of its checkpoints"
    )


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path (`Path`): the file.

    Returns:
        `Any`: its content.

    Raises:
        PublishingError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PublishingError(f"{path} cannot be read as JSON ({error})") from error
