"""Starts the programs of a study with `accelerate launch`, follows their logs and stops them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from tse_ser.evaluation import guard
from tse_ser.evaluation.progress import fraction_done, say
from tse_ser.evaluation.study import REPOSITORY, Step, StudyError, read_yaml

POLL_SECONDS = 0.5
LOG_TAIL_LINES = 60
# How torchrun reports a process that a signal ended, and what a launcher without it returns.
KILLED = re.compile(r"exitcode +: -\d+")
PROGRAMS = {
    "train": ["train.py"],
    "denoise": ["-m", "tse_ser.training.denoise_corpus"],
}


class Launcher:
    """Starts the programs of a study with `accelerate launch`.

    Args:
        config: its YAML file; None for what accelerate finds by itself.
        machine_rank: of this machine, where a training runs on several; that of the file if None.

    Raises:
        StudyError: if the file is missing or no YAML.
    """

    def __init__(self, config: Path | None = None, machine_rank: int | None = None) -> None:
        # Quiet: the launcher's own traceback would hide the program's message.
        self.options = ["--quiet"]
        settings = {} if config is None else read_yaml(config)
        # Without a file accelerate takes every GPU that is there.
        found = max(1, torch.cuda.device_count()) if config is None else 1
        self.processes = int(settings.get("num_processes", found))
        self.machines = int(settings.get("num_machines", 1))
        self.machine_rank = int(settings.get("machine_rank", 0))
        if config is not None:
            self.options += ["--config_file", str(config.resolve())]
        if machine_rank is not None:
            self.machine_rank = machine_rank
            self.options += ["--machine_rank", str(machine_rank)]
        # accelerate gives a process one thread unless it is told otherwise.
        self.threads = max(
            1, len(os.sched_getaffinity(0)) // max(1, self.processes // self.machines)
        )

    def command(self, step: Step, config_path: Path) -> list[str]:
        """The command line of a step; a training goes on from its last complete checkpoint.

        Args:
            step: what to run.
            config_path: YAML file of its arguments.

        Returns:
            Program and arguments.
        """
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
    marker: str,
) -> None:
    """Runs a command from the repository's root, its output added to a log file.

    Args:
        command: program and arguments.
        threads: of each process, unless the environment says otherwise.
        log_path: where its output goes.
        report: called again and again with how far the program's progress bar is, 0 to 1.
        marker: tells the processes of this run from others; they end with it, however it ends.

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
        guard.VARIABLE: marker,
    }
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with guarded(marker), log_path.open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        start = log.tell()
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
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


@contextlib.contextmanager
def guarded(marker: str) -> Iterator[None]:
    """Has the processes of a marker ended when this process ends, even if it is killed.

    Args:
        marker: in the environment of those processes.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, marker],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert watcher.stdin is not None
        watcher.stdin.close()
        watcher.wait()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those it started, first politely.

    Args:
        process: leader of its session.
    """
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=guard.POLITE_SECONDS)


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
