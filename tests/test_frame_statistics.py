"""Heads on standardized frames: what is measured, kept, loaded again, and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import (
    padded_batch,
    ragged_waveforms,
    relative_error,
    tiny_classifier,
    tiny_extractor,
)
from tiny_training import JOINT_TRAINING, write_model_configs
from torch import Tensor

import train
from modeling import ShiftCnnForEmotionClassification

STANDARDIZED: dict[str, Any] = {
    "standardize_frames": True,
    "head_hidden_size": 8,
    "apply_spec_augment": False,
}


def batch_of(lengths: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    values, mask = padded_batch(ragged_waveforms(lengths, seed))
    return {"input_values": values, "attention_mask": mask}


@pytest.mark.parametrize("encoder", ["log_mel", "whisper", "hubert_group"])
def test_statistics_are_those_of_the_valid_frames_of_all_batches(encoder: str) -> None:
    fields: dict[str, Any] = {"max_duration_seconds": 1.0} if encoder == "whisper" else {}
    model = tiny_classifier(encoder, **STANDARDIZED, **fields)
    batches = [batch_of((8000, 5000), 1), batch_of((6000,), 2)]
    frames = []
    for batch in batches:
        with torch.no_grad():
            hidden, mask = model.encode(*model.prepare_waveform(*batch.values()))
        frames.append(hidden[mask.bool()].double())
    expected = torch.cat(frames)

    model.fit_frame_statistics(batches)

    assert relative_error(model.head.frame_mean, expected.mean(dim=0)) < 1e-5
    assert relative_error(model.head.frame_deviation, expected.std(dim=0, correction=0)) < 1e-5


def test_the_head_sees_standardized_and_projected_frames() -> None:
    model = tiny_classifier(**STANDARDIZED, num_blocks=1)
    model.fit_frame_statistics([batch_of((8000, 8000), 3)])
    frames = torch.randn(2, 20, model.encoder.hidden_size)
    head = model.head
    plain = tiny_classifier(num_blocks=1, head_hidden_size=8).head
    plain.load_state_dict(head.state_dict(), strict=False)
    # W (x - m) / s + b, with the statistics inside the layer.
    weight = head.projection.weight / head.frame_deviation
    with torch.no_grad():
        plain.projection.weight.copy_(weight)
        plain.projection.bias.copy_(head.projection.bias - weight @ head.frame_mean)
    assert relative_error(head(frames), plain(frames)) < 1e-5


def test_statistics_are_saved_and_loaded_with_the_model(tmp_path: Path) -> None:
    model = tiny_classifier(**STANDARDIZED)
    model.fit_frame_statistics([batch_of((8000, 5000), 4)])
    model.save_pretrained(tmp_path)
    again = ShiftCnnForEmotionClassification.from_pretrained(tmp_path)
    assert torch.equal(again.head.frame_mean, model.head.frame_mean)
    assert torch.equal(again.head.frame_deviation, model.head.frame_deviation)
    values = torch.randn(2, 6000)
    assert torch.equal(again(values).logits, model(values).logits)


def test_a_channel_that_never_changes_stays_finite() -> None:
    model = tiny_classifier(**STANDARDIZED)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
    batch = batch_of((8000,), 5)
    model.fit_frame_statistics([batch])
    assert model(batch["input_values"]).logits.isfinite().all()


def test_statistics_need_frames_and_a_head_that_uses_them() -> None:
    with pytest.raises(ValueError, match="Set `standardize_frames=True`"):
        tiny_classifier().fit_frame_statistics([batch_of((8000,), 6)])
    with pytest.raises(ValueError, match="two valid frames at least"):
        tiny_classifier(**STANDARDIZED).fit_frame_statistics([])


def train_tiny(folder: Path, stage: str, *more: str) -> dict[str, Tensor]:
    """Two steps of a stage with a new classifier; the weights that were saved."""
    flags = [*JOINT_TRAINING, "--stage", stage, "--output_dir", str(folder / "out")]
    flags += write_model_configs(folder, **STANDARDIZED)
    flags += ["--max_steps", "2", "--per_device_train_batch_size", "4", "--eval_strategy", "no"]
    flags += ["--load_best_model_at_end", "false"]
    train.train([*flags, *more])
    return load_file(folder / "out" / "model.safetensors")


def test_training_fits_a_new_classifier_and_leaves_a_trained_one(
    generated_corpus: datasets.Dataset, tmp_path: Path
) -> None:
    first = train_tiny(tmp_path / "first", "classification", "--condition", "clean")
    assert first["head.frame_mean"].any()
    assert (first["head.frame_deviation"] != 1).all()

    trained = ("--classifier_name_or_path", str(tmp_path / "first" / "out"))
    second = train_tiny(tmp_path / "second", "classification", "--condition", "noisy", *trained)
    assert torch.equal(second["head.frame_mean"], first["head.frame_mean"])

    tiny_extractor().save_pretrained(tmp_path / "extractor")
    extractor = ("--extractor_name_or_path", str(tmp_path / "extractor"))
    joint = train_tiny(tmp_path / "joint", "joint", *extractor)
    assert joint["classifier.head.frame_mean"].any()
