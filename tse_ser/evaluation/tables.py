"""The tables of studies: Tables II to VI of the paper, extraction, differences, and what lies
beyond.

    python -m tse_ser.evaluation.tables docs/results/ravdess.parquet --output docs/results.md

The rows are those of the paper (`paper_results.json`); ours stand beside its figures, and a row
that was not run is empty. A test that the paper does not have gets a row of its own. Beside the
Markdown file goes one of LaTeX tables, with the suffix .tex. Notes in a Markdown file beside the
Parquet file, of the same name, are put below its tables.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tse_ser.evaluation.bootstrap import (
    NUM_SAMPLES,
    Interval,
    interval,
    paired_differences,
    speaker_interval,
    utterance_values,
)
from tse_ser.evaluation.results import Results, read_results
from tse_ser.paper import BEST_ON_TEST, PROTOCOLS, known_label, paper_results, row_key
from tse_ser.publishing.corpora import base_name

# Tables take WA from an epoch of its own, which no card does.
PROTOCOL_WORDS = PROTOCOLS | {
    BEST_ON_TEST: "trained on all sessions but the tested one; the best epochs on that session, "
    "one for WA and one for UA: optimistic"
}
HEADINGS = {
    "system": "System",
    "method": "Method",
    "train_set": "Train set",
    "test_set": "Test set",
    "gender_state": "Gender state",
}
# The same draws in every run: a table that is rendered again does not change.
BOOTSTRAP_SEED = 0
OVER_UTTERANCES, OVER_SPEAKERS = "95 % interval", "95 % over speakers"
# Of a condition beyond the tables: what it does to the system.
AGAINST_USUAL, AGAINST_INTERVAL = "Against the usual", "95 % of that"
INTERVALS_TEXT = (
    f"95 % interval: percentiles of {NUM_SAMPLES:,} bootstrap samples of the test utterances "
    "within fold and class; 95 % over speakers: of as many samples of whole speakers. Seeds are "
    "averaged, and differences are paired by utterance. Both tell what the choice of the test set "
    "does, not what another training would."
)
USUAL_TEXT = (
    "Against the usual: points of UA of a row less those of the same system in the usual case, "
    "which is neutral voices where the condition is an emotion, else the mixtures of the tables."
)


@dataclass(frozen=True)
class Table:
    """A table as words."""

    name: str  # short name, such as "table_ii"
    title: str  # what it shows
    frame: pd.DataFrame  # words; empty where nothing is known
    text_columns: int  # the first so many columns are words, the others numbers


@dataclass(frozen=True)
class Section:
    """The tables of one study."""

    title: str  # heading
    paragraphs: list[str]  # what was done, and how to read it
    tables: list[Table]  # in order
    notes: str = ""  # Markdown that stands below them


def build_section(results: Results) -> Section:
    """All tables of a study that have a row of its own."""
    paper = paper_results()
    mark = " (optimistic)" if results.facts["optimistic"] else ""
    tables = [_accuracy_table(results, name, table) for name, table in paper["tables"].items()]
    tables += [
        _extraction_table(results, paper["extraction"]),
        _differences_table(results, paper),
        _conditions_table(results),
        _interferer_table(results),
    ]
    tables = [
        Table(table.name, table.title + mark, table.frame, table.text_columns)
        for table in tables
        if not table.frame.empty
    ]
    paragraphs = [_caption(results), INTERVALS_TEXT]
    if any("†" in column for table in tables for column in table.frame):
        paragraphs.append(
            f"† The paper's figures, on {paper['corpus']}, {paper['protocol']} ({paper['source']})."
        )
    if any(AGAINST_USUAL in table.frame for table in tables):
        paragraphs.append(USUAL_TEXT)
    notes = results.path.with_suffix(".md")
    return Section(
        # Studies may share their corpora.
        title=f"Study {results.path.stem}: results on {_corpora(results, 'targets')}{mark}",
        paragraphs=paragraphs,
        tables=tables,
        notes=notes.read_text(encoding="utf-8") if notes.is_file() else "",
    )


def _accuracy_table(results: Results, name: str, table: Mapping[str, Any]) -> Table:
    """One of Tables II to VI."""
    runs = _in_table(results, name)
    rows = [
        {
            **_labels(row, table["columns"]),
            "WA (%)": _summary(100 * ours["wa"]),
            "Paper's WA (%) †": _number(row.get("wa_percent")),
            "UA (%)": _summary(100 * ours["ua"]),
            **_intervals(utterance_values(results.of(ours), "correct")),
            "Paper's UA (%) †": _number(row.get("ua_percent")),
            "Utterances": str(ours["num_examples"].sum() or ""),
        }
        for row, ours in _matched(table, runs)
        if not runs.empty
    ]
    title = f"Table {name}. {table['title']}"
    return _table(f"table_{name.lower()}", title, rows, len(table["columns"]))


def _extraction_table(results: Results, table: Mapping[str, Any]) -> Table:
    """SI-SDR before and after extraction, by method and gender state."""
    rows = [
        {
            **_labels(row, table["columns"]),
            "Mixture SI-SDR (dB)": _summary(ours["si_sdr_mixture_db"]),
            "Paper's mixture (dB) †": _number(row.get("si_sdr_mixture_db")),
            "Extracted SI-SDR (dB)": _summary(ours["si_sdr_extracted_db"]),
            "SI-SDRi (dB)": _summary(ours["si_sdri_db"]),
            **_intervals(utterance_values(results.of(ours), "si_sdri_db"), in_decibels=True),
            "Paper's SI-SDRi (dB) †": _number(row.get("si_sdri_db")),
        }
        for row, ours in _matched(table, _extractions(results))
    ]
    return _table("extraction", table["title"], rows, len(table["columns"]))


def _differences_table(results: Results, paper: Mapping[str, Any]) -> Table:
    """The differences that the paper claims, ours paired by utterance."""
    rows = []
    for difference in paper["differences"]:
        in_decibels = difference["unit"] == "dB"
        metric, factor = ("si_sdri_db", 1) if in_decibels else ("ua", 100)
        sides = [_side(results, paper, difference[name]) for name in ("first", "second")]
        (first, second), papers = zip(*sides, strict=True)
        row = {"Difference": difference["text"], "Unit": difference["unit"], "Ours": ""}
        values = pd.DataFrame()
        # A test may have folds of its own: what is compared is what both have.
        runs = ["fold", "seed"]
        first, second = first.merge(second[runs]), second.merge(first[runs])
        if len(first) and len(second):
            row["Ours"] = f"{factor * (first[metric].mean() - second[metric].mean()):+.2f}"
            values = _paired(results, first, second, in_decibels=in_decibels)
        row |= _intervals(values, in_decibels=in_decibels)
        figures = [one.get("si_sdri_db" if in_decibels else "ua_percent") for one in papers]
        row["Paper's †"] = "" if None in figures else f"{figures[0] - figures[1]:+.2f}"
        # What the paper does not claim has a row where it was run.
        if row["Ours"] or row["Paper's †"]:
            rows.append(row)
    if not any(row["Ours"] for row in rows):
        rows = []
    return _table("differences", "Differences that the tables claim", rows, 2)


def _conditions_table(results: Results) -> Table:
    """Tests beyond the paper's tables: a row a condition, its value, and a system."""
    runs = results.runs[results.runs["condition_label"].notna()]
    labels = ["condition_label", "condition_value", "system", "train_set", "test_set"]
    headings = ["Condition", "Value", "System", "Train set", "Test set"]
    groups = sorted(runs.fillna(dict.fromkeys(labels, "")).groupby(labels), key=_condition_order)
    rows = []
    for key, ours in groups:
        difference, values = _against_usual(results, ours)
        rows.append(
            {
                **dict(zip(headings, (key[0].replace("_", " "), *key[1:]), strict=True)),
                "WA (%)": _summary(100 * ours["wa"]),
                "UA (%)": _summary(100 * ours["ua"]),
                **_intervals(utterance_values(results.of(ours), "correct")),
                AGAINST_USUAL: difference,
                AGAINST_INTERVAL: _words(interval(values, _rng())),
                "Mixture SI-SDR (dB)": _summary(ours["si_sdr_mixture_db"]),
                "SI-SDRi (dB)": _summary(ours["si_sdri_db"]),
                "Presence AUC (%)": _summary(100 * ours["auc"]),
                "Presence EER (%)": _summary(100 * ours["eer"]),
            }
        )
    return _table("conditions", "Beyond the tables", rows, 5)


