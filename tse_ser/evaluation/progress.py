"""What a running study says: its plan, where it is, and roughly how long it will take."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tse_ser.evaluation.study import Cell, Step

PRINT_EVERY_SECONDS = 20.0
TAIL_BYTES = 16_384
UnitKey = tuple[str, str]
# The bars of a training and of its validation, which have no title, and that of a denoising.
_BAR = re.compile(r"(?:^|[\r\n])(?:denoising:)? *\d+%\|[^|]*\| *(\d+)/(\d+) \[")


class StudyProgress:
    """Prints the progress of a study, a line now and then.

    Args:
        name: name of the study.
        plan: its steps and cells in their order.
        done: those of them that were done before this run.
        known_minutes: minutes that steps and cells took before, by `unit_key`.
    """

    def __init__(
        self,
        name: str,
        plan: Sequence[Step | Cell],
        done: Sequence[Step | Cell],
        known_minutes: Mapping[UnitKey, float],
    ) -> None:
        self.name = name
        self.plan = list(plan)
        self.waiting = [unit for unit in plan if unit not in done]
        self.known_minutes = dict(known_minutes)
        self.started = time.monotonic()
        self.unit_started = self.started
        self.printed = self.started

    def print_plan(self, output_dir: Path) -> None:
        """Prints every step and cell, and whether it is done."""
        done = len(self.plan) - len(self.waiting)
        say(f"Study {self.name}: {len(self.plan)} steps and cells, {done} done, in {output_dir}")
        for unit in self.plan:
            state = "to do" if unit in self.waiting else "done"
            say(f"  {state:>5}  {describe(unit)}")

    def start(self, unit: Step | Cell) -> None:
        """Says that a step or cell begins."""
        self.unit_started = self.printed = time.monotonic()
        position = self.plan.index(unit) + 1
        say(f"[{position}/{len(self.plan)}] {describe(unit)}{self._clock(unit, None)}")

    def update(self, unit: Step | Cell, fraction: float | None) -> None:
        """Says how far the running step is, at most once in `PRINT_EVERY_SECONDS`.

        Args:
            unit: what runs.
            fraction: the part that is done, 0 to 1; None if its program has not said.
        """
        if time.monotonic() - self.printed < PRINT_EVERY_SECONDS:
            return
        self.printed = time.monotonic()
        shown = "starting" if fraction is None else f"{fraction:.0%}"
        say(f"    {unit.name}: {shown}{self._clock(unit, fraction)}")

    def finish(self, unit: Step | Cell, minutes: float, elsewhere: bool = False) -> None:
        """Says that a step or cell is done, and keeps its minutes for the estimates.

        Args:
            unit: what is done.
            minutes: that it took.
            elsewhere: whether another runner did it.
        """
        self.waiting.remove(unit)
        self.known_minutes[unit_key(unit)] = minutes
        who = f"{describe(unit)} by another runner" if elsewhere else unit.name
        say(f"    {who}: done in {format_minutes(minutes)}")

    def remaining_minutes(self, unit: Step | Cell, fraction: float | None) -> float | None:
        """Rough minutes that the study still needs.

        A step or cell is expected to take what one of its name took, else the mean of its kind.

        Args:
            unit: what runs.
            fraction: the part of it that is done, 0 to 1; None if unknown.

        Returns:
            The minutes, or None while nothing is known about one of those that wait.
        """
        elapsed = (time.monotonic() - self.unit_started) / 60
        total = 0.0
        for waiting in self.waiting:
            if waiting == unit and fraction:
                total += elapsed / fraction - elapsed
                continue
            expected = self._expected_minutes(waiting)
            if expected is None:
                return None
            total += max(expected - elapsed, 0.0) if waiting == unit else expected
        return total

    def _expected_minutes(self, unit: Step | Cell) -> float | None:
        key = unit_key(unit)
        if key in self.known_minutes:
            return self.known_minutes[key]
        alike = [minutes for (kind, _), minutes in self.known_minutes.items() if kind == key[0]]
        return sum(alike) / len(alike) if alike else None

    def _clock(self, unit: Step | Cell, fraction: float | None) -> str:
        elapsed = format_minutes((time.monotonic() - self.started) / 60)
        remaining = self.remaining_minutes(unit, fraction)
        left = "" if remaining is None else f", about {format_minutes(remaining)} left"
        return f"  ({elapsed} gone{left})"


def unit_key(unit: Step | Cell) -> UnitKey:
    """What a step or cell has in common with that of another fold or seed: its kind and name."""
    return (unit.program if isinstance(unit, Step) else "evaluate", unit.name)


def say(line: str) -> None:
    """Prints a line at once, also where the output goes into a pipe."""
    print(line, flush=True)


def describe(unit: Step | Cell) -> str:
    """One line about a step or cell."""
    shared = {"fold": "all folds", "seed": "all seeds"}
    parts = [(name, getattr(unit, name)) for name in shared]
    where = ", ".join(shared[name] if value is None else f"{name} {value}" for name, value in parts)
    if isinstance(unit, Step):
        settings = [str(unit.config[key]) for key in ("stage", "condition") if key in unit.config]
        return f"{where}: {unit.program} {unit.name} {' '.join(settings)}".rstrip()
    tables = ", ".join(unit.labels.get("tables", []))
    return f"{where}: evaluate {unit.name}" + (f" (Table {tables})" if tables else "")


def fraction_done(log_path: Path, start: int) -> float | None:
    """How far a training or denoising is, read off the progress bars at the end of its log.

    Args:
        log_path: log of the running program.
        start: byte from which on the log is of this run.

    Returns:
        The part that is done, 0 to 1; None where there is no bar yet.
    """
    with log_path.open("rb") as log:
        end = log.seek(0, 2)
        log.seek(max(start, end - TAIL_BYTES))
        bars = _BAR.findall(log.read().decode("utf-8", errors="replace"))
    if not bars:
        return None
    # The training's bar counts further than the validation's.
    longest = max(int(total) for _, total in bars)
    done = max(int(done) for done, total in bars if int(total) == longest)
    return done / longest if longest else None


def format_minutes(minutes: float) -> str:
    """Minutes as `0:42`, `12:05` (minutes and seconds) or `3 h 07 min`."""
    seconds = round(minutes * 60)
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d}"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
