"""Folders of trainings and cells of evaluation, as the tests of publishing need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainerState

from modeling import TseSerFeatureExtractor
from tse_ser.options import read_training_options
from tse_ser.publishing.lineage import FACTS_NAME
from tse_ser.training.facts import training_facts

REPO_ID = "lab/tse-ser-ft"
RAVDESS = ["--targets", "ravdess", "--interferers", "ravdess", "emodb"]
MACHINE = {"cpu": "a processor", "cores": 2, "gpu": None}


def facts_of(arguments: list[str], **changed: Any) -> dict[str, Any]:
    """What `train.py` would write of a training with these arguments, on a made-up machine."""
    parsed = read_training_options([*arguments, "--output_dir", "results", "--report_to", "none"])
    state = TrainerState(
        epoch=5.0, global_step=120, best_metric=0.25, best_global_step=96, log_history=[]
    )
    facts = training_facts(
        parsed,
        state,
        minutes=12.5,
        num_examples={"train": 1000, "validation": 64},
        num_parameters={"all": 4321, "trained": 1234},
        machine=MACHINE,
    )
    # They change with the machine that the tests run on.
    facts |= {"num_processes": 2, "versions": {"python": "3.11.7", "torch": "2.14.1"}}
    return {**facts, **changed}


def write_training(
    folder: Path, model: PreTrainedModel | None, arguments: list[str], **changed: Any
) -> Path:
    """A folder as a training leaves it; without a model, its facts alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        model.save_pretrained(folder)
        TseSerFeatureExtractor().save_pretrained(folder)
    facts = facts_of(arguments, **changed)
    (folder / FACTS_NAME).write_text(json.dumps(facts), encoding="utf-8")
    return folder


def cell_of(checkpoint: str, **changed: Any) -> dict[str, Any]:
    """A cell of evaluation with numbers that nobody measured."""
    return {
        "name": "sb_plus_sc",
        "tables": ["IV"],
        "system": "SB+SC",
        "method": "TSE-SER-ft",
        "checkpoint": checkpoint,
        "classifier_checkpoint": None,
        "condition": "noisy",
        "split": "test",
        "fold": 1,
        "seed": 0,
        "protocol": "validated",
        "targets": ["ravdess"],
        "interferers": ["ravdess", "emodb", "asterisk"],
        "gender_state": "any",
        "snr_distribution": "uniform",
        "snr_range_db": [0.0, 0.0],
        "num_examples": 16,
        "ua": 0.515625,
        "wa": 0.5,
        "si_sdr_mixture_db": 0.125,
        "si_sdri_db": 2.71828,
        "utterances": [{"utterance_id": "ravdess/secret", "label": 0}],
        **changed,
    }


def write_cell(path: Path, checkpoint: str, **changed: Any) -> Path:
    """A cell as evaluation writes it: its checkpoint as seen from the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cell_of(checkpoint, **changed)), encoding="utf-8")
    return path