def _interferer_table(results: Results) -> Table:
    """SI-SDRi by the corpus of the interferer and by its gender beside the target's."""
    runs = _extractions(results)
    utterances = results.of(runs[runs["gender_state"] == "any"]).drop(columns="method")
    utterances = utterances.merge(runs[["test", "fold", "seed", "method"]])
    cells: dict[str, dict[str, str]] = {}
    for column, heading in (
        ("interferer_corpus", "interferer from {}"),
        ("interferer_gender", "{} gender"),
    ):
        means = utterances.groupby(["method", column, "fold", "seed"])["si_sdri_db"].mean()
        for (method, value), own in means.groupby(level=["method", column]):
            cells.setdefault(method, {"Method": method})[heading.format(value)] = _summary(own)
    rows = [cells[method] for method in sorted(cells)]
    return _table("interferers", "SI-SDRi (dB) by interferer", rows, 1)


def markdown(sections: Sequence[Section]) -> str:
    """Sections as a Markdown document; a list of them in front where there are several."""
    links = [f"- [{section.title}](#{_anchor(section.title)})" for section in sections]
    parts = ["\n".join(links)] * (len(sections) > 1)
    for section in sections:
        parts += [f"# {section.title}", *section.paragraphs]
        for table in section.tables:
            sides = ["left"] * table.text_columns
            sides += ["right"] * (table.frame.shape[1] - table.text_columns)
            text = table.frame.to_markdown(index=False, colalign=sides, disable_numparse=True)
            parts += [f"## {table.title}", text]
        parts += [section.notes.rstrip()] * bool(section.notes)
    return "\n\n".join(parts) + "\n"


