"""Whole studies, tiny, with real trainings: `make demo` killed on its way, and that of the paper.

`pytest -m slow tests/test_study_runs.py` takes some minutes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml
from paper_corpora import write_paper_corpora, write_tiny_paper_config
from subprocesses import run_program

from tse_ser.evaluation.results import read_results
from tse_ser.evaluation.tables import build_section

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parent.parent
TINY = {
    "only": ["sb_plus_sc", "sc_clean_on_noisy"],
    "overrides": {
        "train": {
            "num_train_epochs": 3,
            "max_train_examples": 16,
            "max_eval_examples": 8,
            "report_to": "none",
            "use_cpu": True,
        },
        "evaluate": {"max_examples": 16},
    },
}
# What is there when the study is killed: in a training, and between one and the next.
MARKS = ("steps/extractor/*/checkpoint-*/trainer_state.json", "steps/sb_plus_sc/*/.made_from")


def start(folder: Path, config: Path) -> subprocess.Popen[str]:
    """The command of `make demo` in a session of its own, up to the tables."""
    printed = run_program(["make", "-n", "demo", f"DEMO_DIR={folder}"], REPOSITORY)
    printed = printed.replace("\\\n", " ")
    (command,) = (line for line in printed.splitlines() if "snakemake -s studies/demo" in line)
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        f"exec {command} --configfile {config} -- {folder}/results.md",
        shell=True,
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(running: subprocess.Popen[str]) -> str:
    printed, _ = running.communicate(timeout=3600)
    assert running.returncode == 0, printed
    return printed


def wait_for(folder: Path, mark: str, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 1800
    while not [*folder.glob(mark)]:
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, f"{mark} does not appear"
        time.sleep(0.05)


def kill(running: subprocess.Popen[str], *, alone: bool) -> None:
    """Kills everything that runs, as a power cut does, or Snakemake alone."""
    if not alone:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        return
    # `flock` waits for Snakemake, its only child.
    (snakemake,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(snakemake), signal.SIGKILL)
    running.wait()


def tables(folder: Path) -> str:
    """The tables without what a clock wrote."""
    text = (folder / "results.md").read_text(encoding="utf-8")
    return re.sub(r"[\d.]+ minutes of", "minutes of", text)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Path:
    """The study without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder, config))
    return folder


@pytest.mark.parametrize("alone", [False, True])
def test_a_study_that_is_killed_gives_the_same_tables(
    whole: Path, config: Path, tmp_path: Path, alone: bool
) -> None:
    folder = tmp_path / "killed"
    for mark in MARKS:
        running = start(folder, config)
        wait_for(folder, mark, running)
        kill(running, alone=alone)
    finish(start(folder, config))

    assert tables(folder) == tables(whole)
    one, other = (pyarrow.parquet.read_table(path / "demo.parquet") for path in (folder, whole))
    assert one.equals(other)
    assert "resuming from" in "".join(path.read_text() for path in (folder / "logs").iterdir())
    # One after the other: two at once would have mixed their lines.
    assert "nothing to be done" in finish(start(folder, config)).lower()


def test_the_papers_study_fills_its_tables_from_one_command(tmp_path: Path) -> None:
    corpora = write_paper_corpora(tmp_path / "corpora")
    command = [sys.executable, "-m", "snakemake", "-s", "studies/paper/Snakefile", "--cores", "2"]
    command += ["--nolock", "--show-failed-logs"]
    command += ["--configfile", str(write_tiny_paper_config(tmp_path)), "--config"]
    command += [f"corpus_dir={corpora}", f"cache_dir={tmp_path / 'cache'}"]
    command += [f"output_dir={tmp_path / 'paper'}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    run_program(command, REPOSITORY, environment, timeout_seconds=3600)
    results = read_results(tmp_path / "paper" / "paper.parquet")
    assert (results.runs["num_examples"] == 8).all()
    tables = {table.name: table.frame for table in build_section(results).tables}
    for name in ("table_ii", "table_iii", "table_iv", "table_v", "table_vi"):
        assert (tables[name]["UA (%)"] != "").all(), name
    assert (tables["extraction"]["SI-SDRi (dB)"] != "").all()
    assert (tables["differences"]["Ours"] != "").all()
    written = {path.name for path in (tmp_path / "paper").iterdir()}
    assert {"results.md", "results.tex", "report.html", "figures"} <= written
