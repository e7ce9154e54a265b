"""The trainer: loss parts, accumulation, epochs, frozen parameters, validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import ToyMixtures, tiny_model, tiny_trainer
from transformers import (
    EvalPrediction,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from data_builders import load_mixtures
from tse_ser.options import Stage
from tse_ser.training.trainer import EpochCallback, stage_metrics


def seeded_model(stage: Stage, **fields: Any) -> Any:
    set_seed(7)
    return tiny_model(stage, **fields)


def logs_of(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_loss_parts_are_logged_apart_and_add_up_to_the_loss(tmp_path: Path) -> None:
    trainer = tiny_trainer(seeded_model("joint"), tmp_path, logging_steps=2, max_steps=4)
    trainer.train()
    losses = logs_of(trainer, "loss")
    parts = zip(
        logs_of(trainer, "extraction_loss"), logs_of(trainer, "classification_loss"), strict=True
    )
    assert len(losses) == 2
    assert losses == pytest.approx([sum(pair) for pair in parts], rel=1e-5)
    assert logs_of(trainer, "si_snr") == pytest.approx(
        [-value for value in logs_of(trainer, "extraction_loss")], rel=1e-5
    )


@pytest.mark.parametrize("stage", ["extraction", "joint"])
def test_accumulated_batches_train_like_the_larger_batch(tmp_path: Path, stage: Stage) -> None:
    runs = []
    for batch_size, accumulation in ((4, 1), (2, 2)):
        trainer = tiny_trainer(
            seeded_model(stage),
            tmp_path,
            stage,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=3,
            learning_rate=1e-3,
        )
        trainer.train()
        runs.append(trainer)
    assert logs_of(runs[0], "loss") == pytest.approx(logs_of(runs[1], "loss"), rel=1e-4)
    assert logs_of(runs[0], "grad_norm") == pytest.approx(logs_of(runs[1], "grad_norm"), rel=1e-3)
    assert logs_of(runs[0], "si_snr") == pytest.approx(logs_of(runs[1], "si_snr"), rel=1e-4)


def test_every_trained_parameter_moves_and_a_frozen_encoder_does_not(tmp_path: Path) -> None:
    model = seeded_model("joint", freeze_encoder=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = tiny_trainer(model, tmp_path, max_steps=4, learning_rate=1e-2)
    trainer.train()
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    frozen = {name for name, _ in model.named_parameters() if name.startswith("classifier.encoder")}
    assert frozen
    assert moved == trained
    assert not trained & frozen
    assert len(trainer.optimizer.state) == len(trained)


def test_workers_that_live_on_render_the_epoch_that_is_trained(
    tmp_path: Path, generated_corpus: Any
) -> None:
    dataset = load_mixtures(
        split="train", interferers="generated_pool", max_examples=8, segment_seconds=0.5
    )
    trainer = tiny_trainer(
        seeded_model("extraction"),
        tmp_path,
        "extraction",
        train_dataset=dataset,
        dataloader_num_workers=1,
        dataloader_persistent_workers=True,
        max_steps=4,
    )
    collate, seen = trainer.data_collator, []
    channel: Any = torch.multiprocessing.get_context("fork").SimpleQueue()

    def spy(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        channel.put(sorted({example["spec"]["epoch"] for example in examples}))
        return collate(examples)

    trainer.data_collator = spy
    trainer.train()
    while not channel.empty():
        seen.append(channel.get())
    assert seen == [[0], [0], [1], [1]]


@pytest.mark.parametrize(("global_step", "epoch"), [(0, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2)])
def test_the_epoch_is_right_where_a_training_resumes(
    tmp_path: Path, global_step: int, epoch: int
) -> None:
    # Five batches, two to a step: three steps an epoch, as Trainer counts them.
    dataset = ToyMixtures(5)
    loader = torch.utils.data.DataLoader(dataset)
    args = TrainingArguments(str(tmp_path), gradient_accumulation_steps=2, use_cpu=True)
    state, control = TrainerState(global_step=global_step), TrainerControl()
    EpochCallback().on_epoch_begin(args, state, control, train_dataloader=loader)
    assert dataset.epochs == [epoch]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("extraction", {"loss", "si_sdr", "si_sdri"}),
        ("classification", {"loss", "wa", "ua", "classification_loss"}),
        ("joint", {"loss", "si_sdr", "si_sdri", "wa", "ua", "classification_loss"}),
    ],
)
def test_each_stage_is_validated_on_every_example(
    tmp_path: Path, stage: Stage, expected: set[str]
) -> None:
    dataset = ToyMixtures(6)  # a full batch of four and a short one
    trainer = tiny_trainer(seeded_model(stage), tmp_path, stage, eval_dataset=dataset)
    result = trainer.predict(dataset)
    assert all(len(scores) == 6 for scores in result.predictions.values())
    metrics = trainer.evaluate()
    assert expected <= {key.removeprefix("eval_") for key in metrics}
    assert all(np.isfinite(metrics[f"eval_{key}"]) for key in expected)


def test_validation_scores_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    scores = []
    for batch_size in (1, 4):
        trainer = tiny_trainer(
            seeded_model("joint"),
            tmp_path,
            eval_dataset=ToyMixtures(6),
            per_device_eval_batch_size=batch_size,
        )
        scores.append(trainer.evaluate())
    for key in ("eval_si_sdr", "eval_si_sdri", "eval_classification_loss"):
        assert scores[0][key] == pytest.approx(scores[1][key], rel=1e-4)


def test_stage_metrics_are_those_of_a_case_done_by_hand() -> None:
    logits = 2 * np.eye(4)[[0, 1, 1, 0]]
    predictions: Any = {
        "logits": logits,
        "si_sdr": np.array([4.0, 6.0, 8.0, -2.0], dtype=np.float32),
        "si_sdr_mixture": np.array([0.0, 1.0, 2.0, 1.0], dtype=np.float32),
    }
    metrics = stage_metrics(EvalPrediction(predictions, np.array([0, 0, 1, -100])))
    log_sum = np.log(np.exp(2) + 3)
    assert metrics == {
        "wa": pytest.approx(2 / 3),
        "ua": pytest.approx(3 / 4),
        "classification_loss": pytest.approx((log_sum - 2 + log_sum + log_sum - 2) / 3),
        "si_sdr": 4.0,
        "si_sdri": 3.0,
    }
    # Nobody is labelled in the extraction stage.
    metrics = stage_metrics(EvalPrediction(predictions, np.full(4, -100)))
    assert metrics == {"si_sdr": 4.0, "si_sdri": 3.0}


def test_a_training_set_smaller_than_a_batch_is_refused(tmp_path: Path) -> None:
    trainer = tiny_trainer(seeded_model("joint"), tmp_path, train_dataset=ToyMixtures(3))
    with pytest.raises(ValueError, match="3 training examples do not fill one batch of 4"):
        trainer.train()
