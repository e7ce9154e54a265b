"""Works off the steps and cells of a study, beside other runners: what is taken, and when."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tse_ser.evaluation import guard
from tse_ser.evaluation.claims import Claim, Claims, was_killed_here
from tse_ser.evaluation.progress import StudyProgress, say
from tse_ser.evaluation.study import Cell, Step, StudyError

WAIT_SECONDS = 3.0
Unit = Step | Cell


class Shared(Protocol):
    """What a study's runner can do with one step or cell."""

    def is_done(self, unit: Unit) -> bool:
        """Whether its result is there."""

    def minutes(self, unit: Unit) -> float:
        """What it took, once it is done."""

    def run(self, unit: Unit, claim: Claim) -> None:
        """Makes its result."""

    def join(self, step: Step, claim: Claim) -> None:
        """Helps another machine, which leads, to make it."""

    def log_path(self, unit: Unit) -> Path:
        """Where its errors go."""


def run_shared(
    runner: Shared, plan: Sequence[Unit], progress: StudyProgress, claims: Claims, *, wait: bool
) -> dict[str, str]:
    """Runs each step once those it builds on are done, and each cell once its steps are.

    Args:
        runner: runs one of them.
        plan: steps and cells, each after what it builds on.
        progress: told what begins and ends.
        claims: of this runner.
        wait: whether to wait for what other runners hold, or to stop where nothing else is left.

    Returns:
        What failed, here or with another runner since this one began: message by key.
    """
    failed: dict[str, str] = {}
    waiting_for = ""
    while True:
        note_what_is_done(runner, progress)
        undone = {unit.key for unit in progress.waiting}
        left = what_is_left(plan, undone, failed)
        ready = [unit for unit in left if not undone & {*unit.needs}]
        if not left:
            return failed
        if any(_attempt(runner, unit, progress, claims, failed) for unit in ready):
            continue
        holders = [
            f"{unit.key} ({claim.holder})" for unit in ready if (claim := claims.current(unit.key))
        ]
        said, waiting_for = waiting_for, ", ".join(holders)
        if not wait:
            say(f"Other runners hold all that can be done now: {waiting_for}. Stopping.")
            return failed
        if said != waiting_for:
            say(f"Waiting for other runners: {waiting_for}")
        time.sleep(WAIT_SECONDS)


def note_what_is_done(runner: Shared, progress: StudyProgress) -> None:
    """Tells the progress what other runners have done.

    Args:
        runner: knows what is done.
        progress: to be told.
    """
    for unit in list(progress.waiting):
        if runner.is_done(unit):
            progress.finish(unit, runner.minutes(unit), elsewhere=True)


def what_is_left(plan: Sequence[Unit], undone: set[str], failed: dict[str, str]) -> list[Unit]:
    """What is not done and builds on nothing that failed.

    Args:
        plan: steps and cells, each after what it builds on.
        undone: keys of those that are not done.
        failed: message by key.

    Returns:
        The rest, in the order of the plan.
    """
    blocked = {*failed}
    left = []
    for unit in plan:
        if blocked & {*unit.needs}:
            blocked.add(unit.key)
        elif unit.key in undone and unit.key not in blocked:
            left.append(unit)
    return left


def _attempt(
    runner: Shared, unit: Unit, progress: StudyProgress, claims: Claims, failed: dict[str, str]
) -> bool:
    """Runs a step or cell unless another runner has it; whether anything came of it."""
    last = claims.current(unit.key)
    if claims.failed_meanwhile(last):
        assert last is not None
        failed[unit.key] = f"{last.content['message']} ({last.holder})"
        return True
    claim = claims.take(unit.key)
    if claim is None:
        return False
    state, message = "released", ""
    try:
        if last is not None and was_killed_here(last):
            # Its programs take a moment to end.
            guard.end_marked_processes(last.content["runner"])
        if not runner.is_done(unit):
            progress.start(unit)
            with claims.renewed(claim):
                runner.run(unit, claim)
            progress.finish(unit, runner.minutes(unit))
        state = "done"
    except Exception as error:
        if claims.is_lost(claim):
            say(str(error))
            return True
        state, message = "failed", _message(error, runner.log_path(unit))
        failed[unit.key] = message
        say(f"    {unit.key} failed: {message}")
    finally:
        if not claims.is_lost(claim):
            claims.say(claim, state, message=message)
    return True


def _message(error: Exception, log_path: Path) -> str:
    """The message of an error that the programs foresee; of another one the trace goes to a log."""
    if isinstance(error, StudyError):
        return str(error)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("a", encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    return f"{type(error).__name__}: {error} (where: {log_path})"
