"""Protocol `best_on_test`: the best epoch on the test session, for WA and for UA apart.

The public ShiftCNN code reports so. It chooses on what it reports, so that its numbers are
optimistic; they are marked as such wherever they are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

BEST_WA_FOLDER = "best_wa"
OPTIMISTIC = (
    "optimistic: the epochs were chosen on the test session, for WA and for UA apart; compare with "
    "results of the same protocol only"
)


class BestOnTest(TrainerCallback, ExportableState):
    """Remembers the best epochs, and keeps the model of the best WA beside that of the best UA.

    The best UA is the training's `metric_for_best_model`: its model ends up in the output folder
    itself, that of the best WA in `best_wa` below it.
    """

    def __init__(self) -> None:
        self.best: dict[str, dict[str, float]] = {}

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Compares an evaluation of the test session with the best so far."""
        metrics = kwargs["metrics"]
        for name in ("wa", "ua"):
            value = metrics[f"eval_{name}"]
            if name in self.best and value <= self.best[name][name]:
                continue
            # The first of equals, as Trainer keeps it.
            self.best[name] = {name: value, "epoch": state.epoch or 0.0, "step": state.global_step}
            if name == "wa" and state.is_world_process_zero:
                folder = Path(str(args.output_dir)) / BEST_WA_FOLDER
                kwargs["model"].save_pretrained(folder)
                kwargs["processing_class"].save_pretrained(folder)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"best": self.best}}

    def facts(self) -> dict[str, Any]:
        """What `training_facts.json` says of the choice."""
        folders = {"ua": ".", "wa": BEST_WA_FOLDER}
        chosen = {name: {**best, "folder": folders[name]} for name, best in self.best.items()}
        return {"label": OPTIMISTIC, **chosen}


def best_on_test_facts(callbacks: list[TrainerCallback]) -> dict[str, Any] | None:
    """The facts of the choice (`BestOnTest.facts`), if a training chose on the test session;
    `callbacks` are those of the trainer, which resuming replaces."""
    chosen = [callback.facts() for callback in callbacks if isinstance(callback, BestOnTest)]
    return chosen[0] if chosen else None
