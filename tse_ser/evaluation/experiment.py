"""Runs a whole study: trainings, denoised corpora, cells, tables and figures.

    python -m tse_ser.evaluation.experiment --study recipes/generated/study.yaml \\
        --output_dir results/demo

What is done is skipped, what was cut off goes on from its last checkpoint: the same command again
finishes an interrupted study. Started several times, on one machine or on several that share the
folder, it shares the work: see `tse_ser.evaluation.claims`. Results: `cells/*.json`, `tables.md`,
`figures/`, `report.html`; beside them the models (`steps/`) and what was printed (`logs/`).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers.utils.logging import disable_progress_bar

from tse_ser.evaluation.claims import RENEW_SECONDS, Claim, Claims
from tse_ser.evaluation.evaluate_checkpoint import EvaluationOptions, evaluate_checkpoint
from tse_ser.evaluation.figures import write_figures
from tse_ser.evaluation.following import follow
from tse_ser.evaluation.launch import Launcher, run_again_if_killed, run_logged, stopped_like_ctrl_c
from tse_ser.evaluation.progress import StudyProgress, unit_key
from tse_ser.evaluation.records import STEP_RECORD, is_done, read_record, write_json
from tse_ser.evaluation.report import write_report
from tse_ser.evaluation.sharing import Shared, run_shared
from tse_ser.evaluation.study import (
    Cell,
    Step,
    StudyError,
    load_study,
    plan_study,
    select_units,
    suggest,
)
from tse_ser.evaluation.study_arguments import machine_folders, parse_arguments
from tse_ser.evaluation.study_costs import print_costs
from tse_ser.evaluation.tables import write_tables

CONFIG_NAME = "config.yaml"  # in a step's folder: the arguments of its program
# What `--smoke` puts over every argument: each program runs, on next to nothing.
SMOKE: dict[str, dict[str, Any]] = {
    "train": {
        "max_steps": 2,
        "max_train_examples": 8,
        "max_eval_examples": 4,
        # A set denoised from so little may hold no neutral utterance of a speaker.
        "enrollment_emotion": "any",
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "warmup_steps": 0,
        "logging_steps": 1,
    },
    # Two utterances at least of each speaker: one of them can enroll the other.
    "denoise": {"max_train_examples": 64, "max_eval_examples": 64, "mixtures_per_utterance": 1},
    "evaluate": {"max_examples": 8},
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study that the command line names.

    Args:
        argv: arguments; those of the process by default.
    """
    arguments = parse_arguments(argv)
    disable_progress_bar()  # that of loading weights, in milliseconds
    try:
        run_study(arguments)
    except StudyError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command again goes on from here")


def run_study(arguments: argparse.Namespace) -> None:
    """Plans the study, runs what is not done, and renders tables and figures.

    Args:
        arguments: what `parse_arguments` gives.

    Raises:
        StudyError: if the study is wrong, finished results have other settings, or a step or cell
            failed; the others that do not build on it are done then.
    """
    study = load_study(arguments.study)
    output_dir = arguments.output_dir.resolve()
    if arguments.smoke:
        output_dir /= "smoke"
        study["overrides"] = with_smoke(study["overrides"])
    folders = machine_folders(arguments)
    launcher = Launcher(arguments.accelerate_config, arguments.machine_rank)
    plan = plan_study(study, output_dir, arguments.folds, arguments.seeds, folders)
    plan = select_units(plan, arguments.only)
    check_cells(plan)
    done = [unit for unit in plan if is_done(unit)]
    # Another fold or seed will take as long.
    known_minutes = {unit_key(unit): read_record(unit)["minutes"] for unit in done}
    progress = StudyProgress(study["name"], plan, done, known_minutes)
    progress.print_plan(output_dir)
    if arguments.dry_run:
        print_costs(plan, launcher.processes)
        return
    with stopped_like_ctrl_c():
        claims = Claims(output_dir, arguments.stale_minutes)
        runner = StudyRunner(output_dir, launcher, progress, claims)
        try:
            if launcher.machine_rank > 0:
                follow(runner, plan, progress, claims)
                return
            failed = run_shared(runner, plan, progress, claims, wait=not arguments.no_wait)
            render(output_dir, claims, folders)
        finally:
            claims.close()
    if failed:
        raise StudyError(failure_report(failed, plan, is_done))


