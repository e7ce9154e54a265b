"""The plans of studies/: every row of the tables, commands that the programs take, refusals."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented_programs import check_command

from tse_ser.paper import paper_results

REPOSITORY = Path(__file__).resolve().parent.parent
STUDIES = REPOSITORY / "studies"
PAPER = paper_results()
BEYOND = ["--configfile", "studies/paper/beyond.yaml"]
PROGRAM = re.compile(r"(?:train\.py|-m (?:tse_ser|data_builders)\.\S+) .*")


def snakemake(study: str, *arguments: str, folder: Path = REPOSITORY) -> str:
    """What Snakemake prints of a study; raises where it refuses."""
    command = [sys.executable, "-m", "snakemake", "-s", str(folder / f"studies/{study}/Snakefile")]
    done = subprocess.run(
        [*command, "--cores", "2", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def plan(study: str, *arguments: str) -> str:
    """What Snakemake would do, whatever lies in `results/` of this checkout."""
    return snakemake(study, "-n", "--forceall", *arguments)


def planned(study: str, *arguments: str) -> dict[str, int]:
    """How many jobs of each rule a study plans."""
    stats = re.search(r"^Job stats:\n.*?\n(.*?)^total", plan(study, *arguments), re.M | re.S)
    assert stats is not None
    pairs = [line.split() for line in stats.group(1).splitlines() if re.search(r"\s\d+$", line)]
    return {name: int(count) for name, count in pairs}


def commands(study: str, *arguments: str) -> list[list[str]]:
    """The programs that a study would start, with their arguments."""
    text = plan(study, "-p", *arguments).replace("\\\n", " ")
    found = [match.group(0).partition(" >> ")[0] for match in PROGRAM.finditer(text)]
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize(
    ("study", "arguments", "trainings", "sets", "tests"),
    [
        ("demo", [], 5, 1, 6),
        ("demo", ["--config", "only=[II,III,IV,V,VI]"], 9, 3, 16),
        # Tables, adapted extractor; SNRs, clean, 3 speakers, noise, rooms, enrollments, absence.
        ("ravdess", [], 6 * 10, 6 * 4, 6 * (16 + 1 + 15 + 2 + 3 + 3 + 3 + 3 + 1)),
        # One extractor for all, Denoised sets for all seeds.
        ("paper", [], 1 + 15 * 8, 15, 15 * 16),
        ("paper", [*BEYOND, "--config", "folds=[1]", "seeds=[0]"], 1 + 8, 3, 16 + 46),
        ("paper", ["--config", "only=[II]", "folds=[2,3]", "seeds=[1]"], 4, 0, 6),
        ("paper", ["--configfile", "studies/paper/librispeech.yaml"], 1 + 15 * 8, 15, 15 * 16),
    ],
)
def test_a_study_plans_what_its_tables_need(
    study: str, arguments: list[str], trainings: int, sets: int, tests: int
) -> None:
    jobs = planned(study, *arguments)
    assert jobs["train"] == trainings
    assert jobs.get("denoise", 0) == sets
    assert jobs["evaluate"] == tests


def test_the_slurm_profile_plans_jobs_with_their_resources() -> None:
    pytest.importorskip("snakemake_executor_plugin_slurm")
    text = snakemake("paper", "-n", "--profile", "studies/profiles/slurm", "--config", "folds=[1]")
    training = re.search(r"^rule train:\n.*?resources: ([^\n]*)", text, re.M | re.S)
    assert training is not None
    for resource in ("gpu=1", "slurm_partition=gpu", "slurm_account=lab", "runtime=1440"):
        assert resource in training.group(1)


@pytest.mark.parametrize(
    ("study", "arguments"),
    [
        ("demo", []),
        ("ravdess", ["--config", "folds=[1]", "corpus_dir=DIR"]),
        ("paper", [*BEYOND, "--config", "folds=[1]", "seeds=[0]"]),
        ("paper", [*BEYOND, "studies/smoke.yaml", "--config", "folds=[1]", "seeds=[0]"]),
        ("paper", ["--config", "folds=[1]", "seeds=[0]", "protocol=best_on_test"]),
    ],
)
def test_the_programs_take_every_option_of_a_study(
    study: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("TSE_SER_PRETRAINED", "pretrained")
    found = commands(study, *arguments)
    for words in found:
        if words[0] == "train.py":
            assert words[words.index("--resume_from_checkpoint") + 1] == "auto"
        check_command(["python", *words])
    assert {words[0] for words in found} == {"train.py", "-m"}


def test_every_row_of_the_papers_tables_has_its_test_and_no_other() -> None:
    tests = yaml.safe_load((STUDIES / "systems.yaml").read_text())["tests"]
    for name, table in PAPER["tables"].items():
        # Table V names the gender state in a column of its own, Table VI in those of the sets.
        rows, planned_rows = (
            sorted(
                tuple(
                    re.sub(r" \(.*\)", "", row[column]) if name == "V" else row[column]
                    for column in table["columns"]
                )
                for row in found
            )
            for found in (
                table["rows"],
                [test["labels"] for test in tests.values() if name in test["labels"]["tables"]],
            )
        )
        assert planned_rows == rows, name


def test_the_labels_of_a_test_are_what_it_is_scored_on() -> None:
    systems = yaml.safe_load((STUDIES / "systems.yaml").read_text())
    steps = systems["steps"]
    for name, test in systems["tests"].items():
        labels, options = test["labels"], test["options"]
        test_set, _, test_gender = labels["test_set"].partition(" ")
        train_set, _, train_gender = labels["train_set"].partition(" ")
        last = steps[test["from"].get("classifier", test["from"]["model"])]
        joint = last["train"] == "2_joint.yaml"
        # The joint stage hears mixtures, whatever comes out of its extractor.
        trained_on = "noisy" if joint else last["options"]["condition"]
        assert trained_on == train_set.lower(), name
        extracts = joint or "classifier" in test["from"]
        heard = "noisy" if test_set == "Denoised" and extracts else test_set.lower()
        assert options["condition"] == heard, name
        gender = labels.get("gender_state")
        if heard == "denoised":
            denoised = steps[test["from"]["denoised_dir"]]
            assert denoised.get("options", {}).get("gender_state") == gender, name
        else:
            assert options.get("gender_state") == gender, name
        assert test_gender in ("", f"({str(gender).title()})"), name
        if train_gender:
            denoised = steps[last["from"]["denoised_dir"]]
            assert train_gender == f"({denoised['options']['gender_state'].title()})", name


def test_the_papers_study_is_that_of_section_three() -> None:
    text = (STUDIES / "paper" / "config.yaml").read_text()
    study = yaml.safe_load(text)
    assert (study["protocol"], study["folds"]) == ("paper", [1, 2, 3, 4, 5])
    noise = ["librispeech:subsets=train-clean-360,hours=105"]
    assert study["data"]["interferers"] == noise
    recipes = REPOSITORY / study["recipes"]
    for name in ("1_classification.yaml", "2_joint.yaml", "denoise.yaml"):
        recipe = yaml.safe_load((recipes / name).read_text())
        assert (recipe["targets"], recipe["interferers"]) == (["iemocap"], noise)
        assert recipe["protocol"] == "paper"
    pretraining = yaml.safe_load((recipes / "1_extraction.yaml").read_text())
    assert pretraining["librimix_subset"] == "train-clean-100"
    gendered = {**study["steps"], **study["tests"]}
    esd = {
        name for name, entry in gendered.items() if entry.get("options") == {"interferers": ["esd"]}
    }
    systems = yaml.safe_load((STUDIES / "systems.yaml").read_text())
    drawn = {
        name
        for kind in ("steps", "tests")
        for name, entry in systems[kind].items()
        if "gender_state" in entry.get("options", {})
    }
    assert esd == drawn


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"steps": {"extractor": {"repeat": []}}},
            "extractor serves every fold, but trains on generated, on which the folds are tested",
        ),
        (
            {"steps": {"denoised": {"repeat": []}}},
            "each fold has a extractor of its own, but denoised",
        ),
        (
            {"steps": {"sb_sc": {"from": {"denoised_dir": "clean"}}}},
            "clean is no step of the study",
        ),
        (
            # A folder with the name of a corpus is that corpus.
            {
                "steps": {"sc_noisy": {"repeat": [], "options": {"targets": ["folder:name=mine"]}}},
                "data": {"targets": ["mine"]},
            },
            "sc_noisy serves every fold, but trains on mine, on which the folds are tested",
        ),
        ({"only": ["VII"]}, "fits no test of sc_clean_on_clean"),
    ],
)
def test_a_study_that_cannot_be_right_is_refused(
    changes: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text(yaml.safe_dump(changes))
    with pytest.raises(AssertionError, match=problem):
        snakemake("demo", "-n", "--configfile", str(config))


def test_a_step_may_be_a_model_that_is_there(tmp_path: Path) -> None:
    config = tmp_path / "read.yaml"
    folder = "pretrained/td-speakerbeam-read"
    config.write_text(yaml.safe_dump({"steps": {"extractor": {"train": None, "folder": folder}}}))
    found = commands("demo", "--configfile", str(config))
    extractors = [words[words.index("--extractor_name_or_path") + 1] for words in found
                  if "--extractor_name_or_path" in words]  # fmt: skip
    assert {*extractors} == {folder}
    assert sum(words[0] == "train.py" for words in found) == 4


def test_a_step_may_have_threads_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "threads.yaml"
    config.write_text(yaml.safe_dump({"steps": {"sc_noisy": {"threads": 2}}, "only": ["sc_*"]}))
    jobs = plan("demo", "--configfile", str(config)).split("\nrule ")
    threads = {
        match.group(1): "threads: 2" in job
        for job in jobs
        if (match := re.search(r"output: results/demo/steps/(\w+)/.*training_facts", job))
    }
    assert len(threads) > 2 and [step for step, two in threads.items() if two] == ["sc_noisy"]


STUB = """
import pathlib, sys, time
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(words["--output_dir"])
checkpoint = folder / "checkpoint-1"
with open("calls.txt", "a") as calls:
    print("resumed" if checkpoint.exists() else "new", file=calls)
