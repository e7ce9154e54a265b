"""The paper's results, how a row of its tables is found, and the protocols of results."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

BEST_ON_TEST = "best_on_test"
PROTOCOLS = {
    "validated": "trained on all sessions but two, selected on one, tested on the other",
    "paper": "trained on all sessions but the tested one, last epoch",
    BEST_ON_TEST: "trained on all sessions but the tested one; the best epoch on that session: "
    "optimistic",
}
# What a name in Table VI says of the gender state, which Table V has a column for.
GENDER_SUFFIX = re.compile(r" \((same|different)\)$")


@cache
def paper_results() -> dict[str, Any]:
    """The content of `paper_results.json`: tables, extraction and differences of the paper."""
    path = Path(__file__).with_name("evaluation") / "paper_results.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def row_key(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """The labels that a row of a table goes by, whatever their case.

    Args:
        row (`Mapping[str, Any]`): of the paper or of ours.
        columns (`Sequence[str]`): of the table.

    Returns:
        `tuple[str, ...]`: a label a column; an empty one where the row has none.
    """
    labels = [known_label(row.get(column)).casefold() for column in columns]
    return tuple(
        GENDER_SUFFIX.sub("", label) if "gender_state" in columns else label for label in labels
    )


def known_label(value: Any) -> str:
    """A label as a word; nothing where there is none (None, or pandas' NaN)."""
    return "" if value is None or value != value else str(value)
