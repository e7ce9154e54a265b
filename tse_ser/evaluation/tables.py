"""Renders Tables II to VI and the extraction quality from the cells of one or several studies.

    python -m tse_ser.evaluation.tables --results results/ravdess --output docs/results.md

The rows are those of the paper (`paper_results.json`); ours stand beside its figures, and a row
that was not run is empty. A cell that the paper does not have gets a row of its own. Beside the
Markdown file goes one of LaTeX tables, with the suffix .tex.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tse_ser.evaluation.bootstrap import Cells
from tse_ser.evaluation.cells import Folder, as_folders, load_cells, load_paper_results, read_json
from tse_ser.evaluation.latex_tables import latex_document
from tse_ser.evaluation.study_tables import build_sections
from tse_ser.evaluation.table_words import Section, Table

__all__ = [
    "load_cells",
    "load_paper_results",
    "render_tables",
    "training_minutes",
    "write_tables",
]


def render_tables(cells: Cells, minutes: float | None = None) -> str:
    """All tables of one or several studies in Markdown, corpora and protocols apart.

    Args:
        cells (sequence of mappings): what `load_cells` gives.
        minutes (`float`, optional): spent on all trainings, for the caption.

    Returns:
        `str`: Markdown.
    """
    return _markdown_document(build_sections(cells, minutes))


def write_tables(
    results_dirs: Folder | Sequence[Folder],
    output_file: Folder | None = None,
    notes_file: Folder | None = None,
) -> str:
    """Renders the tables of one or several studies into a Markdown and a LaTeX file.

    Args:
        results_dirs (path or sequence of paths): folders of studies.
        output_file (path, optional): Markdown file; default: `tables.md` in the first folder. The
            LaTeX file is named like it.
        notes_file (path, optional): Markdown to put below the tables.

    Returns:
        `str`: the Markdown that was written.
    """
    folders = as_folders(results_dirs)
    sections = build_sections(load_cells(folders), training_minutes(folders))
    text = _markdown_document(sections)
    if notes_file is not None:
        text += "\n" + Path(notes_file).read_text(encoding="utf-8")
    path = Path(output_file) if output_file is not None else folders[0] / "tables.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".tex").write_text(latex_document(sections), encoding="utf-8")
    return text


def training_minutes(folders: Sequence[Path]) -> float | None:
    """Minutes that the steps of studies took.

    Args:
        folders (sequence of `Path`): folders of studies.

    Returns:
        `float`: their sum; None where no step is on record.
    """
    records = [read_json(path) for folder in folders for path in folder.glob("steps/*/*/step.json")]
    return sum(record["minutes"] for record in records) if records else None


def _markdown_document(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        parts += [f"# {section.title}", *section.paragraphs]
        for table in section.tables:
            parts += [f"## {table.title}", _markdown(table)]
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    columns = range(len(table.header))
    rule = [":---" if index < table.text_columns else "---:" for index in columns]
    lines = [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        for cells in (table.header, rule, *table.rows)
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Renders the tables that the command line asks for and prints them."""
    parser = argparse.ArgumentParser(description="Render the tables of studies.")
    parser.add_argument(
        "--results", required=True, action="append", help="folder of a study; may be given again"
    )
    parser.add_argument("--output", help="Markdown file; default: tables.md in the first folder")
    parser.add_argument("--notes", help="Markdown file to put below the tables")
    arguments = parser.parse_args(argv)
    print(write_tables(arguments.results, arguments.output, arguments.notes))


if __name__ == "__main__":
    main()
