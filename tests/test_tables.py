"""Tables as data: rows of the paper, our cells beside them, a caption that says what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.tables import load_cells, load_paper_results, main, render_tables, write_tables


def cell(name: str, tables: list[str], wa: float | None, **changes: Any) -> dict[str, Any]:
    """A cell's JSON as `evaluate_checkpoint` writes it, without what tables do not read."""
    return {
        "name": name,
        "tables": tables,
        "model": "SC",
        "train_set": "Clean",
        "test_set": "Clean",
        "protocol": "validated",
        "fold": 1,
        "seed": 0,
        "gender_state": "any",
        "targets": ["ravdess"],
        "interferers": ["emodb", "asterisk"],
        "wa": wa,
        "ua": wa,
        "num_examples": 40,
        "si_sdr_mixture_db": None,
        "si_sdr_extracted_db": None,
        "si_sdri_db": None,
        "by_interferer_corpus": {},
        "by_gender_state": {},
        "minutes": 0.5,
        "machine": {"cpu": "Some CPU", "cores": 2, "gpu": None},
        **changes,
    }


def extraction(name: str, method: str, si_sdri_db: float, **changes: Any) -> dict[str, Any]:
    signals = {
        "si_sdr_mixture_db": 0.1,
        "si_sdr_extracted_db": 0.1 + si_sdri_db,
        "si_sdri_db": si_sdri_db,
        "by_interferer_corpus": {
            "asterisk": {"si_sdri_db": si_sdri_db + 1},
            "emodb": {"si_sdri_db": si_sdri_db - 1},
        },
        "by_gender_state": {"same": {"si_sdri_db": si_sdri_db - 2}},
    }
    labels = {"method": method, "train_set": "Noisy", "test_set": "Noisy"}
    return cell(name, ["IV"], changes.pop("wa", None), **signals, **labels, **changes)


def rows_of(text: str, heading: str) -> list[list[str]]:
    """Cells of the first Markdown table after a heading, header and rule left out."""
    lines = text[text.index(heading) :].splitlines()
    table = []
    for line in lines[1:]:
        if line.startswith("|"):
            table.append([part.strip() for part in line.strip("|").split("|")])
        elif table:
            break
    return table[2:]


def test_our_figures_stand_beside_the_papers_and_rows_not_run_are_empty() -> None:
    text = render_tables([cell("sc_clean", ["II"], 0.8)])
    rows = rows_of(text, "## Table II.")
    assert rows[0] == ["SC", "Clean", "Clean", "80.00", "80.00", "70.20", "71.64", "40"]
    assert rows[1] == ["SC", "Clean", "Noisy", "", "", "47.11", "46.02", ""]
    assert len(rows) == 3
    assert rows_of(text, "## Table IV.")[1] == ["SB+SC", "TSE-SER-ft", "", "", "67.02", "68.27", ""]


def test_folds_and_seeds_are_averaged_with_their_deviation() -> None:
    cells = [cell("sc", ["II"], wa, fold=fold) for fold, wa in ((1, 0.7), (2, 0.8), (3, 0.9))]
    text = render_tables(cells)
    assert rows_of(text, "## Table II.")[0][3] == "80.00 ± 10.00"
    assert rows_of(text, "## Table II.")[0][-1] == "120"
    assert "folds 1, 2, 3; seeds 0" in text
    assert "± standard deviation" in text


def test_a_cell_belongs_to_each_of_its_tables_and_to_no_other() -> None:
    labels = {"train_set": "Noisy", "test_set": "Noisy"}
    text = render_tables([cell("sc_noisy", ["II", "III"], 0.55, **labels)])
    assert rows_of(text, "## Table II.")[2][3] == "55.00"
    assert rows_of(text, "## Table III.")[0][3] == "55.00"
    assert all(row[2] == "" for row in rows_of(text, "## Table IV."))


def test_a_cell_that_the_paper_does_not_have_gets_a_row_without_its_figures() -> None:
    labels = {"model": "SB+SC", "train_set": "Noisy", "test_set": "Clean"}
    rows = rows_of(render_tables([cell("extra", ["II"], 0.6, **labels)]), "## Table II.")
    assert rows[3] == ["SB+SC", "Noisy", "Clean", "60.00", "60.00", "", "", "40"]


def test_the_extractors_table_has_mixture_and_improvement_beside_the_papers() -> None:
    cells = [
        extraction("sb", "TSE-SER-base", 5.0, model="SB"),
        extraction("sb+sc", "TSE-SER-ft", 6.0, model="SB+SC", wa=0.6),
    ]
    rows = rows_of(render_tables(cells), "## Extraction quality")
    assert rows[0] == ["TSE-SER-base", "any", "0.10", "5.10", "5.00", "0.09", "7.68"]
    assert rows[1] == ["TSE-SER-ft", "any", "0.10", "6.10", "6.00", "0.09", "12.90"]
    assert len(rows) == 2


