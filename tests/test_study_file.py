"""What a study file may say, and the plan that becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_studies import changed, tiny_study, write_study

from tse_ser.evaluation.study import (
    REPOSITORY,
    Cell,
    Step,
    StudyError,
    load_study,
    plan_study,
    select_units,
)

CORPUS = {"targets": ["librispeech:subsets=train-clean-100"], "interferers": []}


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return tiny_study(tmp_path)


def plan(path: Path, **keywords: Any) -> dict[str, Step | Cell]:
    units = plan_study(load_study(path), path.parent / "out", **keywords)
    assert len({unit.key for unit in units}) == len(units)
    return {unit.key: unit for unit in units}


def step(units: dict[str, Step | Cell], key: str) -> Step:
    unit = units[key]
    assert isinstance(unit, Step)
    return unit


def cell(units: dict[str, Step | Cell], key: str) -> Cell:
    unit = units[key]
    assert isinstance(unit, Cell)
    return unit


def with_shared(study_file: Path, per: list[str], **arguments: Any) -> Path:
    """The tiny study with its first step shared."""
    steps = yaml.safe_load(study_file.read_text())["steps"]
    steps[0] |= {"per": per, "arguments": {**CORPUS, **arguments}}
    return changed(study_file, steps=steps)


def test_results_of_a_study_without_the_newer_keys_stay_valid(
    study_file: Path, tmp_path: Path
) -> None:
    study = yaml.safe_load(study_file.read_text())
    study["steps"].append(
        {
            "name": "third",
            "denoise": study["steps"][0]["train"],
            "arguments": {"extractor_name_or_path": "{first}", "speed_factors": [0.9, 1.1]},
        }
    )
    study["cells"][0]["arguments"]["denoised_dir"] = "{third}"
    units = plan(write_study(study_file, study), overrides={"corpus_dirs": ["generated=here"]})
    paths = {
        str((unit.path if isinstance(unit, Cell) else unit.output_dir).relative_to(tmp_path)): unit
        for unit in units.values()
    }
    # Folders and fingerprints as the first release of the runner planned them.
    assert {path: unit.fingerprint for path, unit in paths.items()} == {
        "out/steps/fold1_seed0/first": "e8e8a0fc2eb2da1b",
        "out/steps/fold1_seed0/second": "b16cf43eccb550c4",
        "out/steps/fold1_seed0/third": "d538cf20ec65b287",
        "out/cells/cell_fold1_seed0.json": "a09052cb13bb998a",
        "out/steps/fold2_seed0/first": "4d3ca4971e0ef5c8",
        "out/steps/fold2_seed0/second": "83f1745d941fd1d5",
        "out/steps/fold2_seed0/third": "696ad64314c45f47",
        "out/cells/cell_fold2_seed0.json": "a0995572a6c263fd",
    }


@pytest.mark.parametrize(
    ("per", "folder", "given"),
    [
        (["seed"], "seed{seed}", {"seed": 1}),
        (["fold"], "fold{fold}", {"fold": 2}),
        ([], "shared", {}),
    ],
)
def test_a_shared_step_is_made_once_and_used_by_all(
    study_file: Path, per: list[str], folder: str, given: dict[str, int]
) -> None:
    path = changed(with_shared(study_file, per), seeds=[0, 1])
    units = plan(path)

    firsts = [unit for unit in units.values() if unit.name == "first"]
    assert len(firsts) == (1 if not per else 2)
    last = step(units, folder.format(fold=2, seed=1) + "/first")
    assert last.config.keys() & {"fold", "seed"} == given.keys()
    assert given.items() <= last.config.items()
    second = step(units, "fold2_seed1/second")
    assert second.config["extractor"] == str(last.output_dir)
    assert second.needs == (last.key,)


def test_a_step_cannot_be_shared_more_widely_than_what_it_builds_on(study_file: Path) -> None:
    steps = yaml.safe_load(study_file.read_text())["steps"]
    steps[1]["per"] = ["seed"]
    with pytest.raises(StudyError, match=r"step second is shared by every fold, but builds on fir"):
        plan(changed(study_file, steps=steps))


@pytest.mark.parametrize("heard", [{"targets": ["generated"]}, {"interferers": ["generated:a=1"]}])
def test_a_shared_training_does_not_hear_who_is_tested(
    study_file: Path, heard: dict[str, list[str]]
) -> None:
    with pytest.raises(StudyError, match="first serves every fold, but trains on generated"):
        plan(with_shared(study_file, ["seed"], **heard))
    # LibriMix reads neither.
    plan(with_shared(study_file, ["seed"], librimix_subset="train-clean-100", **heard))


def test_for_each_writes_out_every_combination(study_file: Path) -> None:
    study = yaml.safe_load(study_file.read_text())
    study["steps"][1] |= {
        "name": "second_{gender_state}",
        "for_each": {"gender_state": ["same", "different"]},
        "arguments": {"gender_state": "{gender_state}", "extractor": "{first}"},
    }
    study["cells"] = [
        {
            "name": "on_{gender_state}_{snr_db}",
            "for_each": {"gender_state": ["same", "different"], "snr_db": [-10, 2.5]},
            "test_set": "Noisy ({gender_state})",
            "condition_label": "snr_db",
            "condition_value": "{snr_db}",
            "arguments": {
                "model": "{second_{gender_state}}",
                "snr_range_db": ["{snr_db}", "{snr_db}"],
            },
        }
    ]
    units = plan(write_study(study_file, study), folds=[1])

    assert len([unit for unit in units.values() if isinstance(unit, Cell)]) == 4
    found = cell(units, "cells/on_different_-10_fold1_seed0")
    assert found.arguments["snr_range_db"] == [-10, -10]
    assert found.labels["condition_value"] == -10
    assert found.labels["test_set"] == "Noisy (different)"
    assert found.needs == ("fold1_seed0/second_different",)
    assert found.arguments["model"] == str(step(units, found.needs[0]).output_dir)
    assert step(units, "fold1_seed0/second_same").config["gender_state"] == "same"


def test_a_study_builds_on_those_that_it_includes(study_file: Path, tmp_path: Path) -> None:
    before = plan(study_file)
    beyond = {
        "include": [str(study_file)],
        "name": "beyond",
        "cells": [{"name": "more", "arguments": {"model": "{second}", "num_speakers": [3]}}],
    }
    path = write_study(tmp_path / "beyond.yaml", beyond)

    units = plan(path)

    assert load_study(path)["name"] == "beyond"
    assert {key: unit.fingerprint for key, unit in units.items()}.items() >= {
        key: unit.fingerprint for key, unit in before.items()
    }.items()
    assert cell(units, "cells/more_fold2_seed0").needs == ("fold2_seed0/second",)

    merged = load_study(write_study(path, {**beyond, "data": {"mixing_seed": 1}, "folds": [3]}))
    assert merged["data"] == {
        "targets": ["generated"],
        "interferers": ["generated_pool"],
        "mixing_seed": 1,
    }
    assert merged["folds"] == [3]
    with pytest.raises(StudyError, match=r"beyond.yaml includes itself"):
        load_study(write_study(path, {**beyond, "include": str(path)}))


def test_overrides_win_over_everything_and_belong_to_the_settings(study_file: Path) -> None:
    before = plan(study_file)
    overrides = {
        "train": {"mixing_seed": 5, "max_steps": 2},
        "sec*": {"mixing_seed": 6},
        "evaluate": {"max_examples": 3},
    }
    units = plan(changed(study_file, overrides=overrides))

    assert step(units, "fold1_seed0/first").config["mixing_seed"] == 5
    assert step(units, "fold1_seed0/second").config["mixing_seed"] == 6
    assert cell(units, "cells/cell_fold1_seed0").arguments["max_examples"] == 3
    assert not {unit.fingerprint for unit in units.values()} & {
        unit.fingerprint for unit in before.values()
    }
    with pytest.raises(StudyError, match="overrides: secnd fits no step or cell, did you mean `se"):
        plan(changed(study_file, overrides={"secnd": {}}))


def test_folders_of_this_machine_are_added_and_no_part_of_the_settings(study_file: Path) -> None:
    study = changed(study_file, data={"targets": ["generated"], "corpus_dirs": ["a=x"]})
    here = plan(study, overrides={"corpus_dir": "root", "corpus_dirs": ["generated=y"]})

    first, scored = step(here, "fold1_seed0/first"), cell(here, "cells/cell_fold1_seed0")
    for arguments in (first.config, scored.arguments):
        assert arguments["corpus_dir"] == "root"
        assert arguments["corpus_dirs"] == ["a=x", "generated=y"]
    anywhere = plan(study)
    assert first.fingerprint == anywhere[first.key].fingerprint
    assert scored.fingerprint == anywhere[scored.key].fingerprint


def test_cells_follow_their_last_step(study_file: Path) -> None:
    study = yaml.safe_load(study_file.read_text())
    study["cells"].append({"name": "early", "arguments": {"model": "{first}"}})
    assert list(plan(write_study(study_file, study), folds=[1])) == [
        "fold1_seed0/first",
        "cells/early_fold1_seed0",
        "fold1_seed0/second",
        "cells/cell_fold1_seed0",
    ]


def test_a_selection_brings_the_steps_that_it_needs(study_file: Path, tmp_path: Path) -> None:
    study = yaml.safe_load(study_file.read_text())
    study["cells"] += [
        {"name": "early", "tables": ["II", "III"], "arguments": {"model": "{first}"}},
        {"name": "late", "tables": ["III"], "arguments": {"model": "{second}"}},
    ]
    units = plan_study(load_study(write_study(study_file, study)), tmp_path / "out", folds=[1])

    def selected(*only: str) -> list[str]:
        return [unit.name for unit in select_units(units, only)]

    assert selected() == ["first", "early", "second", "cell", "late"]
    assert selected("early") == ["first", "early"]
    assert selected("III") == ["first", "early", "second", "late"]
    assert selected("III/l*") == ["first", "second", "late"]
    assert selected("first") == ["first"]
    assert selected("second", "early") == ["first", "early", "second"]
    for wrong in ("ealy", "II/late", "VII"):
        with pytest.raises(StudyError, match=f"--only {wrong}: no such table, cell or step"):
            selected(wrong)


@pytest.mark.parametrize("protocol", ["validated", "paper", "best_on_test"])
def test_every_step_and_cell_is_told_the_protocol(study_file: Path, protocol: str) -> None:
    units = plan(changed(study_file, protocol=protocol))
    assert step(units, "fold1_seed0/first").config["protocol"] == protocol
    assert cell(units, "cells/cell_fold1_seed0").arguments["protocol"] == protocol


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "best"}, "unknown protocol 'best': use validated, paper, best_on_test"),
        ({"steps": {"name": "a"}}, "steps: expected a list, got {'name': 'a'}"),
        ({"steps": ["a"]}, "steps 1: expected `key: value` pairs, got 'a'"),
        ({"steps": [{"name": "a/b", "train": "x"}]}, "the name 'a/b' is no file name"),
        (
            {"steps": [{"name": "a", "train": "x", "per": ["speaker"]}]},
            "step a: per: expected [fold, seed], [fold], [seed] or [], got ['speaker']",
        ),
        (
            {"cells": [{"name": "c", "for_each": {"snr_db": 3}}]},
            "cells c: for_each: expected variables with lists of values",
        ),
        (
            {"cells": [{"name": "c", "for_each": {"snr_db": [1, 2]}}]},
            "cells c: for_each: put {snr_db} into the name",
        ),
        ({"include": "nowhere.yaml"}, "nowhere.yaml does not exist"),
    ],
)
def test_a_wrong_study_names_the_key_and_the_fix(
    study_file: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError) as error:
        load_study(changed(study_file, **changes))
    assert message in str(error.value)


def studies() -> list[Path]:
    found = sorted(REPOSITORY.glob("recipes/*/*.yaml"))
    return [path for path in found if {"steps", "include"} & {*yaml.safe_load(path.read_text())}]


@pytest.mark.parametrize("path", studies(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_studies_of_this_repository_can_be_planned(path: Path, tmp_path: Path) -> None:
    assert plan_study(load_study(path), tmp_path)
