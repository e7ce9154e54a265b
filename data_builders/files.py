"""Files: tables that are read, and what is written while other processes may read it."""

from __future__ import annotations

import csv
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_builders.option_reader import OptionError
from data_builders.schema import CorpusError


def make_folder(folder: str | Path, option: str) -> Path:
    """Makes the folder that a program writes into.

    `option` is the flag that names it, or a file in it, for messages. Raises `OptionError` where it
    cannot be made, or cannot be written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"{option} {folder} cannot be made ({error.strerror}): name another folder"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise OptionError(f"{option} {folder} cannot be written to: name another folder")
    return path


def check_output(file: str | Path, option: str = "--output") -> None:
    """Refuses a file that cannot be written, before the work for it is done; its folder is made.

    `option` is the flag that names it. Raises `OptionError` where the folder cannot be made or
    written to, or the file is a folder itself.
    """
    make_folder(Path(file).parent, option)
    if Path(file).is_dir():
        raise OptionError(f"{option} {file} is a folder: name a file")


def read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Reads a CSV file with a header, every value as text without blanks around it.

    Returns the names of the columns, and the rows. Raises `CorpusError` where it cannot be read, is
    not UTF-8, or a row has too few values or too many.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            content = [[value.strip() for value in line] for line in csv.reader(file)]
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise CorpusError(f"{path}: cannot be read as a table ({error}); check the path") from error
    header, *lines = [line for line in content if line] or [[]]
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise CorpusError(
                f"{path}, row {number}: {len(line)} values for {len(header)} columns; a comma "
                f"inside a value needs quotes around it, and a file that was cut off has to be "
                f"fetched again"
            )
    return header, [dict(zip(header, line, strict=True)) for line in lines]


def short_digest(*parts: str | bytes) -> str:
    """24 hexadecimal digits: the name of what is known by the parts that it was made of."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:24]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a name to write a file under; it gets its own once it is complete.

    Other processes see the whole file or none. Who may read it is what the umask says, other than
    for the files of `tempfile`, which are their owner's alone. Its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
