"""A study resolved into what has to be run: steps and cells, and what each of them builds on.

`tse_ser.evaluation.study_file` describes the file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tse_ser.evaluation.study_file import (
    LABEL_KEYS,
    REPEATED_PER,
    REPOSITORY,
    StudyError,
    load_study,
    read_yaml,
    suggest,
)

__all__ = [
    "REPOSITORY",
    "Cell",
    "Step",
    "StudyError",
    "load_study",
    "plan_study",
    "read_yaml",
    "select_units",
    "suggest",
]

KINDS = ("train", "denoise", "evaluate")
# A name in braces, but no ${VARIABLE}: that one is the recipe's, expanded by the program.
PLACEHOLDER = re.compile(r"(?<!\$)\{([\w.+-]+)\}")


@dataclass(frozen=True)
class Step:
    """One training, or one writing of a denoised corpus.

    Args:
        name: name in the study file.
        program: "train" or "denoise".
        fold: 1-based test fold; None if it serves all folds.
        seed: seed of the weights and of the order of the examples; None if it serves all seeds.
        config: every argument of the program, without its output folder.
        output_dir: folder that the program writes.
        fingerprint: digest of the settings, those of the steps it builds on included.
        needs: keys of the steps that it builds on.
    """

    name: str
    program: str
    fold: int | None
    seed: int | None
    config: dict[str, Any]
    output_dir: Path
    fingerprint: str
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What tells it from every other step and cell of the study."""
        return f"{self.output_dir.parent.name}/{self.name}"

    @property
    def per(self) -> list[str]:
        """What it is repeated for: folds, seeds, both or neither."""
        return [key for key in REPEATED_PER if getattr(self, key) is not None]


@dataclass(frozen=True)
class Cell:
    """One number pair of a table: a trained model on one test set.

    Args:
        name: name in the study file.
        fold: 1-based test fold.
        seed: seed of the trainings behind it.
        labels: what tables and figures need: `LABEL_KEYS`.
        arguments: fields of `EvaluationArguments`, without the output file.
        path: the JSON file of its result.
        fingerprint: digest of the settings, those of the trainings behind it included.
        needs: keys of the steps that it builds on.
    """

    name: str
    fold: int
    seed: int
    labels: dict[str, Any]
    arguments: dict[str, Any]
    path: Path
    fingerprint: str
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What tells it from every other step and cell of the study."""
        return f"cells/{self.path.stem}"


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
            over the study and are no part of the fingerprints; `corpus_dirs` is added to it.

    Returns:
        For each seed and fold: its steps, and each cell as soon as its steps are there. A step
        that several folds share stands where the first of them needs it.

    Raises:
        StudyError: if a name in braces is none of an earlier step, or a step is shared more widely
            than what it builds on, or than its speech allows.
    """
    plan: dict[str, Step | Cell] = {}
    for seed in seeds or study["seeds"]:
        for fold in folds or study["folds"]:
            common = {"protocol": study["protocol"], "fold": fold, "seed": seed}
            steps: dict[str, Step] = {}
            for entry in study["steps"]:
                steps[entry["name"]] = _plan_step(entry, study, common, steps, output_dir)
            waiting = [
                _plan_cell(entry, study, common, steps, output_dir) for entry in study["cells"]
            ]
            _check_shared(steps.values(), waiting)
            for step in steps.values():
                plan.setdefault(step.key, step)
                ready = [cell for cell in waiting if {*cell.needs} <= plan.keys()]
                plan |= {cell.key: cell for cell in ready}
                waiting = [cell for cell in waiting if cell.key not in plan]
    _check_overrides(study["overrides"], plan.values())
    for unit in plan.values():
        _add_machine(unit.config if isinstance(unit, Step) else unit.arguments, overrides or {})
    return list(plan.values())


def select_units(plan: Sequence[Step | Cell], only: Sequence[str] | None) -> list[Step | Cell]:
    """Takes tables, cells or steps out of a plan, with the steps that they build on.

    Args:
        plan: what `plan_study` gives.
        only: names of tables, cells and steps, or patterns such as `sc_*`; `II/sc_*` takes cells of
            that table only. None takes everything.

    Returns:
        Those steps and cells, in the order of the plan.

    Raises:
        StudyError: if a word fits nothing.
    """
    if not only:
        return list(plan)
    by_key = {unit.key: unit for unit in plan}
    wanted: set[str] = set()
    for word in only:
        found = [unit.key for unit in plan if _fits(unit, word)]
        if not found:
            known = {unit.name for unit in plan} | {name for unit in plan for name in _tables(unit)}
            raise StudyError(f"--only {word}: no such table, cell or step{suggest(word, known)}")
        wanted.update(found)
    pending = list(wanted)
    while pending:
        needed = {*by_key[pending.pop()].needs} - wanted
        wanted |= needed
        pending += needed
    return [unit for unit in plan if unit.key in wanted]


def _fits(unit: Step | Cell, word: str) -> bool:
    table, slash, name = word.rpartition("/")
    if slash:
        return table in _tables(unit) and fnmatch.fnmatchcase(unit.name, name)
    return word in _tables(unit) or fnmatch.fnmatchcase(unit.name, word)


