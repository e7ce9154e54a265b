"""Ends the programs that a killed runner leaves behind: a process of its own, quick to start.

    python tse_ser/evaluation/guard.py MARKER          # waits for the end of its standard input

A runner that is killed cannot stop the training that it started, and another runner would start the
same training beside it. The runner holds the other end of this process's input: the input ends when
the runner does, however that happens.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

# In the environment of what a runner starts, and so of all that those programs start.
VARIABLE = "TSE_SER_STUDY_RUNNER"
POLITE_SECONDS = 10.0


def marked_processes(marker: str) -> list[int]:
    """Processes of this machine and user that have a marker in their environment.

    Args:
        marker: value of `VARIABLE`.

    Returns:
        Process ids.
    """
    wanted = f"{VARIABLE}={marker}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_marked_processes(marker: str) -> None:
    """Ends them, first politely, and waits until they are gone.

    Args:
        marker: value of `VARIABLE`.
    """
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        for process in marked_processes(marker):
            with contextlib.suppress(OSError):
                os.kill(process, signal_number)
        deadline = time.monotonic() + POLITE_SECONDS
        while marked_processes(marker) and time.monotonic() < deadline:
            time.sleep(0.05)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_marked_processes(sys.argv[1])
