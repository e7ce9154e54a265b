"""The collator: which waveform a model hears, and what each stage gets beside it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import ToyMixtures, tiny_model

from modeling import TseSerFeatureExtractor
from tse_ser.options import Condition, Stage
from tse_ser.training.collator import TseSerCollator


def examples(count: int = 3) -> list[dict[str, Any]]:
    dataset = ToyMixtures(count)
    return [dataset[index] for index in range(count)]


def collate(
    stage: Stage, condition: Condition = "noisy", count: int = 3
) -> dict[str, torch.Tensor]:
    return TseSerCollator(
        TseSerFeatureExtractor(do_normalize=False, highpass_hz=0), stage, condition
    )(examples(count))


@pytest.mark.parametrize("stage", ["extraction", "classification", "joint"])
def test_a_batch_holds_forward_arguments_of_its_stage_only(stage: Stage) -> None:
    model = tiny_model(stage)
    batch = collate(stage)
    assert set(batch) <= set(inspect.signature(model.forward).parameters)
    assert model(**batch).loss.ndim == 0
    assert ("labels" in batch) == (stage != "extraction")
    assert ("target_values" in batch) == (stage != "classification")


@pytest.mark.parametrize(
    ("condition", "heard"), [("clean", "target"), ("noisy", "mixture"), ("denoised", "mixture")]
)
def test_the_condition_decides_what_is_heard(condition: Condition, heard: str) -> None:
    batch = collate("classification", condition)
    for row, example in zip(batch["input_values"], examples(), strict=True):
        np.testing.assert_array_equal(row[: len(example[heard])].numpy(), example[heard])


def test_waveforms_are_padded_and_masked_to_the_longest() -> None:
    batch = collate("joint")
    lengths = [len(example["mixture"]) for example in examples()]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["enrollment_attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["input_values"].shape == batch["target_values"].shape == (3, max(lengths))
    assert batch["input_values"].dtype == torch.float32
    padding = batch["attention_mask"] == 0
    assert not batch["input_values"][padding].any()
    assert not batch["target_values"][padding].any()


def test_labels_are_long_and_keep_the_unknown() -> None:
    batch = TseSerCollator(TseSerFeatureExtractor(), "classification")(
        [{**examples(1)[0], "label": label} for label in (2, -100)]
    )
    assert batch["labels"].dtype == torch.int64
    assert batch["labels"].tolist() == [2, -100]


def test_a_waveform_that_is_no_number_is_refused() -> None:
    broken = examples(2)
    broken[1]["mixture"] = broken[1]["mixture"].copy()
    broken[1]["mixture"][5] = np.nan
    with pytest.raises(ValueError, match="mixture 1"):
        TseSerCollator(TseSerFeatureExtractor(), "joint")(broken)
