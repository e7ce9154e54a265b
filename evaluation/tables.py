"""Renders Tables II, III and IV and the extraction quality from the cells of a study.

    python -m evaluation.tables --results results/ravdess --output docs/results.md

The rows are those of the paper (`paper_results.json`); ours stand beside its figures, and a row
that was not run is empty. A cell that the paper does not have gets a row of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

TABLES = ("II", "III", "IV")
HEADINGS = {
    "model": "Model",
    "method": "Method",
    "train_set": "Train set",
    "test_set": "Test set",
    "gender_state": "Gender state",
}
PROTOCOLS = {
    "validated": "trained on all sessions but two, selected on one, tested on the other",
    "paper": "trained on all sessions but the tested one, last epoch",
    "best_on_test": "best epoch on the test session: optimistic",
}
Cells = Sequence[Mapping[str, Any]]


def load_cells(results_dir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The cells of a study, one a file, fold and seed.

    Args:
        results_dir (path): folder of the study, with `cells/*.json`.

    Returns:
        The content of each file, sorted by file name.

    Raises:
        FileNotFoundError: no cell is there.
        ValueError: a file is no JSON.
    """
    folder = Path(results_dir) / "cells"
    cells = [_read_json(path) for path in sorted(folder.glob("*.json"))]
    if not cells:
        raise FileNotFoundError(f"{folder} holds no cell: run `python -m evaluation.experiment`.")
    return cells


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}): delete it and run the study") from None


def render_tables(cells: Cells, training_minutes: float | None = None) -> str:
    """All tables of a study in Markdown, each protocol apart.

    Args:
        cells (sequence of mappings): what `load_cells` gives.
        training_minutes (`float`, optional): spent on all trainings, for the caption.

    Returns:
        `str`: Markdown.
    """
    paper = load_paper_results()
    parts = []
    for protocol in sorted({cell["protocol"] for cell in cells}):
        chosen = [cell for cell in cells if cell["protocol"] == protocol]
        parts.append(_caption(chosen, protocol, paper, training_minutes))
        for name in TABLES:
            parts.append(f"## Table {name}. {paper['tables'][name]['title']}")
            parts.append(_accuracy_table(paper["tables"][name], _of_table(chosen, name)))
        parts.append(f"## {paper['extraction']['title']}")
        parts.append(_extraction_table(paper["extraction"], chosen))
        breakdown = _breakdown_table(chosen)
        if breakdown:
            parts += ["## SI-SDRi (dB) by interferer", breakdown]
    return "\n\n".join(parts) + "\n"


def write_tables(
    results_dir: str | os.PathLike[str],
    output_file: str | os.PathLike[str] | None = None,
    notes_file: str | os.PathLike[str] | None = None,
) -> str:
    """Renders the tables of a study into a file.

    Args:
        results_dir (path): folder of the study.
        output_file (path, optional): Markdown file; default: `tables.md` in the folder.
        notes_file (path, optional): Markdown to put below the tables.

    Returns:
        `str`: the Markdown that was written.
    """
    text = render_tables(load_cells(results_dir), _training_minutes(Path(results_dir)))
    if notes_file is not None:
        text += "\n" + Path(notes_file).read_text(encoding="utf-8")
    path = Path(output_file) if output_file is not None else Path(results_dir) / "tables.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return text


def load_paper_results() -> dict[str, Any]:
    """The paper's figures of Tables II-VI and of its SI-SDR, with their source."""
    return _read_json(Path(__file__).with_name("paper_results.json"))


def _of_table(cells: Cells, name: str) -> Cells:
    return [cell for cell in cells if name in cell.get("tables", ()) and cell["wa"] is not None]


def _accuracy_table(table: Mapping[str, Any], cells: Cells) -> str:
    columns = table["columns"]
    header = [HEADINGS[column] for column in columns]
    header += ["WA (%)", "UA (%)", "Paper's WA (%) †", "Paper's UA (%) †", "Utterances"]
    rows = []
    for row, ours in _matched_rows(table, cells):
        figures = [_summary([100 * cell[name] for cell in ours]) for name in ("wa", "ua")]
        figures += [_number(row.get(name)) for name in ("wa_percent", "ua_percent")]
        utterances = sum(cell["num_examples"] for cell in ours)
        rows.append([row[name] or "" for name in columns] + figures + [str(utterances or "")])
    return _markdown(header, rows, text_columns=len(columns))


