"""Builds Tables II to VI, the extraction table, the differences, and what lies beyond.

How they are written down (Markdown, LaTeX, HTML) is decided elsewhere: a `Table` is rows of words.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tse_ser.evaluation.bootstrap import (
    NUM_SAMPLES,
    Cells,
    Interval,
    correct,
    interval,
    paired_differences,
    si_sdri_db,
    utterance_values,
)
from tse_ser.evaluation.cells import (
    PROTOCOLS,
    extraction_cells,
    joined,
    load_paper_results,
    matched_rows,
    names,
    of_table,
    row_key,
    section_of,
)
from tse_ser.evaluation.table_words import (
    Section,
    Table,
    interval_text,
    known,
    number,
    signed,
    summary,
    without_empty,
)

TABLES = ("II", "III", "IV", "V", "VI")
HEADINGS = {
    "model": "Model",
    "method": "Method",
    "train_set": "Train set",
    "test_set": "Test set",
    "gender_state": "Gender state",
}
# The same draws in every run: a table that is rendered again does not change.
BOOTSTRAP_SEED = 0
INTERVAL = "95 % interval"
# Of a condition beyond the tables: what it does to the model.
AGAINST_USUAL, AGAINST_INTERVAL = "Against the usual", "95 % of that"
USUAL = (
    "Against the usual: points of UA over the same model with neutral voices, where the condition "
    "is an emotion, else on the tables' mixtures."
)


def build_sections(cells: Cells, training_minutes: float | None = None) -> list[Section]:
    """All tables of one or several studies; corpora and protocols are never averaged.

    Args:
        cells (sequence of mappings): what `load_cells` gives.
        training_minutes (`float`, optional): spent on all trainings, for the caption.

    Returns:
        `list[Section]`: one for each set of target corpora and protocol.
    """
    paper = load_paper_results()
    sections = []
    for key in sorted({section_of(cell) for cell in cells}):
        chosen = [cell for cell in cells if section_of(cell) == key]
        mark = " (optimistic)" if key[1] == "best_on_test" else ""
        tables = [
            _accuracy_table(name, paper["tables"][name], of_table(chosen, name), mark)
            for name in TABLES
        ]
        tables += [
            _extraction_table(paper["extraction"], chosen, mark),
            _differences_table(paper, chosen, mark),
            _conditions_table(chosen, mark),
            _breakdown_table(chosen, mark),
        ]
        sections.append(
            Section(
                title=f"Results on {joined(key[0])}{mark}",
                paragraphs=_caption(chosen, key[1], paper, training_minutes)
                + [USUAL] * any(AGAINST_USUAL in table.header for table in tables),
                tables=[table for table in tables if table.rows],
            )
        )
    return sections


def _accuracy_table(name: str, table: Mapping[str, Any], cells: Cells, mark: str) -> Table:
    columns = table["columns"]
    header = [HEADINGS[column] for column in columns]
    header += ["WA (%)", "Paper's WA (%) †", "UA (%)", INTERVAL, "Paper's UA (%) †", "Utterances"]
    rows = []
    for row, ours in matched_rows(table, cells):
        utterances = sum(cell["num_examples"] for cell in ours)
        rows.append(
            [
                *_labels(row, columns),
                summary([100 * cell["wa"] for cell in ours]),
                number(row.get("wa_percent")),
                summary([100 * cell["ua"] for cell in ours]),
                interval_text(ua_interval(ours)),
                number(row.get("ua_percent")),
                str(utterances or ""),
            ]
        )
    title = f"Table {name}. {table['title']}{mark}"
    return without_empty(
        Table(f"table_{name.lower()}", title, header, rows, len(columns)), INTERVAL
    )


def _extraction_table(table: Mapping[str, Any], cells: Cells, mark: str) -> Table:
    columns = table["columns"]
    header = [HEADINGS[column] for column in columns]
    header += ["Mixture SI-SDR (dB)", "Paper's mixture (dB) †", "Extracted SI-SDR (dB)"]
    header += ["SI-SDRi (dB)", INTERVAL, "Paper's SI-SDRi (dB) †"]
    rows = []
    for row, ours in matched_rows(table, extraction_cells(cells)):
        strata = utterance_values(ours, si_sdri_db)
        rows.append(
            [
                *_labels(row, columns),
                summary([cell["si_sdr_mixture_db"] for cell in ours]),
                number(row.get("si_sdr_mixture_db")),
                summary([cell["si_sdr_extracted_db"] for cell in ours]),
                summary([cell["si_sdri_db"] for cell in ours]),
                interval_text(interval(strata, _rng(), by_class=False), factor=1),
                number(row.get("si_sdri_db")),
            ]
        )
    built = Table("extraction", f"{table['title']}{mark}", header, rows, len(columns))
    return without_empty(built, INTERVAL)


def _differences_table(paper: Mapping[str, Any], cells: Cells, mark: str) -> Table:
    header = ["Difference", "Unit", "Ours", INTERVAL, "Paper's †"]
    rows = []
    for difference in paper["differences"]:
        sides = [difference[side] for side in ("first", "second")]
        first, second = (_cells_of_row(paper, side, cells) for side in sides)
        in_decibels = difference["unit"] == "dB"
        found = _difference(first, second, in_decibels)
        factor = 1 if in_decibels else 100
        metric = "si_sdri_db" if in_decibels else "ua"
        ours = ""
        if first and second:
            means = [statistics.fmean(cell[metric] for cell in side) for side in (first, second)]
            ours = signed(factor * (means[0] - means[1]))
        papers = _papers_difference(paper, sides, in_decibels)
        # What the paper does not claim has a row where it was run.
        if ours or papers:
            found_text = interval_text(found, factor)
            rows.append([difference["text"], difference["unit"], ours, found_text, papers])
    table = Table("differences", f"Differences that the tables claim{mark}", header, rows, 2)
    return without_empty(table, INTERVAL)


def _difference(first: Cells, second: Cells, in_decibels: bool) -> Interval | None:
    value = si_sdri_db if in_decibels else correct
    strata = paired_differences(utterance_values(first, value), utterance_values(second, value))
    return interval(strata, _rng(), by_class=not in_decibels)


def _conditions_table(cells: Cells, mark: str) -> Table:
    """Cells beyond the paper's tables: a row a condition, its value, and a model."""
    header = ["Condition", "Value", "Model", "Train set", "Test set", "WA (%)", "UA (%)", INTERVAL]
    optional = [
        AGAINST_USUAL,
        AGAINST_INTERVAL,
        "Mixture SI-SDR (dB)",
        "SI-SDRi (dB)",
        "Presence AUC (%)",
        "Presence EER (%)",
    ]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell.get("condition_label"):
            label = str(cell["condition_label"]).replace("_", " ")
            labels = (str(cell.get(name) or "") for name in ("train_set", "test_set"))
            key = (label, str(cell.get("condition_value", "")), str(cell["model"]), *labels)
            groups.setdefault(key, []).append(cell)
    rows = []
    for key, ours in sorted(groups.items(), key=lambda item: _condition_order(item[0])):
        classified = [cell for cell in ours if cell["wa"] is not None]
        detections = [cell["detection"] for cell in ours if cell.get("detection")]
        rows.append(
            [
                *key,
                summary([100 * cell["wa"] for cell in classified]),
                summary([100 * cell["ua"] for cell in classified]),
                interval_text(ua_interval(classified)),
                *_against_usual(classified, cells),
                summary(known(ours, "si_sdr_mixture_db")),
                summary(known(ours, "si_sdri_db")),
                summary([100 * auc for auc in known(detections, "auc")]),
                summary([100 * eer for eer in known(detections, "eer")]),
            ]
        )
    table = Table("conditions", f"Beyond the tables{mark}", header + optional, rows, 5)
    return without_empty(table, "Train set", "Test set", INTERVAL, *optional)


