"""
Time and memory of the classifier against models of transformers as they come, with a plain head.

    python -m benchmarks.classifier
    python -m benchmarks.classifier --tasks hubert_train hubert_classify --precision bfloat16

Encoders of the published sizes with random weights, frozen in training. The peer of Whisper is
`WhisperForAudioClassification` on the features of `WhisperFeatureExtractor`, a window of 30 s; ours
computes the features in the graph and cuts the window to 7.5 s. The peer of HuBERT is
`HubertForSequenceClassification`. Our head is ShiftCNN, theirs a linear layer on the mean.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    HubertConfig,
    HubertForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from benchmarks.harness import Settings, parse, report, training_step
from modeling import ShiftCnnConfig, ShiftCnnForEmotionClassification

TITLES = {
    "whisper_train": "Whisper tiny, frozen: train step on 8 x 5 s",
    "whisper_classify": "Whisper tiny: 5 s",
    "hubert_train": "HuBERT base, frozen: train step on 4 x 5 s",
    "hubert_classify": "HuBERT base: 5 s",
}
BATCH_SIZES = {"whisper_train": 8, "hubert_train": 4, "whisper_classify": 1, "hubert_classify": 1}
NUM_LABELS = 4
SAMPLING_RATE = 16000
MAX_SECONDS = 7.5
WHISPER_POSITIONS_PER_SECOND = 50


def waveforms(settings: Settings) -> tuple[Tensor, Tensor]:
    """Waveforms of 5 s, `(batch_size, num_samples)`, and their labels."""
    batch_size = BATCH_SIZES[settings.task]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(batch_size, 5 * SAMPLING_RATE, generator=generator)
    return values.to(settings.device), torch.arange(batch_size, device=settings.device) % NUM_LABELS


def build(
    model: nn.Module, arguments: Callable[[], dict[str, Any]], labels: Tensor, settings: Settings
) -> Callable[[], object]:
    """What is timed of a model: a step, or one row of logits."""
    if settings.task.endswith("train"):
        model.train()
        return training_step(model, lambda: model(**arguments(), labels=labels).loss, settings)
    model.eval()

    @torch.no_grad()
    def classify() -> object:
        with settings.autocast():
            return model(**arguments()).logits

    return classify


def build_peer(settings: Settings) -> Callable[[], object]:
    """A model of transformers, with its feature extractor where it needs one."""
    values, labels = waveforms(settings)
    model: Any
    if settings.task.startswith("whisper"):
        model = WhisperForAudioClassification(WhisperConfig(num_labels=NUM_LABELS))
        model.freeze_encoder()
        extractor = WhisperFeatureExtractor()
        recordings = list(values.cpu().numpy())

        def arguments() -> dict[str, Any]:
            features = extractor(recordings, sampling_rate=SAMPLING_RATE, return_tensors="pt")
            return {"input_features": features["input_features"].to(settings.device)}

    else:
        model = HubertForSequenceClassification(HubertConfig(num_labels=NUM_LABELS))
        model.freeze_base_model()

        def arguments() -> dict[str, Any]:
            return {"input_values": values, "attention_mask": torch.ones_like(values).long()}

    return build(model.to(settings.device), arguments, labels, settings)


def build_ours(settings: Settings) -> Callable[[], object]:
    """A ShiftCNN on the same encoder."""
    values, labels = waveforms(settings)
    encoder_config: WhisperConfig | HubertConfig
    if settings.task.startswith("whisper"):
        positions = round(MAX_SECONDS * WHISPER_POSITIONS_PER_SECOND)
        encoder_config = WhisperConfig(max_source_positions=positions)
    else:
        encoder_config = HubertConfig()
    config = ShiftCnnConfig(
        encoder_config=encoder_config, max_duration_seconds=MAX_SECONDS, num_labels=NUM_LABELS
    )
    model: Any = ShiftCnnForEmotionClassification(config).to(settings.device)
    if settings.compile:
        model = torch.compile(model)
    return build(model, lambda: {"input_values": values}, labels, settings)


def main() -> None:
    """Run the command line."""
    options = parse(argparse.ArgumentParser(description=(__doc__ or "").split("\n")[1]), [*TITLES])
    report(options, build_ours, build_peer, "transformers, float32", TITLES)


if __name__ == "__main__":
    main()
