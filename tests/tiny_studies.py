"""Studies whose programs take no time, for the tests of the study runner."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tse_ser.evaluation import claims, experiment, launch, records, sharing

# Stands in for train.py: writes a line a call, and the marks that the test asks for.
PROGRAM = """
import sys, time, yaml, pathlib
config = yaml.safe_load(open(sys.argv[sys.argv.index("--config") + 1]))
folder = pathlib.Path(config["output_dir"])
print(" 50%|#####     | 5/10 [00:01<00:01]")
with open(folder / "calls.txt", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
time.sleep(config.get("sleep", 0))
if config.get("abort"):
    calls = len((folder / "calls.txt").read_text().splitlines())
    if calls <= config["abort"]:
        import os, signal
        os.kill(os.getpid(), signal.SIGABRT)
if config.get("fail"):
    raise SystemExit("the loss is no number")
(folder / "model.txt").write_text("weights")
"""


def tiny_study(folder: Path) -> Path:
    """A study of two folds with two steps and a cell each, and their recipe."""
    (folder / "recipe.yaml").write_text("stage: extraction\nmixing_seed: 3\n")
    recipe = str(folder / "recipe.yaml")
    study = {
        "name": "tiny",
        "folds": [1, 2],
        "seeds": [0],
        "data": {"targets": ["generated"], "interferers": ["generated_pool"], "mixing_seed": 9},
        "steps": [
            {"name": "first", "train": recipe},
            {"name": "second", "train": recipe, "arguments": {"extractor": "{first}"}},
        ],
        "cells": [
            {"name": "cell", "tables": ["II"], "model": "SC", "arguments": {"model": "{second}"}}
        ],
    }
    return write_study(folder / "study.yaml", study)


def stub_programs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Puts `PROGRAM` for the trainings, and next to nothing for scoring, tables and figures."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(
        experiment.Launcher,
        "command",
        lambda launcher, step, config: [sys.executable, str(program), "--config", str(config)],
    )
    monkeypatch.setattr(experiment, "evaluate_checkpoint", write_cell)
    monkeypatch.setattr(experiment, "write_tables", write_tables)
    for name in ("write_figures", "write_report"):
        monkeypatch.setattr(experiment, name, lambda folder, **keywords: None)
    monkeypatch.setattr(launch, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(sharing, "WAIT_SECONDS", 0.05)
    for module in (claims, experiment):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.1)


def write_cell(labels: dict[str, Any], output: str, model: str, **arguments: Any) -> None:
    """A cell's result without a score; what is scored has to be there."""
    assert (Path(model) / "model.txt").exists()
    result = {**labels, **arguments, "checkpoint": model, "minutes": 0.1}
    records.write_json(Path(output), result)


def write_tables(folder: Path) -> str:
    """All that a table could hold: the cells without their minutes."""
    cells = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
    for cell in cells:
        del cell["minutes"]
    tables = json.dumps(cells, indent=1)
    (folder / "tables.md").write_text(tables)
    return "the tables"


def write_study(path: Path, study: dict[str, Any]) -> Path:
    """Writes a study file."""
    path.write_text(yaml.safe_dump(study))
    return path


def changed(path: Path, **changes: Any) -> Path:
    """The study file with other keys."""
    return write_study(path, {**yaml.safe_load(path.read_text()), **changes})


def run(study: Path, output_dir: Path, *more: str) -> None:
    """Runs a study in this process."""
    arguments = ["--study", str(study), "--output_dir", str(output_dir), *more]
    experiment.run_study(experiment.parse_arguments(arguments))


def calls(output_dir: Path) -> dict[str, int]:
    """How often the program of each step was called, by folder."""
    return {
        str(path.parent.relative_to(output_dir / "steps")): len(path.read_text().splitlines())
        for path in sorted(output_dir.glob("steps/*/*/calls.txt"))
    }