def _extraction_table(table: Mapping[str, Any], cells: Cells) -> str:
    cells = _extraction_cells(cells)
    columns = table["columns"]
    header = [HEADINGS[column] for column in columns]
    header += ["Mixture SI-SDR (dB)", "Extracted SI-SDR (dB)", "SI-SDRi (dB)"]
    header += ["Paper's mixture (dB) †", "Paper's SI-SDRi (dB) †"]
    rows = []
    for row, ours in _matched_rows(table, cells):
        # The gender states belong to Table V and would stay empty in a study without it.
        if not ours and row["gender_state"] != "any":
            continue
        names = ("si_sdr_mixture_db", "si_sdr_extracted_db", "si_sdri_db")
        figures = [_summary([cell[name] for cell in ours]) for name in names]
        figures += [_number(row.get(name)) for name in ("si_sdr_mixture_db", "si_sdri_db")]
        rows.append([row[name] or "" for name in columns] + figures)
    return _markdown(header, rows, text_columns=len(columns))


def _breakdown_table(cells: Cells) -> str:
    groups = {
        "by_interferer_corpus": "interferer from {}",
        "by_gender_state": "{} gender",
    }
    cells = [cell for cell in _extraction_cells(cells) if cell["gender_state"] == "any"]
    columns = [
        (kind, group)
        for kind in groups
        for group in sorted({group for cell in cells for group in cell[kind]})
    ]
    rows = []
    for method in sorted({cell["method"] for cell in cells}):
        ours = [cell for cell in cells if cell["method"] == method]
        figures = [
            _summary([cell[kind][group]["si_sdri_db"] for cell in ours if group in cell[kind]])
            for kind, group in columns
        ]
        rows.append([method, *figures])
    header = ["Method"] + [groups[kind].format(group) for kind, group in columns]
    return _markdown(header, rows, text_columns=1) if rows else ""


def _extraction_cells(cells: Cells) -> Cells:
    # An extractor may be scored alone and again with a classifier behind it: count it once.
    unique = {}
    for cell in cells:
        if cell["si_sdri_db"] is not None:
            method = cell.get("method") or cell["model"]
            unique[method, cell["gender_state"], cell["fold"], cell["seed"]] = cell
    return [{**cell, "method": key[0]} for key, cell in unique.items()]


def _matched_rows(table: Mapping[str, Any], cells: Cells) -> list[tuple[Mapping[str, Any], Cells]]:
    """The paper's rows with our cells, then the cells that the paper does not have."""
    columns = table["columns"]

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row.get(column) for column in columns)

    rows = {key(row): row for row in table["rows"]}
    for cell in cells:
        rows.setdefault(key(cell), dict(zip(columns, key(cell), strict=True)))
    return [(row, [cell for cell in cells if key(cell) == name]) for name, row in rows.items()]


def _caption(
    cells: Cells, protocol: str, paper: Mapping[str, Any], training_minutes: float | None
) -> str:
    targets = _joined(name for cell in cells for name in _names(cell["targets"]))
    interferers = _joined(name for cell in cells for name in _names(cell["interferers"]))
    runs = {(cell["fold"], cell["seed"]) for cell in cells}
    scoring = f"{sum(cell['minutes'] for cell in cells):.1f} minutes of scoring"
    training = "" if training_minutes is None else f"{training_minutes:.0f} minutes of training, "
    spread = " Several runs: mean ± standard deviation over folds and seeds." * (len(runs) > 1)
    lines = [
        f"# Results on {targets}",
        f"Targets: {targets}; interferers: {interferers}. "
        f"Protocol `{protocol}` ({PROTOCOLS.get(protocol, 'see the study')}); "
        f"folds {_joined(fold for fold, _ in runs)}; seeds {_joined(seed for _, seed in runs)}. "
        f"{_joined(_machine(cell['machine']) for cell in cells)}; {training}{scoring}.{spread}",
        f"† The paper's figures, on {paper['corpus']}, {paper['protocol']} ({paper['source']}).",
    ]
    return "\n\n".join(lines)


def _names(names: str | Sequence[str] | None) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names or ()


def _machine(machine: Mapping[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return f"{machine['cpu']}, {machine['cores']} cores{gpu}"


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in sorted(set(values))) or "none"


def _training_minutes(results_dir: Path) -> float | None:
    records = [_read_json(path) for path in results_dir.glob("steps/*/*/step.json")]
    return sum(record["minutes"] for record in records) if records else None


def _summary(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> str:
    rule = [":---" if index < text_columns else "---:" for index in range(len(header))]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Renders the tables that the command line asks for and prints them."""
    parser = argparse.ArgumentParser(description="Render the tables of a study in Markdown.")
    parser.add_argument("--results", required=True, help="folder of the study")
    parser.add_argument("--output", help="Markdown file; default: tables.md in that folder")
    parser.add_argument("--notes", help="Markdown file to put below the tables")
    arguments = parser.parse_args(argv)
    print(write_tables(arguments.results, arguments.output, arguments.notes))


if __name__ == "__main__":
    main()
