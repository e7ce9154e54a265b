"""Statistics of the speech encoder's frames, which a new classifier takes before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from modeling import ShiftCnnForEmotionClassification
from tse_ser.options import ModelOptions
from tse_ser.training.load_datasets import Examples

MAX_EXAMPLES = 512
BATCH_SIZE = 8


def fit_new_classifier(
    model: PreTrainedModel,
    options: ModelOptions,
    examples: Examples,
    collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
) -> None:
    """Gives a new classifier with `standardize_frames` the statistics of its training speech.

    At most 512 examples, evenly over the training set, each process for itself: all find the same.
    A joint stage takes the targets, which is what its classifier is to hear.

    Args:
        model: of the stage; without such a classifier, or with a trained one, it is left as it is.
        options: tell whether the classifier is new.
        examples: of the training set.
        collator: of the stage.
    """
    classifier = getattr(model, "classifier", model)
    is_new = options.model_name_or_path is None and options.classifier_name_or_path is None
    if (
        is_new
        and isinstance(classifier, ShiftCnnForEmotionClassification)
        and classifier.config.standardize_frames
    ):
        was_training = classifier.training
        classifier.eval()
        classifier.fit_frame_statistics(_batches(examples, collator))
        classifier.train(was_training)


def _batches(
    examples: Examples, collator: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
) -> Iterator[dict[str, torch.Tensor]]:
    num_examples: int = len(examples)  # type: ignore[arg-type]
    chosen = np.linspace(0, num_examples - 1, min(MAX_EXAMPLES, num_examples)).round().astype(int)
    for start in range(0, len(chosen), BATCH_SIZE):
        batch = collator([examples[int(index)] for index in chosen[start : start + BATCH_SIZE]])
        batch["input_values"] = batch.get("target_values", batch["input_values"])
        yield batch