def test_an_extractor_scored_alone_and_in_a_cascade_counts_once() -> None:
    cells = [
        extraction("sb", "TSE-SER-base", 5.0, model="SB"),
        extraction("sb_sc", "TSE-SER-base", 5.0, model="SB_SC", wa=0.5),
    ]
    rows = rows_of(render_tables(cells), "## Extraction quality")
    assert rows[0][4] == "5.00"


def test_the_improvement_is_told_apart_by_interferer() -> None:
    text = render_tables([extraction("sb", "TSE-SER-base", 5.0, model="SB")])
    assert rows_of(text, "## SI-SDRi (dB) by interferer")[0] == [
        "TSE-SER-base",
        "6.00",
        "4.00",
        "3.00",
    ]
    assert "interferer from asterisk | interferer from emodb | same gender" in text


def test_the_caption_says_corpus_protocol_folds_seeds_machine_and_minutes(tmp_path: Path) -> None:
    write_cells(tmp_path, [cell("a", ["II"], 0.8, fold=2, seed=7), cell("b", ["II"], 0.7, fold=2)])
    for name, minutes in (("extractor", 61.5), ("joint", 30.2)):
        step = tmp_path / "steps" / "fold2_seed0" / name
        step.mkdir(parents=True)
        (step / "step.json").write_text(json.dumps({"minutes": minutes}))
    text = write_tables(tmp_path)
    assert text == (tmp_path / "tables.md").read_text(encoding="utf-8")
    caption = text[: text.index("## Table II")]
    for part in (
        "ravdess",
        "asterisk, emodb",
        "`validated`",
        "folds 2; seeds 0, 7",
        "Some CPU, 2 cores",
        "92 minutes of training, 1.0 minutes of scoring",
        "IEMOCAP",
    ):
        assert part in caption, part


def test_protocols_are_never_averaged_and_the_optimistic_one_is_called_so() -> None:
    cells = [cell("a", ["II"], 0.6), cell("a", ["II"], 0.9, protocol="best_on_test")]
    text = render_tables(cells)
    first, second = text.split("# Results on ravdess")[1:]
    assert "optimistic" in first
    assert rows_of(first, "## Table II.")[0][3] == "90.00"
    assert "optimistic" not in second
    assert rows_of(second, "## Table II.")[0][3] == "60.00"


def test_a_folder_without_cells_or_with_a_broken_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cells"):
        load_cells(tmp_path)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "broken.json").write_text('{"name": ')
    with pytest.raises(ValueError, match=r"broken\.json"):
        load_cells(tmp_path)


def test_the_command_line_writes_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cells(tmp_path, [cell("a", ["II"], 0.8)])
    output_file = tmp_path / "docs" / "results.md"
    main(["--results", str(tmp_path), "--output", str(output_file)])
    assert output_file.read_text(encoding="utf-8") in capsys.readouterr().out


def test_the_papers_figures_are_those_of_its_tables() -> None:
    paper = load_paper_results()
    assert {name: len(table["rows"]) for name, table in paper["tables"].items()} == {
        "II": 3,
        "III": 3,
        "IV": 2,
        "V": 8,
        "VI": 4,
    }
    # The abstract's claims: 14.33 points of UA over the noisy baseline; section III-D's 9.48.
    noisy, _, base = paper["tables"]["III"]["rows"]
    joint = paper["tables"]["IV"]["rows"][1]
    assert joint["ua_percent"] - noisy["ua_percent"] == pytest.approx(14.33)
    assert base["ua_percent"] - noisy["ua_percent"] == pytest.approx(9.48)
    # Figures that two tables share.
    assert paper["tables"]["VI"]["rows"][3]["ua_percent"] == 61.32
    assert paper["tables"]["V"]["rows"][7]["ua_percent"] == 61.32
    for table in paper["tables"].values():
        assert table["source"].startswith("Table ")
        for row in table["rows"]:
            assert {*table["columns"], "wa_percent", "ua_percent"} <= row.keys()


def write_cells(folder: Path, cells: list[dict[str, Any]]) -> None:
    (folder / "cells").mkdir()
    for entry in cells:
        path = folder / "cells" / f"{entry['name']}_fold{entry['fold']}_seed{entry['seed']}.json"
        path.write_text(json.dumps(entry))


def test_notes_stand_below_the_tables(tmp_path: Path) -> None:
    write_cells(tmp_path, [cell("a", ["II"], 0.8)])
    notes = tmp_path / "notes.md"
    notes.write_text("## How to read this\n", encoding="utf-8")
    bare = write_tables(tmp_path)
    assert write_tables(tmp_path, tmp_path / "out.md", notes) == bare + "\n## How to read this\n"
