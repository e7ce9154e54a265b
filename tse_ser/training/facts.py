"""What a training was: the protocol, the minutes, the machine and how the loss went, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerState

from tse_ser.machine import describe_versions
from tse_ser.options import TrainingOptions, data_facts
from tse_ser.saving import TRAINING_FACTS_NAME

# The facts of the trainings before, the earliest first, where a file holds them too.
EARLIER_KEY = "earlier_stages"
# The training arguments that a result depends on; the rest is on the checkpoint.
PROTOCOL_ARGUMENTS = (
    "stage",
    "permutation_invariant",
    "seed",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "extractor_learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "mixed_precision",
    "load_best_model_at_end",
    "metric_for_best_model",
    "early_stopping_patience",
)
# Options of the data that say where things lie.
PLACES = (
    *("corpus_dir", "corpus_dirs", "cache_dir", "denoised_dir"),
    *("librimix_metadata_dir", "librispeech_dir"),
)
# What a training may be resumed with another value of: where things lie, how long it goes on, and
# how an update is divided, which is compared as a whole.
FREE_TO_CHANGE = {
    *(*PLACES, "noise_dir", "strict_corpora"),
    *("num_train_epochs", "max_steps", "early_stopping_patience"),
    *("per_device_train_batch_size", "gradient_accumulation_steps"),
}


def run_settings(options: TrainingOptions) -> dict[str, Any]:
    """What a training has to share with the one that it is resumed from, plain values by option; of
    a path the last name."""
    chosen = {**asdict(options.model), **data_facts(options.data), **_training_options(options)}
    values = {
        name: Path(value).name if isinstance(value, str) and "/" in value else value
        for name, value in chosen.items()
        if name not in FREE_TO_CHANGE
    }
    # As a checkpoint has them: lists in place of tuples.
    return dict(json.loads(json.dumps(values)))


def training_facts(
    options: TrainingOptions,
    state: TrainerState,
    *,
    minutes: float,
    best_on_test: Mapping[str, Any] | None = None,
    **measured: Any,
) -> dict[str, Any]:
    """Collects the facts of a finished training.

    Args:
        options (`TrainingOptions`): model, data and optimisation.
        state (`TrainerState`): with the log history.
        minutes (`float`): wall time of training in this and the resumed runs before it.
        best_on_test (`Mapping[str, Any]`, *optional*): the epochs that were chosen on the test
            session, see `tse_ser.training.best_on_test`.
        **measured: `num_examples` (targets by split), `num_parameters` (all and trained) and
            `machine` (processor, cores and GPU), as they are written.

    Returns:
        `dict[str, Any]`: plain values, ready for JSON.
    """
    return {
        "recipe": options.data.config,
        "model": asdict(options.model),
        "data": data_facts(options.data),
        "training": _training_options(options),
        "num_processes": options.training.world_size,
        **measured,
        "minutes": round(minutes, 2),
        "epochs": state.epoch,
        "steps": state.global_step,
        "best_step": state.best_global_step,
        "best_metric": state.best_metric,
        "first_log": _first(state.log_history, "loss"),
        "last_log": _first(state.log_history[::-1], "loss"),
        "last_validation": _first(state.log_history[::-1], "eval_loss"),
        "optimistic": best_on_test is not None,
        "best_on_test": best_on_test,
        "versions": describe_versions(),
    }


def write_facts(facts: Mapping[str, Any], output_dir: str | Path) -> Path:
    """Writes what `training_facts` gives beside a model; returns the file. A training that
    started from the model in this folder keeps the facts of the one before."""
    path = Path(output_dir) / TRAINING_FACTS_NAME
    started_from = facts["model"].get("model_name_or_path")
    if path.is_file() and started_from and Path(started_from).resolve() == path.parent.resolve():
        before = json.loads(path.read_text(encoding="utf-8"))
        earlier = before.pop(EARLIER_KEY, [])
        # The same training, resumed after its end, is one.
        if any(before.get(key) != facts[key] for key in ("model", "data", "training")):
            earlier = [*earlier, before]
        facts = {**facts, EARLIER_KEY: earlier}
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path


def _training_options(options: TrainingOptions) -> dict[str, Any]:
    values = {name: getattr(options.training, name) for name in PROTOCOL_ARGUMENTS}
    values["condition"] = options.data.condition
    return {name: getattr(value, "value", value) for name, value in values.items()}


def _first(history: Iterable[dict[str, float]], key: str) -> dict[str, float] | None:
    return next((entry for entry in history if key in entry), None)
