"""Tables as data: rows of the paper, our cells beside them, a caption that says what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tse_ser.evaluation.latex_tables import escape
from tse_ser.evaluation.tables import (
    load_cells,
    load_paper_results,
    main,
    render_tables,
    write_tables,
)


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
        "condition": "noisy",
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
    assert rows[0] == ["SC", "Clean", "Clean", "80.00", "70.20", "80.00", "71.64", "40"]
    assert rows[1] == ["SC", "Clean", "Noisy", "", "47.11", "", "46.02", ""]
    assert len(rows) == 3
    assert rows_of(text, "## Table IV.")[1] == ["SB+SC", "TSE-SER-ft", "", "67.02", "", "68.27", ""]
    for name, count in (("V", 8), ("VI", 4)):
        empty = rows_of(text, f"## Table {name}.")
        assert len(empty) == count
        assert all(row[-1] == "" and row[-2] != "" for row in empty)


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
    assert rows[3] == ["SB+SC", "Noisy", "Clean", "60.00", "", "60.00", "", "40"]


def test_the_extractors_table_has_mixture_and_improvement_beside_the_papers() -> None:
    cells = [
        extraction("sb", "TSE-SER-base", 5.0, model="SB"),
        extraction("sb+sc", "TSE-SER-ft", 6.0, model="SB+SC", wa=0.6),
    ]
    rows = rows_of(render_tables(cells), "## Extraction quality")
    assert rows[0] == ["TSE-SER-base", "any", "0.10", "0.09", "5.10", "5.00", "7.68"]
    assert rows[1] == ["TSE-SER-ft", "any", "0.10", "0.09", "6.10", "6.00", "12.90"]
    # Of same- and different-gender mixtures, which were not run, the paper's figures stand alone.
    assert rows[2] == ["TSE-SER-base", "same", "", "0.00", "", "", "1.09"]
    assert rows[3] == ["TSE-SER-base", "different", "", "0.02", "", "", "5.22"]


def test_an_extractor_scored_alone_and_in_a_cascade_counts_once() -> None:
    cells = [
        extraction("sb", "TSE-SER-base", 5.0, model="SB"),
        extraction("sb_sc", "TSE-SER-base", 5.0, model="SB_SC", wa=0.5),
    ]
    rows = rows_of(render_tables(cells), "## Extraction quality")
    assert rows[0][5] == "5.00"


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
    assert first.startswith(" (optimistic)")
    titles = [line for line in first.splitlines() if line.startswith("## ")]
    assert len(titles) >= 7
    assert all(title.endswith("(optimistic)") for title in titles)
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
    # Section III-D1: what interference takes from the clean model, in WA and UA.
    clean, on_noisy, _ = paper["tables"]["II"]["rows"]
    assert clean["wa_percent"] - on_noisy["wa_percent"] == pytest.approx(23.09)
    assert clean["ua_percent"] - on_noisy["ua_percent"] == pytest.approx(25.62)
    # Figures that two tables share.
    assert noisy == paper["tables"]["II"]["rows"][2]
    assert base["ua_percent"] == paper["tables"]["IV"]["rows"][0]["ua_percent"]
    assert paper["tables"]["VI"]["rows"][0]["ua_percent"] == 55.95
    assert paper["tables"]["V"]["rows"][3]["ua_percent"] == 55.95
    assert paper["tables"]["VI"]["rows"][3]["ua_percent"] == 61.32
    assert paper["tables"]["V"]["rows"][7]["ua_percent"] == 61.32
    for table in paper["tables"].values():
        assert table["source"].startswith("Table ")
        for row in table["rows"]:
            assert {*table["columns"], "wa_percent", "ua_percent"} <= row.keys()


def write_cells(folder: Path, cells: list[dict[str, Any]]) -> None:
    (folder / "cells").mkdir(parents=True)
    for entry in cells:
        path = folder / "cells" / f"{entry['name']}_fold{entry['fold']}_seed{entry['seed']}.json"
        path.write_text(json.dumps(entry))


def test_notes_stand_below_the_tables(tmp_path: Path) -> None:
    write_cells(tmp_path, [cell("a", ["II"], 0.8)])
    notes = tmp_path / "notes.md"
    notes.write_text("## How to read this\n", encoding="utf-8")
    bare = write_tables(tmp_path)
    assert write_tables(tmp_path, tmp_path / "out.md", notes) == bare + "\n## How to read this\n"


def records(correct: list[int], **changes: Any) -> list[dict[str, Any]]:
    """A record an utterance, of the classes 0 to 3 in turn."""
    return [
        {"utterance_id": f"u{index}", "label": index % 4, **changes}
        | {"prediction": index % 4 if right else (index + 1) % 4}
        for index, right in enumerate(correct)
    ]


def test_utterance_records_give_intervals_and_paired_differences() -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(200) < 0.5).astype(int).tolist()
    after = [1 if right or rng.random() < 0.4 else 0 for right in before]
    cells = [
        cell(
            "noisy", ["III"], 0.5, train_set="Noisy", test_set="Noisy", utterances=records(before)
        ),
        cell(
            "sb_sc",
            ["III"],
            0.7,
            model="SB_SC",
            train_set="Denoised",
            test_set="Denoised",
            utterances=records(after),
        ),
    ]
    text = render_tables(cells)
    low, high = map(float, rows_of(text, "## Table III.")[0][6].split(" to "))
    share = 100 * np.mean(before)
    assert low < share < high
    # About twice 1.96 standard deviations of the mean of 200 coin tosses.
    assert high - low == pytest.approx(2 * 1.96 * 100 * 0.5 / np.sqrt(200), abs=2.0)
    difference = next(
        row
        for row in rows_of(text, "## Differences")
        if row[0] == "SB_SC against SC trained on Noisy"
    )
    assert difference[2] == "+20.00"
    low, high = map(float, difference[3].split(" to "))
    gain = 100 * (np.mean(after) - np.mean(before))
    # Pairs differ less than the models do: nothing was unlearned, so no sample is below zero.
    assert 0 < low < gain < high < 2 * gain
    assert difference[4] == "+9.48"
    assert "paired by utterance" in text


def test_cells_without_records_have_no_interval_and_no_column_for_it() -> None:
    text = render_tables([cell("sc", ["II"], 0.8)])
    assert "95 % interval" not in text
    mixed = [cell("sc", ["II"], 0.8), cell("n", ["II"], 0.5, test_set="Noisy")]
    mixed[1]["utterances"] = records([1, 0, 1, 1])
    rows = rows_of(render_tables(mixed), "## Table II.")
    assert rows[0][6] == ""
    assert "to" in rows[1][6]


def test_differences_have_the_papers_figures_and_ours_where_both_were_run() -> None:
    cells = [
        cell("a", ["IV"], 0.6, model="SB+SC", method="TSE-SER-ft"),
        cell("b", ["IV"], 0.55, model="SB_SC", method="TSE-SER-base"),
    ]
    rows = {row[0]: row for row in rows_of(render_tables(cells), "## Differences")}
    assert rows["SB+SC against SB_SC"] == ["SB+SC against SB_SC", "points of UA", "+5.00", "+4.85"]
    assert rows["SB+SC against SC trained on Noisy"][2:] == ["", "+14.33"]
    assert rows["SC on Noisy: trained on Noisy against Clean"][2:] == ["", "+7.92"]
    assert rows["SI-SDRi: TSE-SER-ft against TSE-SER-base"][2:] == ["", "+5.22"]


def test_gender_states_go_to_tables_v_and_vi_whatever_their_case() -> None:
    labels = {"model": "SB_SC", "method": "TSE-SER-base"}
    cells = [
        cell(
            f"{train}_{state}",
            ["V", "VI"] if train == state else ["VI"],
            wa,
            gender_state=state,
            train_set=f"Denoised ({train})",
            test_set=f"Denoised ({state})",
            **labels,
        )
        for train, state, wa in (
            ("same", "same", 0.5),
            ("same", "different", 0.6),
            ("different", "same", 0.55),
            ("different", "different", 0.65),
        )
    ]
    text = render_tables(cells)
    five, six = rows_of(text, "## Table V."), rows_of(text, "## Table VI.")
    assert [row[4] for row in five] == ["", "", "", "50.00", "", "", "", "65.00"]
    assert [row[3] for row in six] == ["50.00", "60.00", "55.00", "65.00"]


def test_cells_beyond_the_tables_stand_apart_and_change_no_table() -> None:
    at_zero = extraction("sb+sc", "TSE-SER-ft", 6.0, model="SB+SC", wa=0.6)
    beyond = [
        extraction(
            f"snr{value}",
            "TSE-SER-ft",
            si_sdri_db,
            model="SB+SC",
            wa=wa,
            condition_label="snr_db",
            condition_value=value,
        )
        for value, si_sdri_db, wa in ((5, 3.0, 0.7), (-10, 9.0, 0.4))
    ]
    detection = {"num_present": 5, "num_absent": 5, "auc": 0.9, "eer": 0.2}
    beyond.append(
        extraction(
            "absent", "TSE-SER-ft", 6.0, condition_label="target_absent", detection=detection
        )
    )
    text = render_tables([at_zero, *beyond])
    assert rows_of(text, "## Extraction quality") == rows_of(
        render_tables([at_zero]), "## Extraction quality"
    )
    assert rows_of(text, "## Table IV.")[1][2] == "60.00"
    rows = rows_of(text, "## Beyond the tables")
    # Against SB+SC on the tables' mixtures, at 60 %.
    assert [row[7] for row in rows] == ["-20.00", "+10.00", ""]
    assert [row[:2] for row in rows] == [["snr db", "-10"], ["snr db", "5"], ["target absent", ""]]
    assert [row[5:7] for row in rows] == [["40.00", "40.00"], ["70.00", "70.00"], ["", ""]]
    assert rows[2][-2:] == ["90.00", "20.00"]


def test_several_folders_are_rendered_together_and_a_shared_cell_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    write_cells(one, [cell("a", ["II"], 0.8, fingerprint="x")])
    write_cells(two, [cell("a", ["II"], 0.8, fingerprint="x"), cell("a", ["II"], 0.6, fold=2)])
    main(["--results", str(one), "--results", str(two), "--output", str(tmp_path / "out.md")])
    rows = rows_of(capsys.readouterr().out, "## Table II.")
    assert rows[0][3] == "70.00 ± 14.14"
    assert rows[0][-1] == "80"
    write_cells(three, [cell("a", ["II"], 0.7, fingerprint="y")])
    with pytest.raises(ValueError, match="different settings"):
        load_cells([one, three])


def test_other_corpora_are_never_averaged() -> None:
    cells = [cell("a", ["II"], 0.6), cell("a", ["II"], 0.9, targets=["generated"])]
    text = render_tables(cells)
    generated, ravdess = text.split("# Results on ")[1:]
    assert rows_of(generated, "## Table II.")[0][3] == "90.00"
    assert rows_of(ravdess, "## Table II.")[0][3] == "60.00"


def test_the_latex_file_has_the_same_rows_between_booktabs_rules(tmp_path: Path) -> None:
    runs = [
        cell("sb_sc", ["III"], wa, model="SB_SC", fold=fold) for fold, wa in ((1, 0.5), (2, 0.6))
    ]
    write_cells(tmp_path, runs)
    markdown = write_tables(tmp_path)
    latex = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == markdown.count("\n## ")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert latex.count(rule) == latex.count(r"\begin{tabular}")
    assert r"SB\_SC & Clean & Clean & 55.00 $\pm$ 7.07 &" in latex
    for float_ in latex.split(r"\begin{tabular}{")[1:]:
        columns = float_.partition("}")[0]
        body = float_.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows
        for row in rows:
            assert row.replace(r"\&", "").count("&") + 1 == len(columns)
    labels = [line for line in latex.splitlines() if r"\label" in line]
    assert len(labels) == len(set(labels))


def test_latex_escapes_its_own_characters() -> None:
    assert escape("50 % & a_b #1 {x}") == r"50 \% \& a\_b \#1 \{x\}"
    assert escape("a\\b") == r"a\textbackslash{}b"
    assert escape("-1.6 to 13.3") == "$-1.6$ to 13.3"
    assert escape("TSE-SER-ft, SB+SC") == "TSE-SER-ft, SB+SC"


def test_what_the_joint_model_does_to_clean_speech_is_told_where_it_was_run() -> None:
    clean = cell("clean", ["II"], 0.8, utterances=records([1, 1, 1, 0, 1, 1, 1, 1]))
    joint = cell(
        "joint",
        [],
        0.7,
        model="SB+SC",
        train_set="Noisy",
        condition="clean",
        condition_label="clean_speech",
        utterances=records([1, 1, 1, 0, 1, 1, 0, 1]),
    )
    name = "Clean speech: SB+SC against SC trained on Clean"
    rows = {row[0]: row for row in rows_of(render_tables([clean, joint]), "## Differences")}
    assert rows[name][2] == "-10.00"
    # One of two utterances of class 2 is heard by SC alone: from nothing to a quarter of UA.
    assert rows[name][3] == "-25.0 to 0.0"
    assert rows[name][4] == ""
    assert name not in render_tables([clean])


def test_a_condition_is_paired_with_the_same_model_on_the_tables_mixtures() -> None:
    labels = {"model": "SB+SC", "method": "TSE-SER-ft"}
    usual = cell("joint", ["IV"], 0.75, utterances=records([1, 1, 1, 0] * 10), **labels)
    angry = cell(
        "angry",
        [],
        0.5,
        condition_label="enrollment_emotion",
        condition_value="angry",
        utterances=records([1, 1, 0, 0] * 10),
        **labels,
    )
    text = render_tables([usual, angry])
    assert "the same model with neutral voices" in text
    (row,) = rows_of(text, "## Beyond the tables")
    assert row[:3] == ["enrollment emotion", "angry", "SB+SC"]
    # Every utterance of one class is lost and no other: no sample says anything else.
    assert row[-2:] == ["-25.00", "-25.0 to -25.0"]

    neutral = {**angry, "name": "neutral", "condition_value": "neutral", "ua": 0.6}
    rows = rows_of(render_tables([usual, angry, neutral]), "## Beyond the tables")
    assert [row[1] for row in rows] == ["angry", "neutral"]
    assert [row[-2] for row in rows] == ["-10.00", ""]


def test_intervals_of_si_sdri_are_in_decibels() -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(5.0, 2.0, 100)
    signals = [
        {"utterance_id": f"u{index}", "label": index % 4, "si_sdri_db": gain}
        for index, gain in enumerate(gains.tolist())
    ]
    better = [{**record, "si_sdri_db": record["si_sdri_db"] + 1.5} for record in signals]
    text = render_tables(
        [
            extraction("sb", "TSE-SER-base", 5.0, model="SB", utterances=signals),
            extraction("sb+sc", "TSE-SER-ft", 6.5, model="SB+SC", utterances=better),
        ]
    )
    low, high = map(float, rows_of(text, "## Extraction quality")[0][6].split(" to "))
    assert low < gains.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 10, abs=0.25)
    rows = {row[0]: row for row in rows_of(text, "## Differences")}
    # Every utterance gains the same: pairs leave nothing to chance.
    assert rows["SI-SDRi: TSE-SER-ft against TSE-SER-base"][2:4] == ["+1.50", "1.5 to 1.5"]
