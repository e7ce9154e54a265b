"""A table as words, and how numbers become words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tse_ser.evaluation.bootstrap import Interval


@dataclass(frozen=True)
class Table:
    """A table as words.

    Attributes:
        name (`str`): short name, such as "table_ii".
        title (`str`): what it shows.
        header (`list[str]`): heading of each column.
        rows (`list[list[str]]`): cells, empty where nothing is known.
        text_columns (`int`): the first so many columns are words, the others numbers.
    """

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    text_columns: int


@dataclass(frozen=True)
class Section:
    """The results on one set of target corpora under one protocol.

    Attributes:
        title (`str`): heading.
        paragraphs (`list[str]`): what was done, and how to read it.
        tables (`list[Table]`): in order.
    """

    title: str
    paragraphs: list[str]
    tables: list[Table]


def interval_text(found: Interval | None, factor: float = 100) -> str:
    """An interval as words.

    Args:
        found (`Interval`, optional): what is written; nothing for None.
        factor (`float`): brings it to the unit of the table.

    Returns:
        `str`: such as "43.0 to 62.3".
    """
    return "" if found is None else f"{factor * found.low:.1f} to {factor * found.high:.1f}"


def known(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The values of a field where it is known."""
    return [row[name] for row in rows if row[name] is not None]


def summary(values: Sequence[float]) -> str:
    """Mean with the standard deviation of several runs; empty without a value."""
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def number(value: float | None) -> str:
    """A figure of the paper; empty where it has none."""
    return "" if value is None else f"{value:.2f}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{value:+.2f}"


def without_empty(table: Table, *headings: str) -> Table:
    """A table without those of the named columns that are empty in every row.

    Args:
        table (`Table`): the table.
        headings (`str`): of the columns that may go.

    Returns:
        `Table`: what is left.
    """
    for heading in headings:
        table = _without(table, heading)
    return table


def _without(table: Table, heading: str) -> Table:
    column = table.header.index(heading)
    if any(row[column] for row in table.rows):
        return table
    header, *rows = [row[:column] + row[column + 1 :] for row in (table.header, *table.rows)]
    text_columns = table.text_columns - (column < table.text_columns)
    return Table(table.name, table.title, header, rows, text_columns)
