"""The table of results: one row a recording, on disk before the next one is looked at."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

from tse_ser.cli.errors import CommandError

COLUMNS = [
    *("file", "status", "reason", "stamp", "output", "duration_seconds", "speech_seconds"),
    *("answer", "target_present", "speaker_similarity", "mixture_similarity", "rest_similarity"),
    *("removed_db", "warnings"),
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

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        """Whether a recording has its row."""
        return name in self._rows

    @property
    def failed(self) -> set[str]:
        """Recordings that could not be used."""
        return {name for name, row in self._rows.items() if row["status"] == FAILED}

    def value(self, name: str, column: str) -> str:
        """What the row of a recording says."""
        return self._rows[name][column]

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
        self._add({column: _as_text(values.get(column)) for column in self.columns})

    def add_failed(self, name: str, reason: str, stamp: str) -> None:
        """Adds the row of a recording that could not be used: why, and what to do; `stamp`
        as in `add_done`."""
        row = {"file": name, "status": FAILED, "reason": " ".join(reason.split()), "stamp": stamp}
        self._add(dict.fromkeys(self.columns, "") | row)

    def _add(self, row: dict[str, str]) -> None:
        self._rows[row["file"]] = row
        # One write of a whole row, so that no other failure than a cut can tear it.
        self._writer(self._file).writerow(row)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _writer(self, file: TextIO) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self.columns, lineterminator="\n")

    def _read(self) -> dict[str, dict[str, str]]:
        if not self.path.is_file():
            return {}
        # Names of files are bytes to the system, not always text: they come back as they went.
        content = self.path.read_bytes().decode("utf-8", errors="surrogateescape")
        # What follows the last line break was cut off, even if it looks whole.
        reader = csv.DictReader(io.StringIO(content[: content.rfind("\n") + 1]))
        if reader.fieldnames and reader.fieldnames != self.columns:
            raise CommandError(
                f"{self.path} has other columns than this model's results: name another --output"
            )
        whole = (row for row in reader if None not in (*row.keys(), *row.values()))
        return {row["file"]: row for row in whole if row["status"] in (DONE, FAILED)}

    def _rewritten(self) -> TextIO:
        """The whole rows as a file, open for more."""
        partial = self.path.with_name(f"{self.path.name}.partial")
        with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            self._writer(file).writeheader()
            self._writer(file).writerows(self._rows.values())
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
