"""Small models, examples and command lines that the tests of the training room share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import TrainerState

import train
from modeling import (
    ShiftCnnConfig,
    ShiftCnnForEmotionClassification,
    TdSpeakerBeamConfig,
    TdSpeakerBeamForSpeechExtraction,
    TseSerFeatureExtractor,
    TseSerForEmotionClassification,
)
from tse_ser.options import Stage, TseSerTrainingArguments
from tse_ser.training.collator import TseSerCollator
from tse_ser.training.trainer import TrainingClock, TseSerTrainer

EXTRACTOR_FIELDS: dict[str, Any] = {
    "num_filters": 16,
    "bottleneck_channels": 8,
    "hidden_channels": 16,
    "skip_channels": 8,
    "num_blocks": 2,
    "num_repeats": 1,
    "adaptation_layer": 0,
    "speaker_embedding_dim": 8,
}
CLASSIFIER_FIELDS: dict[str, Any] = {
    "encoder_config": {"model_type": "log_mel", "num_mel_bins": 16, "hidden_size": 16},
    "freeze_encoder": False,
    "apply_spec_augment": False,
}


def tiny_model(stage: Stage, **classifier_fields: Any) -> Any:
    """The model of a stage, a few thousand parameters, without randomness in its forward."""
    classifier = ShiftCnnForEmotionClassification(
        ShiftCnnConfig(**{**CLASSIFIER_FIELDS, **classifier_fields})
    )
    extractor = TdSpeakerBeamForSpeechExtraction(TdSpeakerBeamConfig(**EXTRACTOR_FIELDS))
    if stage == "extraction":
        return extractor
    if stage == "classification":
        return classifier
    return TseSerForEmotionClassification.from_sub_models_pretrained(extractor, classifier)


class ToyMixtures(Dataset[dict[str, Any]]):
    """Examples of the contract between data and models, drawn from (epoch, index)."""

    def __init__(self, num_examples: int, num_samples: int = 4000) -> None:
        self.num_examples = num_examples
        self.num_samples = num_samples
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.epochs[-1] if self.epochs else 0, index])
        # Lengths differ, so that batches are padded.
        target, other, enrollment = rng.standard_normal((3, self.num_samples + 100 * (index % 3)))
        return {
            "mixture": (target + other).astype(np.float32),
            "enrollment": enrollment.astype(np.float32),
            "target": target.astype(np.float32),
            "label": index % 4,
            "utterance_id": f"toy/{index}",
        }


def tiny_trainer(model: Any, output_dir: Path, stage: Stage = "joint", **kwargs: Any) -> Any:
    """A trainer on toy mixtures; keywords that are no training argument go to the trainer."""
    given = {key: kwargs.pop(key) for key in ("train_dataset", "eval_dataset") if key in kwargs}
    arguments: dict[str, Any] = {
        "output_dir": str(output_dir),
        "stage": stage,
        "report_to": "none",
        "disable_tqdm": True,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        **kwargs,
    }
    return TseSerTrainer(
        model=model,
        args=TseSerTrainingArguments(**arguments),
        data_collator=TseSerCollator(TseSerFeatureExtractor(), stage),
        **{"train_dataset": ToyMixtures(8), **given},
    )


def write_model_configs(folder: Path, **classifier_fields: Any) -> list[str]:
    """JSON files of the tiny sizes; returns the flags that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    extractor, classifier = folder / "extractor.json", folder / "classifier.json"
    extractor.write_text(json.dumps(EXTRACTOR_FIELDS))
    classifier.write_text(json.dumps({**CLASSIFIER_FIELDS, **classifier_fields}))
    return ["--extractor_config", str(extractor), "--classifier_config", str(classifier)]


# The joint stage on 16 generated utterances of one second, four to a global batch.
JOINT_TRAINING = [
    *("--stage", "joint", "--targets", "generated", "--interferers", "generated_pool"),
    *("--segment_seconds", "1", "--enrollment_seconds", "1"),
    *("--max_train_examples", "16", "--max_eval_examples", "6"),
    *("--learning_rate", "1e-3", "--logging_steps", "1"),
    *("--report_to", "none", "--disable_tqdm", "true", "--use_cpu", "true"),
]


def joint_arguments(folder: Path, output_dir: Path, num_processes: int, *more: str) -> list[str]:
    """Two epochs of the joint stage, one batch of four to all processes together."""
    batch_size = str(4 // num_processes)
    return [
        *JOINT_TRAINING,
        *write_model_configs(folder / "configs"),
        *("--num_train_epochs", "2", "--per_device_train_batch_size", batch_size),
        *("--per_device_eval_batch_size", batch_size, "--output_dir", str(output_dir)),
        *("--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps"),
        *("--save_steps", "2", "--save_total_limit", "10"),
        *more,
    ]


def log_history(checkpoint: Path) -> list[dict[str, float]]:
    """What a training logged until a checkpoint."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return list(state["log_history"])


def same_weights(first: Path, second: Path) -> bool:
    """Whether two folders hold a model of the same weights, to the bit."""
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


class TrainingEndedError(Exception):
    """What ends a training in the middle of an epoch, without a word to it."""


def killed_after(step: int, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    """Runs `train.py` in this process and ends it after a step; raises `TrainingEndedError`."""

    def end(
        self: TrainingClock, args: Any, state: TrainerState, control: Any, **kwargs: Any
    ) -> None:
        if state.global_step == step:
            raise TrainingEndedError

    with monkeypatch.context() as patched:
        patched.setattr(TrainingClock, "on_step_end", end)
        train.train(flags)