def _against_usual(cells: Cells, all_cells: Cells) -> tuple[str, str]:
    """UA less that of the same model in the usual case, with its paired interval."""
    # Half of the utterances have no emotion to hear where targets are absent.
    if not cells or any(cell.get("absent_share") for cell in cells):
        return "", ""
    neutral = _same_runs(
        cells,
        [
            cell
            for cell in all_cells
            if cell.get("condition_label") == cells[0]["condition_label"]
            and cell.get("condition_value") == "neutral"
        ],
    )
    usual = neutral or _same_runs(
        cells,
        [
            cell
            for cell in all_cells
            if cell["condition"] == "noisy"
            and cell["gender_state"] == "any"
            and cell.get("tables")
            and not cell.get("condition_label")
        ],
    )
    if len(usual) != len(cells) or cells[0] in usual:
        return "", ""
    means = [statistics.fmean(cell["ua"] for cell in side) for side in (cells, usual)]
    difference = signed(100 * (means[0] - means[1]))
    return difference, interval_text(_difference(cells, usual, in_decibels=False))


def _same_runs(cells: Cells, others: Cells) -> Cells:
    """Those of the others that are of the same models, folds and seeds."""
    labels = ("model", "method", "train_set", "fold", "seed")
    wanted = {tuple(cell.get(name) for name in labels) for cell in cells}
    return [cell for cell in others if tuple(cell.get(name) for name in labels) in wanted]