def with_smoke(overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides of a study, and over them those of `SMOKE`."""
    merged = dict(overrides)
    for kind, arguments in SMOKE.items():
        merged[kind] = {**merged.get(kind, {}), **arguments}
    return merged


def check_cells(plan: Sequence[Step | Cell]) -> None:
    """Finds the mistakes in the cells before the trainings take their hours.

    Args:
        plan: steps and cells.

    Raises:
        StudyError: if a cell has an argument that does not exist, or arguments that do not fit.
    """
    known = {field.name for field in dataclasses.fields(EvaluationOptions)}
    for cell in plan:
        if isinstance(cell, Step):
            continue
        for key in cell.arguments:
            if key not in known:
                raise StudyError(f"cell {cell.name}: unknown argument `{key}`{suggest(key, known)}")
        try:
            EvaluationOptions(**cell.arguments)
        except (TypeError, ValueError) as error:
            raise StudyError(f"cell {cell.name}: {error}") from error


class StudyRunner(Shared):
    """Runs the steps and cells of a study.

    Args:
        output_dir: folder of the study.
        launcher: how programs are started.
        progress: told how far a step is.
        claims: of this runner.
    """

    def __init__(
        self, output_dir: Path, launcher: Launcher, progress: StudyProgress, claims: Claims
    ) -> None:
        self.output_dir = output_dir
        self.launcher = launcher
        self.progress = progress
        self.claims = claims
        self.attempts = 0

    def is_done(self, unit: Step | Cell) -> bool:
        """See the function of that name."""
        return is_done(unit)

    def minutes(self, unit: Step | Cell) -> float:
        """What a finished step or cell took."""
        return float(read_record(unit)["minutes"])

    def log_path(self, unit: Step | Cell) -> Path:
        """Where the output of a step, or the error of a cell, goes."""
        name = unit.path.stem if isinstance(unit, Cell) else _log_name(unit)
        return self.output_dir / "logs" / f"{name}.log"

    def run(self, unit: Step | Cell, claim: Claim) -> None:
        """Runs a step in a process of its own, from its last checkpoint on, or scores a cell.

        Args:
            unit: step or cell.
            claim: under which it is run.

        Raises:
            StudyError: if the program of a step fails, with the end of its log, or another runner
                took the step over.
        """
        if isinstance(unit, Cell):
            labels = {**unit.labels, "fingerprint": unit.fingerprint}
            evaluate_checkpoint(labels, output=str(unit.path), **unit.arguments)
            return
        minutes = float(read_record(unit).get("minutes", 0.0))
        record = {"fingerprint": unit.fingerprint, "done": False, "minutes": minutes}
        write_json(unit.output_dir / STEP_RECORD, record)
        started = time.monotonic()
        try:
            run_again_if_killed(lambda: self._start_program(unit, claim))
            record["done"] = True
        finally:
            # The minutes of an attempt that was cut off count too.
            record["minutes"] = minutes + (time.monotonic() - started) / 60
            if not self.claims.is_lost(claim):
                write_json(unit.output_dir / STEP_RECORD, record)

    def join(self, step: Step, claim: Claim) -> None:
        """Runs this machine's part of a step that another machine leads.

        Args:
            step: what is run.
            claim: of the runner on that machine.

        Raises:
            StudyError: if the program fails, or the leader is gone.
        """

        def look() -> None:
            if not self.claims.is_held(self.claims.current(step.key)):
                raise StudyError(f"the machine that leads {step.key} has left it")

        rank = f".machine{self.launcher.machine_rank}.log"
        self._run_program(step, self.log_path(step).with_suffix(rank), look)

    def _start_program(self, step: Step, claim: Claim) -> None:
        config = {**step.config, "output_dir": str(step.output_dir)}
        text = yaml.safe_dump(config, sort_keys=False)
        (step.output_dir / CONFIG_NAME).write_text(text, encoding="utf-8")
        self.attempts += 1
        # What the other machines of this training wait for.
        self.claims.say(claim, "held", attempt=self.attempts, machines=self.launcher.machines)

        def look() -> None:
            if self.claims.is_lost(claim):
                raise StudyError(f"another runner took over {step.key}: it is left to that one")

        self._run_program(step, self.log_path(step), look)

    def _run_program(self, step: Step, log_path: Path, look: Callable[[], None]) -> None:
        """Runs the program of a step and looks now and then whether it should go on."""
        looked = time.monotonic()

        def report(fraction: float | None) -> None:
            nonlocal looked
            self.progress.update(step, fraction)
            if time.monotonic() - looked > RENEW_SECONDS:
                looked = time.monotonic()
                look()

        command = self.launcher.command(step, step.output_dir / CONFIG_NAME)
        run_logged(command, self.launcher.threads, log_path, report, marker=self.claims.runner)


def _log_name(step: Step) -> str:
    return f"{step.name}_{step.output_dir.parent.name}"


def render(output_dir: Path, claims: Claims, folders: dict[str, Any]) -> None:
    """Writes tables, figures and report of the cells that are there, one runner after the other.

    Args:
        output_dir: folder of the study.
        claims: of this runner.
        folders: where the corpora lie, for the examples in figures and report.
    """
    if not [*(output_dir / "cells").glob("*.json")]:
        return
    while (claim := claims.take("tables")) is None:
        time.sleep(1.0)
    try:
        with claims.renewed(claim):
            tables = write_tables(output_dir)
            write_figures(output_dir, **folders)
            report = write_report(output_dir, **folders)
    finally:
        claims.say(claim, "released")
    print(f"\n{tables}\nTables: {output_dir}/tables.md, figures: {output_dir}/figures")
    print(f"All of it on one page: {report}")


def failure_report(failed: dict[str, str], plan: Sequence[Step | Cell], done: Any) -> str:
    """What failed, and what was not run as it builds on that.

    Args:
        failed: message by key.
        plan: steps and cells.
        done: tells whether one is done.

    Returns:
        Text of several lines.
    """
    left = [unit.key for unit in plan if unit.key not in failed and not done(unit)]
    lines = [f"{key}: {message}" for key, message in failed.items()]
    lines.append(f"failed: {', '.join(failed)}")
    if left:
        lines.append(f"not run, as they build on that: {', '.join(left)}")
    lines.append("The rest is done. After the repair the same command goes on from here.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
