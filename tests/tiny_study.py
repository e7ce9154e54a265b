"""A finished study of one tiny joint model, for what is drawn and written from its results."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_models import tiny_tse_ser

from data_builders.schema import EMOTIONS
from tse_ser.evaluation.evaluate_checkpoint import evaluate_checkpoint

HISTORY: list[dict[str, float]] = [
    {"loss": 1.4, "epoch": 0.5, "step": 5},
    {"eval_loss": 1.3, "eval_ua": 0.4, "eval_wa": 0.5, "epoch": 1.0, "step": 10},
    {"loss": 1.1, "epoch": 1.5, "step": 15},
    {"eval_loss": 1.2, "eval_ua": 0.55, "eval_wa": 0.6, "epoch": 2.0, "step": 20},
]


def make_study(folder: Path, model_name: str = "SB+SC") -> Path:
    """Writes a cell of a random model on six generated mixtures, and a training's history."""
    step = folder / "steps" / "fold1_seed0" / "joint"
    model = tiny_tse_ser()
    model.config.id2label = dict(enumerate(EMOTIONS))
    model.save_pretrained(step)
    (step / "trainer_state.json").write_text(json.dumps({"log_history": HISTORY}))
    (step / "step.json").write_text(json.dumps({"minutes": 12.0}))
    evaluate_checkpoint(
        {"name": "sb+sc", "model": model_name, "method": "TSE-SER-ft", "tables": ["IV"]},
        model=str(step),
        interferers=["generated_pool"],
        max_examples=6,
        output=str(folder / "cells" / "sb+sc_fold1_seed0.json"),
    )
    return folder