def _condition_order(key: tuple[str, ...]) -> tuple[Any, ...]:
    try:
        value: tuple[int, Any] = (0, float(key[1]))
    except ValueError:
        value = (1, key[1])
    return (key[0], value, *key[2:])


def _breakdown_table(cells: Cells, mark: str) -> Table:
    groups = {"by_interferer_corpus": "interferer from {}", "by_gender_state": "{} gender"}
    cells = [cell for cell in extraction_cells(cells) if cell["gender_state"] == "any"]
    columns = [
        (kind, group)
        for kind in groups
        for group in sorted({group for cell in cells for group in cell[kind]})
    ]
    rows = []
    for method in sorted({cell["method"] for cell in cells}):
        ours = [cell for cell in cells if cell["method"] == method]
        figures = [
            summary([cell[kind][group]["si_sdri_db"] for cell in ours if group in cell[kind]])
            for kind, group in columns
        ]
        rows.append([method, *figures])
    header = ["Method"] + [groups[kind].format(group) for kind, group in columns]
    return Table("breakdown", f"SI-SDRi (dB) by interferer{mark}", header, rows, 1)


def _cells_of_row(paper: Mapping[str, Any], side: Mapping[str, str], cells: Cells) -> Cells:
    name = side.get("table")
    if name is None:
        wanted = [cell for cell in cells if cell["ua"] is not None]
        return [cell for cell in wanted if row_key(cell, [*side]) == row_key(side, [*side])]
    table = _table_of_paper(paper, name)
    own = extraction_cells(cells) if name == "extraction" else of_table(cells, name)
    columns = table["columns"]
    return [cell for cell in own if row_key(cell, columns) == row_key(side, columns)]


def _papers_difference(
    paper: Mapping[str, Any], sides: Sequence[Mapping[str, str]], in_decibels: bool
) -> str:
    figures = []
    for side in sides:
        if "table" not in side:
            return ""
        labels = {key: value for key, value in side.items() if key != "table"}
        rows = _table_of_paper(paper, side["table"])["rows"]
        (row,) = [row for row in rows if labels.items() <= row.items()]
        figures.append(row["si_sdri_db" if in_decibels else "ua_percent"])
    return signed(figures[0] - figures[1])


def _table_of_paper(paper: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table: Mapping[str, Any] = (
        paper["extraction"] if name == "extraction" else paper["tables"][name]
    )
    return table


def _caption(
    cells: Cells, protocol: str, paper: Mapping[str, Any], training_minutes: float | None
) -> list[str]:
    targets = joined(name for cell in cells for name in names(cell["targets"]))
    interferers = joined(name for cell in cells for name in names(cell["interferers"]))
    runs = {(cell["fold"], cell["seed"]) for cell in cells}
    scoring = f"{sum(cell['minutes'] for cell in cells):.1f} minutes of scoring"
    training = "" if training_minutes is None else f"{training_minutes:.0f} minutes of training, "
    spread = " Several runs: mean ± standard deviation over folds and seeds." * (len(runs) > 1)
    paragraphs = [
        f"Targets: {targets}; interferers: {interferers}. "
        f"Protocol `{protocol}` ({PROTOCOLS.get(protocol, 'see the study')}); "
        f"folds {joined(fold for fold, _ in runs)}; seeds {joined(seed for _, seed in runs)}. "
        f"{joined(_machine(cell['machine']) for cell in cells)}; {training}{scoring}.{spread}"
    ]
    if any(cell.get("utterances") for cell in cells):
        paragraphs.append(
            f"Intervals: percentiles of {NUM_SAMPLES:,} bootstrap samples of the test utterances "
            "within fold and class, seeds averaged; differences are paired by utterance. They tell "
            "what the choice of test utterances does, not what another training would."
        )
    return [
        *paragraphs,
        f"† The paper's figures, on {paper['corpus']}, {paper['protocol']} ({paper['source']}).",
    ]


def _machine(machine: Mapping[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return f"{machine['cpu']}, {machine['cores']} cores{gpu}"


def _labels(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [str(row.get(name) or "") for name in columns]


def _rng() -> np.random.Generator:
    # A new one for each interval, so that a row that is added changes no other.
    return np.random.default_rng(BOOTSTRAP_SEED)


def ua_interval(cells: Cells) -> Interval | None:
    """The interval of the UA of one model on one test set.

    Args:
        cells (sequence of mappings): its cells, one a fold and seed.

    Returns:
        `Interval`: UA from 0 to 1; None where the cells have no records.
    """
    return interval(utterance_values(cells), _rng())
