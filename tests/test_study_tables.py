"""From the tests of a study to its Parquet file, and from that to its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from tiny_results import evaluation, labels, records, study, write_study

from tse_ser.evaluation.results import UTTERANCE_SCHEMA, Results, collect_results, read_results
from tse_ser.evaluation.tables import build_section, latex, main, markdown
from tse_ser.paper import paper_results

REPOSITORY = Path(__file__).resolve().parent.parent
SC_NOISY = labels("SC", "Noisy", "Noisy", "II", "III")
SB_SC = labels("SB_SC", "Denoised", "Denoised", "III", "IV", method="TSE-SER-base")
JOINT = labels("SB+SC", "Noisy", "Noisy", "IV", method="TSE-SER-ft")
HALF, MOST = [1, 0] * 20, [1, 1, 1, 0] * 10


def rows_of(results: Results, name: str) -> list[dict[str, str]]:
    """The rows of a table by their headings; none where it has none."""
    tables = {table.name: table for table in build_section(results).tables}
    return tables[name].frame.to_dict("records") if name in tables else []


def row_of(results: Results, name: str, **wanted: str) -> dict[str, str]:
    (row,) = (row for row in rows_of(results, name) if wanted.items() <= row.items())
    return row


def test_every_utterance_is_a_row_with_what_is_known_of_it(tmp_path: Path) -> None:
    known = {"probabilities": [0.7, 0.1, 0.1, 0.1], "si_sdri_db": 5.5, "gender_state": "same"}
    records_ = records([1, 0], **known)
    records_ += [{"utterance_id": "u2", "label": -100, "prediction": 1, "target_absent": True}]
    path = write_study(tmp_path, {"joint": (JOINT, [evaluation(records_, fold=2, seed=7)])})
    table = pyarrow.parquet.read_table(path)
    assert table.schema.equals(UTTERANCE_SCHEMA)
    first, second, absent = table.to_pylist()
    assert (first["study"], first["test"], first["fold"], first["seed"]) == ("tiny", "joint", 2, 7)
    assert (first["tables"], first["system"], first["train_set"]) == ("IV", "SB+SC", "Noisy")
    assert (first["label"], first["prediction"], second["prediction"]) == (
        "neutral",
        "neutral",
        "sad",
    )
    np.testing.assert_allclose(first["probabilities"], [0.7, 0.1, 0.1, 0.1], rtol=1e-6)
    # The gender state of a test is its label's; that of a mixture is its interferer's.
    assert (first["gender_state"], first["interferer_gender"]) == (None, "same")
    assert (absent["label"], absent["target_absent"], absent["si_sdri_db"]) == (None, True, None)
    run = read_results(path).runs.iloc[0]
    assert (run["num_examples"], run["wa"], run["ua"], run["si_sdri_db"]) == (3, 0.5, 0.5, 5.5)


def test_what_is_no_result_of_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.parquet: expected the results of a study"):
        read_results(tmp_path / "nothing.parquet")
    path = write_study(tmp_path, {"joint": (JOINT, [evaluation(records([1, 0]))])})
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"tiny\.json beside it"):
        read_results(path)


def test_a_row_has_the_mean_and_deviation_of_its_runs_beside_the_papers_figures(
    tmp_path: Path,
) -> None:
    runs = [evaluation(records(right), fold=fold) for fold, right in ((1, HALF), (2, MOST))]
    results = study(tmp_path, {"sc_noisy": (SC_NOISY, runs)})
    row = row_of(results, "table_ii", **{"Train set": "Noisy"})
    assert row["WA (%)"] == "62.50 ± 17.68"
    assert row["UA (%)"] == "62.50 ± 17.68"
    assert (row["Paper's WA (%) †"], row["Paper's UA (%) †"]) == ("53.71", "53.94")
    assert row["Utterances"] == "80"
    # What was not run is empty, and has the paper's figures.
    clean = row_of(results, "table_ii", **{"Test set": "Clean"})
    assert (clean["UA (%)"], clean["Utterances"], clean["Paper's UA (%) †"]) == ("", "", "71.64")
    assert rows_of(results, "table_ii")[2] == rows_of(results, "table_iii")[0]


def test_intervals_hold_the_estimate_and_differences_are_paired(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    before = (rng.random(200) < 0.5).astype(int).tolist()
    after = [1 if right or rng.random() < 0.4 else 0 for right in before]
    results = study(
        tmp_path,
        {
            "sc_noisy": (SC_NOISY, [evaluation(records(before))]),
            "sb_sc": (SB_SC, [evaluation(records(after))]),
        },
    )
    row = row_of(results, "table_iii", System="SC", **{"Train set": "Noisy"})
    for heading in ("95 % interval", "95 % over speakers"):
        low, high = map(float, row[heading].split(" to "))
        assert low < 100 * np.mean(before) < high
        # About twice 1.96 standard deviations of the mean of 200 coin tosses, four a speaker.
        assert high - low == pytest.approx(2 * 1.96 * 100 * 0.5 / np.sqrt(200), abs=4.0)
    gained = row_of(results, "differences", Difference="SB_SC against SC trained on Noisy")
    gain = 100 * (np.mean(after) - np.mean(before))
    assert (gained["Ours"], gained["Paper's †"]) == (f"{gain:+.2f}", "+9.48")
    low, high = map(float, gained["95 % interval"].split(" to "))
    # Pairs differ less than the systems do: nothing was unlearned, so no sample is below zero.
    assert 0 < low < gain < high < 2 * gain


def test_a_difference_is_of_the_folds_that_both_have(tmp_path: Path) -> None:
    right_by_fold = {1: [1, 0, 0, 0], 2: [1, 1, 1, 1]}
    before = [evaluation(records(right), fold=fold) for fold, right in right_by_fold.items()]
    after = [evaluation(records([1, 1, 0, 0]), fold=1)]
    results = study(tmp_path, {"sc_noisy": (SC_NOISY, before), "sb_sc": (SB_SC, after)})
    gained = row_of(results, "differences", Difference="SB_SC against SC trained on Noisy")
    assert gained["Ours"] == "+25.00"
    assert gained["95 % interval"]


def test_a_denoised_utterance_is_paired_with_the_one_that_was_mixed(tmp_path: Path) -> None:
    denoised = records(MOST, source_utterance_id=[f"u{index}" for index in range(40)])
    denoised = [{**record, "utterance_id": f"d{index}"} for index, record in enumerate(denoised)]
    results = study(
        tmp_path,
        {
            "sc_noisy": (SC_NOISY, [evaluation(records(HALF))]),
            "clean": (labels("SC", "Clean", "Denoised", "III"), [evaluation(denoised)]),
        },
    )
    name = "SC trained on Clean, on Denoised, against SC trained on Noisy, on Noisy"
    row = row_of(results, "differences", Difference=name)
    assert row["Ours"] == "+25.00"
    assert "to" in row["95 % interval"]


def test_extraction_is_counted_once_and_told_apart_by_interferer(tmp_path: Path) -> None:
    quality: dict[str, Any] = {"si_sdr_mixture_db": 0.5, "si_sdr_extracted_db": 6.5}
    quality["interferer_corpus"] = [*["emodb"] * 4, *["asterisk"] * 4] * 5
    quality["si_sdri_db"] = [*[4.0] * 4, *[8.0] * 4] * 5
    quality["gender_state"] = "same"
    results = study(
        tmp_path,
        {
            "sb": (
                labels("SB", "", "Noisy", method="TSE-SER-base"),
                [evaluation(records(HALF, **quality))],
            ),
            "sb_sc": (SB_SC, [evaluation(records(HALF, **quality))]),
        },
    )
    row = row_of(results, "extraction", Method="TSE-SER-base", **{"Gender state": "any"})
    assert (row["Mixture SI-SDR (dB)"], row["SI-SDRi (dB)"]) == ("0.50", "6.00")
    assert row["Paper's SI-SDRi (dB) †"] == "7.68"
    low, high = map(float, row["95 % interval"].split(" to "))
    assert 4 < low < 6 < high < 8
    (apart,) = rows_of(results, "interferers")
    assert apart == {
        "Method": "TSE-SER-base",
        "interferer from asterisk": "8.00",
        "interferer from emodb": "4.00",
        "same gender": "6.00",
    }


def test_gender_states_go_to_tables_v_and_vi_whatever_their_case(tmp_path: Path) -> None:
    tests = {}
    for train, test, right in (("same", "same", HALF), ("same", "different", MOST)):
        tables = ("V", "VI") if train == test else ("VI",)
        named = labels(
            "SB_SC", f"Denoised ({train})", f"Denoised ({test})", *tables, gender_state=test
        )
        tests[f"{train}_{test}"] = (named, [evaluation(records(right))])
    results = study(tmp_path, tests)
    assert [row["UA (%)"] for row in rows_of(results, "table_v")][3] == "50.00"
    assert [row["UA (%)"] for row in rows_of(results, "table_vi")] == ["50.00", "75.00", "", ""]
    assert len(rows_of(results, "table_v")) == 8


def test_conditions_stand_apart_and_are_paired_with_the_usual_case(tmp_path: Path) -> None:
    beyond = {"condition_label": "snr_db", "condition_value": "-5"}
    tests = {
        "joint": (JOINT, [evaluation(records(MOST))]),
        "minus_5": ({**JOINT, "tables": [], **beyond}, [evaluation(records(HALF))]),
        "plus_10": (
            {**JOINT, "tables": [], **beyond, "condition_value": "10"},
            [evaluation(records(MOST))],
        ),
    }
    results = study(tmp_path, tests)
    rows = rows_of(results, "conditions")
    assert [(row["Condition"], row["Value"]) for row in rows] == [
        ("snr db", "-5"),
        ("snr db", "10"),
    ]
    # Every utterance of one class is lost and no other: no sample says anything else.
    assert [row["Against the usual"] for row in rows] == ["-25.00", "+0.00"]
    assert rows[0]["95 % of that"] == "-25.0 to -25.0"
    assert row_of(results, "table_iv", System="SB+SC")["UA (%)"] == "75.00"

    neutral = {"condition_label": "enrollment", "condition_value": "neutral"}
    angry = {**neutral, "condition_value": "angry"}
    tests["neutral"] = ({**JOINT, "tables": [], **neutral}, [evaluation(records(HALF))])
    tests["angry"] = ({**JOINT, "tables": [], **angry}, [evaluation(records(MOST))])
    section = build_section(study(tmp_path / "more", tests))
    conditions = next(table for table in section.tables if table.name == "conditions").frame
    against = dict(zip(conditions["Value"], conditions["Against the usual"], strict=True))
    assert (against["angry"], against["neutral"]) == ("+25.00", "")
    assert any("neutral voices where" in paragraph for paragraph in section.paragraphs)


def test_the_presence_of_a_target_is_told_by_the_similarity_of_its_voice(tmp_path: Path) -> None:
    shares = {"speaker_similarity": [0.9, 0.2] * 20, "target_absent": [False, True] * 20}
    named = {**JOINT, "tables": [], "condition_label": "absent_share", "condition_value": "0.5"}
    results = study(tmp_path, {"absent": (named, [evaluation(records(MOST, **shares))])})
    (row,) = rows_of(results, "conditions")
    assert (row["Presence AUC (%)"], row["Presence EER (%)"]) == ("100.00", "0.00")
    assert "Against the usual" not in row


def test_a_test_that_the_paper_does_not_have_gets_a_row_of_its_own(tmp_path: Path) -> None:
    long = {**JOINT, "method": "TSE-SER-ft, long"}
    results = study(tmp_path, {"long": (long, [evaluation(records(MOST))])})
    rows = rows_of(results, "table_iv")
    assert [row["Method"] for row in rows] == ["TSE-SER-base", "TSE-SER-ft", "TSE-SER-ft, long"]
    assert rows[2]["UA (%)"] == "75.00"
    assert rows[2]["Paper's UA (%) †"] == ""


def test_wa_of_another_epoch_and_the_word_optimistic(tmp_path: Path) -> None:
    best = {"wa": 0.8, "wa_checkpoint": "x", "optimistic": True}
    results = study(
        tmp_path, {"sc": (SC_NOISY, [evaluation(records(HALF), **best)])}, protocol="best_on_test"
    )
    row = row_of(results, "table_ii", **{"Train set": "Noisy"})
    assert (row["WA (%)"], row["UA (%)"]) == ("80.00", "50.00")
    section = build_section(results)
    assert section.title.endswith("(optimistic)")
    assert all(table.title.endswith("(optimistic)") for table in section.tables)


def test_the_caption_says_corpora_protocol_folds_seeds_machine_and_minutes(tmp_path: Path) -> None:
    runs = [evaluation(records(HALF), fold=2, seed=seed) for seed in (0, 7)]
    path = write_study(tmp_path, {"sc": (SC_NOISY, runs)}, minutes=(61.5, 30.2))
    path.with_suffix(".md").write_text("## How to read this\n")
    main([str(path), "--output", str(tmp_path / "out" / "results.md")])
    text = (tmp_path / "out" / "results.md").read_text()
    caption = text[: text.index("## Table II")]
    for part in (
        "Targets: ravdess; interferers: asterisk, emodb",
        "`validated`",
        "folds 2; seeds 0, 7",
        "Some CPU, 2 cores",
        "92 minutes of training, 1.0 minutes of scoring",
        "IEMOCAP",
    ):
        assert part in caption, part
    assert text.endswith("## How to read this\n")


def test_the_latex_has_the_same_rows_and_its_own_characters_escaped(tmp_path: Path) -> None:
    runs = [evaluation(records(right), fold=fold) for fold, right in ((1, HALF), (2, MOST))]
    results = study(tmp_path, {"sb_sc": (SB_SC, runs), "sc": (SC_NOISY, runs)})
    section = build_section(results)
    lines = latex([section]).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("%"))
    assert text.count(r"\begin{tabular}") == text.count(r"\toprule") == len(section.tables)
    assert r"SB\_SC & Denoised & Denoised & 62.50 $\pm$ 17.68 &" in text
    assert r"\caption{Table III. " in text
    for unescaped in ("±", "†", " -0", " +0"):
        assert unescaped not in text
    names = [line for line in latex([section, section]).splitlines() if r"\label" in line]
    assert len(names) == len({*names})


def test_the_published_tables_are_those_of_the_published_results() -> None:
    docs = REPOSITORY / "docs"
    paths = sorted((docs / "results").glob("*.parquet"))
    sections = [build_section(read_results(path)) for path in paths]
    assert markdown(sections) == (docs / "results.md").read_text(encoding="utf-8")
    assert latex(sections) == (docs / "results.tex").read_text(encoding="utf-8")


def test_the_papers_figures_are_those_of_its_tables() -> None:
    paper = paper_results()
    counts = {name: len(table["rows"]) for name, table in paper["tables"].items()}
    assert counts == {"II": 3, "III": 3, "IV": 2, "V": 8, "VI": 4}
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
    shared = [paper["tables"][table]["rows"][row] for table, row in (("V", 3), ("VI", 0))]
    assert [row["ua_percent"] for row in shared] == [55.95, 55.95]


def test_collecting_again_after_a_change_of_words_needs_no_other_test(tmp_path: Path) -> None:
    path = write_study(tmp_path, {"sc": (SC_NOISY, [evaluation(records(HALF))])})
    content = json.loads((tmp_path / "study.json").read_text())
    content["tests"]["sc"]["system"] = "SC of our own"
    (tmp_path / "study.json").write_text(json.dumps(content))
    collect_results(tmp_path / "study.json", path)
    assert {*read_results(path).utterances["system"]} == {"SC of our own"}