checkpoint.mkdir(exist_ok=True)
if pathlib.Path("fail").exists():
    raise SystemExit("killed")
(folder / "training_facts.json").write_text("{}")
"""


def test_a_training_goes_on_where_it_was_cut_off_and_starts_anew_with_other_options(
    tmp_path: Path,
) -> None:
    copied = tmp_path / "house"
    for name in ("studies", "recipes"):
        (copied / name).mkdir(parents=True)
        subprocess.run(["cp", "-r", f"{REPOSITORY / name}/.", str(copied / name)], check=True)
    (copied / "train.py").write_text(STUB)
    target = "results/demo/steps/sc_clean/fold-1_seed-0/training_facts.json"
    calls = copied / "calls.txt"

    def run(*more: str) -> None:
        snakemake("demo", "--show-failed-logs", target, *more, folder=copied)

    (copied / "fail").touch()
    with pytest.raises(AssertionError, match="killed"):
        run()
    (copied / "fail").unlink()
    run()
    assert calls.read_text().split() == ["new", "resumed"]
    run()  # there is nothing left to do
    recipe = copied / "recipes/generated/1_classification.yaml"
    recipe.touch()  # as a fresh checkout does
    run()
    assert calls.read_text().split() == ["new", "resumed"]
    config = copied / "more.yaml"
    config.write_text(yaml.safe_dump({"steps": {"sc_clean": {"options": {"learning_rate": 0.1}}}}))
    run("--configfile", str(config))
    recipe.write_text(recipe.read_text() + "weight_decay: 0.5\n")
    run("--configfile", str(config))
    assert calls.read_text().split() == ["new", "resumed", "new", "new"]
    # Where speech lies decides nothing.
    run("--configfile", str(config), "--config", f"corpus_dir={tmp_path}")
    assert calls.read_text().count("new") == 3
    model = copied / "recipes/model_configs/classifier_log_mel.json"
    model.write_text(model.read_text() + "\n")
    run("--configfile", str(config))
    assert calls.read_text().count("new") == 4
    included = recipe.with_name("included.yaml")
    included.write_text("warmup_steps: 1\n")
    recipe.write_text(recipe.read_text() + f"include: {included.name}\n")
    run("--configfile", str(config))
    included.write_text("warmup_steps: 2\n")
    run("--configfile", str(config))
    assert calls.read_text().count("new") == 6
