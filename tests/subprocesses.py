"""Programs that the tests start, and what is said where one fails."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_program(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 300,
) -> str:
    """Runs a program that must end well; what it printed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    # The words of a command may be a whole program: its first ones tell it apart.
    assert done.returncode == 0, f"{command[:3]}:\n{done.stdout}\n{done.stderr[-5000:]}"
    return done.stdout
