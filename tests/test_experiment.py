"""The study runner, with programs that take no time in the place of trainings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_studies import calls, changed, run, stub_programs, tiny_study, write_study

from tse_ser.evaluation import experiment
from tse_ser.evaluation.progress import StudyProgress, format_minutes, fraction_done
from tse_ser.evaluation.study import Step, StudyError, load_study, plan_study


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    return tiny_study(tmp_path)


@pytest.fixture(autouse=True)
def quick_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub_programs(monkeypatch, tmp_path)


def test_a_study_runs_its_steps_and_cells_for_every_fold(study_file: Path, tmp_path: Path) -> None:
    run(study_file, tmp_path / "out")

    assert calls(tmp_path / "out") == {
        "fold1_seed0/first": 1,
        "fold1_seed0/second": 1,
        "fold2_seed0/first": 1,
        "fold2_seed0/second": 1,
    }
    cell = json.loads((tmp_path / "out/cells/cell_fold2_seed0.json").read_text())
    assert cell["checkpoint"] == str(tmp_path / "out/steps/fold2_seed0/second")
    assert (cell["fold"], cell["seed"], cell["protocol"]) == (2, 0, "validated")


def test_what_is_done_is_skipped(study_file: Path, tmp_path: Path) -> None:
    run(study_file, tmp_path / "out", "--folds", "1")
    run(study_file, tmp_path / "out")

    assert set(calls(tmp_path / "out").values()) == {1}


def test_a_program_that_a_signal_ended_goes_on_once(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "abort": 1})

    run(study_file, tmp_path / "out", "--folds", "1")

    assert set(calls(tmp_path / "out").values()) == {2}
    assert "Fatal Python error: Aborted" in capsys.readouterr().out  # and where it was


def test_a_program_that_is_killed_twice_stops_the_study(study_file: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "abort": 2})

    with pytest.raises(StudyError, match="exit code -6"):
        run(study_file, tmp_path / "out", "--folds", "1")

    assert calls(tmp_path / "out") == {"fold1_seed0/first": 2}


def test_a_program_that_fails_by_itself_is_not_started_again(
    study_file: Path, tmp_path: Path
) -> None:
    write_study(tmp_path / "recipe.yaml", {"stage": "extraction", "fail": True})

    with pytest.raises(StudyError, match="the loss is no number"):
        run(study_file, tmp_path / "out", "--folds", "1")

    assert calls(tmp_path / "out") == {"fold1_seed0/first": 1}


def test_the_more_specific_argument_wins(study_file: Path, tmp_path: Path) -> None:
    run(study_file, tmp_path / "out", "--folds", "2")

    config = yaml.safe_load((tmp_path / "out/steps/fold2_seed0/second/config.yaml").read_text())
    assert config == {
        "targets": ["generated"],  # of the study
        "interferers": ["generated_pool"],
        "mixing_seed": 3,  # of the recipe, over the study
        "stage": "extraction",
        "extractor": str(tmp_path / "out/steps/fold2_seed0/first"),
        "fold": 2,
        "seed": 0,
        "protocol": "validated",
        "output_dir": str(tmp_path / "out/steps/fold2_seed0/second"),
    }


def test_a_failed_step_shows_the_end_of_its_log_and_is_run_again(
    study_file: Path, tmp_path: Path
) -> None:
    steps = yaml.safe_load(study_file.read_text())["steps"]
    steps[1]["arguments"]["fail"] = True
    broken = changed(study_file, steps=steps)
    with pytest.raises(StudyError, match="the loss is no number") as error:
        run(broken, tmp_path / "out", "--folds", "1")
    assert str(tmp_path / "out/logs/second_fold1_seed0.log") in str(error.value)

    # There is no checkpoint yet, so the repaired step may take the folder.
    steps[1]["arguments"]["fail"] = False
    run(changed(study_file, steps=steps), tmp_path / "out", "--folds", "1")
    assert calls(tmp_path / "out") == {"fold1_seed0/first": 1, "fold1_seed0/second": 2}


def test_a_training_made_with_other_settings_is_not_passed_off_as_this_one(
    study_file: Path, tmp_path: Path
) -> None:
    run(study_file, tmp_path / "out", "--folds", "1")
    (tmp_path / "recipe.yaml").write_text("stage: extraction\nmixing_seed: 4\n")

    with pytest.raises(StudyError, match="fold1_seed0/first was made with other settings"):
        run(study_file, tmp_path / "out", "--folds", "1")


def test_a_cell_with_other_settings_is_evaluated_again(study_file: Path, tmp_path: Path) -> None:
    run(study_file, tmp_path / "out", "--folds", "1")
    cells = yaml.safe_load(study_file.read_text())["cells"]
    cells[0]["arguments"]["condition"] = "clean"
    run(changed(study_file, cells=cells), tmp_path / "out", "--folds", "1")

    cell = json.loads((tmp_path / "out/cells/cell_fold1_seed0.json").read_text())
    assert cell["condition"] == "clean"
    assert set(calls(tmp_path / "out").values()) == {1}


def test_results_are_the_same_where_the_corpora_lie_elsewhere(
    study_file: Path, tmp_path: Path
) -> None:
    run(study_file, tmp_path / "out", "--folds", "1", "--corpus_dir", str(tmp_path / "here"))
    run(study_file, tmp_path / "out", "--folds", "1", "--corpus_dir", str(tmp_path / "there"))

    assert set(calls(tmp_path / "out").values()) == {1}
    config = yaml.safe_load((tmp_path / "out/steps/fold1_seed0/first/config.yaml").read_text())
    assert config["corpus_dir"] == str(tmp_path / "here")


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(study_file, tmp_path / "out", "--dry_run")

    printed = capsys.readouterr().out
    assert "fold 2, seed 0: train second extraction" in printed
    assert "fold 1, seed 0: evaluate cell (Table II)" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fold": [1]}, "unknown key `fold`, did you mean `folds`"),
        ({"steps": [{"name": "a", "train": "missing.yaml"}]}, "missing.yaml does not exist"),
        ({"steps": [{"name": "a"}]}, "step a wants one of `train` and `denoise`"),
        ({"steps": [{"train": "a.yaml"}]}, "the key `name` is missing"),
        ({"steps": [], "cells": []}, "has no steps"),
        (
            {"cells": [{"name": "c", "arguments": {"model": "{secnd}"}}]},
            "{secnd} names no earlier step of the study, did you mean `second`",
        ),
        ({"cells": [{"name": "c", "table": "II"}]}, "unknown key `table`, did you mean `tables`"),
        ({"cells": [{"name": "c"}, {"name": "c"}]}, "the name c is used twice"),
    ],
)
def test_a_wrong_study_names_the_key_and_the_fix(
    study_file: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyError) as error:
        plan_study(load_study(changed(study_file, **changes)), tmp_path / "out")
    assert message in str(error.value)


def test_the_cores_are_shared_by_the_processes_of_the_accelerate_config(tmp_path: Path) -> None:
    config = tmp_path / "accelerate.yaml"
    config.write_text("num_processes: 2\n")
    launcher = experiment.Launcher(config)
    assert launcher.options[-2:] == ["--config_file", str(config)]
    assert launcher.threads == max(1, len(os.sched_getaffinity(0)) // 2)
    assert experiment.Launcher().threads == len(os.sched_getaffinity(0))
    with pytest.raises(StudyError, match="does not exist"):
        experiment.Launcher(tmp_path / "missing.yaml")


def test_a_step_cannot_build_on_a_later_one(study_file: Path, tmp_path: Path) -> None:
    steps = yaml.safe_load(study_file.read_text())["steps"][::-1]
    with pytest.raises(StudyError, match="names no earlier step"):
        plan_study(load_study(changed(study_file, steps=steps)), tmp_path / "out")


def test_a_fingerprint_follows_the_steps_behind_it(study_file: Path, tmp_path: Path) -> None:
    def fingerprints() -> dict[str, str]:
        plan = plan_study(load_study(study_file), tmp_path / "out", folds=[1])
        return {unit.name: unit.fingerprint for unit in plan}

    before = fingerprints()
    steps = yaml.safe_load(study_file.read_text())["steps"]
    steps[0]["arguments"] = {"learning_rate": 0.5}
    changed(study_file, steps=steps)
    after = fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"first", "second", "cell"}


def test_a_mistake_in_a_cell_is_found_before_anything_is_trained(
    study_file: Path, tmp_path: Path
) -> None:
    cells = yaml.safe_load(study_file.read_text())["cells"]
    cells[0]["arguments"]["gender"] = "same"
    with pytest.raises(StudyError, match="unknown argument `gender`, did you mean `gender_state`"):
        run(changed(study_file, cells=cells), tmp_path / "out")
    cells[0]["arguments"] = {"model": "{second}", "condition": "denoised"}
    with pytest.raises(StudyError, match="cell cell: condition 'denoised' needs --denoised_dir"):
        run(changed(study_file, cells=cells), tmp_path / "out")
    assert not calls(tmp_path / "out")


def test_the_training_bar_counts_not_the_validation_bar(tmp_path: Path) -> None:
    log = tmp_path / "log"
    bars = [
        "Scanning corpus: 100%|####| 900/900 [00:01<00:00, 1file/s]",
        "  0%|    | 0/100 [00:00<?, ?it/s]",
        " 20%|##  | 20/100 [00:02<00:08, 10.0it/s]",
        "100%|####| 8/8 [00:00<00:00, 10.0it/s]",
    ]
    log.write_text("\n\r".join(bars))
    assert fraction_done(log, 0) == pytest.approx(0.2)
    log.write_text("denoising:  48%|####      | 65/136 [00:42<00:45,  1.56mixture/s]")
    assert fraction_done(log, 0) == pytest.approx(65 / 136)
    assert fraction_done(log, log.stat().st_size) is None


def test_remaining_time_is_what_the_waiting_parts_are_known_to_take(
    study_file: Path, tmp_path: Path
) -> None:
    plan = plan_study(load_study(study_file), tmp_path / "out")
    progress = StudyProgress("tiny", plan, [], {("train", "first"): 2.0, ("evaluate", "cell"): 1.0})
    first = plan[0]
    assert isinstance(first, Step)
    progress.start(first)
    # Two folds; the second training is expected to take what the first does.
    assert progress.remaining_minutes(first, None) == pytest.approx(10.0, abs=0.01)

    unknown = StudyProgress("tiny", plan, [], {("train", "first"): 2.0})
    unknown.start(first)
    assert unknown.remaining_minutes(first, None) is None


def test_minutes_are_shown_as_a_clock() -> None:
    assert format_minutes(0.7) == "0:42"
    assert format_minutes(12.0833) == "12:05"
    assert format_minutes(187) == "3 h 07 min"


def test_a_smoke_run_is_short_and_goes_beside_the_results(study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(study_file, out, "--smoke", "--folds", "1")
    run(study_file, out, "--folds", "1")

    smoke = yaml.safe_load((out / "smoke/steps/fold1_seed0/first/config.yaml").read_text())
    assert (smoke["max_steps"], smoke["per_device_train_batch_size"]) == (2, 2)
    assert json.loads((out / "smoke/cells/cell_fold1_seed0.json").read_text())["max_examples"] == 8
    real = yaml.safe_load((out / "steps/fold1_seed0/first/config.yaml").read_text())
    assert "max_steps" not in real


def test_only_what_was_chosen_is_run(study_file: Path, tmp_path: Path) -> None:
    run(study_file, tmp_path / "out", "--only", "first")
    assert calls(tmp_path / "out") == {"fold1_seed0/first": 1, "fold2_seed0/first": 1}
    assert not (tmp_path / "out/tables.md").exists()


def test_folders_of_single_corpora_reach_steps_and_cells(study_file: Path, tmp_path: Path) -> None:
    out, here = tmp_path / "out", tmp_path / "here"
    run(study_file, out, "--folds", "1", "--corpus_dirs", f"generated={here}")

    config = yaml.safe_load((out / "steps/fold1_seed0/first/config.yaml").read_text())
    cell = json.loads((out / "cells/cell_fold1_seed0.json").read_text())
    assert config["corpus_dirs"] == cell["corpus_dirs"] == [f"generated={here}"]
    with pytest.raises(StudyError, match="expected entries such as iemocap=/data/IEMOCAP"):
        run(study_file, out, "--corpus_dirs", "generated")
