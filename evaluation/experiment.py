"""Runs a whole study: trainings, denoised corpora, cells, tables and figures.

    python -m evaluation.experiment --study recipes/generated/study.yaml --output_dir results/demo

What is done is skipped, what was cut off goes on from its last checkpoint: the same command again
finishes an interrupted study. Results: `cells/*.json`, `tables.md`, `figures/`; beside them the
trained models (`steps/`) and what they printed (`logs/`).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers.utils.logging import disable_progress_bar

from evaluation.evaluate_checkpoint import EvaluationArguments, evaluate_checkpoint
from evaluation.figures import write_figures
from evaluation.progress import StudyProgress, fraction_done, say, unit_key
from evaluation.study import (
    REPOSITORY,
    Cell,
    Step,
    StudyError,
    load_study,
    plan_study,
    read_yaml,
    suggest,
)
from evaluation.tables import write_tables

POLL_SECONDS = 0.5
LOG_TAIL_LINES = 60
# How torchrun reports a process that a signal ended, and what a launcher without it returns.
KILLED = re.compile(r"exitcode +: -\d+")
STEP_RECORD = "step.json"  # in a step's folder: whether it is done, with which settings
PROGRAMS = {
    "train": ["train.py"],
    "denoise": ["-m", "training.denoise_corpus"],
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


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line of the study runner."""
    parser = argparse.ArgumentParser(description="Run a study; what is done already is skipped.")
    parser.add_argument("--study", required=True, type=Path, help="YAML file of the study")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder of its results")
    parser.add_argument("--folds", nargs="+", type=int, help="these folds only")
    parser.add_argument("--seeds", nargs="+", type=int, help="these seeds only")
    parser.add_argument(
        "--corpus_dir", help="folder that holds the corpora (ravdess/, emodb/, ...)"
    )
    parser.add_argument(
        "--accelerate_config",
        type=Path,
        help="YAML file for `accelerate launch`, such as recipes/accelerate/cpu_2_processes.yaml",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the plan and stop")
    return parser.parse_args(argv)


def run_study(arguments: argparse.Namespace) -> None:
    """Plans the study, runs what is not done, and renders tables and figures.

    Args:
        arguments: what `parse_arguments` gives.

    Raises:
        StudyError: if the study is wrong, a step fails, or finished results have other settings.
    """
    output_dir = arguments.output_dir.resolve()
    overrides = (
        {"corpus_dir": str(Path(arguments.corpus_dir).resolve())} if arguments.corpus_dir else {}
    )
    study = load_study(arguments.study)
    launcher = Launcher(arguments.accelerate_config)
    plan = plan_study(study, output_dir, arguments.folds, arguments.seeds, overrides)
    check_cells(plan)
    done = [unit for unit in plan if is_done(unit)]
    # Another fold or seed will take as long.
    known_minutes = {unit_key(unit): read_record(unit)["minutes"] for unit in done}
    progress = StudyProgress(study["name"], plan, done, known_minutes)
    progress.print_plan(output_dir)
    if arguments.dry_run:
        return
    with only_run_in(output_dir), stopped_like_ctrl_c():
        for unit in plan:
            if is_done(unit):
                continue
            progress.start(unit)
            if isinstance(unit, Step):
                run_step(unit, output_dir, launcher, progress)
            else:
                labels = {**unit.labels, "fingerprint": unit.fingerprint}
                evaluate_checkpoint(labels, output=str(unit.path), **unit.arguments)
            progress.finish(unit, read_record(unit)["minutes"])
        tables = write_tables(output_dir)
        write_figures(output_dir, corpus_dir=overrides.get("corpus_dir"))
    print(f"\n{tables}\nTables: {output_dir}/tables.md, figures: {output_dir}/figures")


def check_cells(plan: Sequence[Step | Cell]) -> None:
    """Finds the mistakes in the cells before the trainings take their hours.

    Raises:
        StudyError: if a cell has an argument that does not exist, or arguments that do not fit.
    """
    known = {field.name for field in dataclasses.fields(EvaluationArguments)}
    for cell in plan:
        if isinstance(cell, Step):
            continue
        for key in cell.arguments:
            if key not in known:
                raise StudyError(f"cell {cell.name}: unknown argument `{key}`{suggest(key, known)}")
        try:
            EvaluationArguments(**cell.arguments)
        except (TypeError, ValueError) as error:
            raise StudyError(f"cell {cell.name}: {error}") from error


def is_done(unit: Step | Cell) -> bool:
    """Whether the result of a step or cell is complete and made with these settings.

    Raises:
        StudyError: if a step has a result or checkpoint that was made with other settings. A cell
            with other settings is simply not done: it takes seconds, a training perhaps a night.
    """
    record = read_record(unit)
    same = record.get("fingerprint") == unit.fingerprint
    if isinstance(unit, Cell):
        return same
    if record and not same and (record["done"] or [*unit.output_dir.glob("checkpoint-*")]):
        raise StudyError(
            f"{unit.output_dir} was made with other settings (its config.yaml): delete this folder "
            "to make it again, or give another --output_dir"
        )
    return same and bool(record["done"])


def run_step(step: Step, output_dir: Path, launcher: Launcher, progress: StudyProgress) -> None:
    """Runs one training or denoising in a process of its own, from its last checkpoint on.

    Args:
        step: what to run.
        output_dir: folder of the study: the log goes into its `logs`.
        launcher: how programs are started.
        progress: told how far the step is.

    Raises:
        StudyError: if the program fails, with the end of its log.
    """
    minutes = float(read_record(step).get("minutes", 0.0))
    record = {"fingerprint": step.fingerprint, "done": False, "minutes": minutes}
    write_json(step.output_dir / STEP_RECORD, record)
    config_path = step.output_dir / "config.yaml"
    config = {**step.config, "output_dir": str(step.output_dir)}
    config_path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    log_path = output_dir / "logs" / f"{step.name}_fold{step.fold}_seed{step.seed}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        command = launcher.command(step, config_path)
        run_again_if_killed(
            lambda: run_logged(
                command, launcher.threads, log_path, lambda f: progress.update(step, f)
            )
        )
        record["done"] = True
    finally:
        # The minutes of an attempt that was cut off count too.
        record["minutes"] = minutes + (time.monotonic() - started) / 60
        write_json(step.output_dir / STEP_RECORD, record)


class Launcher:
    """Starts the programs of a study with `accelerate launch`.

    Args:
        config: its YAML file; None for what accelerate finds by itself.

    Raises:
        StudyError: if the file is missing or no YAML.
    """

    def __init__(self, config: Path | None = None) -> None:
        # Quiet: the launcher's own traceback would hide the program's message.
        self.options = ["--quiet"]
        processes = 1
        if config is not None:
            processes = int(read_yaml(config).get("num_processes", 1))
            self.options += ["--config_file", str(config.resolve())]
        # accelerate gives a process one thread unless it is told otherwise.
        self.threads = max(1, len(os.sched_getaffinity(0)) // processes)

    def command(self, step: Step, config_path: Path) -> list[str]:
        """The command line of a step; a training goes on from its last complete checkpoint."""
        command = [sys.executable, "-m", "accelerate.commands.launch", *self.options]
        command += [*PROGRAMS[step.program], "--config", str(config_path)]
        if step.program == "train":
            command += ["--resume_from_checkpoint", "auto"]
        return command


class KilledError(StudyError):
    """A program that a signal ended, not an error of its own."""


def run_again_if_killed(run: Callable[[], None]) -> None:
    """Runs a program, and once more if a signal ended it: it goes on from its last checkpoint.

    A machine that takes back memory, or a library that aborts while it shuts down, should not end
    a night of trainings. A program that fails by itself would only fail again.

    Args:
        run: runs the program.

    Raises:
        StudyError: if the program fails, or is killed twice.
    """
    try:
        run()
    except KilledError as error:
        say(f"{error}\nA signal ended it: going on from its last checkpoint")
        run()


def run_logged(
    command: Sequence[str],
    threads: int,
    log_path: Path,
    report: Callable[[float | None], None],
) -> None:
    """Runs a command from the repository's root, its output added to a log file.

    Args:
        command: program and arguments.
        threads: of each process, unless the environment says otherwise.
        log_path: where its output goes.
        report: called again and again with how far the program's progress bar is, 0 to 1.

    Raises:
        StudyError: if the command fails, with the end of the log.
        KilledError: if a signal ended it.
    """
    # A bar that redraws ten times a second would fill the log.
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TQDM_MININTERVAL": "5",
        "PYTHONFAULTHANDLER": "1",  # where in the program a signal struck
        **os.environ,
    }
    with log_path.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            close_fds=False,  # the lock on the results folder goes along
        )
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                report(fraction_done(log_path, start))
        finally:
            stop(process)
    if process.returncode != 0:
        tail = "\n".join(log_path.read_text(encoding="utf-8").splitlines()[-LOG_TAIL_LINES:])
        killed = process.returncode < 0 or KILLED.search(tail) is not None
        raise (KilledError if killed else StudyError)(
            f"the command failed with exit code {process.returncode}:\n{tail}\n"
            f"The whole log: {log_path}. After the repair the same command goes on from here."
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those it started, first politely."""
    for send in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, send)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


@contextlib.contextmanager
def stopped_like_ctrl_c() -> Iterator[None]:
    """Lets SIGTERM stop the study as Ctrl-C does, so that no training is left behind."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def only_run_in(output_dir: Path) -> Iterator[None]:
    """Holds the results folder for this run; a second run waits for the first."""
    output_dir.mkdir(parents=True, exist_ok=True)
    # The trainings inherit it: one that outlives a killed runner still holds the folder.
    with (output_dir / ".lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run works in {output_dir}: waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_record(unit: Step | Cell) -> dict[str, Any]:
    """What is on disk about a step or cell: its fingerprint and minutes, or nothing."""
    return read_json(unit.path if isinstance(unit, Cell) else unit.output_dir / STEP_RECORD)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content; empty where it is missing or was cut off."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    main()
