"""The table of results: one row a recording, on disk before the next one is looked at."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from types import TracebackType

from tse_ser.cli.errors import CommandError

COLUMNS = ["file", "status", "reason", "duration_seconds", "output"]
DONE, FAILED = "ok", "failed"


class ResultsTable:
    """A CSV file that grows row by row; a context manager.

    A row that a killed run left half written is taken away, and its recording has no row.

    Args:
        path (`Path`): the file; it is begun where it is missing.
        labels (`list[str]`): emotions, each of which has a column of probabilities.
        judges_presence (`bool`): whether there is a column that tells if the target was there.

    Raises:
        CommandError: the file has other columns.
    """

    def __init__(self, path: Path, labels: list[str], judges_presence: bool = False) -> None:
        self.path = path
        self.labels = labels
        emotions = ["emotion", *(f"probability_{label}" for label in labels)] if labels else []
        self.columns = [*COLUMNS, *emotions, *(["target_present"] if judges_presence else [])]
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

    def forget_failed(self) -> None:
        """Takes the rows of recordings away that could not be used."""
        self._file.close()
        self._rows = {name: row for name, row in self._rows.items() if row[1] == DONE}
        self._file = self._rewritten()

    def add_done(
        self,
        name: str,
        duration_seconds: float,
        output: str,
        probabilities: dict[str, float],
        target_present: bool | None = None,
    ) -> None:
        """Adds the row of a recording.

        Args:
            name (`str`): its path within the input.
            duration_seconds (`float`): its length.
            output (`str`): path of the extracted speech within the output.
            probabilities (`dict[str, float]`): of the table's emotions.
            target_present (`bool`, *optional*): for the column that tells it.
        """
        row = [name, DONE, "", f"{duration_seconds:.3f}", output]
        if self.labels:
            likeliest = max(probabilities, key=lambda label: probabilities[label])
            row += [likeliest, *(f"{probabilities[label]:.6f}" for label in self.labels)]
        if target_present is not None:
            row.append("yes" if target_present else "no")
        self._add(row)

    def add_failed(self, name: str, reason: str) -> None:
        """Adds the row of a recording that could not be used.

        Args:
            name (`str`): its path within the input.
            reason (`str`): why, and what to do.
        """
        row = [name, FAILED, " ".join(reason.split())]
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


def _as_line(row: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(row)
    return line.getvalue()