def _anchor(title: str) -> str:
    """What a heading of Markdown is linked by: its words, joined by hyphens."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def latex(sections: Sequence[Section]) -> str:
    r"""Sections as LaTeX floats, for `\input` in a paper that loads booktabs."""
    parts = ["% Needs \\usepackage{booktabs}."]
    for index, section in enumerate(sections):
        parts.append("\n".join(f"% {line}" for line in (section.title, *section.paragraphs)))
        # A label is used once in a document, and a document may hold several studies.
        prefix = f"{index + 1}:" if len(sections) > 1 else ""
        for table in section.tables:
            numbers = table.frame.shape[1] - table.text_columns
            escaped = table.frame.map(_latex_words).rename(columns=_latex_words)
            parts.append(
                escaped.to_latex(
                    index=False,
                    column_format="l" * table.text_columns + "r" * numbers,
                    caption=_latex_words(table.title),
                    label=f"tab:{prefix}{table.name}",
                    position="t",
                ).rstrip()
            )
    return "\n\n".join(parts) + "\n"


def write_tables(paths: Sequence[str | Path], output: str | Path) -> str:
    """Renders the tables of studies, Parquet files, into a Markdown file and one of LaTeX named
    like it; returns the Markdown."""
    sections = [build_section(read_results(path)) for path in paths]
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(sections)
    output.write_text(text, encoding="utf-8")
    output.with_suffix(".tex").write_text(latex(sections), encoding="utf-8")
    return text


def _caption(results: Results) -> str:
    facts = results.facts
    spread = (
        " Several runs: mean ± standard deviation over folds and seeds."
        * (len(facts["folds"]) * len(facts["seeds"]) > 1)
    )  # fmt: skip
    protocol = PROTOCOL_WORDS.get(facts["protocol"], "see the study")
    folds, seeds = (", ".join(map(str, facts[name])) for name in ("folds", "seeds"))
    return (
        f"Targets: {_corpora(results, 'targets')}; "
        f"interferers: {_corpora(results, 'interferers')}. "
        f"Protocol `{facts['protocol']}` ({protocol}); "
        f"folds {folds}; seeds {seeds}. {', '.join(facts['machines'])}; "
        f"{facts['training_minutes']:.0f} minutes of training, "
        f"{facts['scoring_minutes']:.1f} minutes of scoring.{spread}"
    )


def _corpora(results: Results, role: str) -> str:
    """Corpora by their names alone: options belong to the study's config."""
    return ", ".join(dict.fromkeys(map(base_name, results.facts[role])))


def _in_table(results: Results, name: str) -> pd.DataFrame:
    """The runs of one of the paper's tables; one in a condition of its own belongs to none."""
    runs = results.runs
    named = runs["tables"].fillna("").str.split(", ").map(lambda names: name in names)
    return runs[named & runs["condition_label"].isna() & runs["ua"].notna()]


def _extractions(results: Results) -> pd.DataFrame:
    """How well each method extracts from the tables' mixtures; a method counts once."""
    runs = results.runs
    runs = runs[runs["si_sdri_db"].notna() & runs["condition_label"].isna()]
    runs = runs.assign(
        method=runs["method"].fillna(runs["system"]),
        gender_state=runs["gender_state"].fillna("any"),
    )
    return runs.drop_duplicates(["method", "gender_state", "fold", "seed"], keep="last")


def _matched(
    table: Mapping[str, Any], runs: pd.DataFrame
) -> list[tuple[Mapping[str, Any], pd.DataFrame]]:
    """The paper's rows with our runs, then our rows that the paper does not have."""
    columns = table["columns"]
    rows: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for row in [*table["rows"], *runs.to_dict("records")]:
        rows.setdefault(row_key(row, columns), row)
    return [(row, _of_row(runs, key, columns)) for key, row in rows.items()]


def _of_row(runs: pd.DataFrame, key: tuple[str, ...], columns: Sequence[str]) -> pd.DataFrame:
    """The runs that belong to a row."""
    found = [row_key(run, columns) == key for run in runs.to_dict("records")]
    return runs[np.array(found, dtype=bool)]


