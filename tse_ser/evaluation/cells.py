"""Reads the cells of studies, and sorts them by what may be compared."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tse_ser.evaluation.bootstrap import Cells

Folder = str | os.PathLike[str]
PROTOCOLS = {
    "validated": "trained on all sessions but two, selected on one, tested on the other",
    "paper": "trained on all sessions but the tested one, last epoch",
    "best_on_test": "trained on all sessions but the tested one; the best epochs on that session, "
    "one for WA and one for UA: optimistic",
}
# Table I of the paper, for cells that do not name their method.
METHODS = {"SB": "TSE-SER-base", "SB_SC": "TSE-SER-base", "SB+SC": "TSE-SER-ft"}
# What a Table VI name says of the gender state, which Table V has a column for.
GENDER_SUFFIX = re.compile(r" \((same|different)\)$", re.IGNORECASE)


def load_cells(results_dirs: Folder | Sequence[Folder]) -> list[dict[str, Any]]:
    """The cells of one or several studies, one a file, fold and seed.

    Args:
        results_dirs (path or sequence of paths): folders of studies, with `cells/*.json`.

    Returns:
        The content of each file, by folder and file name. A cell that several folders hold, as
        machines that shared a study do, counts once.

    Raises:
        FileNotFoundError: a folder holds no cell.
        ValueError: a file is no JSON, or two folders hold one cell with different settings.
    """
    cells: dict[Any, tuple[Path, dict[str, Any]]] = {}
    for results_dir in as_folders(results_dirs):
        folder = results_dir / "cells"
        paths = sorted(folder.glob("*.json"))
        if not paths:
            raise FileNotFoundError(
                f"{folder} holds no cell: run `python -m tse_ser.evaluation.experiment`."
            )
        for path in paths:
            cell = read_json(path)
            key = (section_of(cell), cell.get("name"), cell.get("fold"), cell.get("seed"))
            earlier = cells.setdefault(key, (path, cell))
            if earlier[0] != path and earlier[1].get("fingerprint") != cell.get("fingerprint"):
                raise ValueError(
                    f"{earlier[0]} and {path} are the same cell, made with different settings: "
                    "give one of the two folders."
                )
    return [cell for _, cell in cells.values()]


def as_folders(results_dirs: Folder | Sequence[Folder]) -> list[Path]:
    """One folder or several as a list.

    Args:
        results_dirs (path or sequence of paths): folders of studies.

    Returns:
        `list[Path]`: the folders.
    """
    one = isinstance(results_dirs, (str, os.PathLike))
    folders = [results_dirs] if one else results_dirs
    return [Path(folder) for folder in folders]  # type: ignore[union-attr, arg-type]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's content.

    Args:
        path (`Path`): the file.

    Returns:
        `dict[str, Any]`: its content.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}): delete it and run the study") from None


def section_of(cell: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """What results must have in common to stand in one table: target corpora and protocol.

    Args:
        cell (mapping): a cell.

    Returns:
        `tuple`: names of the corpora, and the protocol.
    """
    return tuple(names(cell.get("targets"))), cell.get("protocol", "validated")


def names(value: str | Sequence[str] | None) -> Sequence[str]:
    """One name, several or none as a sequence."""
    return (value,) if isinstance(value, str) else value or ()


def of_table(cells: Cells, table: str) -> Cells:
    """The cells of a table; a cell with a condition of its own belongs to none.

    Args:
        cells (sequence of mappings): cells of one section.
        table (`str`): "II" to "VI".

    Returns:
        The cells that were classified and name the table.
    """
    return [
        cell
        for cell in cells
        if table in (cell.get("tables") or ())
        and cell["wa"] is not None
        and not cell.get("condition_label")
    ]


def extraction_cells(cells: Cells) -> Cells:
    """The cells that tell how well an extractor works on the tables' mixtures.

    Args:
        cells (sequence of mappings): cells of one section.

    Returns:
        Cells with SI-SDRi and their `method`. An extractor may be scored alone and again with a
        classifier behind it: it counts once.
    """
    unique = {}
    for cell in cells:
        if cell["si_sdri_db"] is not None and not cell.get("condition_label"):
            method = cell.get("method") or METHODS.get(cell["model"], cell["model"])
            unique[method, cell["gender_state"], cell["fold"], cell["seed"]] = cell
    return [{**cell, "method": key[0]} for key, cell in unique.items()]


def row_key(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """The labels that a row of a table goes by, whatever their case.

    Args:
        row (mapping): a cell, or a row of `paper_results.json`.
        columns (sequence of `str`): the table's label columns.

    Returns:
        `tuple[str, ...]`: a label a column.
    """
    labels = [str(row.get(column) or "") for column in columns]
    if "gender_state" in columns:
        labels = [GENDER_SUFFIX.sub("", label) for label in labels]
    return tuple(label.casefold() for label in labels)


def matched_rows(
    table: Mapping[str, Any], cells: Cells
) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """The paper's rows with our cells, then the cells that the paper does not have.

    Args:
        table (mapping): of `paper_results.json`, with `columns` and `rows`.
        cells (sequence of mappings): cells of the table.

    Returns:
        Each row with its cells, none where it was not run.
    """
    columns = table["columns"]
    rows: dict[tuple[str, ...], Mapping[str, Any]] = {
        row_key(row, columns): row for row in table["rows"]
    }
    ours: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        key = row_key(cell, columns)
        rows.setdefault(key, {column: cell.get(column) for column in columns})
        ours.setdefault(key, []).append(cell)
    return [(row, ours.get(key, [])) for key, row in rows.items()]


def load_paper_results() -> dict[str, Any]:
    """The paper's figures of Tables II-VI and of its SI-SDR, with their source."""
    return read_json(Path(__file__).with_name("paper_results.json"))


def joined(values: Iterable[Any]) -> str:
    """Different values in order, as words."""
    return ", ".join(str(value) for value in sorted(set(values))) or "none"
