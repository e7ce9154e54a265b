"""A study as data: the YAML file that names its steps and cells, resolved into a plan.

A study file::

    name: generated
    protocol: validated
    folds: [1]
    seeds: [0]
    data: {targets: generated, interferers: [generated_pool]}    # of every step and cell
    steps:                                                       # in order, for each fold and seed
      - {name: extractor, train: recipes/generated/1_extraction.yaml}
      - {name: denoised, denoise: recipes/generated/denoise.yaml,
         arguments: {extractor_name_or_path: "{extractor}"}}
    cells:
      - {name: sc_clean, tables: [II], model: SC, train_set: Clean, test_set: Clean,
         arguments: {model: "{sc_clean}", condition: clean}}

``{extractor}`` stands for the folder of the step of that name, of the same fold and seed. A step is
given the arguments of its program: those under `data`, over them the recipe's, over these its own.
A cell is given the fields of `EvaluationArguments`: those under `data`, over them its own.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
STUDY_KEYS = {"name", "protocol", "folds", "seeds", "data", "steps", "cells"}
STEP_KEYS = {"name", "train", "denoise", "arguments"}
LABEL_KEYS = {"name", "tables", "model", "method", "train_set", "test_set"}
CELL_KEYS = LABEL_KEYS | {"arguments"}
# A name in braces, but no ${VARIABLE}: that one is the recipe's, expanded by the program.
PLACEHOLDER = re.compile(r"(?<!\$)\{(\w+)\}")


class StudyError(ValueError):
    """A study that cannot be read or run: the message names the key or file and the fix."""


@dataclass(frozen=True)
class Step:
    """One training, or one writing of a denoised corpus.

    Args:
        name: name in the study file.
        program: "train" or "denoise".
        fold: 1-based test fold.
        seed: seed of the weights and of the order of the examples.
        config: every argument of the program, without its output folder.
        output_dir: folder that the program writes.
        fingerprint: digest of the settings, those of the steps it builds on included.
    """

    name: str
    program: str
    fold: int
    seed: int
    config: dict[str, Any]
    output_dir: Path
    fingerprint: str


@dataclass(frozen=True)
class Cell:
    """One number pair of a table: a trained model on one test set.

    Args:
        name: name in the study file.
        fold: 1-based test fold.
        seed: seed of the trainings behind it.
        labels: what the tables need: tables, model, method, train_set, test_set.
        arguments: fields of `EvaluationArguments`, without the output file.
        path: the JSON file of its result.
        fingerprint: digest of the settings, those of the trainings behind it included.
    """

    name: str
    fold: int
    seed: int
    labels: dict[str, Any]
    arguments: dict[str, Any]
    path: Path
    fingerprint: str


def load_study(path: str | Path) -> dict[str, Any]:
    """Reads and checks a study file.

    Args:
        path: the YAML file.

    Returns:
        The study with every key of `STUDY_KEYS`.

    Raises:
        StudyError: if the file is missing, or a key is unknown, missing or used twice.
    """
    study = read_yaml(Path(path))
    _check_keys(study, STUDY_KEYS, required=STUDY_KEYS - {"protocol", "data"}, where=str(path))
    study = {"protocol": "validated", "data": {}, **study}
    for kind, known in (("steps", STEP_KEYS), ("cells", CELL_KEYS)):
        for position, entry in enumerate(study[kind], start=1):
            where = f"{path}: {kind} {entry.get('name', position)}"
            _check_keys(entry, known, required={"name"}, where=where)
        _check_unique([entry["name"] for entry in study[kind]], where=f"{path}: {kind}")
    if not study["steps"]:
        raise StudyError(f"{path} has no steps: a study trains at least one model")
    for step in study["steps"]:
        if ("train" in step) == ("denoise" in step):
            raise StudyError(f"{path}: step {step['name']} wants one of `train` and `denoise`")
    return study


def plan_study(
    study: Mapping[str, Any],
    output_dir: Path,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Step | Cell]:
    """Resolves a study into what has to be run, in an order in which it can be run.

    Args:
        study: what `load_study` gives.
        output_dir: folder of the study's results.
        folds: the folds to run; those of the study by default.
        seeds: the seeds to run; those of the study by default.
        overrides: data arguments that hold on this machine only, such as `corpus_dir`. They win
            over the study and are no part of the fingerprints.

    Returns:
        For each seed and fold: its steps, then its cells.
    """
    plan: list[Step | Cell] = []
    for seed in seeds or study["seeds"]:
        for fold in folds or study["folds"]:
            common = {"protocol": study["protocol"], "fold": fold, "seed": seed}
            steps: dict[str, Step] = {}
            for entry in study["steps"]:
                step = _plan_step(entry, study["data"], common, steps, output_dir)
                step.config.update(overrides or {})
                steps[step.name] = step
            plan += steps.values()
            for entry in study["cells"]:
                cell = _plan_cell(entry, study["data"], common, steps, output_dir)
                cell.arguments.update(overrides or {})
                plan.append(cell)
    return plan


def _plan_step(
    entry: Mapping[str, Any],
    data: Mapping[str, Any],
    common: Mapping[str, Any],
    earlier: Mapping[str, Step],
    output_dir: Path,
) -> Step:
    program = "train" if "train" in entry else "denoise"
    recipe = read_yaml(REPOSITORY / entry[program])
    config = {**data, **recipe, **common, **entry.get("arguments", {})}
    return Step(
        name=entry["name"],
        program=program,
        fold=common["fold"],
        seed=common["seed"],
        config=_fill(config, earlier),
        output_dir=output_dir / "steps" / _run_name(common) / entry["name"],
        fingerprint=_fingerprint([program, config], earlier),
    )


def _plan_cell(
    entry: Mapping[str, Any],
    data: Mapping[str, Any],
    common: Mapping[str, Any],
    steps: Mapping[str, Step],
    output_dir: Path,
) -> Cell:
    arguments = {**data, **common, **entry.get("arguments", {})}
    labels = {key: entry[key] for key in sorted(LABEL_KEYS & entry.keys())}
    return Cell(
        name=entry["name"],
        fold=common["fold"],
        seed=common["seed"],
        labels=labels,
        arguments=_fill(arguments, steps),
        path=output_dir / "cells" / f"{entry['name']}_{_run_name(common)}.json",
        fingerprint=_fingerprint([labels, arguments], steps),
    )


def _run_name(common: Mapping[str, Any]) -> str:
    return f"fold{common['fold']}_seed{common['seed']}"


def _fill(config: Mapping[str, Any], steps: Mapping[str, Step]) -> dict[str, Any]:
    """Puts the folders of the steps for their names in braces."""

    def folder(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in steps:
            raise StudyError(
                f"{{{name}}} names no earlier step of the study{suggest(name, steps)}: "
                f"steps are listed in the order in which they run ({', '.join(steps) or 'none'})"
            )
        return str(steps[name].output_dir)

    return {
        key: PLACEHOLDER.sub(folder, value) if isinstance(value, str) else value
        for key, value in config.items()
    }


def _fingerprint(settings: list[Any], steps: Mapping[str, Step]) -> str:
    # Names in braces, not folders: a results folder can be moved. A name stands for its settings.
    text = json.dumps(settings, sort_keys=True, default=str)
    behind = [steps[name].fingerprint for name in sorted(set(PLACEHOLDER.findall(text)) & {*steps})]
    return hashlib.sha256("\n".join([text, *behind]).encode()).hexdigest()[:16]


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of `key: value` lines.

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


def _check_unique(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise StudyError(f"{where}: the name {name} is used twice, give each its own")


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown word: the known one that is closest, if any."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f", did you mean `{close[0]}`?" if close else ""
