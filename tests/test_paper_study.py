"""The studies of recipes/paper: every row of the tables, and settings that the programs take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_builders.options import read_recipe
from tse_ser.evaluation.experiment import check_cells
from tse_ser.evaluation.study import Cell, Step, load_study, plan_study
from tse_ser.evaluation.tables import load_paper_results
from tse_ser.options import read_training_options
from tse_ser.training.build_model import read_config
from tse_ser.training.denoise_corpus import parse_arguments as parse_denoise_arguments

REPOSITORY = Path(__file__).resolve().parent.parent
PAPER = REPOSITORY / "recipes" / "paper"
STUDIES = ("study", "study_librispeech", "beyond")
TABLES = ("II", "III", "IV", "V", "VI")


def planned(name: str, **choice: Any) -> list[Step | Cell]:
    return plan_study(load_study(PAPER / f"{name}.yaml"), Path("results"), **choice)


def steps_of(plan: list[Step | Cell]) -> dict[str, Step]:
    return {unit.name: unit for unit in plan if isinstance(unit, Step)}


def cells_of(plan: list[Step | Cell]) -> list[Cell]:
    return [unit for unit in plan if isinstance(unit, Cell)]


def row_name(table: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells the rows of a table apart, in the words of the paper's file and of a cell."""
    columns = load_paper_results()["tables"][table]["columns"]
    words = [str(row[column]).lower() for column in columns]
    # Table V names the gender state in a column of its own, Table VI in those of the sets.
    return tuple(re.sub(r" \(.*\)", "", word) if table == "V" else word for word in words)


@pytest.fixture(scope="module")
def one_run() -> list[Step | Cell]:
    """The study of one fold and seed."""
    return planned("study", folds=[1], seeds=[0])


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_the_papers_tables_has_its_cell_and_no_other(
    one_run: list[Step | Cell], table: str
) -> None:
    rows = [row_name(table, row) for row in load_paper_results()["tables"][table]["rows"]]
    cells = [
        row_name(table, cell.labels) for cell in cells_of(one_run) if table in cell.labels["tables"]
    ]
    assert sorted(cells) == sorted(rows)
    assert len({*cells}) == len(cells)


def test_the_labels_of_a_cell_are_what_it_is_scored_on(one_run: list[Step | Cell]) -> None:
    steps = steps_of(one_run)
    by_folder = {str(step.output_dir): step for step in steps.values()}
    for cell in cells_of(one_run):
        arguments, labels = cell.arguments, cell.labels
        test_set, _, test_gender = labels["test_set"].partition(" ")
        classifier = by_folder[arguments.get("classifier") or arguments["model"]]
        train_set, _, train_gender = labels["train_set"].partition(" ")
        assert classifier.config["condition"] == train_set.lower(), cell.name
        extracts = "classifier" in arguments or classifier.config["stage"] == "joint"
        heard = "noisy" if test_set == "Denoised" and extracts else test_set.lower()
        assert arguments["condition"] == heard, cell.name
        gender_state = labels.get("gender_state")
        assert arguments.get("gender_state") == gender_state, cell.name
        if gender_state is not None and arguments["condition"] == "noisy":
            assert arguments["interferers"] == ["esd"], cell.name
        assert test_gender in ("", f"({gender_state})"), cell.name
        if train_gender:
            denoised = by_folder[classifier.config["denoised_dir"]]
            assert train_gender == f"({denoised.config['gender_state']})", cell.name


def test_the_study_is_that_of_section_three(one_run: list[Step | Cell]) -> None:
    study = load_study(PAPER / "study.yaml")
    assert (study["protocol"], study["folds"]) == ("paper", [1, 2, 3, 4, 5])
    steps = steps_of(one_run)
    pretraining = steps["extractor"].config
    assert (pretraining["librimix_subset"], pretraining["num_speakers"]) == ("train-clean-100", [2])
    noise = ["librispeech:subsets=train-clean-360,hours=105"]
    for name, step in steps.items():
        if name == "extractor":
            continue
        gendered = name.endswith(("_same", "_different"))
        assert step.config["targets"] == ["iemocap"]
        if step.config.get("condition") != "denoised":
            assert step.config["interferers"] == (["esd"] if gendered else noise), name
        assert step.config["snr_range_db"] == [0.0, 0.0]
        assert step.config["enrollment_emotion"] == "neutral"
        assert step.config["protocol"] == "paper"
    assert all(cell.arguments["snr_range_db"] == [0.0, 0.0] for cell in cells_of(one_run))


def test_one_extractor_serves_everything_and_a_denoised_set_its_seeds() -> None:
    plan = planned("study")
    paths = [str(unit.output_dir) for unit in plan if isinstance(unit, Step)]
    assert len({*paths}) == len(paths)
    counts = {
        name: sum(unit.name == name for unit in plan if isinstance(unit, Step))
        for name in ("extractor", "denoised", "denoised_same", "sc_clean", "sb_plus_sc")
    }
    assert counts == {
        "extractor": 1,
        "denoised": 5,
        "denoised_same": 5,
        "sc_clean": 15,
        "sb_plus_sc": 15,
    }


