"""A study's YAML file, read, checked, and its repetitions written out.

A study file::

    name: generated
    protocol: validated                                          # or paper, best_on_test
    folds: [1]
    seeds: [0]
    data: {targets: generated, interferers: [generated_pool]}    # of every step and cell
    steps:                                                       # for each fold and seed
      - {name: extractor, train: recipes/generated/1_extraction.yaml}
      - {name: denoised, denoise: recipes/generated/denoise.yaml,
         arguments: {extractor_name_or_path: "{extractor}"}}
    cells:
      - {name: sc_clean, tables: [II], model: SC, train_set: Clean, test_set: Clean,
         arguments: {model: "{sc_clean}", condition: clean}}

``{extractor}`` stands for the folder of the step of that name. A step is given the arguments of its
program: those under `data`, over them the recipe's, over these its own. A cell is given the fields
of `EvaluationArguments`: those under `data`, over them its own. What a file may say beyond this:

- a step's ``per: [seed]``: one for all folds; ``per: []``: one for all; each fold and seed has its
  own by default;
- a step's or cell's ``for_each: {gender_state: [same, different]}``: one for each value, put for
  ``{gender_state}`` in name, labels and arguments; several variables, one for each combination;
- the study's ``include: [other.yaml]``: what it does not say itself is that file's; steps and cells
  of both, `data` and `overrides` merged;
- the study's ``overrides: {train: {max_steps: 2}, evaluate: {...}, extractor: {...}}``: arguments
  that win over all others, for a kind of program or for the steps and cells of a name or pattern.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PROTOCOLS = ("validated", "paper", "best_on_test")
STUDY_KEYS = {
    *("name", "protocol", "folds", "seeds", "data", "steps", "cells", "include", "overrides"),
}
OPTIONAL = {"protocol": "validated", "data": {}, "overrides": {}}
STEP_KEYS = {"name", "train", "denoise", "arguments", "per", "for_each"}
LABEL_KEYS = {
    *("name", "tables", "model", "method", "train_set", "test_set"),
    *("gender_state", "condition_label", "condition_value"),
}
CELL_KEYS = LABEL_KEYS | {"arguments", "for_each"}
REPEATED_PER = ("fold", "seed")
# Names become file names.
NAME = re.compile(r"[\w.+-]+")


class StudyError(ValueError):
    """A study that cannot be read or run: the message names the key or file and the fix."""


def load_study(path: str | Path) -> dict[str, Any]:
    """Reads and checks a study file.

    Args:
        path: the YAML file.

    Returns:
        The study with every key of `STUDY_KEYS` but `include`, its steps and cells without
        `for_each`.

    Raises:
        StudyError: if the file is missing, or a key is unknown, missing or used twice.
    """
    study = {**OPTIONAL, **_read_with_includes(Path(path), ())}
    _check_keys(study, STUDY_KEYS, required=STUDY_KEYS - {"include"}, where=str(path))
    if study["protocol"] not in PROTOCOLS:
        raise StudyError(
            f"{path}: unknown protocol {study['protocol']!r}: use {', '.join(PROTOCOLS)}"
        )
    for kind, known in (("steps", STEP_KEYS), ("cells", CELL_KEYS)):
        study[kind] = _written_out(study[kind], known, f"{path}: {kind}")
    if not study["steps"]:
        raise StudyError(f"{path} has no steps: a study trains at least one model")
    for step in study["steps"]:
        _check_step(step, where=f"{path}: step {step['name']}")
    return study


def _read_with_includes(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    if path in including:
        raise StudyError(f"{path} includes itself: take one of its `include` lines out")
    own = read_yaml(path)
    _check_keys(own, STUDY_KEYS, required=set(), where=str(path))
    others = own.pop("include", [])
    study: dict[str, Any] = {}
    for other in [others] if isinstance(others, str) else others:
        study = _merged(study, _read_with_includes(REPOSITORY / other, (*including, path)))
    return _merged(study, own)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key in {"steps", "cells"} & below.keys() & above.keys():
        merged[key] = [*below[key], *above[key]]
    if below.get("data") and above.get("data"):
        merged["data"] = {**below["data"], **above["data"]}
    if below.get("overrides") and above.get("overrides"):
        overrides = {name: dict(values) for name, values in below["overrides"].items()}
        for name, values in above["overrides"].items():
            overrides[name] = {**overrides.get(name, {}), **values}
        merged["overrides"] = overrides
    return merged


def _written_out(entries: Any, known: set[str], where: str) -> list[dict[str, Any]]:
    """The steps or cells without `for_each`: one for each combination of its values."""
    if not isinstance(entries, list):
        raise StudyError(f"{where}: expected a list, got {entries!r}")
    written: list[dict[str, Any]] = []
    for position, entry in enumerate(entries, start=1):
        name = entry.get("name", position) if isinstance(entry, dict) else position
        _check_keys(entry, known, required={"name"}, where=f"{where} {name}")
        written += _for_each(entry, f"{where} {name}")
    names = [entry["name"] for entry in written]
    for name in names:
        if not NAME.fullmatch(str(name)):
            raise StudyError(f"{where}: the name {name!r} is no file name: use letters and digits")
        if names.count(name) > 1:
            raise StudyError(f"{where}: the name {name} is used twice, give each its own")
    return written


def _for_each(entry: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    variables = entry.get("for_each", {})
    if not isinstance(variables, dict) or not all(
        isinstance(values, list) and values for values in variables.values()
    ):
        raise StudyError(f"{where}: for_each: expected variables with lists of values")
    for name in variables:
        if f"{{{name}}}" not in str(entry["name"]):
            raise StudyError(f"{where}: for_each: put {{{name}}} into the name, one name a value")
    content = {key: value for key, value in entry.items() if key != "for_each"}
    for values in itertools.product(*variables.values()):
        yield _replaced(content, dict(zip(variables, values, strict=True)))


def _replaced(value: Any, variables: Mapping[str, Any]) -> Any:
    """Puts values for variables in braces; a text that is nothing else becomes the value itself."""
    if isinstance(value, dict):
        return {key: _replaced(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    for name, replacement in variables.items():
        if value == f"{{{name}}}":
            return replacement
        value = value.replace(f"{{{name}}}", str(replacement))
    return value


def _check_step(step: Mapping[str, Any], where: str) -> None:
    if ("train" in step) == ("denoise" in step):
        raise StudyError(f"{where} wants one of `train` and `denoise`")
    per = step.get("per", REPEATED_PER)
    if not isinstance(per, list | tuple) or not set(per) <= {*REPEATED_PER}:
        raise StudyError(f"{where}: per: expected [fold, seed], [fold], [seed] or [], got {per!r}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of `key: value` lines.

    Args:
        path: the file.

    Returns:
        Its keys and values.

    Raises:
        StudyError: if it is missing or something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path} does not exist: paths count from {REPOSITORY.name}/") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path} holds no `key: value` lines")
    return content


def _check_keys(entry: Any, known: set[str], required: set[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise StudyError(f"{where}: expected `key: value` pairs, got {entry!r}")
    for key in entry:
        if key not in known:
            raise StudyError(f"{where}: unknown key `{key}`{suggest(key, known)}")
    if missing := required - entry.keys():
        raise StudyError(f"{where}: the key `{min(missing)}` is missing")


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown word: the known one that is closest, if any.

    Args:
        word: the unknown word.
        known: the known ones.

    Returns:
        Text, or nothing where none comes close.
    """
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean `{close[0]}`?" if close else ""