def _labels(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    return {HEADINGS[column]: known_label(row.get(column)) for column in columns}


def _side(
    results: Results, paper: Mapping[str, Any], side: Mapping[str, str]
) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Our runs of one side of a difference, and the paper's row of it, empty where it has none."""
    name = side.get("table")
    if name is None:
        runs, columns, rows = results.runs[results.runs["ua"].notna()], [*side], []
    else:
        is_extraction = name == "extraction"
        runs = _extractions(results) if is_extraction else _in_table(results, name)
        table = paper["extraction"] if is_extraction else paper["tables"][name]
        columns, rows = table["columns"], table["rows"]
    wanted = row_key(side, columns)
    papers: Mapping[str, Any] = next((row for row in rows if row_key(row, columns) == wanted), {})
    return _of_row(runs, wanted, columns), papers


def _against_usual(results: Results, ours: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """UA less that of the same system in the usual case, and the values to pair."""
    nothing = "", ours.iloc[:0]
    # Half of the utterances have no emotion to hear where targets are absent.
    if ours["ua"].isna().all() or ours["auc"].notna().any():
        return nothing
    runs = results.runs
    same = ["system", "method", "train_set", "fold", "seed"]
    neutral = runs[
        (runs["condition_label"] == ours["condition_label"].iloc[0])
        & (runs["condition_value"] == "neutral")
    ]
    tables = runs[
        (runs["condition"] == "noisy")
        & runs["tables"].notna()
        & runs["condition_label"].isna()
        & runs["gender_state"].isna()
    ]
    for others in (neutral, tables):
        usual = others.merge(ours[same], on=same)
        if len(usual) == len(ours):
            break
    else:
        return nothing
    if usual["test"].iloc[0] == ours["test"].iloc[0]:
        return nothing
    difference = f"{100 * (ours['ua'].mean() - usual['ua'].mean()):+.2f}"
    return difference, _paired(results, ours, usual, in_decibels=False)


def _paired(
    results: Results, first: pd.DataFrame, second: pd.DataFrame, *, in_decibels: bool
) -> pd.DataFrame:
    column = "si_sdri_db" if in_decibels else "correct"
    sides = [utterance_values(results.of(side), column) for side in (first, second)]
    return paired_differences(*sides)


def _intervals(values: pd.DataFrame, *, in_decibels: bool = False) -> dict[str, str]:
    functions: dict[str, Callable[..., Interval | None]] = {
        OVER_UTTERANCES: interval,
        OVER_SPEAKERS: speaker_interval,
    }
    if values.empty:
        return dict.fromkeys(functions, "")
    factor = 1 if in_decibels else 100
    return {
        heading: _words(function(values, _rng(), by_class=not in_decibels), factor)
        for heading, function in functions.items()
    }


def _rng() -> np.random.Generator:
    # A new one for each interval, so that a row that is added changes no other.
    return np.random.default_rng(BOOTSTRAP_SEED)


def _words(found: Interval | None, factor: float = 100) -> str:
    return "" if found is None else f"{factor * found.low:.1f} to {factor * found.high:.1f}"


def _summary(values: pd.Series) -> str:
    """Mean with the standard deviation of several runs; empty without a value."""
    values = values.dropna()
    if values.empty:
        return ""
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _condition_order(group: tuple[tuple[str, ...], pd.DataFrame]) -> tuple[Any, ...]:
    label, value, *others = group[0]
    try:
        order: tuple[int, Any] = (0, float(value))
    except ValueError:
        order = (1, value)
    return (label, order, *others)


def _table(name: str, title: str, rows: Sequence[Mapping[str, str]], text_columns: int) -> Table:
    """A table without the columns that are empty in every row, but for those of its words."""
    frame = pd.DataFrame(rows).fillna("")
    kept = [
        column
        for index, column in enumerate(frame)
        if index < text_columns or (frame[column] != "").any()
    ]
    return Table(name, title, frame[kept], text_columns)


def _latex_words(text: str) -> str:
    """Words as LaTeX prints them; the minus of a number is no hyphen."""
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text)
    escaped = re.sub(r"(?<!\S)([+-])(?=\d)", r"$\1$", escaped)
    return escaped.replace("±", r"$\pm$").replace("†", r"\textsuperscript{\dag}")


def main(argv: Sequence[str] | None = None) -> None:
    """Renders the tables that the command line asks for and prints them."""
    parser = argparse.ArgumentParser(description="Render the tables of studies.")
    parser.add_argument("results", nargs="+", help="Parquet files of studies")
    parser.add_argument("--output", required=True, help="Markdown file; beside it goes LaTeX")
    arguments = parser.parse_args(argv)
    print(write_tables(arguments.results, arguments.output))


if __name__ == "__main__":
    main()
