"""The table of results: one row a recording, on disk before the next one is looked at."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tse_ser.cli.errors import CommandError

COLUMNS = [
    *("file", "status", "reason", "stamp", "output", "duration_seconds", "speech_seconds"),
    *("answer", "target_present", "speaker_similarity", "mixture_similarity", "removed_db"),
    "warnings",
]
WORDS = {True: "yes", False: "no"}
DONE, FAILED = "ok", "failed"


class ResultsTable:
    """A CSV file that grows row by row; a context manager.

    A row that a killed run left half written is taken away, and its recording has no row.

    Args:
        path (`Path`): the file; it is begun where it is missing.
        labels (`list[str]`): emotions, each of which has a column of probabilities.

    Raises:
        CommandError: the file has other columns.
    """

    def __init__(self, path: Path, labels: list[str]) -> None:
        self.path = path
        self.labels = labels
        emotions = ["emotion", *(f"probability_{label}" for label in labels)] if labels else []
        self.columns = [*COLUMNS, *emotions]
        self._rows = self._read()
        self._file = self._rewritten()

    def __enter__(self) -> ResultsTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        """Whether a recording has its row."""
        return name in self._rows

    @property
    def failed(self) -> set[str]:
        """Recordings that could not be used."""
        return {name for name, row in self._rows.items() if row[1] == FAILED}

    def value(self, name: str, column: str) -> str:
        """What the row of a recording says."""
        return self._rows[name][self.columns.index(column)]

    def forget(self, names: Collection[str]) -> None:
        """Takes the rows of recordings away, by their paths within the input."""
        if not names:
            return
        self._file.close()
        self._rows = {name: row for name, row in self._rows.items() if name not in names}
        self._file = self._rewritten()

    def add_done(self, name: str, output: str, result: Mapping[str, Any], stamp: str) -> None:
        """Adds the row of a recording: its path within the input, that of the extracted
        speech within the output, the pipeline's details, and what tells this state of the
        recording from a later one."""
        values: dict[str, Any] = {
            **{column: result.get(column) for column in COLUMNS},
            "warnings": " ".join(warning["code"] for warning in result["warnings"]),
            "file": name,
            "status": DONE,
            "stamp": stamp,
            "output": output,
        }
        if self.labels:
            values["emotion"] = result["emotions"][0]["label"]
            for emotion in result["emotions"]:
                values[f"probability_{emotion['label']}"] = emotion["score"]
        self._add([_as_text(values.get(column)) for column in self.columns])

    def add_failed(self, name: str, reason: str, stamp: str) -> None:
        """Adds the row of a recording that could not be used: why, and what to do; `stamp`
        as in `add_done`."""
        row = [name, FAILED, " ".join(reason.split()), stamp]
        self._add(row + [""] * (len(self.columns) - len(row)))

    def _add(self, row: list[str]) -> None:
        self._rows[row[0]] = row
        # One write of a whole row, so that no other failure than a cut can tear it.
        self._file.write(_as_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> dict[str, list[str]]:
        if not self.path.is_file():
            return {}
        # Names of files are bytes to the system, not always text: they come back as they went.
        content = self.path.read_bytes().decode("utf-8", errors="surrogateescape")
        # What follows the last line break was cut off, even if it looks whole.
        header, *rows = list(csv.reader(io.StringIO(content[: content.rfind("\n") + 1]))) or [[]]
        if header and header != self.columns:
            raise CommandError(
                f"{self.path} has other columns than this model's results: name another --output"
            )
        return {
            row[0]: row
            for row in rows
            if len(row) == len(self.columns) and row[1] in (DONE, FAILED)
        }

    def _rewritten(self) -> io.TextIOWrapper:
        """The whole rows as a file, open for more."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        text = "".join(_as_line(row) for row in [self.columns, *self._rows.values()])
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        return self.path.open("a", encoding="utf-8", errors="surrogateescape", newline="")


def _as_text(value: Any) -> str:
    """A cell: numbers to six places, yes and no, and nothing where nothing is known."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return WORDS[value]
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _as_line(row: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()
