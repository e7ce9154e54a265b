r"""Writes the tables of a study in LaTeX, for `\input` in a paper that loads booktabs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tse_ser.evaluation.table_words import Section, Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "†": r"\textsuperscript{\dag}",
    "→": r"$\rightarrow$",
}
# Printed as mathematics, so that a minus is no hyphen.
SIGNED_NUMBER = re.compile(r"(?<!\S)[+-]\d+(\.\d+)?(?!\S)")


def latex_document(sections: Sequence[Section]) -> str:
    """All tables as LaTeX floats, to be read by `\\input`.

    Args:
        sections (sequence of `Section`): what `build_sections` gives.

    Returns:
        `str`: LaTeX; it needs the package booktabs.
    """
    parts = ["% Needs \\usepackage{booktabs}."]
    for index, section in enumerate(sections):
        comments = [section.title, *section.paragraphs]
        parts.append("\n".join(f"% {line}" for line in comments))
        # A label is used once in a document, and a document may hold several sections.
        prefix = f"{index + 1}:" if len(sections) > 1 else ""
        parts += [latex_table(table, f"tab:{prefix}{table.name}") for table in section.tables]
    return "\n\n".join(parts) + "\n"


def latex_table(table: Table, label: str) -> str:
    """One table as a LaTeX float with booktabs' rules.

    Args:
        table (`Table`): the table.
        label (`str`): for `\\ref`.

    Returns:
        `str`: LaTeX.
    """
    numbers = len(table.header) - table.text_columns
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        f"  \\caption{{{escape(table.title)}}}",
        f"  \\label{{{label}}}",
        f"  \\begin{{tabular}}{{{'l' * table.text_columns + 'r' * numbers}}}",
        r"    \toprule",
        _row(table.header),
        r"    \midrule",
        *[_row(row) for row in table.rows],
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Text as LaTeX prints it.

    Args:
        text (`str`): any words.

    Returns:
        `str`: the same with LaTeX's own characters escaped.
    """
    escaped = "".join(SPECIAL.get(character, character) for character in text)
    return SIGNED_NUMBER.sub(r"$\g<0>$", escaped)


def _row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(escape(cell) for cell in cells)} \\\\"
