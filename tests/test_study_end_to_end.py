"""The paper's study by its one command, tiny: real trainings, several runners, a killed one.

`pytest -m slow tests/test_study_end_to_end.py` takes some minutes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from paper_corpora import write_paper_corpora, write_tiny_paper_study

from tse_ser.evaluation.study import REPOSITORY, Cell, Step, load_study, plan_study

pytestmark = pytest.mark.slow
TABLES = ("II", "III", "IV", "V", "VI")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paper_corpora(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_paper_study(tmp_path_factory.mktemp("study"))


def start(study: Path, data_root: Path, output_dir: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tse_ser.evaluation.experiment", "--study", str(study)]
    command += ["--output_dir", str(output_dir), "--data_root", str(data_root), *more]
    environment = {**os.environ, "TSE_SER_CACHE": str(data_root / ".cache")}
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(runner: subprocess.Popen[str]) -> str:
    printed, _ = runner.communicate(timeout=1200)
    assert runner.returncode == 0, printed
    return printed


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.05)


def tables(output_dir: Path) -> str:
    """The tables without what a clock wrote."""
    text = (output_dir / "tables.md").read_text(encoding="utf-8")
    return re.sub(r"[\d.]+ minutes of", "minutes of", text)


def test_the_papers_study_runs_from_one_command_shared_by_two_runners(
    study: Path, data_root: Path, tmp_path: Path
) -> None:
    runners = [start(study, data_root, tmp_path / "out") for _ in range(2)]
    printed = [finish(runner) for runner in runners]

    plan = plan_study(load_study(study), tmp_path / "out")
    cells = [unit for unit in plan if isinstance(unit, Cell)]
    assert {table for cell in cells for table in cell.labels["tables"]} == {*TABLES}
    for cell in cells:
        result = json.loads(cell.path.read_text())
        assert result["fingerprint"] == cell.fingerprint
        assert result["num_examples"] == 8
    for unit in plan:
        if isinstance(unit, Step):
            log = tmp_path / "out/logs" / f"{unit.name}_{unit.output_dir.parent.name}.log"
            assert log.read_text().count("$ ") == 1, f"{unit.key} was started twice"
    holders = {
        json.loads(path.read_text())["pid"] for path in (tmp_path / "out/claims").glob("*.json")
    }
    assert len(holders) == 2, printed
    text = tables(tmp_path / "out")
    assert all(f"Table {table}." in text for table in TABLES)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_killed_in_a_training_gives_the_same_tables(
    study: Path, data_root: Path, tmp_path: Path, how: int
) -> None:
    only = ("--only", "IV/sb_plus_sc", "II/sc_clean_on_noisy")
    finish(start(study, data_root, tmp_path / "whole", *only))

    out = tmp_path / "killed"
    for mark in ("steps/shared/extractor/checkpoint-2", "steps/fold1_seed0/sb_plus_sc/step.json"):
        runner = start(study, data_root, out, *only)
        wait_for(out / mark)
        runner.send_signal(how)
        runner.wait(timeout=60)
        assert runner.returncode != 0
    finish(start(study, data_root, out, *only))

    assert tables(out) == tables(tmp_path / "whole")
    for path in (out / "cells").glob("*.json"):
        one, other = (
            json.loads((folder / "cells" / path.name).read_text())
            for folder in (out, tmp_path / "whole")
        )
        assert one["utterances"] == other["utterances"], path.name


def test_a_smoke_run_of_the_study_leaves_its_results_alone(
    study: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finish(start(study, data_root, out, "--smoke", "--only", "sc_clean_on_clean"))
    facts = json.loads((out / "smoke/steps/fold1_seed0/sc_clean/training_facts.json").read_text())
    assert facts["steps"] == 2
    assert (out / "smoke/tables.md").is_file()
    assert [path.name for path in out.iterdir()] == ["smoke"]


def test_a_training_runs_on_two_machines_at_once(
    study: Path, data_root: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = yaml.safe_load((REPOSITORY / "recipes/accelerate/multi_node.yaml").read_text())
    # Two machines of one process each, without a GPU.
    settings |= {"num_processes": 2, "main_process_port": port, "mixed_precision": "no"}
    config = tmp_path / "accelerate.yaml"
    config.write_text(yaml.safe_dump({**settings, "use_cpu": True}))
    more = ("--only", "sc_clean", "--accelerate_config", str(config))
    out = tmp_path / "out"
    runners = [start(study, data_root, out, *more, "--machine_rank", rank) for rank in "10"]
    for runner in runners:
        finish(runner)

    facts = json.loads((out / "steps/fold1_seed0/sc_clean/training_facts.json").read_text())
    assert facts["num_processes"] == 2
    assert (out / "logs/sc_clean_fold1_seed0.machine1.log").is_file()