@pytest.mark.parametrize("name", STUDIES)
def test_every_key_is_one_that_the_programs_take(name: str, tmp_path: Path) -> None:
    plan = planned(name, folds=[1], seeds=[0])
    check_cells(plan)
    for step in steps_of(plan).values():
        path = tmp_path / f"{step.name}.yaml"
        path.write_text(yaml.safe_dump({**step.config, "output_dir": "unused"}))
        if step.program == "denoise":
            parse_denoise_arguments(["--config", str(path)])
            continue
        model_args, _, training_args = read_training_options(["--config", str(path)])
        assert training_args.load_best_model_at_end == (step.name == "extractor")
        for config in (model_args.extractor_config, model_args.classifier_config):
            assert config is None or (REPOSITORY / config).is_file()


@pytest.mark.parametrize("protocol", ["validated", "best_on_test"])
def test_the_study_can_be_run_under_the_other_protocols(protocol: str, tmp_path: Path) -> None:
    study = {**load_study(PAPER / "study.yaml"), "protocol": protocol}
    plan = plan_study(study, tmp_path, folds=[1], seeds=[0])
    check_cells(plan)
    for step in steps_of(plan).values():
        path = tmp_path / f"{step.name}.yaml"
        path.write_text(yaml.safe_dump({**step.config, "output_dir": "unused"}))
        if step.program == "denoise":
            data_args, _ = parse_denoise_arguments(["--config", str(path)])
        else:
            _, data_args, training_args = read_training_options(["--config", str(path)])
            assert training_args.load_best_model_at_end
            assert training_args.metric_for_best_model == (
                "si_sdr" if step.name == "extractor" else "ua"
            )
        # LibriMix has no test session to choose on.
        assert data_args.protocol == ("validated" if step.name == "extractor" else protocol)
    assert all(cell.arguments["protocol"] == protocol for cell in cells_of(plan))


def test_its_test_mixtures_can_be_published() -> None:
    options = read_recipe(PAPER / "study.yaml").of_split("test")
    assert (options.targets, options.protocol) == (("iemocap",), "paper")


def test_the_models_are_those_of_the_paper() -> None:
    from modeling import ShiftCnnConfig, TdSpeakerBeamConfig

    configs = REPOSITORY / "recipes" / "model_configs"
    extractor = read_config(str(configs / "extractor_paper.json"), TdSpeakerBeamConfig)
    assert extractor.to_dict() == TdSpeakerBeamConfig().to_dict()
    hubert = read_config(str(configs / "classifier_hubert.json"), ShiftCnnConfig)
    assert (hubert.freeze_encoder, hubert.shift_placement) == (True, "residual")
    wav2vec2 = read_config(str(configs / "classifier_wav2vec2.json"), ShiftCnnConfig)
    assert (wav2vec2.freeze_encoder, wav2vec2.freeze_feature_encoder) == (False, True)
    head = {"freeze_encoder", "encoder_config"}
    assert {k: v for k, v in hubert.to_dict().items() if k not in head} == {
        k: v for k, v in wav2vec2.to_dict().items() if k not in head
    }


def test_what_lies_beyond_the_tables_is_planned_on_the_same_steps() -> None:
    plan, tables = planned("beyond", folds=[1], seeds=[0]), planned("study", folds=[1], seeds=[0])
    same = {unit.key: unit.fingerprint for unit in tables}
    assert same == {unit.key: unit.fingerprint for unit in plan if unit.key in same}
    beyond = [cell for cell in cells_of(plan) if cell.key not in same]
    assert steps_of(plan).keys() == steps_of(tables).keys()
    values: dict[str, set[Any]] = {}
    for cell in beyond:
        assert "tables" not in cell.labels
        values.setdefault(cell.labels["condition_label"], set()).add(cell.labels["condition_value"])
    assert values == {
        "snr_db": {-10, -5, 0, 5, 10},
        "speakers": {3},
        "noise, room": {"none", "reverberant"},
        "enrollment": {"neutral", "happy", "sad", "angry"},
        "interferer": {"neutral", "happy", "sad", "angry", "surprised"},
        "nobody interferes": {"trained on Clean", "trained on Denoised", "trained on Noisy"},
        "absent_share": {0.5},
    }
    by_name = {cell.name: cell.arguments for cell in beyond}
    assert by_name["sb_plus_sc_snr_-10"]["snr_range_db"] == [-10, -10]
    assert by_name["sb_plus_sc_speakers_3"]["num_speakers"] == [3]
    assert by_name["sb_sc_noise_reverberant"]["reverberation"] == "reverberant"
    assert by_name["sb_plus_sc_interferer_sad"]["interferer_emotions"] == ["sad"]
    assert by_name["sb_plus_sc_absent"]["classifier"] is None


def test_the_figures_of_the_paper_name_where_they_stand() -> None:
    paper = load_paper_results()
    assert {*paper["tables"]} == {*TABLES}
    assert all(paper["tables"][table]["source"] == f"Table {table}" for table in TABLES)
    json.dumps(paper)
