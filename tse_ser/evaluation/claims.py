"""Who does what where several runners share one results folder, on one machine or on many.

A runner that takes a step or cell creates a numbered file, `claims/fold1_seed0-extractor.1.json`:
creating a file that must not exist yet is the one thing that every shared file system, NFS too,
grants to a single process. The holder renews the file's time; once it is done, failed or
interrupted it says so in the file. The next number may then be created, and so it may if the file
was not renewed for some minutes, or its process on this machine is gone. Of two runners that try,
one succeeds. Times are those that the file server writes, so that clocks need not agree.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "claims"
RENEW_SECONDS = 20.0


@dataclass(frozen=True)
class Claim:
    """A file that says who does a step or cell.

    Args:
        key: of the step or cell.
        number: counts the claims on it from 1.
        path: the file.
        content: runner, host, pid, machine, process_started, state ("held", "done", "failed",
            "released"), and what `Claims.say` added.
        renewed: when, by the clock of the folder.
    """

    key: str
    number: int
    path: Path
    content: dict[str, Any]
    renewed: float

    @property
    def holder(self) -> str:
        """Who holds it, for people."""
        return f"process {self.content.get('pid', '?')} on {self.content.get('host', '?')}"


class Claims:
    """The claims of one runner on the steps and cells of a results folder.

    Args:
        output_dir: the results folder, which the runners share.
        stale_minutes: a claim that was not renewed for so long is taken over.
    """

    def __init__(self, output_dir: Path, stale_minutes: float) -> None:
        self.folder = output_dir / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stale_seconds = 60 * stale_minutes
        self.runner = uuid.uuid4().hex[:12]
        self.clock = self.folder / f".clock-{self.runner}"
        self.started = self.now()

    def now(self) -> float:
        """Seconds by the clock that dates the files of the folder."""
        self.clock.touch()
        return self.clock.stat().st_mtime

    def close(self) -> None:
        """Takes away what only this runner needed."""
        self.clock.unlink(missing_ok=True)

    def current(self, key: str) -> Claim | None:
        """The last claim on a step or cell, whatever its state; None if there never was one."""
        prefix = _file_stem(key) + "."
        numbers = [
            int(name.removeprefix(prefix).removesuffix(".json"))
            for name in os.listdir(self.folder)
            if name.startswith(prefix) and name.removeprefix(prefix)[:-5].isdecimal()
        ]
        if not numbers:
            return None
        path = self.folder / f"{prefix}{max(numbers)}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            content = {"state": "held"}  # it was created this moment, or on a full disk
        return Claim(key, max(numbers), path, content, path.stat().st_mtime)

    def is_held(self, claim: Claim | None) -> bool:
        """Whether somebody works under a claim."""
        if claim is None or claim.content["state"] != "held":
            return False
        started = claim.content.get("process_started")
        if started is not None and claim.content["machine"] == this_machine():
            return process_started(claim.content["pid"]) == started
        return self.now() - claim.renewed < self.stale_seconds

    def failed_meanwhile(self, claim: Claim | None) -> bool:
        """Whether another runner failed with it since this one started: it would fail again."""
        if claim is None or claim.content["state"] != "failed":
            return False
        return claim.renewed > self.started

    def take(self, key: str) -> Claim | None:
        """Claims a step or cell, if nobody holds it.

        Args:
            key: of the step or cell.

        Returns:
            The claim, or None if another runner holds it.
        """
        last = self.current(key)
        if self.is_held(last):
            return None
        number = 1 if last is None else last.number + 1
        path = self.folder / f"{_file_stem(key)}.{number}.json"
        content = {
            "runner": self.runner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": this_machine(),
            "process_started": process_started(os.getpid()),
            "state": "held",
        }
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
        return Claim(key, number, path, content, path.stat().st_mtime)

    def say(self, claim: Claim, state: str, **facts: Any) -> None:
        """Writes how the work under a claim goes or ended.

        Args:
            claim: one of this runner.
            state: "held", "done", "failed" or "released".
            facts: what else others should know, such as the message of a failure.
        """
        draft = claim.path.with_suffix(f".{self.runner}")
        content = {**claim.content, "state": state, **facts}
        draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
        draft.replace(claim.path)

    def is_lost(self, claim: Claim) -> bool:
        """Whether another runner took it over, as this one was thought dead."""
        last = self.current(claim.key)
        return last is not None and last.number > claim.number

    @contextlib.contextmanager
    def renewed(self, claim: Claim) -> Iterator[None]:
        """Renews a claim in the background while the work under it goes on."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEW_SECONDS):
                # A file server that is away for a while ends no training.
                with contextlib.suppress(OSError):
                    os.utime(claim.path)

        thread = threading.Thread(target=renew, name="renew the claim", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def was_killed_here(claim: Claim) -> bool:
    """Whether a claim that nobody holds any more is of a process of this machine that was killed.

    Args:
        claim: that `Claims.is_held` denies.
    """
    return claim.content["state"] == "held" and claim.content.get("machine") == this_machine()


def this_machine() -> str:
    """What tells the machine, and the container on it, whose process ids are meant."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return " ".join(parts)


def process_started(pid: int) -> str | None:
    """When a process of this machine began, as the kernel counts; None if there is none.

    A process id alone may have been given to another program since.

    Args:
        pid: process id.
    """
    try:
        # The name, in parentheses, may hold spaces; the state follows it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _file_stem(key: str) -> str:
    return key.replace("/", "-")