def _tables(unit: Step | Cell) -> Sequence[str]:
    return unit.labels.get("tables", ()) if isinstance(unit, Cell) else ()


def _plan_step(
    entry: Mapping[str, Any],
    study: Mapping[str, Any],
    common: Mapping[str, Any],
    earlier: Mapping[str, Step],
    output_dir: Path,
) -> Step:
    program = "train" if "train" in entry else "denoise"
    per = [key for key in REPEATED_PER if key in entry.get("per", REPEATED_PER)]
    own = {key: value for key, value in common.items() if key in ("protocol", *per)}
    config = {
        **study["data"],
        **read_yaml(REPOSITORY / entry[program]),
        **own,
        **entry.get("arguments", {}),
        **_overrides_of(study, program, entry["name"]),
    }
    names = _names_in(config, earlier)
    for name in names:
        needed = earlier[name]
        lacking = [key for key in REPEATED_PER if key in needed.per and key not in per]
        if lacking:
            raise StudyError(
                f"step {entry['name']} is shared by every {lacking[0]}, but builds on {name}, "
                f"of which each {lacking[0]} has its own: add {lacking[0]} to its `per`"
            )
    return Step(
        name=entry["name"],
        program=program,
        fold=own.get("fold"),
        seed=own.get("seed"),
        config=_fill(config, earlier),
        output_dir=output_dir / "steps" / _run_name(own) / entry["name"],
        fingerprint=_fingerprint([program, config], earlier),
        needs=tuple(earlier[name].key for name in names),
    )


def _plan_cell(
    entry: Mapping[str, Any],
    study: Mapping[str, Any],
    common: Mapping[str, Any],
    steps: Mapping[str, Step],
    output_dir: Path,
) -> Cell:
    arguments = {
        **study["data"],
        **common,
        **entry.get("arguments", {}),
        **_overrides_of(study, "evaluate", entry["name"]),
    }
    labels = {key: entry[key] for key in sorted(LABEL_KEYS & entry.keys())}
    return Cell(
        name=entry["name"],
        fold=common["fold"],
        seed=common["seed"],
        labels=labels,
        arguments=_fill(arguments, steps),
        path=output_dir / "cells" / f"{entry['name']}_{_run_name(common)}.json",
        fingerprint=_fingerprint([labels, arguments], steps),
        needs=tuple(steps[name].key for name in _names_in(arguments, steps)),
    )


def _run_name(own: Mapping[str, Any]) -> str:
    """The folder of a fold and seed, `fold1_seed0`; `seed0` or `shared` where folds share."""
    return "_".join(f"{key}{own[key]}" for key in REPEATED_PER if key in own) or "shared"


def _overrides_of(study: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    chosen: dict[str, Any] = dict(study["overrides"].get(kind, {}))
    for pattern, arguments in study["overrides"].items():
        if pattern not in KINDS and fnmatch.fnmatchcase(name, pattern):
            chosen.update(arguments)
    return chosen


def _check_overrides(overrides: Mapping[str, Any], plan: Iterable[Step | Cell]) -> None:
    names = {unit.name for unit in plan}
    for pattern in overrides:
        if pattern not in KINDS and not fnmatch.filter(names, pattern):
            known = suggest(pattern, {*names, *KINDS})
            raise StudyError(f"overrides: {pattern} fits no step or cell{known}")


def _check_shared(steps: Iterable[Step], cells: Sequence[Cell]) -> None:
    """A step that serves every fold must not train on speech that the folds are tested on."""
    tested = {name for cell in cells for name in _corpora(cell.arguments, "targets")}
    for step in steps:
        heard = _corpora(step.config, "targets") | _corpora(step.config, "interferers")
        if step.config.get("librimix_subset") is not None:
            continue  # its speech is LibriSpeech, whatever the study's targets are
        if step.fold is None and step.program == "train" and heard & tested:
            raise StudyError(
                f"step {step.name} serves every fold, but trains on {min(heard & tested)}, which "
                "cells are tested on: its test speakers would be heard. Give it `per: [fold, "
                "seed]` or corpora of its own"
            )


def _corpora(config: Mapping[str, Any], key: str) -> set[str]:
    names = config.get(key) or []
    return {name.partition(":")[0] for name in ([names] if isinstance(names, str) else names)}


def _add_machine(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    folders = [*(config.get("corpus_dirs") or []), *overrides.get("corpus_dirs", [])]
    config.update(overrides)
    if folders:
        config["corpus_dirs"] = folders


def _names_in(config: Mapping[str, Any], steps: Mapping[str, Step]) -> list[str]:
    text = json.dumps(config, sort_keys=True, default=str)
    return sorted(set(PLACEHOLDER.findall(text)) & {*steps})


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

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(item) for item in value]
        return PLACEHOLDER.sub(folder, value) if isinstance(value, str) else value

    return {key: filled(value) for key, value in config.items()}


def _fingerprint(settings: list[Any], steps: Mapping[str, Step]) -> str:
    # Names in braces, not folders: a results folder can be moved. A name stands for its settings.
    text = json.dumps(settings, sort_keys=True, default=str)
    behind = [steps[name].fingerprint for name in sorted(set(PLACEHOLDER.findall(text)) & {*steps})]
    return hashlib.sha256("\n".join([text, *behind]).encode()).hexdigest()[:16]
